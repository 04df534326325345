use std::sync::Arc;

use http::StatusCode;
use opa_core::AppId;

use crate::decision_logs::AppCounts;
use crate::decision_logs::chunk::ChunkCounters;
use crate::status::Buffer;

/// What metrics tell of decision logs.
///
/// A list of [`AppEvents`], or of what makes them, is one, too: without chunks and buffers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogReport {
    /// What became of the events of each app.
    pub apps: Vec<AppEvents>,
    /// How many chunks services took, of all apps, also of those that are gone.
    pub chunks_uploaded: u64,
    /// How often a service did not take a chunk.
    pub chunks_upload_failed: u64,
    /// The events that wait in buffers whose limit is one of events.
    pub buffered_events: u64,
    /// The bytes that wait in buffers whose limit is one of bytes.
    pub buffered_bytes: u64,
}

impl<E: Into<AppEvents>> From<Vec<E>> for LogReport {
    fn from(apps: Vec<E>) -> Self {
        Self {
            apps: apps.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

/// How the last upload of an app's events ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LastUpload {
    /// The events were taken.
    Success,
    /// They were not; with the server's answer, if there was one.
    Failure(Option<StatusCode>),
}

/// What became of the events of an app, for its metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppEvents {
    /// The app.
    pub app: AppId,
    /// Where the events go, if there are several such places: it becomes the label `output`.
    pub output: Option<String>,
    /// What became of them.
    pub counts: AppCounts,
    /// What happened while chunks were made of them.
    pub chunks: ChunkCounters,
    /// How the last upload ended; `None` before the first one.
    pub last_upload: Option<LastUpload>,
    /// What waits in memory, in the unit of the buffer's limit; `None`, if that isn't known, counts as
    /// bytes.
    pub buffer: Option<Buffer>,
}

impl AppEvents {
    /// The events of `app`.
    #[must_use]
    pub fn new(app: AppId, counts: AppCounts) -> Self {
        Self {
            app,
            output: None,
            counts,
            chunks: ChunkCounters::default(),
            last_upload: None,
            buffer: None,
        }
    }

    /// Where they go.
    #[must_use]
    pub fn output(mut self, output: impl Into<String>) -> Self {
        self.output = Some(output.into());
        self
    }

    /// How many were dropped for which reason; reasons at zero as well.
    pub(super) fn dropped(&self) -> [(&'static str, u64); 11] {
        let counts = &self.counts;
        [
            ("buffer_full", counts.buffer_full),
            ("queue_full", counts.queue_full),
            ("refused", counts.refused),
            ("rejected", counts.rejected),
            ("not_delivered", counts.not_delivered),
            ("damaged", counts.damaged),
            ("abandoned", counts.abandoned),
            ("encoding_failed", counts.encoding_failed),
            ("rate_limited", counts.rate_limited),
            ("sampled_out", counts.sampled_out),
            ("policy", counts.dropped_by_policy),
        ]
    }
}

impl From<(AppId, AppCounts)> for AppEvents {
    fn from((app, counts): (AppId, AppCounts)) -> Self {
        Self::new(app, counts)
    }
}

/// As [`DecisionLogs::app_counts`](crate::decision_logs::DecisionLogs::app_counts) tells them.
impl From<(AppId, Arc<str>, AppCounts)> for AppEvents {
    fn from((app, output, counts): (AppId, Arc<str>, AppCounts)) -> Self {
        Self::new(app, counts).output(&*output)
    }
}
