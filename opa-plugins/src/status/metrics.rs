//! The app's own series, as OPA has them in `metrics.prometheus`: families as Prometheus' JSON.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use opa_core::plugin::BundleStatus;
use opa_core::{OPA_VERSION, Value};

use super::{Buffer, DecisionLogsStatus, PluginState, StatusReport};

/// What Go's clock answers for its zero time, in nanoseconds since 1970: OPA's value of a time that
/// isn't known.
const GO_ZERO_NANOS: i64 = -6_795_364_578_871_345_152;

/// `metrics` of a status: the counters of decision logs and, with `prometheus: true`, the series of
/// bundles, plugins and decision logs.
pub(super) fn metrics(report: &StatusReport<'_>, prometheus: bool) -> Value {
    let families = if prometheus { families(report) } else { vec![] };
    let families = families
        .into_iter()
        .map(|it| (Value::from(it.name), it.into_value()));
    let logs = report.decision_logs.iter();
    let counters = logs.flat_map(nonzero).map(|(name, it)| {
        let name = format!("counter_{name}");
        (Value::from(name), Value::from(count(it)))
    });
    let all = Value::object(families.chain(counters));
    Value::object([(Value::from("prometheus"), all)])
}

fn nonzero(status: &DecisionLogsStatus) -> impl Iterator<Item = (&'static str, u64)> {
    let counters = status.counters.iter().map(|(name, it)| (*name, *it));
    counters.filter(|(_, count)| *count > 0)
}

fn families(report: &StatusReport<'_>) -> Vec<Family> {
    let mut families = vec![
        Family::gauge("opa_info", "Information about the OPA environment.")
            .with(&[("version", OPA_VERSION)], 1),
        plugin_states(&report.plugin_states()),
    ];
    if let Some(status) = &report.decision_logs {
        families.push(last_upload(status));
        families.extend(log_counters(status));
        families.extend(status.buffer.map(buffer));
    }
    let bundles = &report.instance.bundles;
    if !bundles.is_empty() {
        families.extend(times(bundles));
        families.extend(loads(bundles));
    }
    families
}

/// OPA counts reports of its bundles, and tells a failure's text; here activations are counted, and
/// failures by their [class](opa_core::FailureClass), as for Prometheus. Those at zero are left out.
fn loads(bundles: &[BundleStatus]) -> impl Iterator<Item = Family> {
    let mut loaded = Family::counter("bundle_loaded_counter", "Counter for the bundle loaded.");
    let mut failed = Family::counter(
        "bundle_failed_load_counter",
        "Counter for the failed bundle load.",
    );
    for bundle in bundles {
        let name = ("name", &*bundle.name);
        if bundle.loads > 0 {
            loaded.add(&[name], count(bundle.loads));
        }
        for (class, failures) in bundle.failures.iter() {
            let labels = [("code", "bundle_error"), ("message", class.as_str()), name];
            failed.add(&labels, count(failures));
        }
    }
    let families = [loaded, failed].into_iter();
    families.filter(|family| !family.series.is_empty())
}

fn count(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn plugin_states(states: &BTreeMap<&str, PluginState>) -> Family {
    let family = Family::gauge("plugin_status_gauge", "Gauge for the plugin by status.");
    states.iter().fold(family, |family, (name, state)| {
        family.with(&[("name", *name), ("status", state.as_str())], 1)
    })
}

fn last_upload(status: &DecisionLogsStatus) -> Family {
    let code = status.message.as_ref().map(|_| DecisionLogsStatus::CODE);
    let http_code = status.http_code.map(|code| code.to_string());
    let labels = [
        ("code", code.unwrap_or_default()),
        ("http_code", http_code.as_deref().unwrap_or_default()),
    ];
    Family::gauge(
        "decision_logs_status_gauge",
        "Gauge for the last decision log upload by status.",
    )
    .with(&labels, 1)
}

/// The counters that OPA tells to Prometheus, of those that a status has, with name and help.
#[rustfmt::skip]
const LOG_COUNTERS: [(&str, &str, &str); 8] = [
    ("decision_logs_chunks_upload_failed", "decision_logs_chunks_upload_failed_total", "Counter for the decision logs metric decision_logs_chunks_upload_failed."),
    ("decision_logs_chunks_uploaded", "decision_logs_chunks_uploaded_total", "Counter for the decision logs metric decision_logs_chunks_uploaded."),
    ("decision_logs_dropped_buffer_size_limit_bytes_exceeded", "decision_logs_dropped_buffer_size_limit_bytes_exceeded_total", "Counter for the decision logs metric decision_logs_dropped_buffer_size_limit_bytes_exceeded."),
    ("decision_logs_dropped_buffer_size_limit_exceeded", "decision_logs_dropped_buffer_size_limit_exceeded_total", "Counter for the decision logs metric decision_logs_dropped_buffer_size_limit_exceeded."),
    ("decision_logs_dropped_rate_limit_exceeded", "decision_logs_dropped_rate_limit_exceeded_total", "Counter for the decision logs metric decision_logs_dropped_rate_limit_exceeded."),
    ("decision_logs_encoding_failure", "decision_logs_encoding_failure_total", "Counter for the decision logs metric decision_logs_encoding_failure."),
    ("decision_logs_nd_builtin_cache_dropped", "decision_logs_nd_builtin_cache_dropped_total", "Counter for the decision logs metric decision_logs_nd_builtin_cache_dropped."),
    ("enc_log_exceeded_upload_size_limit_bytes", "enc_log_exceeded_upload_size_limit_bytes_total", "Counter for the decision logs metric enc_log_exceeded_upload_size_limit_bytes."),
];

fn log_counters(status: &DecisionLogsStatus) -> impl Iterator<Item = Family> {
    nonzero(status).filter_map(|(counter, it)| {
        let told = LOG_COUNTERS.iter().find(|(name, ..)| *name == counter);
        let (_, name, help) = *told?;
        Some(Family::counter(name, help).with(&[], count(it)))
    })
}

fn buffer(buffer: Buffer) -> Family {
    let (name, help, waiting) = match buffer {
        Buffer::Events(events) => (
            "decision_logs_buffer_size_events",
            "Number of items waiting in the decision log event buffer.",
            events,
        ),
        Buffer::Bytes(bytes) => (
            "decision_logs_buffer_size_bytes",
            "Number of bytes waiting in the decision log size buffer.",
            bytes,
        ),
    };
    Family::gauge(name, help).with(&[], count(waiting))
}

fn times(bundles: &[BundleStatus]) -> [Family; 4] {
    let mut families = [
        Family::gauge("last_bundle_request", "Gauge for the last bundle request."),
        Family::gauge(
            "last_success_bundle_activation",
            "Gauge for the last success bundle activation.",
        ),
        Family::gauge(
            "last_success_bundle_download",
            "Gauge for the last success bundle download.",
        ),
        Family::gauge(
            "last_success_bundle_request",
            "Gauge for the last success bundle request.",
        ),
    ];
    for bundle in bundles {
        let [request, activation, download, success] = &mut families;
        let name = ("name", &*bundle.name);
        let revision = bundle.active_revision.as_deref().unwrap_or_default();
        request.add(&[name], nanos(bundle.last_request));
        activation.add(
            &[("active_revision", revision), name],
            nanos(bundle.last_successful_activation),
        );
        download.add(&[name], nanos(bundle.last_successful_download));
        success.add(&[name], nanos(bundle.last_successful_request));
    }
    families
}

/// Nanoseconds since 1970.
fn nanos(time: Option<SystemTime>) -> i64 {
    let since = time.map(|time| time.duration_since(SystemTime::UNIX_EPOCH));
    let nanos = |since: Duration| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
    since.and_then(Result::ok).map_or(GO_ZERO_NANOS, nanos)
}

/// A metric with its series.
struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    series: Vec<Value>,
}

#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

impl Family {
    fn gauge(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self {
            name,
            help,
            kind,
            series: Vec::new(),
        }
    }

    fn with(mut self, labels: &[(&str, &str)], value: i64) -> Self {
        self.add(labels, value);
        self
    }

    /// Adds a series; labels are sorted by name.
    fn add(&mut self, labels: &[(&str, &str)], value: i64) {
        let label = |(name, value): &(&str, &str)| object([("name", *name), ("value", *value)]);
        let labels = Value::array(labels.iter().map(label));
        let value = object([("value", value)]);
        let member = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        // A series without labels has no list of them.
        let labels = (labels.len() != Some(0)).then_some(("label", labels));
        let series = labels.into_iter().chain([(member, value)]);
        self.series.push(object(series));
    }

    fn into_value(self) -> Value {
        object([
            ("name", Value::from(self.name)),
            ("help", Value::from(self.help)),
            (
                "type",
                Value::from(match self.kind {
                    Kind::Counter => "COUNTER",
                    Kind::Gauge => "GAUGE",
                }),
            ),
            ("metric", Value::array(self.series)),
        ])
    }
}

fn object<V: Into<Value>>(members: impl IntoIterator<Item = (&'static str, V)>) -> Value {
    let members = members.into_iter();
    Value::object(members.map(|(name, value)| (Value::from(name), value.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opa_core::plugin::{InstanceStatus, State};
    use opa_core::{AppId, FailureClass};

    fn bundle(name: &str, at: Option<u64>) -> BundleStatus {
        let mut bundle = BundleStatus::default();
        bundle.name = name.into();
        bundle.last_request = at.map(|at| SystemTime::UNIX_EPOCH + Duration::from_secs(at));
        bundle.active_revision = at.map(|_| "r1".into());
        bundle
    }

    fn families(bundles: Vec<BundleStatus>, prometheus: bool) -> Value {
        let app = AppId::new("shop").unwrap();
        let status = InstanceStatus::new(app, None, State::Ready, None, bundles);
        let mut report = StatusReport::new(&status);
        report.plugins.insert("status", PluginState::Ok);
        report.decision_logs = Some(DecisionLogsStatus {
            message: Some("m".into()),
            http_code: Some(503),
            counters: BTreeMap::from([
                ("decision_logs_chunks_upload_failed", 7),
                ("decision_logs_encoding_failure", 0),
                ("enc_soft_limit_stable", 2),
            ]),
            buffer: Some(Buffer::Bytes(5)),
        });
        metrics(&report, prometheus)
            .get("prometheus")
            .unwrap()
            .clone()
    }

    fn text(families: &Value, name: &str) -> String {
        families.at(&[name, "metric"]).unwrap().to_json()
    }

    #[test]
    fn bundles_and_plugins_have_opas_series() {
        let families = families(vec![bundle("a", None), bundle("b", Some(2))], true);
        assert_eq!(
            families.get("opa_info").unwrap().to_json(),
            concat!(
                r#"{"help":"Information about the OPA environment.","#,
                r#""metric":[{"gauge":{"value":1},"label":[{"name":"version","value":"1.22.2"}]}],"#,
                r#""name":"opa_info","type":"GAUGE"}"#
            )
        );
        assert_eq!(
            text(&families, "last_bundle_request"),
            concat!(
                r#"[{"gauge":{"value":-6795364578871345152},"label":[{"name":"name","value":"a"}]},"#,
                r#"{"gauge":{"value":2000000000},"label":[{"name":"name","value":"b"}]}]"#
            )
        );
        assert!(
            text(&families, "last_success_bundle_activation").contains(
                r#"[{"name":"active_revision","value":"r1"},{"name":"name","value":"b"}]"#
            )
        );
        assert!(
            text(&families, "plugin_status_gauge")
                .contains(r#"[{"name":"name","value":"bundle"},{"name":"status","value":"OK"}]"#)
        );
        assert!(text(&families, "decision_logs_status_gauge").contains(
            r#"[{"name":"code","value":"decision_log_error"},{"name":"http_code","value":"503"}]"#
        ));
        assert_eq!(
            text(&families, "decision_logs_chunks_upload_failed_total"),
            r#"[{"counter":{"value":7}}]"#
        );
        assert_eq!(
            text(&families, "decision_logs_buffer_size_bytes"),
            r#"[{"gauge":{"value":5}}]"#
        );
        assert_eq!(families.len(), Some(7 + 2 + 2));
    }

    #[test]
    fn activations_and_failures_are_counters() {
        let mut bundle = bundle("a", Some(2));
        bundle.loads = 3;
        bundle.failures.add(FailureClass::NotFound);
        bundle.failures.add(FailureClass::NotFound);
        let families = families(vec![bundle], true);
        assert_eq!(
            text(&families, "bundle_loaded_counter"),
            r#"[{"counter":{"value":3},"label":[{"name":"name","value":"a"}]}]"#
        );
        assert_eq!(
            text(&families, "bundle_failed_load_counter"),
            concat!(
                r#"[{"counter":{"value":2},"label":[{"name":"code","value":"bundle_error"},"#,
                r#"{"name":"message","value":"not_found"},{"name":"name","value":"a"}]}]"#
            )
        );
        let kind = families.at(&["bundle_loaded_counter", "type"]);
        assert_eq!(kind, Some(&Value::from("COUNTER")));
    }

    #[test]
    fn without_bundles_there_are_no_series_of_them() {
        assert_eq!(families(vec![], true).len(), Some(3 + 2 + 2));
    }

    #[test]
    fn counters_of_decision_logs_are_there_in_any_case() {
        let families = families(vec![bundle("a", None)], false);
        let expected = concat!(
            r#"{"counter_decision_logs_chunks_upload_failed":7,"#,
            r#""counter_enc_soft_limit_stable":2}"#
        );
        assert_eq!(families.to_json(), expected);
    }
}
