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
