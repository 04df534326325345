//! The same requests to the real `opa run --server` and to ours, both of which upload to one sink.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use opa_core::{Manager, Value};
use tests::http_client;
use tests::log_sink::LogSink;
use tests::peers;

const POLICY: &str = r#"
package shop

r := input

allow if input.user == "ann"

fails := 1 / input.zero
"#;

const LOG: &str = r#"
package system.log

mask contains "/input/password"

mask contains {"op": "upsert", "path": "/input/user", "value": "who"} if input.path == "shop/allow"

mask contains {"op": "upsert", "path": "/result/tag", "value": {1, "<"}} if input.path == "shop/r"

drop if input.input.user == "health"
"#;

const ELSEWHERE: &str = r#"
package logs

mask := ["/input/password", {"op": "remove", "path": "/result"}]

drop if input.input.user == "health"
"#;

/// Requests and how many of them are logged.
const REQUESTS: [(&str, &str); 7] = [
    (
        "shop/r",
        r#"{"user": "ann", "password": "x", "n": [1, 2.5, "<é"]}"#,
    ),
    ("shop/allow", r#"{"user": "ann", "password": "x"}"#),
    ("shop/allow", r#"{"user": "bob", "password": {"a": [1]}}"#),
    ("shop/allow", r#"{"user": "health"}"#),
    ("shop/fails", r#"{"zero": 1}"#),
    ("shop/r", "false"),
    ("shop/r", r#"["/input/password"]"#),
];
const LOGGED: usize = 6;

/// An event without what differs from process to process.
fn comparable(event: &Value) -> String {
    let members = event.as_object().unwrap().iter();
    let members = members.filter_map(|(name, value)| {
        let value = match name.as_str().unwrap() {
            "decision_id" | "timestamp" | "metrics" | "req_id" | "requested_by" => return None,
            // Ours says why there is no result.
            "custom" => return None,
            "error" if value.get("code").and_then(Value::as_str) == Some("undefined") => {
                return None;
            }
            "labels" => Value::object(
                value
                    .as_object()
                    .unwrap()
                    .iter()
                    .filter(|(name, _)| name.as_str() != Some("id"))
                    .map(|(name, value)| (name.clone(), value.clone())),
            ),
            _ => value.clone(),
        };
        Some((name.clone(), value))
    });
    Value::object(members).to_json()
}

async fn logged(sink: &LogSink, path: &str, count: usize) -> Vec<String> {
    let mut all = Vec::new();
    sink.wait(|post| {
        assert_eq!(post.path, path);
        assert_eq!(post.headers["content-type"], "application/json");
        assert_eq!(post.headers["authorization"], "Bearer t0k3n");
        assert!(
            post.headers["user-agent"]
                .to_str()
                .unwrap()
                .starts_with("Open-Policy-Agent/")
        );
        let chunk = Value::from_json(&post.body).unwrap();
        all.extend(chunk.as_array().unwrap().iter().map(comparable));
        (all.len() >= count).then_some(())
    })
    .await
    .unwrap();
    all
}

#[tokio::test]
async fn events_arrive_as_those_of_opa() {
    let Some(opa) = peers::opa() else { return };
    for (log, section, path) in [
        (LOG, "", "/logs"),
        (LOG, "partition_name: eu, ", "/logs/eu"),
        (
            ELSEWHERE,
            "resource: /a/b, mask_decision: /logs/mask, drop_decision: logs/drop, ",
            "/a/b",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.rego"), POLICY).unwrap();
        std::fs::write(folder.path().join("log.rego"), log).unwrap();
        let bundle = folder.path().join("bundle.tar.gz");
        opa.build(folder.path(), &bundle, "r1");
        let sink = LogSink::start().await.unwrap();
        let config = format!(
            "services: {{sink: {{url: '{}', credentials: {{bearer: {{token: t0k3n}}}}}}}}\n\
             labels: {{team: red}}\n\
             bundles: {{z: {{resource: 'file://{}'}}}}\n\
             decision_logs: {{{section}service: sink, \
               reporting: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}",
            sink.url(),
            bundle.display(),
        );
        let server = opa.serve(&config).await;
        for (path, input) in REQUESTS {
            let request = Request::post(format!("/v1/data/{path}"));
            let request = request.body(Bytes::from(format!(r#"{{"input":{input}}}"#)));
            let response = http_client::send(server.address(), request.unwrap()).await;
            assert!(response.unwrap().status().is_success());
        }
        let theirs = logged(&sink, path, LOGGED).await;
        drop(server);
        sink.take();
        let manager = Manager::builder()
            .config_yaml(&config)
            .plugin(opa_plugins::decision_logs())
            .build()
            .unwrap();
        let app = manager.app("shop").unwrap();
        app.ready(Duration::from_secs(60)).await.unwrap();
        for (path, input) in REQUESTS {
            let input = Value::from_json(input.as_bytes()).unwrap();
            app.decide(path, input).await;
        }
        // By the timer, not by the end.
        let ours = logged(&sink, path, LOGGED).await;
        manager.shutdown(Duration::from_secs(60)).await;
        assert_eq!(ours, theirs, "{section}");
    }
}
