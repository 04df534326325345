//! The status as OPA writes it.

use std::time::SystemTime;

use opa_core::plugin::{BundleError, BundleStatus, LastLoad};

use super::{DecisionLogsStatus, StatusReport};
use crate::json;

impl StatusReport<'_> {
    /// Appends the status as OPA sends it: one JSON object, members in OPA's order.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut members = Members::open(out);
        self.labels(&mut members);
        self.bundles(&mut members);
        self.logs(&mut members);
        self.metrics(&mut members);
        self.plugins(&mut members);
        members.close();
    }

    /// Appends the line of OPA's console, with the time at which it is written.
    pub(super) fn write_line(&self, now: SystemTime, out: &mut Vec<u8>) {
        let mut members = Members::open(out);
        self.bundles(&mut members);
        self.logs(&mut members);
        self.labels(&mut members);
        members.text("level", Some("info"));
        self.metrics(&mut members);
        members.text("msg", Some("Status Log"));
        self.plugins(&mut members);
        members.time("time", Some(json::whole_seconds(now)));
        members.text("type", Some("openpolicyagent.org/status"));
        members.close();
        out.push(b'\n');
    }

    fn labels(&self, members: &mut Members<'_>) {
        match &self.instance.labels {
            Some(labels) => json::object(labels.iter(), members.name("labels"), json::string),
            None => members.name("labels").extend_from_slice(b"null"),
        }
    }

    fn bundles(&self, members: &mut Members<'_>) {
        if !self.instance.bundles.is_empty() {
            let bundles = self.instance.bundles.iter().map(|it| (&it.name, it));
            json::object(bundles, members.name("bundles"), bundle);
        }
    }

    fn logs(&self, members: &mut Members<'_>) {
        if let Some(status) = &self.decision_logs {
            decision_logs(status, members.name("decision_logs"));
        }
    }

    fn metrics(&self, members: &mut Members<'_>) {
        if let Some(metrics) = &self.metrics {
            json::value(metrics, members.name("metrics"));
        }
    }

    fn plugins(&self, members: &mut Members<'_>) {
        let plugins = self.plugin_states();
        if plugins.is_empty() {
            return;
        }
        let plugins = plugins.into_iter().map(|(name, state)| {
            let message = self.plugin_messages.get(name);
            (name, (state, message))
        });
        json::object(plugins, members.name("plugins"), |(state, message), out| {
            let mut members = Members::open(out);
            members.text("state", Some(state.as_str()));
            members.text("message", message.map(|it| &**it));
            members.close();
        });
    }
}

/// OPA's message beside the errors of its compiler.
const COMPILE_ERRORS: &str = "error(s) occurred while compiling module(s)";

fn bundle(status: &BundleStatus, out: &mut Vec<u8>) {
    let mut members = Members::open(out);
    json::string(&status.name, members.name("name"));
    members.text("active_revision", status.active_revision.as_deref());
    members.time(
        "last_successful_activation",
        status.last_successful_activation,
    );
    if status.last_successful_download.is_some() {
        // What failed to be activated is taken for a whole bundle.
        members.text("type", status.bundle_type.or(Some("snapshot")));
    }
    if let Some(size) = status.size.filter(|size| *size > 0) {
        json::integer(size, members.name("size"));
    }
    members.time("last_successful_download", status.last_successful_download);
    members.time("last_successful_request", status.last_successful_request);
    members.time("last_request", status.last_request);
    members.text("code", status.code);
    if status.errors.is_empty() {
        members.text("message", status.message.as_deref());
    } else {
        members.text("message", Some(COMPILE_ERRORS));
        json::array(&status.errors, members.name("errors"), |it, out| {
            error(it, &status.name, out);
        });
    }
    if status.last_load.iter().next().is_some() {
        timers(&status.last_load, members.name("metrics"));
    }
    members.http_code(status.http_code);
    members.close();
}

/// As OPA, sorted by name.
fn timers(last: &LastLoad, out: &mut Vec<u8>) {
    let timers = last.iter().map(|(stage, took)| (stage.as_str(), took));
    json::object(timers, out, |took, out| {
        json::integer(took.as_nanos(), out);
    });
}

fn error(error: &BundleError, bundle: &str, out: &mut Vec<u8>) {
    let mut members = Members::open(out);
    json::string(&error.code, members.name("code"));
    json::string(&error.message, members.name("message"));
    if let Some((file, row, column)) = &error.location {
        let mut location = Members::open(members.name("location"));
        json::string(in_bundle(file, bundle), location.name("file"));
        json::integer(row, location.name("row"));
        json::integer(column, location.name("col"));
        location.close();
    }
    members.close();
}

/// A module's path in its bundle, as OPA has it: with a slash, without the bundle's name.
fn in_bundle<'a>(file: &'a str, bundle: &str) -> &'a str {
    let path = file.strip_prefix(bundle);
    path.filter(|it| it.starts_with('/')).unwrap_or(file)
}

fn decision_logs(status: &DecisionLogsStatus, out: &mut Vec<u8>) {
    let mut members = Members::open(out);
    if let Some(message) = &status.message {
        members.text("code", Some(DecisionLogsStatus::CODE));
        members.text("message", Some(message));
        members.http_code(status.http_code);
    }
    members.close();
}

/// The members of an object, one by one.
struct Members<'a> {
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Members<'a> {
    fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, first: true }
    }

    fn close(self) {
        self.out.push(b'}');
    }

    fn name(&mut self, name: &str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.first) {
            self.out.push(b',');
        }
        json::string(name, self.out);
        self.out.push(b':');
        self.out
    }

    /// A text, unless it is empty: Go leaves those out.
    fn text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            json::string(text, self.name(name));
        }
    }

    /// A time that is always there.
    fn time(&mut self, name: &str, time: Option<SystemTime>) {
        let out = self.name(name);
        match time {
            Some(time) => json::time(time, out),
            None => json::zero_time(out),
        }
    }

    fn http_code(&mut self, code: Option<u16>) {
        if let Some(code) = code {
            json::integer(code, self.name("http_code"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::PluginState;
    use super::*;
    use opa_core::plugin::{InstanceStatus, Labels, LoadStage, State};
    use opa_core::{AppId, Value};
    use std::time::Duration;

    fn written(report: &StatusReport<'_>) -> String {
        let mut out = Vec::new();
        report.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn instance(state: State, bundles: Vec<BundleStatus>) -> InstanceStatus {
        let labels = Labels::new([("id".to_owned(), "<1>".to_owned())]);
        InstanceStatus::new(
            AppId::new("shop").unwrap(),
            Some(labels),
            state,
            None,
            bundles,
        )
    }

    #[test]
    fn a_bundle_that_never_came_has_gos_zero_times() {
        let mut bundle = BundleStatus::default();
        bundle.name = "b".into();
        let status = instance(State::Starting, vec![bundle]);
        let expected = concat!(
            r#"{"labels":{"id":"\u003c1\u003e"},"bundles":{"b":{"name":"b","#,
            r#""last_successful_activation":"0001-01-01T00:00:00Z","#,
            r#""last_successful_download":"0001-01-01T00:00:00Z","#,
            r#""last_successful_request":"0001-01-01T00:00:00Z","#,
            r#""last_request":"0001-01-01T00:00:00Z"}},"plugins":{"bundle":{"state":"NOT_READY"}}}"#,
        );
        assert_eq!(written(&StatusReport::new(&status)), expected);
    }

    #[test]
    fn only_a_bundles_own_name_is_taken_off_a_path() {
        for (file, told) in [
            ("b/a.rego", "/a.rego"),
            ("b//a.rego", "//a.rego"),
            ("bb/a.rego", "bb/a.rego"),
            ("c/b/a.rego", "c/b/a.rego"),
            ("b", "b"),
        ] {
            assert_eq!(in_bundle(file, "b"), told);
        }
    }

    #[test]
    fn all_members_stand_in_opas_order() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let mut bundle = BundleStatus::default();
        bundle.name = "b".into();
        bundle.active_revision = Some("r".into());
        bundle.last_successful_activation = at(1);
        bundle.last_successful_download = at(2);
        bundle.last_successful_request = at(3);
        bundle.last_request = at(4);
        bundle.size = Some(5);
        bundle.bundle_type = Some("delta");
        bundle.code = Some("bundle_error");
        bundle.message = Some("m".into());
        bundle.http_code = Some(404);
        bundle
            .last_load
            .record(LoadStage::Request, Duration::from_nanos(6));
        bundle
            .last_load
            .record(LoadStage::Load, Duration::from_nanos(7));
        bundle.errors = vec![BundleError {
            code: "rego_parse_error".into(),
            message: "e".into(),
            location: Some(("b/a.rego".into(), 1, 2)),
        }];
        let status = instance(State::Ready, vec![bundle]);
        let mut report = StatusReport::new(&status);
        report.decision_logs = Some(DecisionLogsStatus {
            message: Some("log upload failed".into()),
            http_code: Some(503),
            ..DecisionLogsStatus::default()
        });
        report.plugins.insert("status", PluginState::Ok);
        report.plugins.insert("discovery", PluginState::Warn);
        report.plugin_messages.insert("discovery", "old".into());
        report.metrics = Some(Value::object([(
            Value::from("prometheus"),
            Value::empty_object(),
        )]));
        let expected = concat!(
            r#"{"labels":{"id":"\u003c1\u003e"},"bundles":{"b":{"name":"b","active_revision":"r","#,
            r#""last_successful_activation":"1970-01-01T00:00:01Z","type":"delta","size":5,"#,
            r#""last_successful_download":"1970-01-01T00:00:02Z","#,
            r#""last_successful_request":"1970-01-01T00:00:03Z","#,
            r#""last_request":"1970-01-01T00:00:04Z","code":"bundle_error","#,
            r#""message":"error(s) occurred while compiling module(s)","#,
            r#""errors":[{"code":"rego_parse_error","message":"e","#,
            r#""location":{"file":"/a.rego","row":1,"col":2}}],"#,
            r#""metrics":{"timer_bundle_request_ns":6,"timer_rego_load_bundles_ns":7},"#,
            r#""http_code":404}},"#,
            r#""decision_logs":{"code":"decision_log_error","message":"log upload failed","#,
            r#""http_code":503},"#,
            r#""metrics":{"prometheus":{}},"#,
            r#""plugins":{"bundle":{"state":"OK"},"discovery":{"state":"WARN","message":"old"},"#,
            r#""status":{"state":"OK"}}}"#,
        );
        assert_eq!(written(&report), expected);
    }

    #[test]
    fn the_console_has_its_members_by_name() {
        let status = instance(State::Ready, vec![]);
        let mut report = StatusReport::new(&status);
        report.plugins.insert("status", PluginState::Ok);
        report.decision_logs = Some(DecisionLogsStatus::default());
        let mut out = Vec::new();
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(2_900);
        report.write_line(now, &mut out);
        let expected = concat!(
            r#"{"decision_logs":{},"labels":{"id":"\u003c1\u003e"},"level":"info","#,
            r#""msg":"Status Log","plugins":{"status":{"state":"OK"}},"#,
            r#""time":"1970-01-01T00:00:02Z","type":"openpolicyagent.org/status"}"#,
            "\n",
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn labels_that_are_not_known_are_null() {
        let status = InstanceStatus::new(
            AppId::new("shop").unwrap(),
            None,
            State::Starting,
            None,
            vec![],
        );
        let mut report = StatusReport::new(&status);
        report.decision_logs = Some(DecisionLogsStatus::default());
        assert_eq!(written(&report), r#"{"labels":null,"decision_logs":{}}"#);
    }
}
