use std::fmt;
use std::sync::Arc;

use crate::plugin::{BundleRevision, EventError};
use crate::{AppId, Reason, Value};

/// The outcome of one evaluation. Cloning is cheap.
///
/// A layer puts it into the request's and the response's extensions.
#[derive(Clone)]
pub struct Decision(pub(super) Arc<Inner>);

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) id: Arc<str>,
    pub(super) app: AppId,
    pub(super) path: Option<Arc<str>>,
    pub(super) bundles: Arc<[BundleRevision]>,
    pub(super) result: Option<Value>,
    pub(super) reason: Reason,
    pub(super) error: Option<EventError>,
}

impl Decision {
    /// The decision's id, as in the decision log.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// The app whose policy was asked.
    #[must_use]
    pub fn app(&self) -> &AppId {
        &self.0.app
    }

    /// The path below `data` that was asked for; `None` when the request was refused before.
    #[must_use]
    pub fn path(&self) -> Option<&str> {
        self.0.path.as_deref()
    }

    /// The bundles that were active, sorted by name.
    #[must_use]
    pub fn bundles(&self) -> &[BundleRevision] {
        &self.0.bundles
    }

    /// The revision of the first bundle that has one.
    #[must_use]
    pub fn revision(&self) -> Option<&str> {
        self.0
            .bundles
            .iter()
            .find_map(|bundle| bundle.revision.as_deref())
    }

    /// The policy's whole answer; `None` when it is undefined or failed.
    #[must_use]
    pub fn result(&self) -> Option<&Value> {
        self.0.result.as_ref()
    }

    /// Why the decision is what it is.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// What failed. The text can carry values of the input: it is for logs, not for clients.
    #[must_use]
    pub fn error(&self) -> Option<&EventError> {
        self.0.error.as_ref()
    }

    /// Whether the policy allowed, or dry-run let the request pass.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        matches!(self.0.reason, Reason::Allowed | Reason::DryRun)
    }
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decision")
            .field("id", &self.0.id)
            .field("app", &self.0.app)
            .field("reason", &self.0.reason)
            .finish_non_exhaustive()
    }
}
