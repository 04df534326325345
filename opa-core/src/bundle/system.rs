//! What OPA tells policies about the active bundles: `data.system.bundles`.
//!
//! It is put into the data of those apps only whose policies may read it, so that a new revision or
//! etag of one app makes no new data for all others.

use std::collections::BTreeMap;
use std::sync::Arc;

use opa_rego::Value;
use opa_rego::token::{Token, TokenKind, tokens};

use super::delta::Editor;
use super::digest::{sha256, sha256_of_named};
use super::error::{BundleError, BundleErrorKind};
use super::{Bundle, Manifest, Union};

const SYSTEM: &str = "system";

/// The data of an app and what names it.
pub(crate) type NamedData = (Value, [u8; 32]);

impl Union {
    /// The data with `system.bundles.<name>.{manifest,etag}`, if a module may read them or `asked`
    /// says that something else does; else as it is.
    ///
    /// # Errors
    /// The bundles' own data has something else in that place.
    pub(crate) fn with_system(
        &self,
        asked: bool,
        bundles: &BTreeMap<Arc<str>, Arc<Bundle>>,
        etags: &BTreeMap<Arc<str>, Arc<str>>,
    ) -> Result<NamedData, BundleError> {
        let mut modules = self.modules().iter().map(|module| module.file().source());
        if !asked && !modules.any(|source| may_read_system(source)) {
            return Ok((self.data().clone(), self.data_digest()));
        }
        let mut editor = Editor::new(self.data());
        let mut names = vec![("data".to_owned(), self.data_digest())];
        for (name, bundle) in bundles {
            let manifest = manifest_value(bundle.manifest());
            let etag = Value::from(etags.get(name).map_or("", |etag| &**etag));
            for (key, value) in [("manifest", manifest), ("etag", etag)] {
                let named = format!("{key}/{name}");
                names.push((named, sha256(value.to_json().as_bytes())));
                editor
                    .upsert(&[SYSTEM, "bundles", &**name, key], value)
                    .map_err(|fault| BundleError::new(BundleErrorKind::Data, fault))?;
            }
        }
        let names = names.iter().map(|(name, digest)| (name.as_str(), *digest));
        Ok((editor.finish(), sha256_of_named(names)))
    }
}

/// As OPA stores it: without what is empty.
fn manifest_value(manifest: &Manifest) -> Value {
    let value = manifest.to_value();
    let empty = |key: &Value, value: &Value| {
        let metadata = key.as_str() == Some("metadata");
        metadata && value.as_object().is_some_and(|object| object.is_empty())
    };
    let members = value.as_object().into_iter().flatten();
    let members = members.filter(|(key, value)| !empty(key, value));
    Value::object(members.map(|(key, value)| (key.clone(), value.clone())))
}

/// Whether a module names `data.system`, or reaches into `data` in a way that its text does not
/// tell.
fn may_read_system(source: &str) -> bool {
    if !source.contains("data") {
        return false;
    }
    let Ok(tokens) = tokens(source).collect::<Result<Vec<_>, _>>() else {
        return true;
    };
    let previous = [None].into_iter().chain(tokens.iter().map(Some));
    let mut roots = previous.zip(tokens.iter().enumerate());
    roots.any(|(previous, (at, token))| {
        let is_root = !previous.is_some_and(|previous| previous.is("."));
        let after = |offset: usize| tokens.get(at + offset);
        token.is("data") && is_root && !leads_elsewhere(after(1), after(2))
    })
}

/// Whether what follows `data` is a name other than `system`.
fn leads_elsewhere(next: Option<&Token<'_>>, name: Option<&Token<'_>>) -> bool {
    let (Some(next), Some(name)) = (next, name) else {
        return false;
    };
    match name.kind {
        TokenKind::Identifier => next.is(".") && name.text != SYSTEM,
        TokenKind::String => {
            let escaped = name.text.contains('\\');
            next.is("[") && !escaped && name.text.trim_matches('"') != SYSTEM
        }
        TokenKind::RawString => next.is("[") && name.text.trim_matches('`') != SYSTEM,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::BundleWriter;
    use super::*;

    #[test]
    fn who_may_read_it() {
        let may_read = |body: &str| may_read_system(&format!("package a\n\n{body}"));
        for body in [
            "x := data.system.bundles",
            "x := data[\"system\"]",
            "x := data[`system`]",
            "x := data[\"sys\\u0074em\"]",
            "x := data[y]",
            "x := data [\"system\"]",
            "x := data",
            "import data.system as s",
            "import data as d",
            "x := walk(data)",
            "x := data # .a\n.system",
            "x := $\"{data.system}\"",
            "x := data[\"a\" + b]; y := data.system.x",
            "x := \"unterminated data",
        ] {
            assert!(may_read(body), "{body}");
        }
        for body in [
            "x := 1",
            "x := data.orders",
            "x := data.orders.system",
            "x := data[\"orders\"].system",
            "x := input.data",
            "system := input.system",
            "x := \"data.system\" # data",
            "import data.roles",
        ] {
            assert!(!may_read(body), "{body}");
        }
    }

    fn union(source: &str, revision: &str) -> NamedData {
        let metadata = Value::object([]);
        let bundle = BundleWriter::new()
            .revision(revision)
            .module("a.rego", source)
            .unwrap()
            .metadata(metadata)
            .unwrap()
            .data("x", &Value::from(1))
            .unwrap();
        let name: Arc<str> = Arc::from("acme/authz");
        let bundles = BTreeMap::from([(Arc::clone(&name), Arc::new(bundle.bundle().unwrap()))]);
        let etags = BTreeMap::from([(name, Arc::from("\"e\""))]);
        let union = Union::of(&bundles).unwrap();
        union.with_system(false, &bundles, &etags).unwrap()
    }

    #[test]
    fn as_opa_stores_it_and_only_for_those_who_read_it() {
        let reading = "package a\n\nx := data.system.bundles";
        let (data, digest) = union(reading, "1");
        assert_eq!(
            data.to_json(),
            r#"{"system":{"bundles":{"acme/authz":{"etag":"\"e\"","manifest":{"rego_version":1,"revision":"1","roots":[""]}}}},"x":1}"#
        );
        assert_ne!(digest, union(reading, "2").1);
        let other = "package a\n\nx := data.x";
        assert_eq!(union(other, "1").0.to_json(), r#"{"x":1}"#);
        assert_eq!(union(other, "1").1, union(other, "2").1);
    }

    #[test]
    fn what_is_in_the_way_is_refused() {
        let data = Value::from_json(br#"{"system":1}"#).unwrap();
        let bundle = BundleWriter::new().data("", &data).unwrap().bundle();
        let bundles = BTreeMap::from([(Arc::from("b"), Arc::new(bundle.unwrap()))]);
        let union = Union::of(&bundles).unwrap();
        let refused = union.with_system(true, &bundles, &BTreeMap::new());
        assert_eq!(refused.unwrap_err().kind(), BundleErrorKind::Data);
        assert!(union.with_system(false, &bundles, &BTreeMap::new()).is_ok());
    }
}
