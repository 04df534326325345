//! Makes one set of modules and one tree of data of all bundles of an app.

use std::collections::BTreeMap;
use std::sync::Arc;

use opa_rego::Value;

use super::data::Tree;
use super::digest::{sha256, sha256_of_named};
use super::error::{BundleError, BundleErrorKind};
use super::store::{Store, TreeOf};
use super::{Bundle, ModuleFile, roots};

/// All policies and all data of an app.
#[derive(Debug, Clone)]
pub struct Union {
    modules: Vec<UnionModule>,
    data: Value,
    data_digest: [u8; 32],
}

/// A policy file with the name under which OPA stores it.
#[derive(Debug, Clone)]
pub struct UnionModule {
    id: Arc<str>,
    file: ModuleFile,
}

impl Union {
    /// Merges the bundles of an app, by their names in the configuration.
    ///
    /// Of each bundle only the data at its roots is taken, as in OPA.
    ///
    /// # Errors
    ///
    /// Two bundles have overlapping roots, or data that is no object stands at or above the
    /// package of a policy, so that its rules could not be reached. (Data at the path of a single
    /// rule is for the engine to find, which knows the rules.)
    pub fn of(bundles: &BTreeMap<Arc<str>, Arc<Bundle>>) -> Result<Self, BundleError> {
        Self::shared(bundles, &Store::default())
    }

    /// As [`of`](Self::of); equal data is held once by all who share `store`.
    pub(crate) fn shared(
        bundles: &BTreeMap<Arc<str>, Arc<Bundle>>,
        store: &Store,
    ) -> Result<Self, BundleError> {
        let roots = bundles.iter();
        roots::check_disjoint(roots.map(|(name, bundle)| (&**name, bundle.manifest().roots())))?;

        let modules = bundles.iter().flat_map(|(name, bundle)| {
            let files = bundle.modules().iter();
            files.map(|file| UnionModule::new(name, file))
        });
        let mut modules: Vec<_> = modules.collect();
        modules.sort_by(|a, b| a.id.cmp(&b.id));
        let data_digest = data_digest(bundles.values());
        let data = store.tree(TreeOf::Union, data_digest, || {
            let mut tree = Tree::new();
            for (name, bundle) in bundles {
                take_data(&mut tree, name, bundle)?;
            }
            Ok(tree.finish())
        })?;
        for module in &modules {
            check_package(module, &data)?;
        }
        Ok(Self {
            modules,
            data,
            data_digest,
        })
    }

    /// The policy files, sorted by id.
    #[must_use]
    pub fn modules(&self) -> &[UnionModule] {
        &self.modules
    }

    /// The tree of data, an object.
    #[must_use]
    pub fn data(&self) -> &Value {
        &self.data
    }

    /// Names the data by its content: equal digests mean equal data.
    #[must_use]
    pub fn data_digest(&self) -> [u8; 32] {
        self.data_digest
    }
}

impl UnionModule {
    fn new(bundle: &str, file: &ModuleFile) -> Self {
        Self {
            id: Arc::from(format!("{}{}", bundle.trim_end_matches('/'), file.path())),
            file: file.clone(),
        }
    }

    /// `<bundle>/<path>`, as in OPA's policy API and error messages.
    #[must_use]
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &ModuleFile {
        &self.file
    }
}

/// Takes the data at the roots of a bundle. Empty objects on the way to a root stay behind.
fn take_data(tree: &mut Tree, name: &Arc<str>, bundle: &Bundle) -> Result<(), BundleError> {
    for root in bundle.manifest().roots() {
        let path: Vec<&str> = roots::segments(root).collect();
        let at_root = path
            .iter()
            .try_fold(bundle.data(), |value, segment| value.get(segment));
        if let Some(value) = at_root {
            tree.insert(&path, value.clone(), name)?;
        }
    }
    Ok(())
}

/// OPA's check of rules against data, as far as the package alone tells.
fn check_package(module: &UnionModule, data: &Value) -> Result<(), BundleError> {
    if !module.file.text.has_rules {
        return Ok(());
    }
    let mut at = Some(data);
    for (depth, segment) in (1..).zip(module.file.package()) {
        at = at.and_then(|value| value.get(segment));
        let Some(value) = at else {
            return Ok(());
        };
        if value.as_object().is_none() {
            let path: Vec<&str> = module
                .file
                .package()
                .iter()
                .map(String::as_str)
                .take(depth)
                .collect();
            return Err(BundleError::new(
                BundleErrorKind::Data,
                format!(
                    "conflicting rule for data path {} found: `{}` has rules below it, but the \
                     data is not an object",
                    path.join("/"),
                    module.id
                ),
            ));
        }
    }
    Ok(())
}

/// Which part of the data is taken depends on the roots, so they go in too.
fn data_digest<'a>(bundles: impl Iterator<Item = &'a Arc<Bundle>>) -> [u8; 32] {
    let parts: Vec<[u8; 32]> = bundles
        .map(|bundle| {
            let roots = bundle.manifest().roots().iter();
            let roots = roots.map(|root| (root.as_str(), [0; 32]));
            let data = ("data", bundle.data_digest());
            sha256(&[sha256_of_named(roots), sha256_of_named([data])].concat())
        })
        .collect();
    sha256_of_named(parts.into_iter().map(|part| ("", part)))
}

#[cfg(test)]
mod tests {
    use super::super::BundleWriter;
    use super::*;

    fn bundle(roots: &[&str], modules: &[(&str, &str)], data: &str) -> Arc<Bundle> {
        let mut writer = BundleWriter::new().roots(roots.iter().copied()).unwrap();
        for (path, source) in modules {
            writer = writer.module(path, *source).unwrap();
        }
        let data = Value::from_json(data.as_bytes()).unwrap();
        Arc::new(writer.data("", &data).unwrap().bundle().unwrap())
    }

    fn merge<const N: usize>(bundles: [(&str, &Arc<Bundle>); N]) -> Result<Union, BundleError> {
        let named = bundles.map(|(name, bundle)| (Arc::from(name), Arc::clone(bundle)));
        Union::of(&BTreeMap::from(named))
    }

    #[test]
    fn modules_and_data_of_all() {
        let orders = bundle(
            &["orders", "shared/orders"],
            &[
                ("x.rego", "package orders"),
                ("a/b.rego", "package orders.b"),
            ],
            r#"{"orders":{"max":3},"shared":{"orders":[1]}}"#,
        );
        let users = bundle(&["shared/users"], &[], r#"{"shared":{"users":{"a":1}}}"#);
        let merged = merge([("users", &users), ("orders", &orders)]).unwrap();
        let ids: Vec<&str> = merged
            .modules()
            .iter()
            .map(|module| &**module.id())
            .collect();
        assert_eq!(ids, ["orders/a/b.rego", "orders/x.rego"]);
        assert_eq!(
            merged.data().to_json(),
            r#"{"orders":{"max":3},"shared":{"orders":[1],"users":{"a":1}}}"#
        );
        let again = merge([("o", &orders), ("u", &users)]).unwrap();
        assert_eq!(merged.data_digest(), again.data_digest());
        let alone = merge([("orders", &orders)]).unwrap();
        assert_ne!(merged.data_digest(), alone.data_digest());
        assert_eq!(merge([]).unwrap().data().to_json(), "{}");
    }

    #[test]
    fn only_data_at_the_roots_is_taken() {
        let bundle = bundle(&["a/b", "c"], &[], r#"{"a":{}}"#);
        assert_eq!(bundle.data().to_json(), r#"{"a":{}}"#);
        assert_eq!(merge([("x", &bundle)]).unwrap().data().to_json(), "{}");
    }

    #[test]
    fn overlaps_are_refused() {
        let a = bundle(&["a"], &[], "{}");
        let b = bundle(&["a/b"], &[], "{}");
        let error = merge([("two", &b), ("one", &a)]).unwrap_err();
        assert_eq!(error.kind(), BundleErrorKind::Roots);
        assert!(error.to_string().contains("these bundles: [one, two]"));
    }

    #[test]
    fn data_in_the_way_of_a_package() {
        let check = |source: &str, data: &str| {
            let bundle = bundle(&[""], &[("p.rego", source)], data);
            merge([("x", &bundle)])
                .map(|_| ())
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            check("package a.b\np := 1", r#"{"a":{"b":{"c":1}}}"#),
            Ok(())
        );
        assert_eq!(check("package a.b\np := 1", r#"{"x":1}"#), Ok(()));
        assert_eq!(check("package a.b\nimport data.x", r#"{"a":1}"#), Ok(()));
        assert_eq!(
            check("package a.b\np := 1", r#"{"a":[]}"#).unwrap_err(),
            "conflicting rule for data path a found: `x/p.rego` has rules below it, but the data \
             is not an object"
        );
        assert!(
            check("package a.b\np := 1", r#"{"a":{"b":null}}"#)
                .unwrap_err()
                .contains("a/b")
        );
    }
}
