use std::sync::Arc;

use super::activation::Loaded;
use super::{ActivationError, Instance, Ticket};
use crate::bundle::{self, ArchiveBytes, BundleError, Limits, Update, Verification};

/// What came for a bundle, read and its signature verified.
pub(crate) struct Incoming {
    pub(crate) update: Update,
    /// As downloaded, in bytes.
    pub(crate) size: u64,
    pub(crate) etag: Option<Arc<str>>,
    /// When the source answered, in milliseconds of the manager's clock; `None` if an earlier process
    /// kept it: whether it is current is not known.
    pub(crate) contacted_ms: Option<u64>,
}

impl Instance {
    /// Reads and checks what came for a bundle. What other apps hold of it is shared. Blocks.
    ///
    /// # Errors
    /// As [`bundle::read_update`].
    pub(crate) fn read_update(
        &self,
        archive: &ArchiveBytes,
        (limits, verification): (&Limits, &Verification),
    ) -> Result<Update, BundleError> {
        bundle::read_shared(archive, limits, verification, &self.shared.bundles)
    }

    /// Puts what came in the place of the bundle of that name, or applies it to that, and serves
    /// what comes of it: all or nothing. Runs on a thread that may block.
    ///
    /// # Errors
    /// Whatever is wrong with it; what was served before goes on.
    pub(crate) fn take(
        &self,
        loaded: &mut Loaded,
        (name, ticket): (&Arc<str>, &Ticket),
        incoming: Incoming,
        (limits, verification): (&Limits, &Verification),
    ) -> Result<(), ActivationError> {
        let Incoming {
            update,
            size,
            etag,
            contacted_ms,
        } = incoming;
        if ticket.is_retired() {
            return Ok(());
        }
        let (kind, bundle) = match update {
            Update::Delta(delta) => {
                // What came from elsewhere is nothing that this source knows how to change.
                let base = loaded.of_lineage(name, ticket.lineage());
                let patched = delta.apply(name, base.map(|base| &**base), limits)?;
                ("delta", Arc::new(patched))
            }
            Update::Snapshot(bundle) => {
                let newest = loaded.newest(name);
                verification.check_age(newest.map(|newest| &**newest), &bundle)?;
                ("snapshot", Arc::new(bundle))
            }
        };
        self.activate(loaded, (name, ticket), bundle, (size, etag, contacted_ms))?;
        self.note_bundle(name, |status| status.bundle_type = Some(kind));
        Ok(())
    }
}

/// Why a delta is refused where bundles are kept: what is on disk would no longer be what is active,
/// and no etag would fit it. OPA's text.
pub(crate) fn check_persistable(update: &Update) -> Result<(), ActivationError> {
    match update {
        Update::Snapshot(_) => Ok(()),
        Update::Delta(_) => Err(BundleError::delta_not_persistable().into()),
    }
}
