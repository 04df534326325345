//! What bundles have in common is held once: files, data and policies, addressed by their content.
//!
//! Nothing here keeps anything in memory. A store only finds what somebody holds, by the SHA-256 of
//! the bytes that it was made of, and makes it once for all who ask at the same time. Who asks has
//! read the bytes: limits and signatures are checked for each app by itself, over its own bytes.

mod slots;

use std::sync::Arc;

use opa_rego::Value;

use super::ModuleText;
use super::error::BundleError;
pub(crate) use slots::Slots;

/// SHA-256.
pub(crate) type Sha256Digest = [u8; 32];

/// The files and the data of all bundles of a manager.
#[derive(Debug, Default)]
pub(crate) struct Store {
    modules: Slots<Sha256Digest, Arc<ModuleText>>,
    files: Slots<(Format, Sha256Digest), Value>,
    trees: Slots<(TreeOf, Sha256Digest), Value>,
}

/// How the bytes of a data file are read: the same ones can make different values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Format {
    Json,
    Yaml,
}

/// What a tree of data is made of, which its digest is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum TreeOf {
    /// The data files of a bundle: their paths and hashes.
    Bundle,
    /// The bundles of an app: their roots and the digests of their data.
    Union,
}

impl Store {
    /// The policy file whose bytes have this hash.
    pub(super) fn module(
        &self,
        sha256: Sha256Digest,
        make: impl FnOnce() -> Result<ModuleText, BundleError>,
    ) -> Result<Arc<ModuleText>, BundleError> {
        self.modules.get_or_make(sha256, || make().map(Arc::new))
    }

    /// The value of the data file whose bytes have this hash.
    pub(super) fn file(
        &self,
        format: Format,
        sha256: Sha256Digest,
        make: impl FnOnce() -> Result<Value, BundleError>,
    ) -> Result<Value, BundleError> {
        self.files.get_or_make((format, sha256), make)
    }

    /// The tree of data with this digest.
    pub(super) fn tree(
        &self,
        of: TreeOf,
        digest: Sha256Digest,
        make: impl FnOnce() -> Result<Value, BundleError>,
    ) -> Result<Value, BundleError> {
        self.trees.get_or_make((of, digest), make)
    }

    /// How many policy files, data files and trees are in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> (usize, usize, usize) {
        (self.modules.used(), self.files.used(), self.trees.used())
    }
}

#[cfg(test)]
mod tests;
