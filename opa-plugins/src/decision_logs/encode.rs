use std::time::{Duration, SystemTime};

use opa_core::plugin::{Event, EventInput, Metrics};
use opa_core::{Reason, Value};

/// The event as OPA's decision log writes it. Absent members are left out.
#[must_use]
pub fn to_value(event: &Event) -> Value {
    Value::object(members(event))
}

/// The event as OPA writes it to its console.
pub(super) fn console_line(event: &Event, now: SystemTime, line: &mut Vec<u8>) {
    let mut members = members(event);
    members.extend([
        member("level", "info"),
        member("msg", "Decision Log"),
        member("time", rfc3339(now)),
        member("type", "openpolicyagent.org/decision_logs"),
    ]);
    Value::object(members).write_json(line);
    line.push(b'\n');
}

fn members(event: &Event) -> Vec<(Value, Value)> {
    let mut members = vec![
        member("labels", event.labels.to_value()),
        member("decision_id", &*event.decision_id),
        member("timestamp", rfc3339(event.timestamp)),
        member("metrics", metrics(&event.metrics)),
    ];
    if !event.bundles.is_empty() {
        let bundles = event.bundles.iter().map(|bundle| {
            let revision = bundle.revision.iter().map(|it| member("revision", &**it));
            (Value::from(&*bundle.name), Value::object(revision))
        });
        members.push(member("bundles", Value::object(bundles)));
    }
    members.extend(event.path.iter().map(|path| member("path", &**path)));
    match &event.input {
        EventInput::None | EventInput::Withheld => {}
        EventInput::Built(input) => members.push(member("input", input.clone())),
        EventInput::Deferred(input) => members.push(member("input", input.build())),
    }
    members.extend(
        event
            .result
            .iter()
            .map(|result| member("result", result.clone())),
    );
    members.extend(event.error.iter().map(|error| {
        let error = [
            member("code", &*error.code),
            member("message", &*error.message),
        ];
        member("error", Value::object(error))
    }));
    members.extend(
        event
            .requested_by
            .iter()
            .map(|client| member("requested_by", &**client)),
    );
    let mut custom: Vec<_> = event
        .custom
        .iter()
        .map(|(name, value)| member(name, value.clone()))
        .collect();
    if !matches!(
        event.reason,
        Reason::Allowed | Reason::Denied | Reason::Decided
    ) {
        custom.push(member("reason", event.reason.as_str()));
    }
    if !custom.is_empty() {
        members.push(member("custom", Value::object(custom)));
    }
    members
}

fn metrics(metrics: &Metrics) -> Value {
    Value::object([
        member("timer_rego_query_eval_ns", nanos(metrics.eval)),
        member("timer_server_handler_ns", nanos(metrics.handler)),
    ])
}

fn nanos(duration: Duration) -> Value {
    Value::from(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

fn member(name: &str, value: impl Into<Value>) -> (Value, Value) {
    (Value::from(name), value.into())
}

/// Go's `RFC3339Nano`, in UTC: trailing zeros of the fraction are left out.
fn rfc3339(time: SystemTime) -> String {
    // A clock outside of the years that can be written is shown as Go's zero time.
    jiff::Timestamp::try_from(time).map_or_else(
        |_| "0001-01-01T00:00:00Z".to_owned(),
        |timestamp| timestamp.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_gos() {
        let at = |nanos| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(1_500_000_000), "1970-01-01T00:00:01.5Z");
        assert_eq!(at(1_000_000_001), "1970-01-01T00:00:01.000000001Z");
    }
}
