//! Delta bundles: a change to the data of the active bundle instead of a whole one.
//!
//! An archive with `patch.json`, and with a `.manifest` whose roots are those of the active bundle.
//! A patch is applied as a whole or not at all, and makes a new [`Bundle`]: what it does not touch
//! is shared with the old one.

mod edit;
mod patch;
mod pointer;
mod write;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

pub(super) use self::edit::Editor;
use self::patch::{Operation, Verb};
pub use self::write::delta_archive;
use super::digest::{sha256, sha256_of_named};
use super::error::{BundleError, BundleErrorKind};
use super::roots::{self, RootTree};
use super::{Bundle, Limits, Manifest};

/// A change to the data of a bundle, read and checked as far as the bundle itself is not needed.
///
/// ```
/// use opa_core::bundle::{self, BundleWriter, Limits, Manifest, Update, Verification};
/// use opa_rego::Value;
///
/// let base = BundleWriter::new()
///     .roots(["roles"])?
///     .data("roles", &Value::from_json(br#"{"ann": ["admin"]}"#).unwrap())?
///     .bundle()?;
/// let manifest = Manifest::default().with_revision("r2").with_roots(["roles"])?;
/// let patch = br#"{"data": [{"op": "upsert", "path": "/roles/bob", "value": ["clerk"]}]}"#;
/// let archive = bundle::delta_archive(&manifest, &Value::from_json(patch).unwrap())?;
///
/// let limits = Limits::default();
/// let Update::Delta(delta) = bundle::read_update(&archive, &limits, &Verification::default())? else {
///     panic!("the archive has a patch");
/// };
/// let patched = delta.apply("authz", Some(&base), &limits)?;
/// assert_eq!(patched.revision().map(|revision| &**revision), Some("r2"));
/// assert_eq!(patched.data().to_json(), r#"{"roles":{"ann":["admin"],"bob":["clerk"]}}"#);
/// # Ok::<(), opa_core::bundle::BundleError>(())
/// ```
#[derive(Debug)]
pub struct Delta {
    manifest: Manifest,
    operations: Vec<Operation>,
    sha256: [u8; 32],
    bytes: u64,
}

impl Delta {
    /// Reads the content of a `patch.json`.
    ///
    /// # Errors
    /// It is no list of operations, an operation is none that OPA knows, or its path is no path or
    /// lies outside of the manifest's roots.
    pub(super) fn read(manifest: Manifest, patch: &[u8]) -> Result<Self, BundleError> {
        let operations = patch::read(patch)?;
        let owned = RootTree::new(manifest.roots().iter().map(String::as_str));
        for operation in &operations {
            // OPA looks at the path as it is spelled, and writes where the decoded one leads.
            let spelled = roots::segments(operation.spelled());
            let decoded = operation.path().iter().map(String::as_str);
            if !owned.contains(spelled) || !owned.contains(decoded) {
                return Err(BundleError::new(
                    BundleErrorKind::Roots,
                    format!(
                        "manifest roots {} do not permit data patch at path '{}'",
                        roots::shown(manifest.roots()),
                        operation.spelled()
                    ),
                ));
            }
        }
        Ok(Self {
            manifest,
            operations,
            sha256: sha256(patch),
            bytes: patch.len() as u64,
        })
    }

    /// What the delta says about itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Makes the new bundle of the active one. `name` is the bundle's, for errors; with no bundle
    /// active, the change is made to an empty one, as in OPA.
    ///
    /// The new bundle has the delta's manifest. A patch without operations changes nothing but the
    /// revision (OPA takes it for a bundle without content).
    ///
    /// # Errors
    /// The roots are not those of the active bundle, an operation does not fit the data, or a limit
    /// is passed. The active bundle is as it was in any case.
    pub fn apply(
        &self,
        name: &str,
        base: Option<&Bundle>,
        limits: &Limits,
    ) -> Result<Bundle, BundleError> {
        let Some(base) = base else {
            let nothing = Bundle::empty(self.manifest.clone());
            return self.patched(&nothing, limits);
        };
        if root_set(&self.manifest) != root_set(&base.manifest) {
            return Err(BundleError::new(
                BundleErrorKind::Roots,
                format!(
                    "delta bundle '{name}' has wasm resolvers or manifest roots that are different \
                     from those in the store"
                ),
            ));
        }
        self.patched(base, limits)
    }

    fn patched(&self, base: &Bundle, limits: &Limits) -> Result<Bundle, BundleError> {
        if self.operations.is_empty() {
            let revision = self.manifest.shared_revision().clone();
            return Ok(Bundle {
                manifest: base.manifest.clone().with_revision(revision),
                ..base.clone()
            });
        }
        let patched_bytes = self.check_growth(base, limits)?;
        let mut editor = Editor::new(base.data());
        for (number, operation) in (1..).zip(&self.operations) {
            editor
                .run(operation)
                .map_err(|fault| failed(&fault, number, operation))?;
        }
        // Names what was there and what was done to it: equal names mean equal data.
        let parts = [("data", base.data_digest), ("patch", self.sha256)];
        Ok(Bundle {
            manifest: self.manifest.clone(),
            data: editor.finish(),
            data_digest: sha256_of_named(parts),
            patched_bytes,
            ..base.clone()
        })
    }

    /// All deltas since the last snapshot together are bounded as the snapshot is, except that
    /// what one replaces counts only as long as it need not be looked for.
    fn check_growth(&self, base: &Bundle, limits: &Limits) -> Result<u64, BundleError> {
        let grown = base.patched_bytes.saturating_add(self.bytes);
        if grown <= limits.total_bytes() {
            return Ok(grown);
        }
        let size = edit::size(base.data()).saturating_add(self.bytes);
        if size <= limits.total_bytes() {
            return Ok(self.bytes);
        }
        Err(BundleError::new(
            BundleErrorKind::Limit,
            format!(
                "delta makes more than {} bytes of data, the limit of all files together",
                limits.total_bytes()
            ),
        ))
    }
}

fn root_set(manifest: &Manifest) -> BTreeSet<&str> {
    manifest.roots().iter().map(String::as_str).collect()
}

/// OPA's text, and which operation it is about.
fn failed(fault: &str, number: usize, operation: &Operation) -> BundleError {
    let verb = match operation.verb() {
        Verb::Upsert => "upsert",
        Verb::Remove => "remove",
        Verb::Replace => "replace",
    };
    let spelled: String = operation.spelled().chars().take(200).collect();
    BundleError::new(
        BundleErrorKind::Patch,
        format!("{fault} (patch operation {number}: {verb} `/{spelled}`)"),
    )
}
