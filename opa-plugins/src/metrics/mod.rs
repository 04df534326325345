//! Metrics for Prometheus, of all apps of a manager.
//!
//! [`Metrics::text`] is what a scrape is answered with. Everything is read when it is asked for; only
//! the [time](Manager::decision_times) of decisions is noted as they end. The operator's endpoints of `opa-tower` serve it
//! as `GET /metrics`.
//!
//! ```
//! use opa_core::{Manager, Value};
//! use opa_core::engine::Module;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = Module::v1("a.rego", "package a\nallow := true");
//! let manager = Manager::in_memory([policy], Value::empty_object())?;
//! let app = manager.app("shop")?;
//! app.ready(std::time::Duration::from_secs(5)).await?;
//! app.decide("a/allow", Value::empty_object()).await;
//!
//! let metrics = opa_plugins::metrics(&manager);
//! let text = metrics.text();
//! assert!(text.contains(r#"opa_instance_state{app="shop",state="ready"} 1"#));
//! assert!(text.contains(r#"opa_decisions_total{app="shop",outcome="decided",reason="decided"} 1"#));
//! # Ok(())
//! # }
//! ```
//!
//! # Series of an app
//!
//! Each has the label `app`, and goes with the instance: when an app that was closed starts again
//! its counters begin at zero. Counters at zero, and times at which nothing happened yet, are left
//! out. An app has at most [12 series](Metrics::max_series_per_app); when it could have more, those
//! that are further below in this table are left out, and counted in `opa_metrics_omitted_series`.
//! Those from `last_success_bundle_download` on tell nothing that a usual app's other series don't
//! tell: they fill the room that is left, and are not counted as omitted.
//!
//! | metric | labels | what it tells |
//! | --- | --- | --- |
//! | `opa_instance_state` | `state` | 1 for `starting`, `ready` or `failed` |
//! | `opa_instance_configuration_problem` | | 1 while it isn't what the configuration says now |
//! | `opa_bundle_stale` | `name` | 1 while decisions are refused because its source is silent |
//! | `bundle_failed_load_counter` | `name`, `code`, `message` | failures of the class that it fails with now; `message` is a [class](opa_core::FailureClass), `code` is OPA's |
//! | `plugin_status_gauge` | `name`, `status` | 1 for the state of one of OPA's plugins `bundle`, `decision_logs`, `discovery` and `status` that isn't `OK` |
//! | `decision_logs_status_gauge` | `code`, `http_code` | 1 for an upload that failed, if it was the last one |
//! | `opa_decisions_total` | `outcome`, `reason` | decisions that were refused without a policy's answer (`outcome="error"`) |
//! | `opa_decision_log_events_dropped_total` | `reason` | events that were lost or dropped |
//! | `last_success_bundle_activation` | `name`, `active_revision` | when, in nanoseconds since 1970, and which revision, of which the first 256 bytes count |
//! | `last_success_bundle_request` | `name` | when its source last answered, in nanoseconds since 1970 |
//! | `opa_decisions_total` | `outcome`, `reason` | all other decisions: `allowed`, `denied`, `decided` ([`App::decide`](opa_core::App::decide)), `cancelled` |
//! | `bundle_loaded_counter` | `name` | activations |
//! | `opa_decision_log_events_delivered_total` | | events that the service or the console took |
//! | `opa_decision_log_events_buffered` | | events that wait in memory alone |
//! | `opa_decision_log_events_spooled` | | events that wait in the spool |
//! | `plugin_status_gauge` | `name`, `status` | 1 for the plugin `bundle` that is `OK` |
//! | `opa_instance_start_time_seconds` | | when the instance was started, since 1970 |
//! | `opa_instance_reuses_total` | | how often it was used again within its grace period |
//! | `opa_instance_data_bytes` | `use` | the uncompressed data files that it serves: `shared` with other apps, or its `own` |
//! | `opa_instance_policy_bytes` | `use` | the same of its policies |
//! | `decision_logs_…_total` | | OPA's counters of dropped events: `dropped_rate_limit_exceeded`, `dropped_buffer_size_limit_bytes_exceeded`, `encoding_failure`, `dropped_buffer_size_limit_exceeded` |
//! | `decision_logs_nd_builtin_cache_dropped_total` | | events that were sent without it, to fit |
//! | `enc_log_exceeded_upload_size_limit_bytes_total` | | events that were too large as they came |
//! | `bundle_failed_load_counter` | `name`, `code`, `message` | failures of other classes |
//! | `last_success_bundle_download` | `name` | when bytes of a bundle last came |
//! | `last_bundle_request` | `name` | when its source was last asked |
//! | `plugin_status_gauge` | `name`, `status` | 1 for any other plugin that is `OK` |
//! | `decision_logs_status_gauge` | `code`, `http_code` | 1 with both empty, if the last upload was taken |
//!
//! Those of decision logs have the label `output`, too, where a program's
//! [report](Metrics::decision_logs) names outputs.
//!
//! Sizes are those of files: what is made of them takes more memory. They are `shared` if another
//! app serves the very same policy, or the very same data, as a whole.
//!
//! # Series of the process
//!
//! | metric | labels | what it tells |
//! | --- | --- | --- |
//! | `opa_info` | `version` | 1 for the version of OPA that is spoken |
//! | `opa_instances` | `state` | how many instances there are |
//! | `opa_policies_bytes`, `opa_data_bytes` | | what all instances serve, what they share counted once |
//! | `opa_decision_duration_seconds` | | a histogram of the time from the question to the decision; recorded once there are [`Metrics`], of apps that are gone as well |
//! | `bundle_loading_duration_ns` | `stage` | OPA's histogram of the stages of loading a bundle; with [`histograms_by_app`](Metrics::histograms_by_app) by `app` and `name` |
//! | `opa_plugins` | `name`, `status` | how many instances have which of OPA's plugins in which state |
//! | `decision_logs_chunks_uploaded_total` | | chunks that services took, also of apps that are gone; this and the next three once there is a report of [decision logs](Metrics::decision_logs) |
//! | `decision_logs_chunks_upload_failed_total` | | how often a service did not take one |
//! | `decision_logs_buffer_size_events` | | events that wait in buffers with a limit of events |
//! | `decision_logs_buffer_size_bytes` | | bytes that wait in buffers with a limit of bytes, also those that are in no chunk yet |
//! | `opa_metrics_omitted_series` | | series that apps have too many of |
//!
//! # What differs from OPA
//!
//! The names and help texts are those of OPA 1.22.2. `bundle_loaded_counter` and
//! `bundle_failed_load_counter` count activations and failures, where OPA counts reports of its
//! status: each poll that finds nothing new is one there. A time at which nothing happened is
//! missing, where OPA has a negative number. `message` is a class, where OPA has the error's text.
//! The stages are `timer_bundle_request_ns`, `timer_rego_load_bundles_ns` and
//! `timer_rego_module_compile_ns`: modules are parsed by the engine, as a part of compiling them, so
//! that `timer_rego_module_parse_ns` is in that; as in OPA, downloaded bundles have no
//! `timer_rego_data_parse_ns`. `decision_logs_dropped_buffer_size_limit_…` count events, where OPA
//! counts chunks. Chunks and buffers are told of all apps together, where OPA has one app.
//!
//! Not there: `http_request_duration_seconds` and `http_request_cancellations`, which are of OPA's
//! own server (a service has its own, and decisions are timed here); `disk_…`, of a storage that
//! isn't here; and the `go_…` of its runtime.

mod events;
mod family;
mod process;
mod sample;
mod series;
mod text;

use std::fmt;
use std::sync::Arc;

use opa_core::Manager;

pub use events::{AppEvents, LastUpload, LogReport};
use series::Board;

#[cfg(test)]
mod tests;

/// How many series an app has at most, if nothing else is said.
const MAX_SERIES: usize = 12;

/// Metrics of the apps of `manager`, whose decisions are timed from now on. See the
/// [module docs](self).
#[must_use]
pub fn metrics(manager: &Manager) -> Metrics {
    // The first look begins it.
    let _ = manager.decision_times();
    Metrics {
        manager: manager.clone(),
        events: None,
        max_series: MAX_SERIES,
        by_app: false,
    }
}

/// What is told of decision logs.
type Events = Arc<dyn Fn() -> LogReport + Send + Sync>;

/// Metrics of all apps of a manager, of which it holds a clone. See the [module docs](self).
#[derive(Clone)]
pub struct Metrics {
    manager: Manager,
    events: Option<Events>,
    max_series: usize,
    by_app: bool,
}

impl Metrics {
    /// Tells what became of the events of decision logs, too: `report` is asked at each scrape, such
    /// as [`DecisionLogs::report`](crate::decision_logs::DecisionLogs::report).
    #[must_use]
    pub fn decision_logs<R: Into<LogReport>>(
        mut self,
        report: impl Fn() -> R + Send + Sync + 'static,
    ) -> Self {
        self.events = Some(Arc::new(move || report().into()));
        self
    }

    /// How many series an app may have, besides those of [histograms](Self::histograms_by_app).
    /// Default: 12.
    #[must_use]
    pub fn max_series_per_app(mut self, max: usize) -> Self {
        self.max_series = max;
        self
    }

    /// Tells how long bundles take to load by app and bundle, from now on: 23 series for each stage,
    /// which no limit bounds. Default: of all apps together.
    #[must_use]
    pub fn histograms_by_app(mut self) -> Self {
        self.manager.record_loads_by_app();
        self.by_app = true;
        self
    }

    /// All metrics, in Prometheus's text format 0.0.4. With thousands of apps that takes a while:
    /// not for a thread that must not block.
    #[must_use]
    pub fn text(&self) -> String {
        let reports = self.manager.reports();
        let mut logs = self.events.as_ref().map(|events| events());
        let of_apps = logs.as_mut().map(|logs| std::mem::take(&mut logs.apps));
        let board = Board::new(&reports, of_apps.unwrap_or_default(), self.max_series);
        let mut text = String::new();
        let (logs, omitted) = (logs.as_ref(), board.omitted());
        for family in process::families(&self.manager, &reports, logs, self.by_app, omitted) {
            text::write(&family, &mut text);
        }
        // One after the other, so that not all series are there twice.
        for family in family::ALL {
            text::write(&board.family(family), &mut text);
        }
        text
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("manager", &self.manager)
            .field("max_series", &self.max_series)
            .finish_non_exhaustive()
    }
}
