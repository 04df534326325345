//! Each peer starts, answers, and is the version that the comparisons are made with.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use tests::envoy_stack::EnvoyPeers;
use tests::http_client::{get, send};
use tests::peers::{self, Opa};

const POLICY: &str = r#"package minimal

default allow := {"allowed": false, "http_status": 401, "headers": {"x-why": "no"}, "body": "go away"}

allow := {
    "allowed": true,
    "headers": {"x-user": input.parsed_path[1]},
    "request_headers_to_remove": ["x-secret"],
    "response_headers_to_add": {"x-seen": "yes"},
} if input.parsed_path[0] == "users"
"#;

/// A bundle of the policy above by `opa build`.
fn bundle(opa: &Opa, folder: &TempDir) -> PathBuf {
    let sources = folder.path().join("sources");
    fs::create_dir(&sources).unwrap();
    fs::write(sources.join("policy.rego"), POLICY).unwrap();
    let bundle = folder.path().join("bundle.tar.gz");
    opa.build(&sources, &bundle, "first");
    bundle
}

fn request(target: &str) -> Request<Bytes> {
    Request::get(target)
        .header("host", "service.example")
        .header("x-secret", "s")
        .body(Bytes::new())
        .unwrap()
}

#[test]
fn opa_has_the_version_and_builds_evaluates_and_inspects() {
    let Some(opa) = peers::opa() else { return };
    assert!(
        opa.version().starts_with("Version: 1.22.2\n"),
        "{}",
        opa.version()
    );

    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(&opa, &folder);
    let query = "data.minimal.allow.allowed";
    assert_eq!(
        opa.eval(&bundle, query, &json!({"parsed_path": ["x"]})),
        Some(json!(false))
    );
    assert_eq!(opa.eval(&bundle, "data.none", &json!({})), None);
    assert!(opa.try_eval(&bundle, "data.minimal.(", &json!({})).is_err());
    assert_eq!(opa.inspect(&bundle)["manifest"]["revision"], "first");
}

#[tokio::test]
async fn opa_serves_a_bundle_from_nginx_and_logs_its_decision() {
    let (Some(opa), Some(nginx)) = (peers::opa(), peers::nginx()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    bundle(&opa, &folder);
    let nginx = nginx.serve(folder.path()).await;
    let configuration = json!({
        "services": {"nginx": {"url": nginx.url()}},
        "bundles": {"minimal": {"resource": "bundle.tar.gz"}},
        "decision_logs": {"console": true},
    });
    let running = opa.serve(&configuration.to_string()).await;

    let input = json!({"parsed_path": ["users", "ann"]});
    let decision = running.decide("minimal/allow", &input).await.unwrap();
    assert_eq!(decision["headers"], json!({"x-user": "ann"}));
    assert_eq!(running.decide("minimal/nothing", &input).await, None);
    let events = running.decision_logs();
    assert_eq!(events.len(), 2);
    assert_eq!(events[0]["input"], input);
    assert_eq!(
        events[0]["bundles"],
        json!({"minimal": {"revision": "first"}})
    );
    assert!(
        nginx
            .accesses()
            .contains(&"GET /bundle.tar.gz 200 \"-\"".to_owned())
    );
}

#[tokio::test]
async fn nginx_serves_a_file_with_a_strong_etag_and_304() {
    let Some(nginx) = peers::nginx() else { return };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bundle.tar.gz"), "bytes").unwrap();
    let nginx = nginx.serve(folder.path()).await;

    let first = get(nginx.address(), "/bundle.tar.gz").await.unwrap();
    assert_eq!(
        (first.status(), first.body().as_ref()),
        (StatusCode::OK, &b"bytes"[..])
    );
    let etag = first.headers()["etag"].to_str().unwrap().to_owned();
    assert!(
        etag.starts_with('"') && etag.ends_with('"'),
        "{etag} isn't strong"
    );

    let conditional = Request::get("/bundle.tar.gz").header("if-none-match", &etag);
    let second = send(nginx.address(), conditional.body(Bytes::new()).unwrap())
        .await
        .unwrap();
    assert_eq!(second.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(
        get(nginx.address(), "/none").await.unwrap().status(),
        StatusCode::NOT_FOUND
    );
    let accesses = nginx.accesses();
    let quoted = etag.replace('"', "\\x22");
    assert!(
        accesses.contains(&format!("GET /bundle.tar.gz 304 \"{quoted}\"")),
        "{accesses:?}"
    );
}

#[tokio::test]
async fn the_registry_lets_its_user_in_and_oras_has_the_version() {
    let (Some(registry), Some(oras)) = (peers::docker_registry(), peers::oras()) else {
        return;
    };
    assert!(oras.version().contains("1.3.6"), "{}", oras.version());
    let registry = registry.serve().await;
    let stranger = get(registry.address(), "/v2/").await.unwrap();
    assert_eq!(stranger.status(), StatusCode::UNAUTHORIZED);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "bytes").unwrap();
    oras.push(&registry, "a/b:1", folder.path(), "file", "text/plain");
    let digest = oras.digest(&registry, "a/b:1", folder.path());
    assert!(digest.starts_with("sha256:"), "{digest}");
    let manifest = "HEAD /v2/a/b/manifests/1".to_owned();
    assert!(registry.accesses("oras/").contains(&manifest));
    assert!(registry.accesses("OPA").is_empty());
}

#[test]
fn envoy_has_the_version() {
    let Some(envoy) = peers::envoy() else { return };
    assert!(envoy.version().contains("/1.40.0/"), "{}", envoy.version());
}

#[tokio::test]
async fn envoy_with_the_plugin_allows_and_denies() {
    let (Some(opa), Some(peers)) = (peers::opa(), EnvoyPeers::fetch()) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let context = [("tier".to_owned(), "gold".to_owned())];
    let mut stack = peers
        .start(&bundle(&opa, &folder), "minimal/allow", &context)
        .await;

    let allowed = stack.send(request("/users/ann?q=1")).await;
    assert_eq!(allowed.response.status(), StatusCode::OK);
    assert_eq!(allowed.response.headers()["x-seen"], "yes");
    let upstream = allowed.upstream.unwrap();
    assert_eq!(upstream["path"], "/users/ann?q=1");
    assert_eq!(upstream["headers"]["x-user"], json!(["ann"]));
    assert_eq!(upstream["headers"].get("x-secret"), None);
    let input = &allowed.event["input"];
    assert_eq!(input["parsed_path"], json!(["users", "ann"]));
    assert_eq!(input["parsed_query"], json!({"q": ["1"]}));
    assert_eq!(
        input["attributes"]["contextExtensions"],
        json!({"tier": "gold"})
    );
    assert_eq!(
        allowed.event["bundles"],
        json!({"authz": {"revision": "first"}})
    );
    assert_eq!(allowed.event["labels"]["version"], "1.15.2");

    let denied = stack.send(request("/admin")).await;
    assert_eq!(denied.response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(denied.response.headers()["x-why"], "no");
    assert_eq!(denied.response.body(), "go away");
    assert!(denied.upstream.is_none());
    assert_eq!(denied.event["result"]["allowed"], false);
}

/// The folder is that of the process alone and goes with it.
#[tokio::test]
async fn a_stopped_peer_leaves_nothing_behind() {
    let Some(nginx) = peers::nginx() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut running = nginx.serve(folder.path()).await;
    let (address, files) = (running.address(), running.process().folder().to_owned());
    assert!(files.exists());
    drop(running);
    assert!(!Path::new(&files).exists());
    assert!(get(address, "/").await.is_err());
}

#[tokio::test]
async fn the_collector_takes_all_signals_and_shows_them() {
    let Some(collector) = peers::collector() else {
        return;
    };
    let running = collector.start().await;
    assert_eq!(running.traces(), [] as [serde_json::Value; 0]);
    let scope = |records: &str, record: serde_json::Value| json!([{records: [record]}]);
    let requests = [
        (
            "traces",
            json!({"resourceSpans": [{"scopeSpans": scope("spans", json!({
                "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331",
                "name": "a span",
            }))}]}),
        ),
        (
            "metrics",
            json!({"resourceMetrics": [{"scopeMetrics": scope("metrics", json!({
                "name": "a metric", "gauge": {"dataPoints": [{"asInt": "1"}]},
            }))}]}),
        ),
        (
            "logs",
            json!({"resourceLogs": [{"scopeLogs": scope("logRecords", json!({
                "body": {"stringValue": "a record"},
            }))}]}),
        ),
    ];
    for (signal, body) in requests {
        let request = Request::post(format!("/v1/{signal}"))
            .header("content-type", "application/json")
            .body(Bytes::from(body.to_string()));
        let answer = send(running.http(), request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{signal}: {answer:?}");
    }
    let spans = &running.traces()[0]["resourceSpans"][0]["scopeSpans"][0];
    assert_eq!(spans["spans"][0]["name"], "a span");
    let metrics = &running.metrics()[0]["resourceMetrics"][0]["scopeMetrics"][0];
    assert_eq!(metrics["metrics"][0]["name"], "a metric");
    let logs = &running.logs()[0]["resourceLogs"][0]["scopeLogs"][0];
    assert_eq!(logs["logRecords"][0]["body"]["stringValue"], "a record");
    assert!(std::net::TcpStream::connect(running.grpc()).is_ok());
}
