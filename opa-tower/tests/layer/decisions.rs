//! What becomes of a policy's answer: for the client, the inner service, the log and the counters.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use opa_core::engine::{EvalError, Interrupt, Outcome};
use opa_tower::{App, AppId, Decision, OpaLayer, Reason, Refusal, RequestBody, ResponseBody};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::support::{Scripted, builder, get, logged, ready_app, serving, value};

type Inner = Request<RequestBody<Empty<Bytes>>>;
type Answer = Response<ResponseBody<Full<Bytes>>>;

/// What one request causes.
struct Outcomes {
    response: Response<Bytes>,
    /// The request that reached the inner service, if it did.
    inner: Option<Parts>,
}

/// Sends `request` through the layer to a service that answers `hello` with the header `x-own: 1`.
async fn send(layer: OpaLayer, request: Request<Empty<Bytes>>) -> Outcomes {
    let (reached, mut inner) = tokio::sync::mpsc::unbounded_channel();
    let service = layer.layer(service_fn(move |request: Inner| {
        reached.send(request.into_parts().0).unwrap();
        let response = Response::builder().header("x-own", "1");
        std::future::ready(Ok::<_, Infallible>(
            response.body(Full::from("hello")).unwrap(),
        ))
    }));
    let response: Answer = service.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Outcomes {
        response: Response::from_parts(parts, body),
        inner: inner.try_recv().ok(),
    }
}

async fn answered(answer: &str) -> Outcomes {
    let (_manager, app) = serving(Scripted::answering(answer)).await;
    send(OpaLayer::new(app), get("/")).await
}

fn decision(response: &Response<Bytes>) -> &Decision {
    response
        .extensions()
        .get()
        .expect("the decision is in the response's extensions")
}

#[tokio::test]
async fn an_allowed_request_reaches_the_service_with_its_decision() {
    let (manager, app, log) = logged(Scripted::answering(r#"{"allowed": true, "why": [1]}"#)).await;
    let Outcomes { response, inner } = send(OpaLayer::new(app.clone()), get("/")).await;
    assert_eq!(
        (response.status(), &response.body()[..]),
        (StatusCode::OK, &b"hello"[..])
    );
    let inner = inner.unwrap();
    let seen: &Decision = inner.extensions.get().unwrap();
    assert_eq!(inner.extensions.get::<AppId>(), Some(app.id()));
    assert_eq!(seen.id(), decision(&response).id());
    assert_eq!(seen.reason(), Reason::Allowed);
    assert_eq!(seen.app().as_str(), "orders");
    assert_eq!(seen.path(), Some("envoy/authz/allow"));
    assert_eq!(
        seen.result(),
        Some(&value(r#"{"allowed": true, "why": [1]}"#))
    );
    let event = log.only();
    assert_eq!(&*event.decision_id, seen.id());
    assert_eq!(event.result.as_ref(), seen.result());
    assert_eq!((event.reason, event.error), (Reason::Allowed, None));
    assert_eq!(app.decision_counts().total(), 1);
    drop(manager);
}

#[tokio::test]
async fn headers_of_an_allowed_request_are_removed_and_replaced() {
    let answer = r#"{"allowed": true, "headers": {"X-User": ["a", "b"], "x-none": []},
                     "request_headers_to_remove": ["Authorization"]}"#;
    let (_manager, app) = serving(Scripted::answering(answer)).await;
    let request = Request::get("/")
        .header("authorization", "secret")
        .header("x-user", "admin")
        .header("x-none", "client's")
        .header("x-kept", "1");
    let sent = send(OpaLayer::new(app), request.body(Empty::new()).unwrap()).await;
    let headers = sent.inner.unwrap().headers;
    assert_eq!(
        headers.get_all("x-user").iter().collect::<Vec<_>>(),
        ["a", "b"]
    );
    assert_eq!(headers.len(), 3);
    assert_eq!(headers["x-kept"], "1");
}

#[tokio::test]
async fn headers_for_an_allowed_response_are_appended() {
    let answer = r#"{"allowed": true, "http_status": 500,
                     "response_headers_to_add": [{"x-own": "2"}, {"X-New": ["3", "4"]}]}"#;
    let Outcomes { response, .. } = answered(answer).await;
    assert_eq!(response.status(), StatusCode::OK);
    let values = |name| response.headers().get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(values("x-own"), ["1", "2"]);
    assert_eq!(values("x-new"), ["3", "4"]);
}

#[tokio::test]
async fn a_denial_is_the_policys_response() {
    let answer = r#"{"allowed": false, "http_status": 401, "body": "who are you?",
                     "headers": {"WWW-Authenticate": "Basic"}}"#;
    let Outcomes { response, inner } = answered(answer).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.headers()["www-authenticate"], "Basic");
    assert_eq!(
        response.headers()["content-type"],
        "text/plain; charset=utf-8"
    );
    assert_eq!(response.body(), "who are you?");
    assert_eq!(decision(&response).reason(), Reason::Denied);
    assert!(inner.is_none());
}

#[tokio::test]
async fn a_denial_may_say_what_its_body_is() {
    let answer =
        r#"{"allowed": false, "body": "{}", "headers": {"content-type": "application/json"}}"#;
    let Outcomes { response, .. } = answered(answer).await;
    let types: Vec<_> = response.headers().get_all("content-type").iter().collect();
    assert_eq!(types, ["application/json"]);
}

#[tokio::test]
async fn a_plain_denial_is_403_without_a_body() {
    let Outcomes { response, inner } = answered("false").await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert!(response.body().is_empty() && response.headers().is_empty());
    assert!(inner.is_none());
}

#[tokio::test]
async fn every_fault_fails_closed_with_its_reason() {
    let eval_error =
        || Outcome::Error(EvalError::new("eval_conflict_error", "secret of the input"));
    let faults: Vec<(fn() -> Outcome, Reason)> = vec![
        (|| Outcome::Undefined, Reason::Undefined),
        (|| Outcome::Value(value("1")), Reason::InvalidDecision),
        (
            || Outcome::Value(value(r#"{"allowed": "secret"}"#)),
            Reason::InvalidDecision,
        ),
        (
            || Outcome::Value(value(r#"{"allowed": false, "http_status": 200}"#)),
            Reason::InvalidDecision,
        ),
        (
            || Outcome::Value(value(r#"{"allowed": true, "headers": {"host": "a"}}"#)),
            Reason::InvalidDecision,
        ),
        (
            || {
                Outcome::Value(value(
                    r#"{"allowed": true, "query_parameters_to_set": {"a": "b"}}"#,
                ))
            },
            Reason::InvalidDecision,
        ),
        (|| Outcome::Interrupted(Interrupt::Time), Reason::TimeBudget),
        (
            || Outcome::Interrupted(Interrupt::Steps),
            Reason::StepBudget,
        ),
        (
            || Outcome::Interrupted(Interrupt::Memory),
            Reason::MemoryBudget,
        ),
        (
            || Outcome::Interrupted(Interrupt::Depth),
            Reason::DepthBudget,
        ),
        (
            || Outcome::Interrupted(Interrupt::Cancelled),
            Reason::Cancelled,
        ),
        (
            || std::panic::resume_unwind(Box::new("policy")),
            Reason::EnginePanic,
        ),
    ];
    for (outcome, reason) in faults {
        let (_manager, app, log) = logged(Scripted::new(move |_, _, _| outcome())).await;
        let Outcomes { response, inner } = send(OpaLayer::new(app.clone()), get("/")).await;
        assert_eq!(
            response.status(),
            StatusCode::INTERNAL_SERVER_ERROR,
            "{reason}"
        );
        assert!(
            response.body().is_empty() && response.headers().is_empty(),
            "{reason}"
        );
        assert_eq!(decision(&response).reason(), reason);
        assert_eq!(app.decision_counts().of(reason), 1);
        assert_eq!(app.decision_counts().total(), 1);
        let event = log.only();
        assert_eq!(event.reason, reason);
        assert!(
            !event.error.unwrap().message.is_empty(),
            "{reason}: the log tells what failed"
        );
        assert!(inner.is_none(), "{reason}");
    }
    let (_manager, app, log) = logged(Scripted::new(move |_, _, _| eval_error())).await;
    let Outcomes { response, .. } = send(OpaLayer::new(app), get("/")).await;
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(&*log.only().error.unwrap().code, "eval_conflict_error");
}

#[tokio::test]
async fn an_app_that_is_not_ready_is_503_and_never_an_allow() {
    // Permitted or not: dry-run does not apply before the first activation.
    let builder = opa_tower::Manager::builder()
        .engine(Scripted::answering("true"))
        .config_yaml(
            "services: {none: {url: 'http://127.0.0.1:1'}}\n\
             plugins: {envoy_ext_authz_grpc: {dry-run: true}}",
        )
        .permit_dry_run(true);
    let manager = builder.build().unwrap();
    let app = manager.app("orders").unwrap();
    let Outcomes { response, inner } = send(OpaLayer::new(app.clone()), get("/")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(decision(&response).reason(), Reason::NotReady);
    assert_eq!(app.decision_counts().of(Reason::NotReady), 1);
    assert!(inner.is_none());
}

#[tokio::test]
async fn a_lease_that_outlives_its_manager_is_503() {
    for dry_run in [false, true] {
        let builder = dry_running(builder(Scripted::answering("true")), dry_run);
        let manager = builder.build().unwrap();
        let app = ready_app(&manager, "orders").await;
        manager.shutdown(Duration::from_secs(1)).await;
        let Outcomes { response, inner } = send(OpaLayer::new(app), get("/")).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(decision(&response).reason(), Reason::Closed);
        assert!(inner.is_none());
    }
}

#[tokio::test]
async fn the_route_names_the_entrypoint() {
    let engine =
        Scripted::new(|path, _, _| Outcome::Value((path.as_str() == "orders/allow").into()));
    let (_manager, app, log) = logged(engine).await;
    let layer = OpaLayer::new(app.clone()).entrypoint("/orders/allow");
    assert_eq!(
        send(layer, get("/")).await.response.status(),
        StatusCode::OK
    );
    assert_eq!(log.only().path.as_deref(), Some("orders/allow"));
    assert_eq!(
        send(OpaLayer::new(app), get("/")).await.response.status(),
        StatusCode::FORBIDDEN
    );
    assert_eq!(log.only().path.as_deref(), Some("envoy/authz/allow"));
}

#[tokio::test]
async fn an_entrypoint_that_is_no_path_fails_every_request() {
    let (_manager, app, log) = logged(Scripted::answering("true")).await;
    for path in ["", "//", "a\n"] {
        let layer = OpaLayer::new(app.clone()).entrypoint(path);
        let Outcomes { response, inner } = send(layer, get("/")).await;
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(decision(&response).reason(), Reason::InvalidEntrypoint);
        assert_eq!(log.only().reason, Reason::InvalidEntrypoint);
        assert!(inner.is_none());
    }
}

fn dry_running(builder: opa_core::ManagerBuilder, dry_run: bool) -> opa_core::ManagerBuilder {
    if !dry_run {
        return builder;
    }
    builder
        .config_yaml("plugins: {envoy_ext_authz_grpc: {dry-run: true}}")
        .permit_dry_run(true)
}

async fn dry(engine: Scripted) -> (opa_tower::Manager, App, crate::support::Log) {
    let log = crate::support::Log::default();
    let manager = dry_running(builder(engine), true)
        .plugin(log.clone())
        .build()
        .unwrap();
    let app = ready_app(&manager, "orders").await;
    (manager, app, log)
}

#[tokio::test]
async fn dry_run_lets_pass_what_is_not_allowed_and_logs_the_truth() {
    let denial = r#"{"allowed": false, "http_status": 401, "headers": {"x-own": "2"}}"#;
    let invalid = r#"{"allowed": true, "headers": {"host": "a"}}"#;
    let cases = [
        (Outcome::Value(value(denial)), Some(denial), None),
        (
            Outcome::Value(value(invalid)),
            Some(invalid),
            Some("invalid_decision"),
        ),
        (Outcome::Undefined, None, Some("undefined")),
        (
            Outcome::Error(EvalError::new("eval_conflict_error", "two")),
            None,
            Some("eval_conflict_error"),
        ),
        (
            Outcome::Interrupted(Interrupt::Steps),
            None,
            Some("step_budget"),
        ),
    ];
    for (outcome, result, code) in cases {
        let shown = format!("{outcome:?}");
        let script = outcome.clone();
        let (_manager, app, log) = dry(Scripted::new(move |_, _, _| script.clone())).await;
        let Outcomes { response, inner } = send(OpaLayer::new(app.clone()), get("/")).await;
        assert_eq!(response.status(), StatusCode::OK, "{shown}");
        assert_eq!(
            response.headers().len(),
            1,
            "{shown}: only the service's own header"
        );
        assert!(inner.unwrap().headers.is_empty(), "{shown}");
        assert_eq!(decision(&response).reason(), Reason::DryRun, "{shown}");
        assert_eq!(app.decision_counts().of(Reason::DryRun), 1);
        let event = log.only();
        assert_eq!(event.result, result.map(value), "{shown}");
        assert_eq!(
            event.error.map(|error| error.code.to_string()).as_deref(),
            code,
            "{shown}"
        );
    }
}

#[tokio::test]
async fn dry_run_changes_nothing_about_an_allow() {
    let answer = r#"{"allowed": true, "headers": {"x-user": "a"}}"#;
    let (_manager, app, log) = dry(Scripted::answering(answer)).await;
    let Outcomes { response, inner } = send(OpaLayer::new(app), get("/")).await;
    assert_eq!(decision(&response).reason(), Reason::Allowed);
    assert_eq!(inner.unwrap().headers["x-user"], "a");
    assert_eq!(log.only().reason, Reason::Allowed);
}

#[tokio::test]
async fn dry_run_lets_pass_what_no_policy_could_be_asked_about() {
    let (_manager, app, log) = dry(Scripted::answering("true")).await;
    for uri in ["/%ff", "/?a=%zz"] {
        let Outcomes { response, .. } = send(OpaLayer::new(app.clone()), get(uri)).await;
        assert_eq!(response.status(), StatusCode::OK);
        let event = log.only();
        assert_eq!(event.reason, Reason::DryRun);
        assert_eq!(&*event.error.unwrap().code, "malformed_request");
    }
}

#[tokio::test]
async fn a_responder_shapes_denials_and_faults_but_no_allow() {
    let responder = |refusal: Refusal, request: &Parts| {
        let body = format!(
            "{} {} {}",
            request.method,
            refusal.reason(),
            refusal.status().as_u16()
        );
        let mut response = refusal.into_response();
        *response.body_mut() = body.into();
        response
    };
    for (answer, body) in [
        (Some("false"), "GET denied 403"),
        (Some("7"), "GET invalid_decision 500"),
        (None, "GET undefined 500"),
        (Some("true"), "hello"),
    ] {
        let answer = answer.map_or(Outcome::Undefined, |answer| Outcome::Value(value(answer)));
        let (_manager, app) = serving(Scripted::new(move |_, _, _| answer.clone())).await;
        let layer = OpaLayer::new(app).responder(responder);
        let Outcomes { response, .. } = send(layer, get("/")).await;
        assert_eq!(response.body(), body);
        assert!(response.extensions().get::<Decision>().is_some());
    }
}

#[tokio::test]
async fn a_response_without_room_for_the_policys_headers_is_a_fault() {
    let answer = r#"{"allowed": true, "response_headers_to_add": {"x-a": "1"}}"#;
    let (_manager, app) = serving(Scripted::answering(answer)).await;
    let full = service_fn(|_: Inner| {
        let mut response = Response::new(Full::<Bytes>::from("hello"));
        let one = http::HeaderValue::from_static("1");
        let mut names = (0..).map(|n| http::HeaderName::try_from(format!("x-{n}")).unwrap());
        while response
            .headers_mut()
            .try_append(names.next().unwrap(), one.clone())
            .is_ok()
        {}
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut service = OpaLayer::new(app).layer(full);
    let response = service.ready().await.unwrap().call(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn an_optional_layer_without_a_policy_lets_everything_pass() {
    let off = OpaLayer::optional(None::<OpaLayer>)
        .entrypoint("a")
        .context("a", "b")
        .body_unseen();
    let Outcomes { response, inner } = send(off, get("/%ff")).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.extensions().get::<Decision>().is_none());
    assert!(inner.unwrap().extensions.get::<Decision>().is_none());
    let (_manager, app) = serving(Scripted::answering("false")).await;
    let on = OpaLayer::optional(Some(OpaLayer::new(app)));
    assert_eq!(
        send(on, get("/")).await.response.status(),
        StatusCode::FORBIDDEN
    );
}
