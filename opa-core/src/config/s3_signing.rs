use super::credentials::Secret;
use super::error::{ConfigError, Warning};
use super::field::Field;
use super::reader::Reader;

/// Requests signed for AWS: `services.*.credentials.s3_signing`.
///
/// The keys come from the environment of the process (`environment_credentials`), under the names
/// that AWS's tools use: `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_REGION`, and if there
/// is one the token of temporary keys, `AWS_SESSION_TOKEN` or else `AWS_SECURITY_TOKEN`. They are
/// looked up for each request, as OPA does. One that is missing fails the request, and the bundle's
/// status names it.
///
/// The allow-list of [`EnvPolicy`](super::EnvPolicy) isn't asked: it protects from texts that put
/// any variable anywhere, and this key reads exactly these variables, for nothing but the signature.
///
/// The service's `url` has the bucket, a bundle's `resource` is the object's key, encoded as in a URL
/// (`%` is `%25`). One with `.` or `..` between its slashes is refused, since a URL has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct S3SigningConfig {
    /// `service`: the AWS service that the requests are for, in lower case. Default: `s3`.
    pub service: String,
    /// The region, for programs and plugins that have one; that of the environment without it.
    pub region: Option<String>,
    /// The keys, for programs and plugins that have some; those of the environment without them.
    pub keys: Option<S3Keys>,
}

/// Keys that requests are signed with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct S3Keys {
    /// The public one.
    pub access_key_id: String,
    /// The secret one.
    pub secret_access_key: Secret,
}

impl Default for S3SigningConfig {
    /// For `s3`, with what the environment says.
    fn default() -> Self {
        Self {
            service: "s3".to_owned(),
            region: None,
            keys: None,
        }
    }
}

/// Where OPA can take keys from, besides the environment.
const UNSUPPORTED: [&str; 5] = [
    "metadata_credentials",
    "assume_role_credentials",
    "web_identity_credentials",
    "profile_credentials",
    "sso_credentials",
];

impl S3SigningConfig {
    pub(super) fn read(
        field: &Field<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        if cfg!(not(feature = "s3")) {
            return Err(field.error("this program was built without the feature `s3` of opa-core"));
        }
        let mut reader = field.reader()?;
        for provider in UNSUPPORTED {
            if let Some(provider) = reader.field(provider) {
                return Err(provider.unsupported());
            }
        }
        let Some(environment) = reader.object("environment_credentials")? else {
            // OPA's words.
            let text = "a AWS credential service must be specified when S3 signing is enabled";
            return Err(reader.error(text));
        };
        warnings.extend(environment.finish()?);
        let service = read_service(&mut reader)?;
        check_version(&mut reader)?;
        warnings.extend(reader.finish()?);
        Ok(Self {
            service,
            ..Self::default()
        })
    }
}

fn read_service(reader: &mut Reader<'_>) -> Result<String, ConfigError> {
    let Some(field) = reader.field("service") else {
        return Ok("s3".to_owned());
    };
    let service = field.as_str()?.to_ascii_lowercase();
    // It becomes a part of the signature's scope.
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match &*service {
        "" => Ok("s3".to_owned()),
        // A registry's login and a key service's signatures, no signed requests for bundles.
        "ecr" | "kms" => Err(field.unsupported_value(&service)),
        _ if service.chars().all(allowed) => Ok(service),
        _ => Err(field.error(format!(
            "expected the name of an AWS service, found `{service}`"
        ))),
    }
}

fn check_version(reader: &mut Reader<'_>) -> Result<(), ConfigError> {
    let Some(field) = reader.field("signature_version") else {
        return Ok(());
    };
    match field.as_str()? {
        "" | "4" => Ok(()),
        "4a" => Err(field.unsupported_value("4a")),
        // OPA takes any other text for `4`.
        other => Err(field.error(format!("expected `4`, found `{other}`"))),
    }
}

#[cfg(test)]
#[cfg(feature = "s3")]
mod tests {
    use super::super::testing::{config, config_error, warnings};
    use super::super::{ConfigErrorKind, CredentialsConfig};
    use super::*;

    fn with(s3_signing: &str) -> String {
        format!(
            "services: {{aws: {{url: 'https://b.test', credentials: {{s3_signing: {s3_signing}}}}}}}"
        )
    }

    fn read(s3_signing: &str) -> S3SigningConfig {
        match config(&with(s3_signing)).services.remove(0).credentials {
            CredentialsConfig::S3Signing(config) => config,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_come_from_the_environment() {
        let wanted = |service: &str| S3SigningConfig {
            service: service.to_owned(),
            ..S3SigningConfig::default()
        };
        for (more, service) in [
            ("", "s3"),
            (", service: '', signature_version: ''", "s3"),
            (", service: S3, signature_version: \"4\"", "s3"),
            (
                ", service: execute-api, sso_credentials: null",
                "execute-api",
            ),
        ] {
            let config = read(&format!("{{environment_credentials: {{}}{more}}}"));
            assert_eq!(config, wanted(service), "{more}");
        }
    }

    #[test]
    fn a_provider_is_needed() {
        for none in ["{}", "{environment_credentials: null, service: s3}"] {
            let error = config_error(&with(none));
            assert_eq!(error.path(), "services.aws.credentials.s3_signing");
            let text = "a AWS credential service must be specified when S3 signing is enabled";
            assert_eq!(error.message(), text);
        }
    }

    #[test]
    fn what_opa_knows_besides_is_an_error_that_names_the_key() {
        for provider in UNSUPPORTED {
            let text = format!("{{environment_credentials: {{}}, {provider}: {{}}}}");
            let error = config_error(&with(&text));
            assert_eq!(error.kind(), ConfigErrorKind::Unsupported);
            let path = format!("services.aws.credentials.s3_signing.{provider}");
            assert_eq!(error.path(), path);
        }
        for (key, value) in [
            ("service", "ecr"),
            ("service", "kms"),
            ("signature_version", "4a"),
        ] {
            let text = format!("{{environment_credentials: {{}}, {key}: {value}}}");
            let error = config_error(&with(&text));
            assert_eq!(error.kind(), ConfigErrorKind::Unsupported);
            let text = format!(
                "`services.aws.credentials.s3_signing.{key}: {value}` is not supported by this \
                 version"
            );
            assert_eq!(error.message(), text);
        }
    }

    #[test]
    fn wrong_values_are_errors() {
        for (more, message) in [
            (
                "service: 'a/b'",
                "expected the name of an AWS service, found `a/b`",
            ),
            ("signature_version: '5'", "expected `4`, found `5`"),
            ("signature_version: 4", "expected a string, found a number"),
        ] {
            let error = config_error(&with(&format!("{{environment_credentials: {{}}, {more}}}")));
            assert_eq!(error.message(), message);
        }
        let error = config_error(&with("{environment_credentials: true}"));
        assert_eq!(error.message(), "expected an object, found a boolean");
    }

    #[test]
    fn unknown_keys_are_warned_about() {
        let warnings = warnings(&with("{environment_credentials: {x: 1}, y: 2}"));
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }
}
