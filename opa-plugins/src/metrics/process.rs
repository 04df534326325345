//! The metrics of the process.

use std::collections::BTreeMap;
use std::iter;

use opa_core::instance::Reports;
use opa_core::plugin::LoadStage;
use opa_core::{Histogram, Manager, OPA_VERSION};
use prometheus::proto::{MetricFamily, MetricType};

use super::{LogReport, series, text};

/// The states that an instance of a manager can have.
const STATES: [&str; 3] = ["starting", "ready", "failed"];

const SECOND: f64 = 1e9;
const NANOSECOND: f64 = 1.0;

/// What is told of all apps together, and the histograms.
pub(super) fn families(
    manager: &Manager,
    reports: &Reports,
    logs: Option<&LogReport>,
    by_app: bool,
    omitted: usize,
) -> Vec<MetricFamily> {
    let mut families = vec![
        gauge(
            "opa_info",
            "Information about the OPA environment.",
            [(vec![("version", OPA_VERSION)], 1)],
        ),
        gauge(
            "opa_instances",
            "Instances by their state.",
            STATES.map(|state| (vec![("state", state)], instances(reports, state))),
        ),
        gauge(
            "opa_policies_bytes",
            "The policy files that are served, uncompressed; what apps share counts once.",
            [(vec![], reports.policy_bytes)],
        ),
        gauge(
            "opa_data_bytes",
            "The data files that are served, uncompressed; what apps share counts once.",
            [(vec![], reports.data_bytes)],
        ),
        gauge(
            "opa_metrics_omitted_series",
            "Series that are left out because their app has too many.",
            [(vec![], omitted as u64)],
        ),
        text::histograms(
            (
                "opa_decision_duration_seconds",
                "The time from the question to the decision.",
            ),
            SECOND,
            [(vec![], &manager.decision_times())].into_iter(),
        ),
        loading(manager, reports, by_app),
        plugins(reports),
    ];
    families.extend(logs.into_iter().flat_map(decision_logs));
    families
}

/// How many instances have OPA's plugins in which state.
fn plugins(reports: &Reports) -> MetricFamily {
    let mut counts = BTreeMap::<_, u64>::new();
    for (name, state) in reports.instances.iter().flat_map(series::states) {
        *counts.entry((name, state.as_str())).or_default() += 1;
    }
    let described = (
        "opa_plugins",
        MetricType::GAUGE,
        "Instances by the states of their plugins.",
    );
    let series = counts.into_iter().map(|((name, state), count)| {
        let labels = vec![("name", name), ("status", state)];
        (labels, as_f64(count))
    });
    text::family(described, series)
}

/// What OPA tells of uploads and buffers, of all apps together.
fn decision_logs(logs: &LogReport) -> [MetricFamily; 4] {
    let one = |name, kind, help, value| {
        text::family((name, kind, help), iter::once((vec![], as_f64(value))))
    };
    [
        one(
            "decision_logs_chunks_uploaded_total",
            MetricType::COUNTER,
            "Counter for the decision logs metric decision_logs_chunks_uploaded.",
            logs.chunks_uploaded,
        ),
        one(
            "decision_logs_chunks_upload_failed_total",
            MetricType::COUNTER,
            "Counter for the decision logs metric decision_logs_chunks_upload_failed.",
            logs.chunks_upload_failed,
        ),
        one(
            "decision_logs_buffer_size_events",
            MetricType::GAUGE,
            "Number of items waiting in the decision log event buffer.",
            logs.buffered_events,
        ),
        one(
            "decision_logs_buffer_size_bytes",
            MetricType::GAUGE,
            "Number of bytes waiting in the decision log size buffer.",
            logs.buffered_bytes,
        ),
    ]
}

fn instances(reports: &Reports, state: &str) -> u64 {
    let states = reports.instances.iter().map(|it| it.status.state.as_str());
    states.filter(|other| *other == state).count() as u64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the format has no other numbers"
)]
fn as_f64(count: u64) -> f64 {
    count as f64
}

fn gauge<const N: usize>(
    name: &'static str,
    help: &'static str,
    series: [(Vec<(&'static str, &str)>, u64); N],
) -> MetricFamily {
    let series = series.into_iter();
    let series = series.map(|(labels, value)| (labels, as_f64(value)));
    text::family((name, MetricType::GAUGE, help), series)
}

fn loading(manager: &Manager, reports: &Reports, by_app: bool) -> MetricFamily {
    let described = (
        "bundle_loading_duration_ns",
        "Histogram for the bundle loading duration by stage.",
    );
    let is_used = |(_, histogram): &(LoadStage, &Histogram)| histogram.total() > 0;
    if !by_app {
        let times = manager.load_times();
        let stages = times.iter().filter(is_used);
        let series = stages.map(|(stage, it)| (vec![("stage", stage.as_str())], it));
        return text::histograms(described, NANOSECOND, series);
    }
    let statuses = reports.instances.iter().map(|report| &report.status);
    let bundles = statuses.flat_map(|status| status.bundles.iter().map(move |it| (status, it)));
    let series = bundles.flat_map(|(status, bundle)| {
        let times = bundle.load_times.iter().flat_map(|times| times.iter());
        times.filter(is_used).map(move |(stage, histogram)| {
            let app = ("app", status.app.as_str());
            let labels = vec![app, ("name", &*bundle.name), ("stage", stage.as_str())];
            (labels, histogram)
        })
    });
    text::histograms(described, NANOSECOND, series)
}
