use std::sync::Arc;

use opa_core::AppId;

use crate::decision_logs::AppCounts;

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
}

impl AppEvents {
    /// The events of `app`.
    #[must_use]
    pub fn new(app: AppId, counts: AppCounts) -> Self {
        Self {
            app,
            output: None,
            counts,
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
