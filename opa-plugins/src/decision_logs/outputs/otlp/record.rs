//! Events as log records.

use std::time::{SystemTime, UNIX_EPOCH};

use opa_core::{AppId, Number, Value};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::super::super::output::LoggedEvent;
use crate::json;

/// Three levels of messages for each of these; readers of protobuf take about a hundred.
const MAX_DEPTH: usize = 24;

/// The request with some events of an app. `attributes` are those of the resource, beside the app
/// and its labels.
pub(super) fn request(
    app: &AppId,
    attributes: Vec<KeyValue>,
    events: &[LoggedEvent],
) -> ExportLogsServiceRequest {
    let mut groups: Vec<(Value, Vec<LogRecord>)> = Vec::new();
    for event in events {
        let (labels, record) = record(event);
        match groups.last_mut() {
            Some((same, records)) if *same == labels => records.push(record),
            _ => groups.push((labels, vec![record])),
        }
    }
    let resource_logs = groups.into_iter().map(|(labels, log_records)| {
        let mut attributes = attributes.clone();
        attributes.push(attribute("opa.app", app.as_str()));
        attributes.extend(label_attributes(&labels));
        ResourceLogs {
            resource: Some(Resource {
                attributes,
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope()),
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }
    });
    ExportLogsServiceRequest {
        resource_logs: resource_logs.collect(),
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

pub(super) fn attribute(key: &str, value: &str) -> KeyValue {
    pair(key, any_value::Value::StringValue(value.to_owned()))
}

fn pair(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn label_attributes(labels: &Value) -> impl Iterator<Item = KeyValue> {
    let labels = labels.as_object().into_iter().flat_map(|it| it.iter());
    labels.filter_map(|(name, label)| {
        let name = format!("opa.label.{}", name.as_str()?);
        Some(attribute(&name, label.as_str()?))
    })
}

/// The labels of an event, and the rest of it.
fn record(event: &LoggedEvent) -> (Value, LogRecord) {
    // What is too deep to be read is its own text.
    let parsed = Value::from_json(&event.json).unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&event.json);
        Value::from(&*text)
    });
    let mut attributes = vec![attribute("opa.decision_id", &event.decision_id)];
    if let Some(path) = parsed.get("path").and_then(Value::as_str) {
        attributes.push(attribute("opa.path", path));
    }
    let id = |name, bytes| {
        let text = parsed.get(name).and_then(Value::as_str);
        text.and_then(|text| hex(text, bytes)).unwrap_or_default()
    };
    let record = LogRecord {
        time_unix_nano: nanos(event.timestamp),
        observed_time_unix_nano: nanos(SystemTime::now()),
        severity_number: SeverityNumber::Info.into(),
        severity_text: "INFO".to_owned(),
        event_name: "opa.decision".to_owned(),
        attributes,
        trace_id: id("trace_id", 16),
        span_id: id("span_id", 8),
        body: Some(any(&parsed, 0)),
        ..LogRecord::default()
    };
    let labels = parsed.get("labels").cloned().unwrap_or(Value::NULL);
    (labels, record)
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// So many bytes in hexadecimal, not all zero: what a trace or span is called (W3C Trace Context).
fn hex(text: &str, bytes: usize) -> Option<Vec<u8>> {
    if text.len() != 2 * bytes || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let digits = (0..bytes).map(|at| text.get(2 * at..2 * at + 2));
    let parsed: Option<Vec<u8>> = digits
        .map(|digits| u8::from_str_radix(digits?, 16).ok())
        .collect();
    parsed.filter(|id| id.iter().any(|byte| *byte != 0))
}

fn any(value: &Value, depth: usize) -> AnyValue {
    use any_value::Value as Any;

    let value = if let Some(text) = value.as_str() {
        Some(Any::StringValue(text.to_owned()))
    } else if let Some(number) = value.as_number() {
        Some(numeric(number))
    } else if let Some(is_true) = value.as_bool() {
        Some(Any::BoolValue(is_true))
    } else if value.is_null() {
        None
    } else if depth == MAX_DEPTH {
        Some(Any::StringValue(text(value)))
    } else if let Some(items) = value.as_array() {
        let values = items.iter().map(|item| any(item, depth + 1)).collect();
        Some(Any::ArrayValue(ArrayValue { values }))
    } else if let Some(members) = value.as_object() {
        let values = members.iter().map(|(key, member)| KeyValue {
            key: key.as_str().map_or_else(|| text(key), str::to_owned),
            value: Some(any(member, depth + 1)),
            ..KeyValue::default()
        });
        let values = values.collect();
        Some(Any::KvlistValue(KeyValueList { values }))
    } else {
        Some(Any::StringValue(text(value)))
    };
    AnyValue { value }
}

fn numeric(number: &Number) -> any_value::Value {
    if let Some(integer) = number.as_i64() {
        return any_value::Value::IntValue(integer);
    }
    let text = number.as_str();
    let is_integer = text.bytes().all(|c| c.is_ascii_digit() || c == b'-');
    match number.as_f64().filter(|_| !is_integer) {
        Some(float) => any_value::Value::DoubleValue(float),
        None => any_value::Value::StringValue(text.into_owned()),
    }
}

fn text(value: &Value) -> String {
    let mut text = Vec::new();
    json::value(value, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use any_value::Value as Any;

    use super::*;

    fn event(json: &str) -> LoggedEvent {
        let at = UNIX_EPOCH + Duration::from_nanos(1_500_000_001);
        LoggedEvent::new("d1".into(), at, json.to_owned().into())
    }

    fn body(json: &str) -> Any {
        let (_, record) = record(&event(json));
        record.body.unwrap().value.unwrap()
    }

    #[test]
    fn a_record_tells_what_the_event_does() {
        let json = r#"{"labels":{"id":"i"},"path":"a/allow",
            "trace_id":"0af7651916cd43dd8448eb211c80319c","span_id":"b7ad6b7169203331"}"#;
        let (labels, record) = record(&event(json));
        assert_eq!(labels.get("id").and_then(Value::as_str), Some("i"));
        assert_eq!(record.time_unix_nano, 1_500_000_001);
        assert_eq!(record.event_name, "opa.decision");
        let wanted = [
            attribute("opa.decision_id", "d1"),
            attribute("opa.path", "a/allow"),
        ];
        assert_eq!(record.attributes, wanted);
        assert_eq!(record.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(record.span_id[6..], [0x33, 0x31]);
    }

    #[test]
    fn ids_that_are_none_are_left_out() {
        for id in [
            "",
            "x",
            "0af7651916cd43dd8448eb211c80319g",
            "é".repeat(16).as_str(),
        ] {
            assert_eq!(hex(id, 16), None, "{id}");
        }
        assert_eq!(hex(&"0".repeat(32), 16), None);
    }

    #[test]
    fn values_keep_their_kinds_and_no_number_loses_digits() {
        let Any::KvlistValue(members) =
            body(r#"{"a":1,"b":1.5,"c":12345678901234567890,"d":null,"e":[true,"x"]}"#)
        else {
            panic!("an object is a list of members");
        };
        let list = [Any::BoolValue(true), Any::StringValue("x".to_owned())];
        let values = list.map(|value| AnyValue { value: Some(value) }).to_vec();
        let wanted = [
            Some(Any::IntValue(1)),
            Some(Any::DoubleValue(1.5)),
            Some(Any::StringValue("12345678901234567890".to_owned())),
            None,
            Some(Any::ArrayValue(ArrayValue { values })),
        ];
        let found = members
            .values
            .into_iter()
            .map(|member| member.value.unwrap().value);
        assert_eq!(found.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn what_is_too_deep_is_text_and_readers_can_read_the_rest() {
        use prost::Message;

        let deep = format!("{}7{}", "[".repeat(500), "]".repeat(500));
        let app = AppId::new("shop").unwrap();
        let request = request(&app, Vec::new(), &[event(&format!("{{\"a\":{deep}}}"))]);
        let read = ExportLogsServiceRequest::decode(&*request.encode_to_vec()).unwrap();
        assert_eq!(read, request);
        assert!(format!("{read:?}").contains(&"[".repeat(400)));
        assert!(matches!(body(&"[".repeat(100_000)), Any::StringValue(_)));
    }

    #[test]
    fn events_with_the_same_labels_have_one_resource() {
        let app = AppId::new("shop").unwrap();
        let [a, b] = ["a", "b"].map(|id| event(&format!("{{\"labels\":{{\"id\":\"{id}\"}}}}")));
        let zone = attribute("zone", "eu");
        let request = request(&app, vec![zone.clone()], &[a.clone(), a, b]);
        let attributes = |id| {
            let own = [attribute("opa.app", "shop"), attribute("opa.label.id", id)];
            [vec![zone.clone()], own.to_vec()].concat()
        };
        let found = request.resource_logs.into_iter().map(|one| {
            let records = one.scope_logs[0].log_records.len();
            (one.resource.unwrap().attributes, records)
        });
        let wanted = [(attributes("a"), 2), (attributes("b"), 1)];
        assert_eq!(found.collect::<Vec<_>>(), wanted);
    }
}
