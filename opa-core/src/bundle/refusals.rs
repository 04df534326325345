//! What bundles are refused for by more than one reader.

use std::io;

use super::Limits;
use super::bounded::{Passed, SourceFailed};
use super::error::{BundleError, BundleErrorKind};
use super::path::EntryPath;

/// The fault of an archive that can't be read on.
pub(super) fn failed(error: io::Error, limits: &Limits) -> BundleError {
    let inner = error.get_ref();
    if inner.is_some_and(|inner| inner.is::<Passed>()) {
        return total_too_large(limits);
    }
    if inner.is_some_and(|inner| inner.is::<SourceFailed>()) {
        return BundleError::io("bundle read failed", error);
    }
    BundleError::with_source(
        BundleErrorKind::Archive,
        format!("archive read failed: {error}"),
        error,
    )
}

pub(super) fn refused(path: &EntryPath, expected: &str) -> BundleError {
    BundleError::new(
        BundleErrorKind::Entry,
        format!("bundle entry `{}` refused: expected {expected}", path.raw()),
    )
}

pub(super) fn file_too_large(name: &str, size: u64, limits: &Limits) -> BundleError {
    BundleError::new(
        BundleErrorKind::Limit,
        format!(
            "bundle file {name} size ({size} bytes) exceeds configured size_limit_bytes ({} bytes)",
            limits.file_bytes()
        ),
    )
}

pub(super) fn total_too_large(limits: &Limits) -> BundleError {
    BundleError::new(
        BundleErrorKind::Limit,
        format!(
            "bundle is larger than {} bytes uncompressed, the limit of all files together",
            limits.total_bytes()
        ),
    )
}

pub(super) fn too_many_entries(limits: &Limits) -> BundleError {
    BundleError::new(
        BundleErrorKind::Limit,
        format!(
            "bundle has more than {} entries, the limit",
            limits.entries()
        ),
    )
}

pub(super) fn damaged(found: &str) -> BundleError {
    BundleError::new(
        BundleErrorKind::Archive,
        format!("archive read failed: found {found}"),
    )
}

/// A data file that can't be parsed.
pub(super) fn malformed(
    path: &EntryPath,
    error: impl std::error::Error + Send + Sync + 'static,
) -> BundleError {
    BundleError::with_source(
        BundleErrorKind::Data,
        format!("bundle load failed on {}: {error}", path.shown()),
        error,
    )
}
