//! Reads the keys of a manifest, one by one.

use std::sync::Arc;

use opa_rego::{RegoVersion, Value};

use super::{BundleError, BundleErrorKind, FileRegoVersion, Glob, fault, wrong_type};

/// The known keys of the document.
#[derive(Default)]
pub(super) struct Fields<'a> {
    revision: Option<&'a Value>,
    roots: Option<&'a Value>,
    wasm: Option<&'a Value>,
    rego_version: Option<&'a Value>,
    file_rego_versions: Option<&'a Value>,
    metadata: Option<&'a Value>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(document: &'a Value) -> Result<Self, BundleError> {
        let object = document
            .as_object()
            .ok_or_else(|| fault("manifest must be an object".to_owned()))?;
        let mut fields = Self::default();
        for (key, value) in object.iter() {
            let key = key.as_str().unwrap_or_default();
            let Some(field) = fields.field(key) else {
                continue;
            };
            if value.is_null() {
                continue;
            }
            if field.replace(value).is_some() {
                return Err(fault(format!(
                    "manifest has key `{}` in several spellings",
                    key.to_ascii_lowercase()
                )));
            }
        }
        Ok(fields)
    }

    /// Go's decoder, and with it OPA, does not look at the case of keys.
    fn field(&mut self, key: &str) -> Option<&mut Option<&'a Value>> {
        Some(match key.to_ascii_lowercase().as_str() {
            "revision" => &mut self.revision,
            "roots" => &mut self.roots,
            "wasm" => &mut self.wasm,
            "rego_version" => &mut self.rego_version,
            "file_rego_versions" => &mut self.file_rego_versions,
            "metadata" => &mut self.metadata,
            _ => return None,
        })
    }

    /// `opa build -t wasm` takes the rules of the entrypoints out of the policy files, so a
    /// reader that only ignored the module would find them undefined.
    pub(super) fn refuse_wasm(&self) -> Result<(), BundleError> {
        match self.wasm.map(|wasm| wasm.as_array().map(<[Value]>::len)) {
            None | Some(Some(0)) => Ok(()),
            _ => Err(BundleError::new(
                BundleErrorKind::Unsupported,
                "manifest has `wasm` resolvers, whose policies this version cannot evaluate: \
                 expected a bundle built with target `rego`",
            )),
        }
    }

    pub(super) fn revision(&self) -> Result<Arc<str>, BundleError> {
        let Some(value) = self.revision else {
            return Ok(Arc::from(""));
        };
        let text = value
            .as_str()
            .ok_or_else(|| wrong_type("revision", "a string"))?;
        Ok(Arc::from(text))
    }

    pub(super) fn roots(&self) -> Result<Vec<&'a str>, BundleError> {
        let Some(value) = self.roots else {
            return Ok(vec![""]);
        };
        let wrong = || wrong_type("roots", "a list of strings");
        value
            .as_array()
            .ok_or_else(wrong)?
            .iter()
            .map(|root| root.as_str().ok_or_else(wrong))
            .collect()
    }

    pub(super) fn rego_version(&self) -> Result<Option<RegoVersion>, BundleError> {
        let number =
            |value: &Value| integer(value).ok_or_else(|| wrong_type("rego_version", "0, 1 or 2"));
        self.rego_version
            .map(|value| rego_version(number(value)?, ""))
            .transpose()
    }

    pub(super) fn file_rego_versions(&self) -> Result<Vec<FileRegoVersion>, BundleError> {
        let Some(value) = self.file_rego_versions else {
            return Ok(Vec::new());
        };
        let wrong = || wrong_type("file_rego_versions", "an object of patterns to 0, 1 or 2");
        let object = value.as_object().ok_or_else(wrong)?;
        let files = object.iter().map(|(pattern, version)| {
            let pattern = pattern.as_str().ok_or_else(wrong)?;
            let number = integer(version).ok_or_else(wrong)?;
            let version = rego_version(number, &format!(" for file '{pattern}'"))?;
            let glob = Glob::new(pattern).map_err(|reason| {
                fault(format!(
                    "failed to compile glob pattern {pattern}: {reason}"
                ))
            })?;
            Ok(FileRegoVersion {
                pattern: pattern.to_owned(),
                glob,
                version,
            })
        });
        files.collect()
    }

    pub(super) fn metadata(&self) -> Result<Option<Value>, BundleError> {
        match self.metadata {
            Some(value) if value.as_object().is_none() => Err(wrong_type("metadata", "an object")),
            value => Ok(value.cloned()),
        }
    }
}

/// An integer that is written as one: Go takes no `1.0`.
fn integer(value: &Value) -> Option<i64> {
    let number = value.as_i64()?;
    (value.to_json() == number.to_string()).then_some(number)
}

fn rego_version(number: i64, of: &str) -> Result<RegoVersion, BundleError> {
    match number {
        0 => Ok(RegoVersion::V0),
        1 => Ok(RegoVersion::V1),
        2 => Ok(RegoVersion::V2),
        other => Err(fault(format!(
            "manifest has unknown rego-version {other}{of}"
        ))),
    }
}
