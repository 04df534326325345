//! Traces from the caller through `serve` to the real OpenTelemetry collector, and to the bundle
//! service and the sink of the decision log.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::Request;
use serde_json::Value;
use tests::bundle_server::{Answer, BundleServer};
use tests::certificates::Authority;
use tests::http_client;
use tests::log_sink::{self, LogSink};
use tests::peers::{self, RunningCollector};
use tests::serve::Serve;

const POLICY: &str = r#"
package shop

allow := {
    "allowed": input.attributes.request.http.method == "GET",
    "headers": {"authorization": "Bearer canary-upstream"},
    "response_headers_to_add": {"set-cookie": ["canary-response"]},
}
"#;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// What no span, no line of a log and no line of the console may have. All of them are sent where
/// they belong.
const CANARY: &str = "canary-";

/// What is sent of the userinfo of a URL: `canary-user:canary-password`.
const BASIC: &str = "Y2FuYXJ5LXVzZXI6Y2FuYXJ5LXBhc3N3b3Jk";

/// A bundle service and a sink, which `serve` talks to with all the secrets that it can have.
struct World {
    bundles: BundleServer,
    sink: LogSink,
}

impl World {
    async fn start() -> World {
        let bundles = BundleServer::start().await;
        let archive = opa_core::bundle::BundleWriter::new()
            .revision("r1")
            .module("shop.rego", POLICY)
            .unwrap()
            .to_vec()
            .unwrap();
        bundles.answer(
            "/b.tar.gz?token=canary-query",
            Answer::Bundle(archive.clone()),
        );
        bundles.answer("/b.tar.gz", Answer::Bundle(archive));
        let sink = LogSink::start().await.unwrap();
        World { bundles, sink }
    }

    fn configuration(&self) -> String {
        let with_userinfo = |url: String| url.replace("://", "://canary-user:canary-password@");
        format!(
            r#"
labels: {{team: red}}
services:
  control:
    url: "{}"
    credentials: {{bearer: {{token: canary-token}}}}
    headers: {{cookie: "a=canary-cookie", x-secret: canary-header}}
  sink:
    url: "{}"
bundles:
  main:
    service: control
    resource: b.tar.gz?token=canary-query
    polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}
decision_logs:
  service: sink
  resource: /logs?token=canary-query
  console: true
  request_context: {{http: {{headers: [Authorization, X-Seen]}}}}
  reporting: {{min_delay_seconds: 1, max_delay_seconds: 1}}
plugins: {{envoy_ext_authz_grpc: {{path: shop/allow}}}}
"#,
            with_userinfo(self.bundles.url()),
            with_userinfo(self.sink.url()),
        )
    }

    /// The next event that is uploaded, and the `traceparent` that its upload was sent with.
    async fn uploaded(&self) -> (Value, Option<String>) {
        let uploaded = self.sink.wait(|post| {
            let chunk: Value = serde_json::from_slice(&post.body).unwrap();
            let parent = post.headers.get("traceparent");
            let parent = parent.map(|parent| parent.to_str().unwrap().to_owned());
            Some((chunk[0].clone(), parent))
        });
        uploaded.await.unwrap()
    }
}

fn request(method: &str) -> Request<Bytes> {
    Request::builder()
        .method(method)
        .uri("/orders?page=2")
        .header("host", "shop.test")
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .header("authorization", "Bearer canary-caller")
        .header("cookie", "session=canary-session")
        .header("x-seen", "yes")
        .body(Bytes::new())
        .unwrap()
}

/// A span that the collector received.
#[derive(Debug)]
struct Span {
    name: String,
    trace: String,
    id: String,
    parent: String,
    kind: u64,
    attributes: BTreeMap<String, Value>,
    events: Vec<(String, BTreeMap<String, Value>)>,
    resource: BTreeMap<String, Value>,
}

fn spans(collector: &RunningCollector) -> Vec<Span> {
    let mut spans = Vec::new();
    for request in collector.traces() {
        for resource in list(&request["resourceSpans"]) {
            for scope in list(&resource["scopeSpans"]) {
                let of_resource = &resource["resource"]["attributes"];
                spans.extend(
                    list(&scope["spans"])
                        .iter()
                        .map(|one| span(one, of_resource)),
                );
            }
        }
    }
    spans
}

fn span(one: &Value, resource: &Value) -> Span {
    let text = |name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let events = list(&one["events"]).iter();
    Span {
        name: text("name"),
        trace: text("traceId"),
        id: text("spanId"),
        parent: text("parentSpanId"),
        kind: one["kind"].as_u64().unwrap_or_default(),
        attributes: attributes(&one["attributes"]),
        events: events
            .map(|event| {
                let name = event["name"].as_str().unwrap().to_owned();
                (name, attributes(&event["attributes"]))
            })
            .collect(),
        resource: attributes(resource),
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// By name; the one value of `{"stringValue": …}` and the like.
fn attributes(value: &Value) -> BTreeMap<String, Value> {
    let pairs = list(value).iter().map(|pair| {
        let value = pair["value"].as_object().unwrap().values().next();
        (
            pair["key"].as_str().unwrap().to_owned(),
            value.unwrap().clone(),
        )
    });
    pairs.collect()
}

/// The span that a `traceparent` names.
fn named<'a>(spans: &'a [Span], traceparent: &str) -> &'a Span {
    let parts: Vec<_> = traceparent.split('-').collect();
    let [_, trace, id, _] = *parts else {
        panic!("{traceparent}")
    };
    let found = spans.iter().find(|it| it.trace == trace && it.id == id);
    found.unwrap_or_else(|| panic!("{traceparent} is none of {spans:#?}"))
}

/// All that `serve` wrote.
fn output(serve: &mut Serve) -> String {
    serve.process().stdout() + &serve.process().stderr()
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_downloads_and_uploads_are_in_traces() {
    let Some(collector) = peers::collector() else {
        return;
    };
    for protocol in ["http/protobuf", "grpc"] {
        let collector = collector.start().await;
        let address = match protocol {
            "grpc" => collector.grpc(),
            _ => collector.http(),
        };
        let world = World::start().await;
        let endpoint = format!("http://{address}");
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=canary-otlp"),
            ("OTEL_SERVICE_NAME", "shop"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test"),
        ];
        let mut serve = Serve::start_in(&environment, &world.configuration(), &[]).await;
        serve.ready().await;
        let answer = http_client::send(serve.address(), request("GET"))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        // What is behind the layer has what the policy set, and the caller's trace.
        let echo: Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(
            echo["headers"]["authorization"][0],
            "Bearer canary-upstream"
        );
        assert_eq!(
            echo["headers"]["traceparent"][0],
            format!("00-{TRACE}-{PARENT}-01")
        );
        let (event, upload) = world.uploaded().await;
        assert!(serve.process().interrupt().await.unwrap().success());
        let spans = spans(&collector);

        in_the_callers_trace(&spans, &event);
        let upload = named(&spans, &upload.unwrap());
        assert_eq!((&*upload.name, upload.kind), ("POST", 3));
        assert_eq!(upload.attributes["opa.app"], "default");
        assert_eq!(upload.attributes["opa.service"], "sink");
        assert_eq!(upload.attributes["http.request.method"], "POST");
        assert_eq!(upload.attributes["url.full"], world.sink.url() + "/logs");
        assert_eq!(upload.attributes["http.response.status_code"], "200");
        assert_ne!(upload.trace, TRACE);
        downloaded(&spans, &world.bundles);

        let told = collector.traces();
        let told = serde_json::to_string(&told).unwrap();
        assert!(!told.contains(CANARY), "{protocol}: {told}");
        assert!(!told.contains(BASIC), "{protocol}: {told}");
        let output = output(&mut serve);
        assert!(!output.contains(CANARY), "{protocol}: {output}");
        assert!(!output.contains(BASIC), "{protocol}: {output}");
        let console = output.lines().find(|line| line.contains("Decision Log"));
        let console: Value = serde_json::from_str(console.unwrap()).unwrap();
        hidden_on_the_console(&console, &event);
    }
}

fn in_the_callers_trace(spans: &[Span], event: &Value) {
    let of_trace: Vec<_> = spans.iter().filter(|it| it.trace == TRACE).collect();
    let [server] = *of_trace else {
        panic!("{spans:#?}")
    };
    assert_eq!((&*server.name, server.kind), ("GET", 2));
    assert_eq!(server.parent, PARENT);
    assert_eq!(server.attributes["url.path"], "/orders");
    assert_eq!(server.attributes["http.response.status_code"], "200");
    assert_eq!(server.resource["service.name"], "shop");
    assert_eq!(server.resource["deployment.environment"], "test");

    assert_eq!(event["trace_id"], TRACE);
    assert_eq!(event["span_id"], *server.id);
    let [(name, told)] = &*server.events else {
        panic!("{server:#?}")
    };
    assert_eq!(name, "opa.decision");
    assert_eq!(told["opa.decision_id"], event["decision_id"]);
    assert_eq!(told["opa.decision.allowed"], true);
    assert_eq!(told["opa.decision.reason"], "allowed");
    assert_eq!(told["opa.app"], "default");
    assert_eq!(told["opa.bundle_name"], "default");
    assert_eq!(told["opa.path"], "shop/allow");
    assert_eq!(told["opa.bundles"], "main=r1");
    let labels = told["opa.labels"].as_str().unwrap();
    assert!(labels.contains(r#""team": "red""#), "{labels}");
}

fn downloaded(spans: &[Span], bundles: &BundleServer) {
    let requests = bundles.requests();
    let first = requests.first().unwrap();
    let download = named(spans, first.header("traceparent").unwrap());
    assert_eq!((&*download.name, download.kind), ("GET", 3));
    assert_eq!(download.attributes["url.full"], bundles.url() + "/b.tar.gz");
    assert_eq!(download.attributes["server.address"], "127.0.0.1");
    assert_eq!(download.attributes["http.response.status_code"], "200");
    let poll = spans.iter().find(|it| it.id == download.parent).unwrap();
    assert_eq!(poll.name, "open-policy-agent.bundle");
    assert_eq!(poll.parent, "");
    assert_eq!(poll.attributes["opa.app"], "default");
    assert_eq!(poll.attributes["opa.bundle"], "main");
    // They were sent where they belong.
    assert_eq!(first.header("authorization"), Some("Bearer canary-token"));
    assert_eq!(first.header("cookie"), Some("a=canary-cookie"));
}

/// The console's line is that of the upload, but for what is secret.
fn hidden_on_the_console(console: &Value, event: &Value) {
    let headers = &console["input"]["attributes"]["request"]["http"]["headers"];
    assert_eq!(headers["authorization"], "REDACTED");
    assert_eq!(headers["cookie"], "REDACTED");
    assert_eq!(headers["x-seen"], "yes");
    let result = &console["result"];
    assert_eq!(result["headers"]["authorization"], "REDACTED");
    assert_eq!(
        result["response_headers_to_add"]["set-cookie"][0],
        "REDACTED"
    );
    let context = &console["request_context"]["http"]["headers"];
    assert_eq!(context["Authorization"][0], "REDACTED");
    assert_eq!(context["X-Seen"][0], "yes");
    assert_eq!(console["decision_id"], event["decision_id"]);
    assert_eq!(console["trace_id"], event["trace_id"]);
    // What is uploaded is OPA's.
    let headers = &event["input"]["attributes"]["request"]["http"]["headers"];
    assert_eq!(headers["authorization"], "Bearer canary-caller");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_variables_nothing_is_traced() {
    let world = World::start().await;
    for environment in [
        &[][..],
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
            ("OTEL_SDK_DISABLED", "true"),
        ],
    ] {
        let mut serve = Serve::start_in(environment, &world.configuration(), &[]).await;
        serve.ready().await;
        let answer = http_client::send(serve.address(), request("GET"))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        let (event, upload) = world.uploaded().await;
        assert_eq!((&event["trace_id"], upload), (&Value::Null, None));
        let download = world.bundles.requests();
        let download = download.first().unwrap();
        assert_eq!(download.header("traceparent"), None);
        assert!(serve.process().interrupt().await.unwrap().success());
    }
}

/// Nobody listens where the traces should go: what is lost is told, without secrets.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_the_traces_only() {
    for protocol in ["http/protobuf", "grpc"] {
        let world = World::start().await;
        let environment = [
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "http://canary-user:canary-password@127.0.0.1:1/?token=canary-query",
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=canary-otlp"),
        ];
        let mut serve = Serve::start_in(&environment, &world.configuration(), &[]).await;
        serve.ready().await;
        let answer = http_client::send(serve.address(), request("POST"))
            .await
            .unwrap();
        assert_eq!(answer.status(), 403);
        let (event, _) = world.uploaded().await;
        assert_eq!(event["trace_id"], TRACE);
        assert!(serve.process().interrupt().await.unwrap().success());
        let output = output(&mut serve);
        let lost = output.lines().any(|line| {
            line.contains("ERROR") && line.contains("opentelemetry") || line.contains("traces may")
        });
        assert!(lost, "{protocol}: {output}");
        assert!(!output.contains(CANARY), "{protocol}: {output}");
    }
}

/// By the system's authorities, as which those of a file may count.
#[tokio::test(flavor = "multi_thread")]
async fn traces_go_over_tls() {
    let Some(collector) = peers::collector() else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("collector authority");
    authority.issue_into(folder.path(), "server", "collector");
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let file = |name: &str| folder.path().join(name);
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let collector = collector.start_tls(&certificate, &key).await;
    for (protocol, address) in [
        ("http/protobuf", collector.http()),
        ("grpc", collector.grpc()),
    ] {
        let world = World::start().await;
        let endpoint = format!("https://{address}");
        let environment = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_SERVICE_NAME", protocol),
            ("SSL_CERT_FILE", ca.to_str().unwrap()),
        ];
        let mut serve = Serve::start_in(&environment, &world.configuration(), &[]).await;
        serve.ready().await;
        assert!(serve.process().interrupt().await.unwrap().success());
        let output = output(&mut serve);
        let spans = spans(&collector);
        let arrived = spans
            .iter()
            .any(|it| it.resource["service.name"] == protocol);
        assert!(arrived, "{protocol}: {output}");
    }
}

/// A collector that takes connections and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_does_not_hold_the_end() {
    let world = World::start().await;
    let hanging = LogSink::start().await.unwrap();
    hanging.script([], log_sink::Answer::Hang);
    let endpoint = hanging.url();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        // Only the end's own deadline counts.
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "600000"),
    ];
    let mut serve = Serve::start_in(&environment, &world.configuration(), &[]).await;
    serve.ready().await;
    assert!(serve.process().interrupt().await.unwrap().success());
    let output = output(&mut serve);
    assert!(output.contains("traces may be lost"), "{output}");
}

#[tokio::test]
async fn a_variable_that_would_be_ignored_is_refused() {
    let world = World::start().await;
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
    ];
    let refused = Serve::try_start_in(&environment, &world.configuration()).await;
    let error = refused.err().unwrap().to_string();
    let wanted = "OTEL_EXPORTER_OTLP_PROTOCOL: expected `http/protobuf` or `grpc`";
    assert!(error.contains(wanted), "{error}");
}
