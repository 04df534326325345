//! How requests to a service prove who sends them.

use std::fmt;
use std::path::PathBuf;

use http::HeaderValue;

use super::error::{ConfigError, Warning};
use super::field::Field;
use super::reader::Reader;

/// The credentials of a service: `services.*.credentials`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialsConfig {
    /// Requests carry no credentials.
    #[default]
    None,
    /// Requests carry a token in their `Authorization` header.
    Bearer(BearerConfig),
}

/// A bearer token: `services.*.credentials.bearer`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BearerConfig {
    /// Where the token comes from.
    pub token: BearerToken,
    /// The word before the token; `Bearer` by default.
    pub scheme: String,
}

/// Where a bearer token comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BearerToken {
    /// `token`: the token itself.
    Value(Secret),
    /// `token_path`: a file, read again for each request, whose surrounding white space is
    /// removed.
    File(PathBuf),
}

/// A text that is shown to nobody: `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the place where it is used.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The methods that OPA knows besides bearer tokens.
const UNSUPPORTED: [&str; 6] = [
    "oauth2",
    "client_tls",
    "s3_signing",
    "gcp_metadata",
    "azure_managed_identity",
    "plugin",
];

impl CredentialsConfig {
    pub(crate) fn read(
        field: &Field<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut reader = field.reader()?;
        for method in UNSUPPORTED {
            // `client_tls: false` is a wrong type in OPA, so only null asks for nothing.
            if let Some(method) = reader.field(method) {
                return Err(method.unsupported());
            }
        }
        let bearer = reader.object("bearer")?;
        warnings.extend(reader.finish()?);
        match bearer {
            Some(bearer) => Ok(Self::Bearer(BearerConfig::read(bearer, warnings)?)),
            None => Ok(Self::None),
        }
    }
}

impl BearerConfig {
    fn read(mut reader: Reader<'_>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        let token = reader.field("token");
        let text = token
            .as_ref()
            .map(Field::as_str)
            .transpose()?
            .unwrap_or_default();
        let path = reader.string("token_path")?.unwrap_or_default();
        let scheme = reader.field("scheme");
        let scheme_text = scheme
            .as_ref()
            .map(Field::as_str)
            .transpose()?
            .unwrap_or_default();

        let token = match (token, text, path) {
            (_, "", "") => return Err(reader.error(TOKEN_OR_PATH)),
            (_, "", path) => BearerToken::File(path.into()),
            (Some(field), text, "") => {
                // The token isn't repeated in the error.
                HeaderValue::from_str(text)
                    .map_err(|_| field.error("expected a text that an HTTP header can carry"))?;
                BearerToken::Value(Secret::new(text))
            }
            _ => return Err(reader.error(TOKEN_OR_PATH)),
        };
        if let Some(field) = scheme.filter(|_| HeaderValue::from_str(scheme_text).is_err()) {
            return Err(field.error("expected a text that an HTTP header can carry"));
        }
        let scheme = if scheme_text.is_empty() {
            "Bearer"
        } else {
            scheme_text
        }
        .to_owned();
        warnings.extend(reader.finish()?);
        Ok(Self { token, scheme })
    }
}

/// OPA's text.
const TOKEN_OR_PATH: &str =
    "invalid config: specify a value for either the \"token\" or \"token_path\" field";

#[cfg(test)]
mod tests {
    use super::super::ConfigErrorKind;
    use super::super::testing::{config, config_error, warnings};
    use super::*;

    fn with(credentials: &str) -> String {
        format!("services: {{acme: {{url: 'https://acme.test', credentials: {credentials}}}}}")
    }

    fn read(credentials: &str) -> CredentialsConfig {
        config(&with(credentials)).services.remove(0).credentials
    }

    fn bearer(credentials: &str) -> BearerConfig {
        match read(credentials) {
            CredentialsConfig::Bearer(bearer) => bearer,
            CredentialsConfig::None => panic!("no credentials"),
        }
    }

    #[test]
    fn bearer_tokens_come_from_the_text_or_a_file() {
        let plain = bearer("{bearer: {token: \"s3cr3t\"}}");
        assert_eq!(plain.token, BearerToken::Value(Secret::new("s3cr3t")));
        assert_eq!(plain.scheme, "Bearer");
        let file = bearer("{bearer: {token_path: /run/token, token: '', scheme: Basic}}");
        assert_eq!(file.token, BearerToken::File("/run/token".into()));
        assert_eq!(file.scheme, "Basic");
    }

    #[test]
    fn nothing_is_no_credentials() {
        for nothing in ["null", "{}", "{bearer: null}", "{oauth2: null}"] {
            assert_eq!(read(nothing), CredentialsConfig::None, "{nothing}");
        }
    }

    #[test]
    fn a_token_has_one_origin() {
        for bearer in [
            "{}",
            "{token: a, token_path: b}",
            "{token: '${EMPTY}'}",
            "{scheme: x}",
        ] {
            let error = config_error(&with(&format!("{{bearer: {bearer}}}")));
            assert_eq!(error.path(), "services.acme.credentials.bearer", "{bearer}");
            assert_eq!(
                error.message(),
                "invalid config: specify a value for either the \"token\" or \"token_path\" field"
            );
        }
    }

    #[test]
    fn other_methods_are_unsupported() {
        for method in UNSUPPORTED {
            let error = config_error(&with(&format!("{{bearer: {{token: a}}, {method}: {{}}}}")));
            assert_eq!(error.kind(), ConfigErrorKind::Unsupported, "{method}");
            assert_eq!(error.path(), format!("services.acme.credentials.{method}"));
            assert!(
                error.message().contains(&format!("`{}`", error.path())),
                "{error}"
            );
        }
    }

    #[test]
    fn unknown_methods_and_options_are_warned_about() {
        assert_eq!(
            warnings(&with("{baerer: {token: a}, bearer: {token: a, sheme: x}}")).len(),
            2
        );
        let error = config_error(&with("{Bearer: {token: a}}"));
        assert_eq!(error.message(), "expected the key to be `bearer`");
    }

    #[test]
    fn secrets_are_never_shown() {
        let shown = format!("{:?}", config(&with("{bearer: {token: s3cr3t}}")));
        assert!(!shown.contains("s3cr3t"), "{shown}");
        for bearer in [
            "{token: \"s3cr3t\\n\"}",
            "{token: s3cr3t, scheme: \"s3cr3t\\n\"}",
            "{token: [s3cr3t]}",
            "{token: s3cr3t, token_path: s3cr3t}",
        ] {
            let error = config_error(&with(&format!("{{bearer: {bearer}}}")));
            assert!(
                !format!("{error} {error:?}").contains("s3cr3t"),
                "{error:?}"
            );
        }
    }
}
