//! Signed bundles: which signature is wanted, and whether the files are those that were signed.
//!
//! A bundle is signed by its `.signatures.json`: one JSON Web Signature whose payload lists every
//! other file with a digest. It is verified before anything of the bundle is read.

mod digest;
mod key;
mod listed;
mod pattern;
mod rules;
mod token;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use self::pattern::Pattern;
use super::error::{BundleError, BundleErrorKind};
use crate::config::{KeyConfig, SigningConfig};

pub(super) use listed::Listed;

/// What the signature of a bundle must be like.
///
/// The default is that of an OPA without `keys`: bundles need no signature, and a signed one is
/// refused, since there is nothing to verify it with.
///
/// | keys | signing | unsigned | signed |
/// | --- | --- | --- | --- |
/// | none | no | accepted | refused |
/// | some | no | accepted | verified |
/// | some | yes | refused | verified |
///
/// [`require`](Self::require) refuses unsigned bundles in each row. A delta is never signed: where
/// unsigned bundles are refused it is, too, unless the signing's
/// [`allow_unsigned_delta_bundles`](SigningConfig::allow_unsigned_delta_bundles) exempts deltas, from
/// which `require` exempts nothing.
///
/// ```
/// use std::collections::BTreeMap;
///
/// use opa_core::bundle::{self, BundleErrorKind, BundleWriter, Limits, Verification};
/// use opa_core::config::{KeyAlgorithm, KeyConfig, Secret};
///
/// let key = KeyConfig::new(Secret::new("a shared secret"), KeyAlgorithm::HS256);
/// let keys = BTreeMap::from([("global_key".to_owned(), key)]);
/// let verification = Verification::new(keys, None).require(true);
///
/// let unsigned = BundleWriter::new().module("a.rego", "package a")?.to_vec()?;
/// let error = bundle::read_verified(&unsigned, &Limits::default(), &verification).unwrap_err();
/// assert_eq!(error.kind(), BundleErrorKind::Signature);
/// assert_eq!(error.to_string(), "bundle missing .signatures.json file");
/// # Ok::<(), bundle::BundleError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Verification {
    keys: Arc<BTreeMap<String, KeyConfig>>,
    signing: SigningConfig,
    exclude: Vec<Pattern>,
    required: bool,
    /// By the program, which no configuration takes back.
    required_in_code: bool,
}

/// The content of a `.signatures.json`.
#[derive(Debug)]
pub(super) struct Signatures {
    tokens: Vec<String>,
    plugin: String,
}

impl Verification {
    /// Verifies with `keys`. With `signing` the bundle must be signed, without it may.
    #[must_use]
    pub fn new(keys: BTreeMap<String, KeyConfig>, signing: Option<SigningConfig>) -> Self {
        Self {
            keys: Arc::new(keys),
            required: signing.is_some(),
            required_in_code: false,
            exclude: signing
                .iter()
                .flat_map(|signing| &signing.exclude_files)
                .map(|pattern| Pattern::new(pattern))
                .collect(),
            signing: signing.unwrap_or_default(),
        }
    }

    /// Refuses unsigned bundles, if `require` says so or there is a `signing` that does.
    #[must_use]
    pub fn require(self, require: bool) -> Self {
        Self {
            required: self.required || require,
            required_in_code: self.required_in_code || require,
            ..self
        }
    }

    /// Whether the signature file is needed before the files can be read.
    pub(super) fn is_possible(&self) -> bool {
        self.required || !self.keys.is_empty()
    }

    /// Checks the signature. Answers the files that must be there, if it has one.
    pub(super) fn verify(
        &self,
        signatures: Option<&Signatures>,
    ) -> Result<Option<Listed<'_>>, BundleError> {
        let Some(signatures) = signatures else {
            return if self.required {
                Err(fault("bundle missing .signatures.json file"))
            } else {
                Ok(None)
            };
        };
        if self.keys.is_empty() {
            return Err(Signatures::without_key());
        }
        let claims = token::verify(signatures.token()?, &self.keys, &self.signing)?;
        Ok(Some(Listed::new(claims, &self.exclude)))
    }
}

/// What `opa sign` writes for its own way of signing, and what it leaves out.
const OWN_PLUGINS: [&str; 2] = ["", "_default"];

impl Signatures {
    /// Reads a signature file. `None` if it says nothing: such a bundle is unsigned, as in OPA.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, BundleError> {
        let malformed =
            |what: String| fault(format!("bundle load failed on signatures decode: {what}"));
        let mut json: Value =
            serde_json::from_slice(bytes).map_err(|error| malformed(error.to_string()))?;
        if json.is_null() {
            return Ok(None);
        }
        let Some(members) = json.as_object_mut() else {
            return Err(malformed("expected an object".to_owned()));
        };
        let plugin = match members.remove("plugin") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(plugin)) => plugin,
            Some(_) => return Err(malformed("expected `plugin` to be a string".to_owned())),
        };
        let tokens = match members.remove("signatures") {
            None | Some(Value::Null) if plugin.is_empty() => return Ok(None),
            None | Some(Value::Null) => Vec::new(),
            Some(tokens) => serde_json::from_value(tokens)
                .map_err(|error| malformed(format!("`signatures`: {error}")))?,
        };
        Ok(Some(Self { tokens, plugin }))
    }

    /// The error for a signature that nothing can verify.
    pub(super) fn without_key() -> BundleError {
        fault("verification key not provided")
    }

    /// The one token. A bundle never chooses by whom it is verified, so one that was signed in
    /// another way is refused.
    fn token(&self) -> Result<&str, BundleError> {
        if !OWN_PLUGINS.contains(&self.plugin.as_str()) {
            return Err(fault(format!(
                "no verifier exists under id {}",
                self.plugin
            )));
        }
        match self.tokens.as_slice() {
            [token] => Ok(token),
            [] => Err(fault(
                ".signatures.json: missing JWT (expected exactly one)",
            )),
            _ => Err(fault(
                ".signatures.json: multiple JWTs not supported (expected exactly one)",
            )),
        }
    }
}

fn fault(message: impl Into<String>) -> BundleError {
    BundleError::new(BundleErrorKind::Signature, message)
}

#[cfg(test)]
mod tests;
