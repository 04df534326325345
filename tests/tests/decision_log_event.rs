//! The event's JSON, byte by byte as the real `opa` uploads and prints it.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::Request;
use opa_core::plugin::{BundleRevision, Event, EventInput, Labels, RequestHeader};
use opa_core::{AppId, Reason, Value};
use opa_plugins::decision_logs::write_event;
use tests::http_client;
use tests::log_sink::LogSink;
use tests::peers;

/// Our event with the members of one of OPA's.
fn event(theirs: &Value) -> Event {
    let text = |name: &str| Some(theirs.get(name)?.as_str()?.into());
    let texts = |name: &str| strings(theirs.get(name));
    let labels = theirs.get("labels").unwrap().as_object().unwrap();
    let labels = labels.iter().map(|(name, value)| {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(name), text(value))
    });
    let at: jiff::Timestamp = theirs
        .get("timestamp")
        .unwrap()
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let mut event = Event::new(
        AppId::new("shop").unwrap(),
        Labels::new(labels),
        text("decision_id").unwrap(),
        Reason::Decided,
        SystemTime::UNIX_EPOCH + Duration::from_nanos(at.as_nanosecond().try_into().unwrap()),
    );
    if let Some(bundles) = theirs.get("bundles").and_then(Value::as_object) {
        event.bundles = bundles
            .iter()
            .map(|(name, bundle)| BundleRevision {
                name: name.as_str().unwrap().into(),
                revision: bundle
                    .get("revision")
                    .and_then(Value::as_str)
                    .map(Into::into),
            })
            .collect();
    }
    event.path = text("path");
    event.input = theirs
        .get("input")
        .map_or(EventInput::None, |it| EventInput::Built(it.clone()));
    event.result = theirs.get("result").cloned();
    event.nd_builtin_cache = theirs.get("nd_builtin_cache").cloned();
    event.erased = texts("erased");
    event.masked = texts("masked");
    event.requested_by = text("requested_by");
    event.trace_id = text("trace_id");
    event.span_id = text("span_id");
    event.req_id = theirs
        .get("req_id")
        .and_then(Value::as_i64)
        .map(i64::cast_unsigned);
    if let Some(labels) = theirs.get("rule_labels").and_then(Value::as_array) {
        event.rule_labels = labels.to_vec();
    }
    if let Some(headers) = theirs.at(&["request_context", "http", "headers"]) {
        let headers = headers.as_object().unwrap().iter();
        event.request_headers = headers
            .map(|(name, values)| RequestHeader {
                name: name.as_str().unwrap().into(),
                values: strings(Some(values)),
            })
            .collect();
    }
    event
}

fn strings(list: Option<&Value>) -> Vec<std::sync::Arc<str>> {
    let list = list.and_then(Value::as_array).unwrap_or_default();
    list.iter()
        .map(|text| text.as_str().unwrap().into())
        .collect()
}

/// Metrics differ by their names: only their place is compared.
fn without_metrics(events: &[u8]) -> String {
    let mut rest = str::from_utf8(events).unwrap();
    let mut text = String::new();
    while let Some((before, after)) = rest.split_once(r#""metrics":{"#) {
        text.push_str(before);
        text.push_str(r#""metrics":"#);
        rest = after.split_once('}').unwrap().1;
    }
    text + rest
}

const POLICY: &str = r#"
package a

r := input

s := {3, 1, 2, "<"}

o := {1: "a", "0": "b", null: 2, {"x": "<"}: 3, "1": "the same", [1]: {5, 4}, "&": {}}

f := 1 / 3

big := 12345678901234567890 * 10

nd := [rand.intn("<x>", 1) | some _ in [1]]

# METADATA
# scope: rule
# custom:
#   labels: {team: red}
labelled := true
"#;

const LOG: &str = r#"
package system.log

mask contains "/input/password"

mask contains {"op": "upsert", "path": "/input/a<b", "value": "&"} if input.path == "a/r"

mask contains {"op": "upsert", "path": "/input/b", "value": {"x": {1, "<"}}} if input.path == "a/r"
"#;

#[tokio::test]
async fn events_are_uploaded_as_by_opa() {
    let Some(opa) = peers::opa() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.rego"), POLICY).unwrap();
    std::fs::write(folder.path().join("log.rego"), LOG).unwrap();
    std::fs::write(
        folder.path().join(".manifest"),
        r#"{"revision": "r<1>", "roots": ["a", "system"]}"#,
    )
    .unwrap();
    let named = folder.path().join("bundle.tar.gz");
    opa.build(folder.path(), &named, "r<1>");
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join(".manifest"), r#"{"roots": ["b"]}"#).unwrap();
    let unnamed = other.path().join("bundle.tar.gz");
    opa.build_with(other.path(), &unnamed, &[]);
    let sink = LogSink::start().await.unwrap();
    let server = opa
        .serve(&format!(
            "services: {{sink: {{url: '{}'}}}}\n\
             labels: {{team: \"<red>\", \"a&b\": \"c\u{2028}\"}}\n\
             bundles: {{z: {{resource: 'file://{}'}}, b: {{resource: 'file://{}'}}}}\n\
             nd_builtin_cache: true\n\
             decision_logs: {{service: sink, nd_builtin_cache: true, \
               request_context: {{http: {{headers: [x-b, X-a, X-None]}}}}, \
               reporting: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}",
            sink.url(),
            named.display(),
            unnamed.display(),
        ))
        .await;
    let odd = r#"{"h": "<&>\u2028\u2029\u0000\b\f\u007f\n\t\r\u001f/\"\\é😀", "n": [1.0, 1e5, 1E400, -0, 0.10, 12345678901234567890123, 1e-7], "": {}, "a": [[], [[{}]]], "password": 1}"#;
    let requests = [
        ("/a/r", odd),
        ("/a/r", r#"{"b": 1, "a<b": 2}"#),
        ("/a/r", "false"),
        ("/a/s", "null"),
        ("/a/o", "1"),
        ("/a/f", r#""x""#),
        ("/a/big", "[]"),
        ("/a/nd", "{}"),
        ("/a/labelled", "{}"),
        ("/a/undefined", "{}"),
        ("", "{}"),
    ];
    for (path, input) in requests {
        let request = Request::post(format!("/v1/data{path}"))
            .header("x-a", "<1>")
            .header("x-a", "2")
            .header("x-b", "")
            .header(
                "traceparent",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            )
            .body(Bytes::from(format!(r#"{{"input":{input}}}"#)))
            .unwrap();
        let response = http_client::send(server.address(), request).await.unwrap();
        assert!(response.status().is_success(), "{:?}", response.body());
    }
    let mut seen = 0;
    let all = |post: &tests::log_sink::Post| {
        assert_eq!(post.path, "/logs");
        let theirs = Value::from_json(&post.body).unwrap();
        let theirs = theirs.as_array().unwrap();
        let mut ours = Vec::new();
        for (number, theirs) in theirs.iter().enumerate() {
            ours.push(if number == 0 { b'[' } else { b',' });
            write_event(&event(theirs), &mut ours).unwrap();
        }
        ours.push(b']');
        assert_eq!(without_metrics(&ours), without_metrics(&post.body));
        seen += theirs.len();
        (seen == requests.len()).then_some(())
    };
    sink.wait(all).await.unwrap();
}
