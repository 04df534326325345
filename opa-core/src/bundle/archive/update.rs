//! Reads an archive that may be a whole bundle or a delta: only its files tell which.

use std::io::Read;

use super::super::content::Content;
use super::super::delta::Delta;
use super::super::error::{BundleError, BundleErrorKind};
use super::super::path::{EntryPath, FileKind};
use super::super::store::Store;
use super::super::{ArchiveBytes, Bundle, Limits, Manifest, Verification};
use super::files::{Files, Listing, Survey};
use super::{Assembler, files_of, surveyed, with_data};

/// What an archive brings.
#[derive(Debug)]
pub enum Update {
    /// A whole bundle.
    Snapshot(Bundle),
    /// A change to the active bundle.
    Delta(Delta),
}

#[cfg(test)]
impl Update {
    /// The whole bundle that it is.
    pub(crate) fn into_bundle(self) -> Bundle {
        match self {
            Self::Snapshot(bundle) => bundle,
            Self::Delta(delta) => panic!("{delta:?}"),
        }
    }
}

/// Reads and checks an archive: a whole bundle as [`read_verified`](super::read_verified) does, or
/// a delta.
///
/// A delta is an archive with `patch.json` and nothing else but a `.manifest` (files that OPA does
/// not know are passed over). It is never signed: where `verification` wants signatures it is
/// refused, unless [`SigningConfig::allow_unsigned_delta_bundles`] says otherwise.
///
/// # Errors
/// As [`read_verified`](super::read_verified); [`BundleErrorKind::Patch`] if the patch is faulty.
///
/// [`SigningConfig::allow_unsigned_delta_bundles`]: crate::config::SigningConfig::allow_unsigned_delta_bundles
pub fn read_update(
    bytes: &[u8],
    limits: &Limits,
    verification: &Verification,
) -> Result<Update, BundleError> {
    update(|| bytes, limits, verification, &Store::default())
}

/// As [`read_update`]. What others hold in `store` is not made again, but every byte is read,
/// counted and checked again: what a file may be depends on who asks.
///
/// # Errors
/// As [`read_update`].
pub(crate) fn read_shared(
    archive: &ArchiveBytes,
    limits: &Limits,
    verification: &Verification,
    store: &Store,
) -> Result<Update, BundleError> {
    update(|| archive.reader(), limits, verification, store)
}

fn update<R: Read>(
    open: impl Fn() -> R,
    limits: &Limits,
    verification: &Verification,
    store: &Store,
) -> Result<Update, BundleError> {
    if verification.is_possible() {
        let found = files_of(&mut open(), limits, Find::default())?;
        if !found.patch {
            return surveyed(open, limits, verification, store, found.survey).map(Update::Snapshot);
        }
        verification.permit_delta()?;
    }
    let files = files_of(&mut open(), limits, Either::new())?;
    match files.patch {
        Some((_, patch)) => {
            let manifest = files.manifest.unwrap_or_default();
            Delta::read(manifest, &patch).map(Update::Delta)
        }
        None => with_data(files.listing, open, limits, store).map(Update::Snapshot),
    }
}

/// What must be known before any content is read.
#[derive(Default)]
struct Find {
    survey: Survey,
    patch: bool,
}

impl Files for Find {
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        self.patch |= path.kind() == FileKind::Patch;
        self.survey.announce(path)
    }

    fn add(&mut self, path: EntryPath, content: Content<'_>) -> Result<(), BundleError> {
        self.survey.add(path, content)
    }
}

/// The files of a bundle, until there is a patch among them.
struct Either {
    listing: Listing,
    /// Kept for a delta, whose patch may still come.
    manifest: Option<Manifest>,
    patch: Option<(EntryPath, Vec<u8>)>,
    /// What has no place beside a patch.
    other: Option<EntryPath>,
}

impl Either {
    fn new() -> Self {
        Self {
            listing: Listing(Assembler::new()),
            manifest: None,
            patch: None,
            other: None,
        }
    }

    fn check_alone(&self, is_delta: bool) -> Result<(), BundleError> {
        match &self.other {
            Some(other) if is_delta => Err(not_alone(other)),
            _ => Ok(()),
        }
    }
}

impl Files for Either {
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        match path.kind() {
            FileKind::Patch => {
                if let Some((first, _)) = &self.patch {
                    return Err(BundleError::new(
                        BundleErrorKind::Entry,
                        format!(
                            "bundle contains multiple patch files: \"{}\" and \"{}\"",
                            first.shown(),
                            path.shown()
                        ),
                    ));
                }
                self.check_alone(true)?;
                return Ok(true);
            }
            FileKind::Manifest | FileKind::Other => {}
            _ => {
                self.other.get_or_insert_with(|| path.clone());
                self.check_alone(self.patch.is_some())?;
            }
        }
        self.listing.announce(path)
    }

    fn add(&mut self, path: EntryPath, content: Content<'_>) -> Result<(), BundleError> {
        match path.kind() {
            FileKind::Patch => {
                self.patch = Some((path, content.bytes()?));
                Ok(())
            }
            FileKind::Manifest => {
                let bytes = content.bytes()?;
                self.manifest = Some(Manifest::from_json(&bytes)?);
                self.listing.0.add_bytes(path, bytes)
            }
            _ => self.listing.add(path, content),
        }
    }
}

/// OPA's texts; it passes over a plan and a signature, which say that something else was meant.
fn not_alone(other: &EntryPath) -> BundleError {
    let found = match other.kind() {
        FileKind::DataJson | FileKind::DataYaml => "data files",
        FileKind::Rego => "policy files",
        FileKind::Wasm => "wasm files",
        FileKind::Signatures => "signatures",
        _ => "other files",
    };
    BundleError::new(
        BundleErrorKind::Entry,
        format!(
            "delta bundle expected to contain only patch file but {found} found: `{}`",
            other.shown()
        ),
    )
}
