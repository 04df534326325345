use std::sync::Arc;

use opa_rego::RegoVersion;
use sha2::{Digest, Sha256};

/// One Rego file of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    id: Arc<str>,
    source: Arc<str>,
    version: RegoVersion,
    digest: [u8; 32],
}

impl Module {
    /// A module; `id` is what errors call it, such as `<bundle>/<path>`.
    pub fn new(id: impl Into<Arc<str>>, source: impl Into<Arc<str>>, version: RegoVersion) -> Self {
        let source = source.into();
        let digest = Sha256::digest(source.as_bytes()).into();
        Self {
            id: id.into(),
            source,
            version,
            digest,
        }
    }

    /// A module in Rego v1.
    pub fn v1(id: impl Into<Arc<str>>, source: impl Into<Arc<str>>) -> Self {
        Self::new(id, source, RegoVersion::V1)
    }

    /// What errors call the module.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The language version.
    #[must_use]
    pub fn version(&self) -> RegoVersion {
        self.version
    }
}

/// The modules of one policy, sorted by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleSet {
    modules: Arc<[Module]>,
}

impl ModuleSet {
    /// A set of modules. Of two modules with the same id the last one stays.
    pub fn new(modules: impl IntoIterator<Item = Module>) -> Self {
        let sorted: std::collections::BTreeMap<_, _> = modules
            .into_iter()
            .map(|module| (Arc::clone(&module.id), module))
            .collect();
        Self {
            modules: sorted.into_values().collect(),
        }
    }

    /// The modules, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter()
    }

    /// How many modules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// SHA-256 over ids, versions and contents: equal sets, and only those, have equal digests.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for module in self.modules.iter() {
            hash.update((module.id.len() as u64).to_le_bytes());
            hash.update(module.id.as_bytes());
            hash.update([module.version as u8]);
            hash.update(module.digest);
        }
        hash.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_depends_on_id_version_and_content_but_not_on_order() {
        let a = Module::v1("a", "package a");
        let b = Module::v1("b", "package b");
        let both = ModuleSet::new([a.clone(), b.clone()]);
        assert_eq!(
            both.digest(),
            ModuleSet::new([b.clone(), a.clone()]).digest()
        );
        for other in [
            vec![a.clone()],
            vec![Module::v1("x", "package a"), b.clone()],
            vec![Module::v1("a", "package x"), b.clone()],
            vec![Module::new("a", "package a", RegoVersion::V0), b],
        ] {
            assert_ne!(both.digest(), ModuleSet::new(other).digest());
        }
    }
}
