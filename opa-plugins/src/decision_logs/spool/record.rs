use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use opa_core::AppId;

/// Whose records are kept in order: an output of an app.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName {
    /// The app.
    pub app: AppId,
    /// The name of its output.
    pub output: Arc<str>,
}

impl StreamName {
    /// A name.
    pub fn new(app: AppId, output: impl Into<Arc<str>>) -> Self {
        Self {
            app,
            output: output.into(),
        }
    }
}

/// The place of a record among all of its spool, over restarts: of two, the larger one was appended
/// later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub(super) u64);

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A logged decision, masked and encoded.
///
/// Its `Debug` form doesn't show what was decided.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Where it goes.
    pub stream: StreamName,
    /// The decision's id.
    pub decision_id: Arc<str>,
    /// When the decision was asked for.
    pub timestamp: SystemTime,
    /// The event as OPA uploads it: JSON in UTF-8.
    pub json: Bytes,
}

impl Record {
    /// A record.
    #[must_use]
    pub fn new(
        stream: StreamName,
        decision_id: Arc<str>,
        timestamp: SystemTime,
        json: Bytes,
    ) -> Self {
        Self {
            stream,
            decision_id,
            timestamp,
            json,
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("stream", &self.stream)
            .field("decision_id", &self.decision_id)
            .field("timestamp", &self.timestamp)
            .field("json", &format_args!("{} bytes", self.json.len()))
            .finish()
    }
}
