//! Reads an archive that may be a whole bundle or a delta: only its files tell which.

use super::super::delta::Delta;
use super::super::error::{BundleError, BundleErrorKind};
use super::super::path::{EntryPath, FileKind};
use super::super::signature::Signatures;
use super::super::{Bundle, Limits, Manifest, Verification};
use super::files::{Files, FindSignatures};
use super::{Assembler, files_of, verified};

/// What an archive brings.
#[derive(Debug)]
pub enum Update {
    /// A whole bundle.
    Snapshot(Bundle),
    /// A change to the active bundle.
    Delta(Delta),
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
    if verification.is_possible() {
        let found = files_of(&mut &*bytes, limits, Find::default())?;
        if !found.patch {
            let signatures = found.signatures.found();
            return verified(bytes, limits, verification, signatures).map(Update::Snapshot);
        }
        verification.permit_delta()?;
    }
    let update = files_of(&mut &*bytes, limits, Either::new())?.finish()?;
    match update {
        Update::Snapshot(bundle) if bundle.is_signed() => Err(Signatures::without_key()),
        update => Ok(update),
    }
}

/// What must be known before any content is read.
#[derive(Default)]
struct Find {
    signatures: FindSignatures,
    patch: bool,
}

impl Files for Find {
    fn announce(&mut self, path: &EntryPath) -> Result<bool, BundleError> {
        self.patch |= path.kind() == FileKind::Patch;
        self.signatures.announce(path)
    }

    fn add(&mut self, path: EntryPath, content: Vec<u8>) -> Result<(), BundleError> {
        self.signatures.add(path, content)
    }
}

/// The files of a bundle, until there is a patch among them.
struct Either {
    assembler: Assembler,
    /// Kept for a delta, whose patch may still come.
    manifest: Option<Manifest>,
    patch: Option<(EntryPath, Vec<u8>)>,
    /// What has no place beside a patch.
    other: Option<EntryPath>,
}

impl Either {
    fn new() -> Self {
        Self {
            assembler: Assembler::new(),
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

    fn finish(self) -> Result<Update, BundleError> {
        match self.patch {
            Some((_, patch)) => {
                let manifest = self.manifest.unwrap_or_default();
                Delta::read(manifest, &patch).map(Update::Delta)
            }
            None => self.assembler.finish().map(Update::Snapshot),
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
        self.assembler.announce(path)
    }

    fn add(&mut self, path: EntryPath, content: Vec<u8>) -> Result<(), BundleError> {
        match path.kind() {
            FileKind::Patch => {
                self.patch = Some((path, content));
                return Ok(());
            }
            FileKind::Manifest => self.manifest = Some(Manifest::from_json(&content)?),
            _ => {}
        }
        self.assembler.add(path, content)
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
