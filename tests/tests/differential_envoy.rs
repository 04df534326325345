//! The same HTTP request through our layer and through Envoy with its real authorization plugin:
//! one decision, one input document, but for what is listed here with its cause.

use std::path::Path;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use serde_json::{Value, json};
use tests::comparison::{ANY, Judge, Known, NOTHING};
use tests::envoy_stack::{EnvoyPeers, EnvoyStack};
use tests::http_client::send;
use tests::layered::Layered;
use tests::policies::{self, Policy};
use tests::serve::Serve;
use tests::{echo, peers};

const ADDED_BY_ENVOY: &str = "Envoy adds it, also for the policy to see";
const NO_PROXY: &str = "Envoy tells of itself; we are no proxy";
const FAIL_CLOSED: &str = "Envoy can't tell a failed check from a denial; we answer a fault as one";
const ILLEGAL: &str = "the plugin logs a decision only when it can make an answer of it";
const STATUS: &str = "Envoy knows only the statuses of an enum, and fails; we send any of a denial";

/// All that differs. Whatever else does fails the run, and so does one of these that doesn't.
const KNOWN: &[Known] = &[
    // The response.
    Known::everywhere("/headers/server", ANY, NOTHING, NO_PROXY),
    Known::everywhere(
        "/headers/x-envoy-upstream-service-time",
        ANY,
        NOTHING,
        NO_PROXY,
    ),
    Known::everywhere(
        "/headers/connection",
        r#"["close"]"#,
        NOTHING,
        "Envoy closes after each 400, taking it for a malformed request",
    ),
    Known::everywhere(
        "/headers/content-type",
        r#"["text/plain"]"#,
        r#"["text/plain; charset=utf-8"]"#,
        "a string of Rego is UTF-8, and without that word clients may guess another charset",
    ),
    // What reached the service.
    Known::everywhere(
        "/upstream/headers/x-request-id",
        ANY,
        NOTHING,
        ADDED_BY_ENVOY,
    ),
    Known::everywhere(
        "/upstream/headers/x-forwarded-proto",
        r#"["http"]"#,
        NOTHING,
        ADDED_BY_ENVOY,
    ),
    Known::everywhere(
        "/upstream/headers/x-envoy-expected-rq-timeout-ms",
        ANY,
        NOTHING,
        NO_PROXY,
    ),
    Known::everywhere(
        "/upstream/headers/content-length",
        r#"["0"]"#,
        NOTHING,
        "Envoy adds it to a request of a method that often has a body",
    ),
    // The input document.
    Known::everywhere(
        "/event/input/attributes/request/http/headers/x-request-id",
        ANY,
        NOTHING,
        ADDED_BY_ENVOY,
    ),
    Known::everywhere(
        "/event/input/attributes/request/http/headers/x-forwarded-proto",
        r#""http""#,
        NOTHING,
        ADDED_BY_ENVOY,
    ),
    Known::everywhere(
        "/event/input/attributes/request/http/id",
        ANY,
        NOTHING,
        "Envoy's number of the stream",
    ),
    Known::everywhere(
        "/event/input/attributes/request/time",
        ANY,
        ANY,
        "the clock",
    ),
    Known::everywhere(
        "/event/input/attributes/source/address/socketAddress/portValue",
        ANY,
        ANY,
        "each request comes on a connection of its own",
    ),
    Known::everywhere(
        "/event/input/attributes/destination",
        ANY,
        NOTHING,
        "the address of Envoy's listener; a Tower service isn't told its own",
    ),
    Known::everywhere(
        "/event/input/version",
        r#"[[{"type":"string","value":"encoding"},{"type":"string","value":"protojson"}],[{"type":"string","value":"ext_authz"},{"type":"string","value":"v3"}]]"#,
        r#"{"encoding":"protojson","ext_authz":"v3"}"#,
        "the plugin logs its inner form of an object; its policies see ours",
    ),
    // The rest of the event.
    Known::everywhere("/event/decision_id", ANY, ANY, "unique"),
    Known::everywhere(
        "/event/req_id",
        NOTHING,
        ANY,
        "OPA's server numbers its requests, the plugin does not",
    ),
    Known::everywhere(
        "/event/input/attributes/request/http/headers/authorization",
        ANY,
        r#""REDACTED""#,
        "our console hides secret headers",
    ),
    Known::everywhere(
        "/event/input/attributes/request/http/headers/x-api-key",
        ANY,
        r#""REDACTED""#,
        "our console hides secret headers",
    ),
    Known::everywhere("/event/labels/id", ANY, ANY, "unique to an instance"),
    Known::everywhere(
        "/event/labels/version",
        r#""1.15.2""#,
        r#""1.22.2""#,
        "the OPA in the plugin is older than the one whose behaviour is ours",
    ),
    Known::everywhere("/event/timestamp", ANY, ANY, "the clock"),
    Known::everywhere(
        "/event/metrics/timer_server_handler_ns",
        ANY,
        ANY,
        "the clock",
    ),
    Known::everywhere(
        "/event/metrics/timer_rego_query_eval_ns",
        ANY,
        ANY,
        "the clock",
    ),
    Known::everywhere(
        "/event/metrics/timer_rego_query_compile_ns",
        ANY,
        NOTHING,
        "the plugin compiles its query at the first check; ours is compiled at activation",
    ),
    Known::everywhere(
        "/event/metrics/timer_rego_external_resolve_ns",
        ANY,
        NOTHING,
        "a part of OPA's engine that ours hasn't",
    ),
    Known::everywhere(
        "/event/requested_by",
        NOTHING,
        ANY,
        "the plugin only knows Envoy's address, and leaves it out",
    ),
    Known::everywhere(
        "/event/error",
        ANY,
        ANY,
        "each engine has its own words; that both fail is compared",
    ),
    Known::everywhere("/event/custom", NOTHING, ANY, "our reason for a fault"),
    // Decisions.
    Known::at(
        "conflict: two definitions differ",
        "/status",
        "403",
        "500",
        FAIL_CLOSED,
    ),
    Known::at(
        "conflict: no definition",
        "/status",
        "403",
        "500",
        FAIL_CLOSED,
    ),
    Known::at(
        "illegal_decisions: a string",
        "/status",
        "403",
        "500",
        FAIL_CLOSED,
    ),
    Known::at(
        "illegal_decisions: a number",
        "/status",
        "403",
        "500",
        FAIL_CLOSED,
    ),
    Known::at(
        "illegal_decisions: allowed is not there",
        "/status",
        "403",
        "500",
        FAIL_CLOSED,
    ),
    Known::at(
        "illegal_decisions: allowed is a string",
        "/status",
        "403",
        "500",
        FAIL_CLOSED,
    ),
    Known::at(
        "illegal_decisions: headers are a string",
        "/status",
        "403",
        "500",
        FAIL_CLOSED,
    ),
    Known::at(
        "undefined_decision: undefined",
        "/status",
        "403",
        "500",
        FAIL_CLOSED,
    ),
    Known::at(
        "undefined_decision: a built-in whose answer is too small",
        "/status",
        "403",
        "500",
        FAIL_CLOSED,
    ),
    Known::at(
        "illegal_decisions: a string",
        "/event/result",
        NOTHING,
        r#""yes""#,
        ILLEGAL,
    ),
    Known::at(
        "illegal_decisions: a number",
        "/event/result",
        NOTHING,
        "1",
        ILLEGAL,
    ),
    Known::at(
        "illegal_decisions: allowed is not there",
        "/event/result",
        NOTHING,
        ANY,
        ILLEGAL,
    ),
    Known::at(
        "illegal_decisions: allowed is a string",
        "/event/result",
        NOTHING,
        ANY,
        ILLEGAL,
    ),
    Known::at(
        "illegal_decisions: headers are a string",
        "/event/result",
        NOTHING,
        ANY,
        ILLEGAL,
    ),
    Known::at(
        "http_status: not a status that Envoy knows",
        "/status",
        "403",
        "418",
        STATUS,
    ),
    Known::at(
        "http_status: not a status that Envoy knows",
        "/failed",
        "true",
        "false",
        STATUS,
    ),
    Known::at(
        "http_status: not a status that Envoy knows",
        "/event/result",
        NOTHING,
        ANY,
        STATUS,
    ),
    Known::at(
        "headers_repeated: several values to the upstream",
        "/upstream/headers/x-list",
        r#"["b"]"#,
        r#"["a","b"]"#,
        "each value replaces the one before it in Envoy; the policy listed both",
    ),
    Known::at(
        "strings: none of it",
        "/event/result/headers/x-index",
        r#""-1""#,
        r#""--1""#,
        "regorus prints the sign of a negative number twice with `%d`",
    ),
    Known::at(
        "strings: none of it",
        "/upstream/headers/x-index",
        r#"["-1"]"#,
        r#"["--1"]"#,
        "regorus prints the sign of a negative number twice with `%d`",
    ),
];

#[tokio::test]
async fn our_layer_decides_as_the_plugin_behind_envoy() {
    let (Some(opa), Some(nginx), Some(peers)) = (peers::opa(), peers::nginx(), EnvoyPeers::fetch())
    else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let nginx = nginx.serve(folder.path()).await;
    let template = configuration(&nginx.url(), "{{ .bundlename }}/allow");
    let mut serve = Serve::start(&template, &["--trust-app-header"]).await;
    let mut judge = Judge::new(KNOWN);
    for policy in policies::all() {
        let bundle = policy.build(&opa, folder.path());
        let of_template = policy.path() == format!("{}/allow", policy.name());
        let ours = match of_template && policy.context().is_empty() {
            true => Ours::app_of(&mut serve, policy.name()).await,
            false => Ours::layered(&nginx.url(), &policy).await,
        };
        compare(&mut judge, &policy, &peers, &bundle, ours).await;
    }
    let complaints = judge.complaints();
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// A template for all apps: the policies of each are its own.
fn configuration(bundles: &str, path: &str) -> String {
    json!({
        "services": {"nginx": {"url": bundles}},
        "bundles": {"authz": {"resource": "{{ .bundlename }}.tar.gz"}},
        "decision_logs": {"console": true},
        "plugins": {"envoy_ext_authz_grpc": {"path": path}},
    })
    .to_string()
}

async fn compare(
    judge: &mut Judge<'_>,
    policy: &Policy,
    peers: &EnvoyPeers,
    bundle: &Path,
    mut ours: Ours<'_>,
) {
    let mut theirs = peers.start(bundle, policy.path(), policy.context()).await;
    for case in policy.cases() {
        let name = format!("{}: {}", policy.name(), case.name());
        let theirs = through_envoy(&mut theirs, case.request()).await;
        let ours = ours.send(case.request()).await;
        judge.compare(&name, &theirs, &ours);
    }
}

async fn through_envoy(stack: &mut EnvoyStack, request: Request<Bytes>) -> Value {
    let outcome = stack.send(request).await;
    document(&outcome.response, outcome.upstream, outcome.event)
}

/// Our side: an app of the `serve` example, or the layer itself where a route has context
/// extensions or another path.
enum Ours<'a> {
    Serve {
        serve: &'a mut Serve,
        app: HeaderValue,
    },
    Layered(Layered),
}

impl Ours<'_> {
    /// The first request starts the app, and is answered before it is ready, without a decision.
    async fn app_of<'a>(serve: &'a mut Serve, name: &str) -> Ours<'a> {
        let app = HeaderValue::try_from(name).unwrap();
        let first = Request::get("/")
            .header(APP, &app)
            .body(Bytes::new())
            .unwrap();
        let response = send(serve.address(), first).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        serve.ready().await;
        Ours::Serve { serve, app }
    }

    async fn layered<'a>(bundles: &str, policy: &Policy) -> Ours<'a> {
        let configuration = configuration(bundles, policy.path());
        Ours::Layered(Layered::start(&configuration, policy.name(), policy.context()).await)
    }

    async fn send(&mut self, mut request: Request<Bytes>) -> Value {
        let (response, events) = match self {
            Ours::Serve { serve, app } => {
                request.headers_mut().insert(APP, app.clone());
                let response = send(serve.address(), request).await.unwrap();
                (response, serve.next_events().await.unwrap())
            }
            Ours::Layered(layered) => {
                let response = send(layered.address(), request).await.unwrap();
                (response, layered.next_events().await)
            }
        };
        let [event] = <[Value; 1]>::try_from(events).expect("one request, one event");
        // The service behind the layer is an echo: its answer is what reached it.
        let upstream = (response.status() == StatusCode::OK)
            .then(|| serde_json::from_slice(response.body()).expect("an echo is JSON"));
        document(&response, upstream, event)
    }
}

/// Neither policy nor service see it, so it makes no difference.
const APP: &str = "x-opa-app";

/// All that a request caused, in one document.
fn document(response: &Response<Bytes>, upstream: Option<Value>, mut event: Value) -> Value {
    let mut headers = echo::lists(response.headers());
    // What can't agree, but must be there and right.
    assert!(headers.remove("date").is_some(), "no date: {response:?}");
    let length = response.body().len().to_string();
    assert_eq!(
        headers.remove("content-length"),
        Some(vec![length]),
        "{response:?}"
    );
    // In whole seconds it agrees or not.
    let time = event.as_object_mut().and_then(|it| it.remove("time"));
    assert!(time.is_some_and(|it| it.as_str().is_some_and(|it| !it.contains('.'))));
    // The body of an echo tells what reached it, and that is compared by itself.
    let body = upstream
        .is_none()
        .then(|| String::from_utf8_lossy(response.body()));
    json!({
        "status": response.status().as_u16(),
        "headers": headers,
        "body": body,
        "upstream": upstream,
        "failed": event.get("error").is_some(),
        "event": event,
    })
}
