//! What was read from the spool and is being delivered.

use std::sync::Arc;

use super::super::super::spool::RecordId;
use super::stream::Stream;

/// Records on their way to the output. They stay in the spool until they are settled; dropped, they
/// are the oldest again.
pub(in super::super) struct InFlight {
    pub(super) stream: Arc<Stream>,
    pub(super) ids: Vec<RecordId>,
    /// When they are delivered again it is together, not with others.
    pub(super) stays_together: bool,
}

impl InFlight {
    /// The output has them but for `rejected` ones, which it never takes.
    pub(in super::super) fn settle(mut self, rejected: u64) {
        self.stays_together = false;
        self.stream.delivered(&self.ids, rejected);
    }

    /// They could not be delivered.
    pub(in super::super) fn put_back(self) {}
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.stream
            .landed(self.stays_together.then_some(self.ids.len()));
    }
}
