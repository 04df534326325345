//! How requests to a service prove who sends them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;

use super::duration;
use super::error::{ConfigError, Warning};
use super::field::Field;
use super::reader::Reader;
use super::s3_signing::S3SigningConfig;
use super::service::ServerTlsConfig;

/// The credentials of a service: `services.*.credentials`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CredentialsConfig {
    /// Requests carry no credentials.
    #[default]
    None,
    /// Requests carry a token in their `Authorization` header.
    Bearer(BearerConfig),
    /// Connections show a certificate.
    ClientTls(ClientTlsConfig),
    /// Requests carry a signature for AWS.
    S3Signing(S3SigningConfig),
    /// `plugin`: requests are authorized by what the program registered under this name, see
    /// [`Credentials`](crate::service::Credentials).
    Plugin(String),
}

/// A client certificate: `services.*.credentials.client_tls`.
///
/// Both files are read when the service is asked for the first time and again as long as the
/// program runs, so that they can be replaced. A pair that can't be used is not taken: the last
/// good one stays, with a warning.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ClientTlsConfig {
    /// `cert`: a PEM file with the certificate and those between it and its authority.
    pub cert: PathBuf,
    /// `private_key`: a PEM file with the key (PKCS#8, PKCS#1 or SEC 1), not encrypted.
    pub private_key: PathBuf,
    /// `cert_reread_interval_seconds`: how long the files are not read again. Default: zero, they
    /// are read before each request.
    pub cert_reread_interval: Duration,
}

/// A bearer token: `services.*.credentials.bearer`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BearerConfig {
    /// Where the token comes from.
    pub token: BearerToken,
    /// The word before the token; `Bearer` by default.
    pub scheme: String,
    /// The token is sent in base64, as to a service of the type `oci`: with the scheme `Basic` it
    /// is `user:password`.
    pub encode: bool,
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

/// The methods that OPA knows besides ours.
const UNSUPPORTED: [&str; 3] = ["oauth2", "gcp_metadata", "azure_managed_identity"];

impl CredentialsConfig {
    pub(crate) fn read(
        field: &Field<'_>,
        tls: &mut ServerTlsConfig,
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
        let client_tls = reader.object("client_tls")?;
        let s3_signing = reader.field("s3_signing");
        let plugin = reader.string("plugin")?;
        warnings.extend(reader.finish()?);
        match (bearer, client_tls, s3_signing, plugin) {
            (None, None, None, None) => Ok(Self::None),
            (Some(bearer), None, None, None) => {
                Ok(Self::Bearer(BearerConfig::read(bearer, warnings)?))
            }
            (None, Some(client_tls), None, None) => {
                let client_tls = ClientTlsConfig::read(client_tls, tls, warnings)?;
                Ok(Self::ClientTls(client_tls))
            }
            (None, None, Some(s3_signing), None) => Ok(Self::S3Signing(S3SigningConfig::read(
                &s3_signing,
                warnings,
            )?)),
            (None, None, None, Some(plugin)) => Ok(Self::Plugin(plugin.to_owned())),
            // OPA's words. It ignores the others beside a plugin; nothing is ignored here.
            _ => Err(field.error("a maximum one credential method must be specified")),
        }
    }
}

impl ClientTlsConfig {
    /// Files that are read again before each request.
    #[must_use]
    pub fn new(cert: impl Into<PathBuf>, private_key: impl Into<PathBuf>) -> Self {
        Self {
            cert: cert.into(),
            private_key: private_key.into(),
            cert_reread_interval: Duration::ZERO,
        }
    }

    /// The deprecated authorities go where they belong, into `tls`, unless it has its own.
    fn read(
        mut reader: Reader<'_>,
        tls: &mut ServerTlsConfig,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let cert = reader.string("cert")?.unwrap_or_default();
        if cert.is_empty() {
            return Err(reader.error("client certificate is needed when client TLS is enabled"));
        }
        let private_key = reader.string("private_key")?.unwrap_or_default();
        if private_key.is_empty() {
            return Err(reader.error("private key is needed when client TLS is enabled"));
        }
        if let Some(passphrase) = reader.field("private_key_passphrase")
            && !passphrase.as_str()?.is_empty()
        {
            return Err(passphrase.unsupported());
        }
        let interval = "cert_reread_interval_seconds";
        let cert_reread_interval = match reader.field(interval) {
            Some(field) => duration::seconds(&field, interval, 0)?,
            None => Duration::ZERO,
        };
        let system_ca_required = reader.bool("system_ca_required")?.unwrap_or(false);
        if let Some(field) = reader.field("ca_cert")
            && !field.as_str()?.is_empty()
        {
            warnings.push(field.warning(DEPRECATED_CA));
            if tls.ca_cert.is_none() {
                tls.ca_cert = Some(field.as_str()?.into());
                tls.system_ca_required = system_ca_required;
            }
        }
        warnings.extend(reader.finish()?);
        Ok(Self {
            cert: cert.into(),
            private_key: private_key.into(),
            cert_reread_interval,
        })
    }
}

const DEPRECATED_CA: &str = "deprecated 'services[_].credentials.client_tls.ca_cert' \
    configuration specified, use 'services[_].tls.ca_cert' instead";

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
        Ok(Self {
            token,
            scheme,
            encode: false,
        })
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
            other => panic!("{other:?}"),
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
    fn client_certificates_are_two_files() {
        let wanted = |seconds| {
            CredentialsConfig::ClientTls(ClientTlsConfig {
                cert: "/c".into(),
                private_key: "/k".into(),
                cert_reread_interval: Duration::from_secs(seconds),
            })
        };
        let with_more = |more: &str| {
            read(&format!(
                "{{client_tls: {{cert: /c, private_key: /k{more}}}}}"
            ))
        };
        assert_eq!(with_more(""), wanted(0));
        assert_eq!(with_more(", private_key_passphrase: ''"), wanted(0));
        assert_eq!(with_more(", cert_reread_interval_seconds: 5"), wanted(5));
        for (client_tls, path, message) in [
            (
                "{private_key: /k}",
                "",
                "client certificate is needed when client TLS is enabled",
            ),
            (
                "{cert: /c, private_key: ''}",
                "",
                "private key is needed when client TLS is enabled",
            ),
            (
                "{cert: /c, private_key: /k, cert_reread_interval_seconds: -1}",
                ".cert_reread_interval_seconds",
                "'cert_reread_interval_seconds' must be at least 0",
            ),
            (
                "{cert: /c, private_key: /k, private_key_passphrase: s3cr3t}",
                ".private_key_passphrase",
                "`services.acme.credentials.client_tls.private_key_passphrase` is not supported \
                 by this version",
            ),
        ] {
            let error = config_error(&with(&format!("{{client_tls: {client_tls}}}")));
            assert_eq!(
                error.path(),
                format!("services.acme.credentials.client_tls{path}")
            );
            assert_eq!(error.message(), message);
        }
    }

    #[test]
    fn the_deprecated_authorities_count_unless_there_are_others() {
        let service = |tls: &str| {
            format!(
                "services: {{acme: {{url: 'https://acme.test', tls: {tls}, credentials: \
                 {{client_tls: {{cert: c, private_key: k, ca_cert: old, \
                 system_ca_required: true}}}}}}}}"
            )
        };
        for (tls, ca_cert, system_ca_required) in
            [("{}", "old", true), ("{ca_cert: new}", "new", false)]
        {
            let text = service(tls);
            let tls = config(&text).services.remove(0).tls;
            assert_eq!(tls.ca_cert, Some(ca_cert.into()));
            assert_eq!(tls.system_ca_required, system_ca_required);
            let warnings = warnings(&text);
            assert!(warnings[0].ends_with(DEPRECATED_CA), "{warnings:?}");
            assert_eq!(warnings.len(), 1);
        }
    }

    #[test]
    fn a_plugin_is_a_name_and_there_is_one_method() {
        let plugin = CredentialsConfig::Plugin("vault".into());
        assert_eq!(read("{plugin: vault}"), plugin);
        for two in [
            "{plugin: vault, bearer: {token: a}}",
            "{client_tls: {cert: c, private_key: k}, bearer: {token: a}}",
            "{s3_signing: {environment_credentials: {}}, bearer: {token: a}}",
        ] {
            let error = config_error(&with(two));
            assert_eq!(error.path(), "services.acme.credentials");
            assert_eq!(
                error.message(),
                "a maximum one credential method must be specified"
            );
        }
    }

    #[cfg(not(feature = "s3"))]
    #[test]
    fn signing_without_its_feature_is_an_error() {
        let error = config_error(&with("{s3_signing: {environment_credentials: {}}}"));
        assert_eq!(error.path(), "services.acme.credentials.s3_signing");
        let text = "this program was built without the feature `s3` of opa-core";
        assert_eq!(error.message(), text);
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
