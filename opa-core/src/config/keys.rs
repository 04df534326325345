//! The keys that verify signed bundles: `keys`, and which of them a bundle wants: `signing`.

use std::collections::BTreeMap;
use std::fmt;

use super::credentials::Secret;
use super::error::{ConfigError, Warning};
use super::field::Field;

/// A key that verifies signatures: `keys.*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct KeyConfig {
    /// The public key or certificate in PEM, or the shared secret of an HMAC. As in OPA this is
    /// the key itself, never the path of a file.
    pub key: Secret,
    /// How signatures are made; RS256 by default. What a signature says about itself counts for
    /// nothing.
    pub algorithm: KeyAlgorithm,
    /// The scope that a signature must have, unless the bundle asks for another; empty by default,
    /// which means none.
    pub scope: String,
}

/// How a signature is made (RFC 7518, section 3).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names of RFC 7518")]
pub enum KeyAlgorithm {
    ES256,
    ES384,
    ES512,
    HS256,
    HS384,
    HS512,
    PS256,
    PS384,
    PS512,
    #[default]
    RS256,
    RS384,
    RS512,
}

/// What a bundle's signature must be like: `bundles.*.signing`. A bundle with one must be signed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SigningConfig {
    /// The key, whichever the signature names; empty by default: the one that the signature names.
    pub key_id: String,
    /// The scope that the signature must have; empty by default: the one of the key.
    pub scope: String,
    /// Files that need not be signed, as patterns of Go's `filepath.Match`.
    pub exclude_files: Vec<String>,
    /// Whether delta bundles, which can't be signed, are taken all the same; whole bundles must
    /// still be signed. False by default. Without `signing` deltas are always taken, and never if
    /// the program [requires](crate::ManagerBuilder::require_signed) signatures.
    pub allow_unsigned_delta_bundles: bool,
    /// Whether a bundle is refused whose signature was made (`iat`) before that of the active one,
    /// also if that came from disk; a signature that doesn't tell is refused, too. It excludes
    /// `allow_unsigned_delta_bundles`: a delta doesn't tell its age. False by default. OPA does not
    /// know it, and ignores it.
    pub refuse_older: bool,
}

impl KeyConfig {
    /// A key without a scope.
    #[must_use]
    pub fn new(key: Secret, algorithm: KeyAlgorithm) -> Self {
        Self {
            key,
            algorithm,
            scope: String::new(),
        }
    }

    fn read(id: &str, field: &Field<'_>, warnings: &mut Vec<Warning>) -> Result<Self, ConfigError> {
        // OPA's text; a null stands for an empty object.
        let no_key = format!("invalid keys configuration: no keys provided for key ID {id}");
        if field.is_null() {
            return Err(field.error(no_key));
        }
        let mut reader = field.reader()?;
        if let Some(private) = reader.field("private_key")
            && !private.as_str()?.is_empty()
        {
            return Err(private.unsupported());
        }
        let key = reader.string("key")?.unwrap_or_default();
        if key.is_empty() {
            return Err(field.error(no_key));
        }
        let algorithm = match reader.field("algorithm") {
            Some(algorithm) => KeyAlgorithm::read(&algorithm)?,
            None => KeyAlgorithm::default(),
        };
        let scope = reader.string("scope")?.unwrap_or_default().to_owned();
        warnings.extend(reader.finish()?);
        Ok(Self {
            key: Secret::new(key),
            algorithm,
            scope,
        })
    }
}

impl KeyAlgorithm {
    const ALL: [Self; 12] = [
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::HS256,
        Self::HS384,
        Self::HS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::RS256,
        Self::RS384,
        Self::RS512,
    ];

    fn read(field: &Field<'_>) -> Result<Self, ConfigError> {
        let name = field.as_str()?;
        if name.is_empty() {
            return Ok(Self::default());
        }
        let found = Self::ALL.into_iter().find(|one| one.to_string() == name);
        found.ok_or_else(|| field.error(format!("unsupported algorithm '{name}'")))
    }
}

impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl SigningConfig {
    pub(crate) fn read(
        field: &Field<'_>,
        keys: &BTreeMap<String, KeyConfig>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut reader = field.reader()?;
        let key_id = reader.field("keyid");
        let signing = Self {
            key_id: match &key_id {
                Some(id) => id.as_str()?.to_owned(),
                None => String::new(),
            },
            scope: reader.string("scope")?.unwrap_or_default().to_owned(),
            exclude_files: reader
                .strings("exclude_files")?
                .into_iter()
                .map(str::to_owned)
                .collect(),
            allow_unsigned_delta_bundles: reader
                .bool("allow_unsigned_delta_bundles")?
                .unwrap_or(false),
            refuse_older: reader.bool("refuse_older")?.unwrap_or(false),
        };
        if signing.refuse_older && signing.allow_unsigned_delta_bundles {
            return Err(field.error(
                "refuse_older excludes allow_unsigned_delta_bundles: a delta doesn't tell its age",
            ));
        }
        warnings.extend(reader.finish()?);
        if signing.key_id.is_empty() {
            if keys.is_empty() {
                return Err(field.error("no verification keys configured"));
            }
        } else if !keys.contains_key(&signing.key_id) {
            let message = format!("key id {} not found", signing.key_id);
            return Err(key_id.as_ref().unwrap_or(field).error(message));
        }
        Ok(signing)
    }
}

/// Reads `keys`, an object by key id.
pub(crate) fn read_keys(
    field: &Field<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<BTreeMap<String, KeyConfig>, ConfigError> {
    field
        .members()?
        .map(|(id, member)| Ok((id.to_owned(), KeyConfig::read(id, &member, warnings)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::ConfigErrorKind;
    use super::super::testing::{config, config_error, warnings};
    use super::*;

    const SERVICES: &str = "services: {s: {url: 'http://a.test'}}\n";

    fn with(text: &str) -> String {
        format!("{SERVICES}{text}")
    }

    #[test]
    fn keys_are_read() {
        let keys = config(&with(
            "keys: {a: {key: s3cr3t, algorithm: HS256, scope: write, private_key: ''}, b: {key: \
             '${A}', algorithm: ''}}",
        ))
        .keys;
        assert_eq!(keys["a"].key.expose(), "s3cr3t");
        assert_eq!(keys["a"].algorithm, KeyAlgorithm::HS256);
        assert_eq!(keys["a"].scope, "write");
        let b = KeyConfig::new(Secret::new("1"), KeyAlgorithm::RS256);
        assert_eq!(keys["b"], b, "defaults");
        for algorithm in KeyAlgorithm::ALL {
            let keys = config(&with(&format!(
                "keys: {{a: {{key: k, algorithm: {algorithm}}}}}"
            )))
            .keys;
            assert_eq!(keys["a"].algorithm, algorithm);
        }
        assert!(config(&with("keys: {}")).keys.is_empty());
    }

    #[test]
    fn what_is_wrong_with_keys_is_told_in_the_words_of_opa() {
        for (keys, message) in [
            (
                "{x: {}}",
                "invalid keys configuration: no keys provided for key ID x",
            ),
            (
                "{x: null}",
                "invalid keys configuration: no keys provided for key ID x",
            ),
            (
                "{x: {key: '', scope: y}}",
                "invalid keys configuration: no keys provided for key ID x",
            ),
            (
                "{x: {key: k, algorithm: HS123}}",
                "unsupported algorithm 'HS123'",
            ),
            (
                "{x: {key: k, algorithm: none}}",
                "unsupported algorithm 'none'",
            ),
            (
                "{x: {key: k, algorithm: rs256}}",
                "unsupported algorithm 'rs256'",
            ),
            ("{x: k}", "expected an object, found a string"),
        ] {
            let error = config_error(&with(&format!("keys: {keys}")));
            assert_eq!(error.message(), message, "{keys}");
            assert_eq!(error.kind(), ConfigErrorKind::Invalid);
        }
        let error = config_error(&with("keys: {x: {key: k, private_key: p}}"));
        assert_eq!(error.kind(), ConfigErrorKind::Unsupported);
        assert_eq!(error.path(), "keys.x.private_key");
        let error = config_error(&with("keys: {x: {Key: k, key: k}}"));
        assert_eq!(error.message(), "expected the key to be `key`");
        assert_eq!(
            config_error(&with("keys: {x: {key: '${UNSET}'}}")).kind(),
            ConfigErrorKind::Variable
        );
    }

    #[test]
    fn keys_are_never_shown() {
        let shown = format!("{:?}", config(&with("keys: {x: {key: s3cr3t}}")));
        assert!(!shown.contains("s3cr3t"), "{shown}");
        let error = config_error(&with("keys: {x: {key: [s3cr3t]}}"));
        assert!(!format!("{error} {error:?}").contains("s3cr3t"));
    }

    fn signing(text: &str) -> String {
        with(&format!(
            "keys: {{k: {{key: a}}}}\nbundles: {{x: {{signing: {text}}}}}"
        ))
    }

    #[test]
    fn signing_is_read() {
        let read = |text: &str| config(&signing(text)).bundles.remove(0).signing;
        assert_eq!(read("null"), None);
        assert_eq!(read("{}"), Some(SigningConfig::default()));
        let whole = SigningConfig {
            key_id: "k".to_owned(),
            scope: "write".to_owned(),
            exclude_files: vec!["*.md".to_owned()],
            allow_unsigned_delta_bundles: true,
            refuse_older: false,
        };
        let text = "{keyid: k, scope: write, exclude_files: ['*.md'], \
                    allow_unsigned_delta_bundles: true}";
        assert_eq!(read(text), Some(whole));
        assert!(read("{refuse_older: true}").unwrap().refuse_older);
        assert!(warnings(&signing("{refuse_older: true}")).is_empty());
        assert_eq!(warnings(&signing("{key_id: k}")).len(), 1);
    }

    #[test]
    fn what_is_wrong_with_signing_is_told_in_the_words_of_opa() {
        let error = config_error(&signing("{keyid: x}"));
        assert_eq!(
            error.message(),
            "invalid configuration for bundle \"x\": key id x not found"
        );
        assert_eq!(error.path(), "bundles.x.signing.keyid");
        for keys in ["", "keys: {}\n"] {
            let without = |signing| {
                config_error(&with(&format!(
                    "{keys}bundles: {{x: {{signing: {signing}}}}}"
                )))
            };
            assert_eq!(
                without("{}").message(),
                "invalid configuration for bundle \"x\": no verification keys configured"
            );
            assert_eq!(
                without("{keyid: k}").message(),
                "invalid configuration for bundle \"x\": key id k not found"
            );
        }
        let error = config_error(&signing(
            "{allow_unsigned_delta_bundles: true, refuse_older: true}",
        ));
        assert!(error.message().contains("excludes"), "{error}");
        let error = config_error(&signing("{refuse_older: 1}"));
        assert_eq!(error.kind(), ConfigErrorKind::Invalid);
        let error = config_error(&signing("{KeyID: k}"));
        assert!(
            error.message().ends_with("expected the key to be `keyid`"),
            "{error}"
        );
    }
}
