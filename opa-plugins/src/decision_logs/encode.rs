//! The event's JSON, as OPA writes it.

mod members;
mod redact;

use std::ops::Range;
use std::time::SystemTime;

use opa_core::Value;
use opa_core::plugin::Event;

use crate::json::whole_seconds;
use members::{Members, input};

/// The event as the input document of the policies on logs (`mask_decision`, `drop_decision`).
/// Absent members are left out. `None` when the event is too large or too deep for a document: it
/// must then be [withheld](super::mask::withhold).
#[must_use]
pub fn to_value(event: &Event) -> Option<Value> {
    let mut text = Vec::with_capacity(1024);
    let mut members = vec![
        member("labels", event.labels.to_value()),
        member("decision_id", &*event.decision_id),
    ];
    members.extend(input(event).map(|input| member("input", &*input)));
    let values = [
        ("result", &event.result),
        ("nd_builtin_cache", &event.nd_builtin_cache),
    ];
    members.extend(
        values
            .into_iter()
            .filter_map(|(name, value)| Some(member(name, value.as_ref()?))),
    );
    // The rest is small: its one description is the one that writes it.
    text.push(b'{');
    Members::new(event, &mut text).small();
    text.push(b'}');
    let small = Value::from_json(&text).ok()?;
    members.extend(
        small
            .as_object()?
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    Some(Value::object(members))
}

/// The most bytes that an event's text may have: values are shared in memory, so that a small one
/// can have a text without end.
pub const MAX_EVENT_BYTES: usize = 64 * 1024 * 1024;

/// What [`write_event`] wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// Where `nd_builtin_cache` and the comma before it stand, counted from the event's first
    /// byte: without these bytes the event is whole.
    pub nd_builtin_cache: Option<Range<usize>>,
}

/// Appends the event as OPA uploads it: one JSON object, members in OPA's order.
///
/// `None` when the event is larger than [`MAX_EVENT_BYTES`]; nothing is appended then. A deferred
/// input is built here; if its code panics, `out` has a part of the event.
///
/// ```
/// use opa_core::plugin::{Event, Labels};
/// use opa_core::{AppId, Reason};
/// use opa_plugins::decision_logs::write_event;
/// use std::time::SystemTime;
///
/// let labels = Labels::new([("id".to_owned(), "1".to_owned())]);
/// let app = AppId::new("shop")?;
/// let event = Event::new(app, labels, "7".into(), Reason::Decided, SystemTime::UNIX_EPOCH);
/// let mut json = Vec::new();
/// assert!(write_event(&event, &mut json).is_some());
/// assert!(json.starts_with(br#"{"labels":{"id":"1"},"decision_id":"7","timestamp":"1970-01-01T00:00:00Z","#));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "an event that is too large is not written"]
pub fn write_event(event: &Event, out: &mut Vec<u8>) -> Option<Written> {
    let start = out.len();
    out.push(b'{');
    let mut members = Members::new(event, out);
    members.labels();
    members.decision_id();
    members.trace();
    members.bundles();
    members.path();
    members.input();
    members.result();
    let before = members.out.len();
    members.nd_builtin_cache();
    let after = members.out.len();
    members.erased();
    members.masked();
    members.error();
    members.requested_by();
    members.timestamp();
    members.metrics();
    members.req_id();
    members.rule_labels();
    members.request_context();
    members.custom();
    if members.is_too_large() {
        out.truncate(start);
        return None;
    }
    out.push(b'}');
    Some(Written {
        nd_builtin_cache: (before < after).then(|| before - start..after - start),
    })
}

/// Appends the event as OPA writes it to its console: members by name, an error as its text, and
/// headers that are secret `redacted`. Whether it is small enough; else nothing is appended.
#[must_use]
pub(super) fn console_line(
    event: &Event,
    now: SystemTime,
    redacted: bool,
    out: &mut Vec<u8>,
) -> bool {
    let start = out.len();
    out.push(b'{');
    let mut members = Members::new(event, out).redacted(redacted);
    members.bundles();
    members.custom();
    members.decision_id();
    members.erased();
    members.error_text();
    members.input();
    members.labels();
    members.text("level", "info");
    members.masked();
    members.metrics();
    members.text("msg", "Decision Log");
    members.nd_builtin_cache();
    members.path();
    members.req_id();
    members.request_context();
    members.requested_by();
    members.result();
    members.rule_labels();
    members.span_id();
    members.time("time", whole_seconds(now));
    members.timestamp();
    members.trace_id();
    members.text("type", "openpolicyagent.org/decision_logs");
    if members.is_too_large() {
        out.truncate(start);
        return false;
    }
    out.extend_from_slice(b"}\n");
    true
}

fn member(name: &str, value: impl Into<Value>) -> (Value, Value) {
    (Value::from(name), value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json as text;
    use opa_core::plugin::{BundleRevision, EventError, EventInput, Labels, RequestHeader};
    use opa_core::{AppId, Reason};
    use std::time::Duration;

    fn json(text: &str) -> Value {
        Value::from_json(text.as_bytes()).unwrap()
    }

    fn bare() -> Event {
        let labels = Labels::new([
            ("version".into(), "1.22.2".into()),
            ("id".into(), "<i>".into()),
        ]);
        let app = AppId::new("shop").unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        Event::new(app, labels, "d".into(), Reason::Decided, at)
    }

    fn full() -> Event {
        let mut event = bare();
        let revision = |name: &str, revision: Option<&str>| BundleRevision {
            name: name.into(),
            revision: revision.map(Into::into),
        };
        event.bundles = [revision("b", Some("r")), revision("a", None)].into();
        event.path = Some("a/b".into());
        event.input = EventInput::Built(json(r#"{"x":"<"}"#));
        event.result = Some(Value::set([Value::from(2), Value::from(1)]));
        event.nd_builtin_cache = Some(json(r#"{"time.now_ns":{"[]":1}}"#));
        event.erased = vec!["/input/a".into()];
        event.masked = vec!["/input/b".into(), "/input/c".into()];
        event.error = Some(EventError {
            code: "c".into(),
            message: "m".into(),
        });
        event.requested_by = Some("127.0.0.1:1".into());
        event.trace_id = Some("0af7".into());
        event.span_id = Some("b7ad".into());
        event.req_id = Some(7);
        event.rule_labels = vec![json(r#"{"team":"red"}"#)];
        event.request_headers = vec![RequestHeader {
            name: "X-a".into(),
            values: vec!["1".into(), "2".into()],
        }];
        event.custom = vec![
            ("z", Value::from(1)),
            ("a", Value::from(2)),
            ("z", Value::from(3)),
        ];
        event.reason = Reason::EvalError;
        event
    }

    fn written(event: &Event) -> (String, Written) {
        let mut out = Vec::new();
        let written = write_event(event, &mut out).unwrap();
        (String::from_utf8(out).unwrap(), written)
    }

    #[test]
    fn members_stand_in_opas_order() {
        let expected = concat!(
            r#"{"labels":{"id":"\u003ci\u003e","version":"1.22.2"},"decision_id":"d","#,
            r#""trace_id":"0af7","span_id":"b7ad","bundles":{"a":{},"b":{"revision":"r"}},"#,
            r#""path":"a/b","input":{"x":"\u003c"},"result":[1,2],"#,
            r#""nd_builtin_cache":{"time.now_ns":{"[]":1}},"erased":["/input/a"],"#,
            r#""masked":["/input/b","/input/c"],"error":{"code":"c","message":"m"},"#,
            r#""requested_by":"127.0.0.1:1","timestamp":"1970-01-01T00:00:01.5Z","#,
            r#""metrics":{"timer_rego_query_eval_ns":0,"timer_server_handler_ns":0},"req_id":7,"#,
            r#""rule_labels":[{"team":"red"}],"#,
            r#""request_context":{"http":{"headers":{"X-a":["1","2"]}}},"#,
            r#""custom":{"a":2,"reason":"eval_error","z":3}}"#,
        );
        assert_eq!(written(&full()).0, expected);
    }

    #[test]
    fn absent_members_are_left_out() {
        let expected = concat!(
            r#"{"labels":{"id":"\u003ci\u003e","version":"1.22.2"},"decision_id":"d","#,
            r#""timestamp":"1970-01-01T00:00:01.5Z","#,
            r#""metrics":{"timer_rego_query_eval_ns":0,"timer_server_handler_ns":0}}"#,
        );
        let (text, written) = written(&bare());
        assert_eq!(text, expected);
        assert_eq!(written, Written::default());
    }

    #[test]
    fn an_event_without_end_is_none() {
        let mut event = full();
        let endless = |value: Value| (0..40).fold(value, |it, _| Value::array([it.clone(), it]));
        event.result = Some(endless(Value::from(1)));
        let mut out = b"before".to_vec();
        assert_eq!(write_event(&event, &mut out), None);
        assert!(!console_line(
            &event,
            SystemTime::UNIX_EPOCH,
            true,
            &mut out
        ));
        assert_eq!(out, b"before");
    }

    #[test]
    fn the_place_of_the_nd_builtin_cache_is_told() {
        let mut event = full();
        let (mut with, written_with) = written(&event);
        with.replace_range(written_with.nd_builtin_cache.unwrap(), "");
        event.nd_builtin_cache = None;
        assert_eq!(with, written(&event).0);
    }

    #[test]
    fn a_policy_on_logs_reads_what_is_uploaded() {
        for event in [bare(), full()] {
            assert_eq!(to_value(&event).unwrap(), {
                let read = json(&written(&event).0);
                let entries = read.as_object().unwrap().iter();
                Value::object(entries.map(|(name, value)| match name.as_str() {
                    // Sets stay sets.
                    Some("result") => (name.clone(), event.result.clone().unwrap()),
                    _ => (name.clone(), value.clone()),
                }))
            });
        }
    }

    #[test]
    fn the_console_has_its_members_by_name() {
        let mut out = Vec::new();
        let written = console_line(
            &full(),
            SystemTime::UNIX_EPOCH + Duration::from_millis(2_900),
            true,
            &mut out,
        );
        assert!(written);
        let line = String::from_utf8(out).unwrap();
        let read = json(line.trim_end());
        // Names in a JSON text that was read are sorted.
        let mut again = Vec::new();
        text::value(&read, &mut again);
        assert_eq!(line.trim_end(), String::from_utf8(again).unwrap());
        assert_eq!(read.get("error"), Some(&Value::from("c: m")));
        assert_eq!(read.get("time"), Some(&Value::from("1970-01-01T00:00:02Z")));
        assert_eq!(read.len(), Some(23));
    }
}
