//! What can be wrong with a bundle.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a bundle was refused, or could not be written.
///
/// The text names the file inside the bundle and what was expected. Where OPA has a text for the
/// same fault, it is OPA's, so that dashboards that match on it keep working. The type is opaque:
/// causes may grow; [`kind`](Self::kind) tells them apart.
#[derive(Debug)]
pub struct BundleError {
    kind: BundleErrorKind,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

/// The sort of fault that a [`BundleError`] reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BundleErrorKind {
    /// The bytes, the file or the directory could not be read or written.
    Io,
    /// Not a gzip'd tar archive, or a damaged or truncated one.
    Archive,
    /// An entry whose name or type has no place in a bundle: a path traversal, a duplicate, a
    /// link that pretends to be a policy.
    Entry,
    /// A bound of [`Limits`](super::Limits) was passed.
    Limit,
    /// The `.manifest` cannot be understood or contradicts itself.
    Manifest,
    /// Roots overlap, or a module or data lies outside of them.
    Roots,
    /// A policy file is not text, or has no readable `package` clause.
    Module,
    /// A data file cannot be parsed, or two of them collide.
    Data,
    /// The patch of a delta cannot be parsed, or does not fit the data.
    Patch,
    /// The signature is missing, is not by a key that is trusted here, or is not of these files.
    Signature,
    /// A feature of OPA's bundles that this version does not have.
    Unsupported,
}

impl BundleError {
    pub(super) fn new(kind: BundleErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    pub(super) fn with_source(
        kind: BundleErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            source: Some(source.into()),
            ..Self::new(kind, message)
        }
    }

    pub(crate) fn delta_not_persistable() -> Self {
        Self::new(
            BundleErrorKind::Unsupported,
            "'persist' property is true in config. persisting delta bundle to disk is not supported",
        )
    }

    pub(super) fn io(action: impl fmt::Display, source: io::Error) -> Self {
        Self::with_source(BundleErrorKind::Io, format!("{action}: {source}"), source)
    }

    /// What sort of fault this is.
    #[must_use]
    pub fn kind(&self) -> BundleErrorKind {
        self.kind
    }
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for BundleError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}
