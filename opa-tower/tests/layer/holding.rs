//! Decisions that wait for their log, or can't be logged.

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use opa_core::Value;
use opa_core::config::ConfigError;
use opa_core::engine::Outcome;
use opa_core::plugin::{Admission, Attached, DecisionSink, Event, Plugin, Scope};
use opa_tower::app::extract_async;
use opa_tower::{App, Decision, Manager, OpaLayer, Reason, Refusal, RequestBody, ResponseBody};
use tokio::sync::watch;
use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service};
use tower_test::mock;

use crate::support::{Scripted, builder, get, ready_app};

type Inner = Request<RequestBody<Empty<Bytes>>>;
type Answer = Response<ResponseBody<Empty<Bytes>>>;

/// A decision log that admits what it is told to, when it is told.
#[derive(Clone)]
struct Holding {
    name: &'static str,
    /// `None` to let decisions wait.
    admits: Arc<watch::Sender<Option<bool>>>,
    available: Arc<AtomicBool>,
    events: Arc<Mutex<Vec<Event>>>,
    /// How often the waits were polled.
    polls: Arc<AtomicUsize>,
}

impl Holding {
    fn new(name: &'static str, admits: Option<bool>) -> Self {
        Self {
            name,
            admits: Arc::new(watch::Sender::new(admits)),
            available: Arc::new(true.into()),
            events: Arc::default(),
            polls: Arc::default(),
        }
    }

    fn tell(&self, admitted: bool) {
        self.admits.send_replace(Some(admitted));
    }

    fn reasons(&self) -> Vec<Reason> {
        let events = self.events.lock().unwrap();
        events.iter().map(|event| event.reason).collect()
    }
}

impl DecisionSink for Holding {
    fn record(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    fn is_available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }

    fn admit(&self, event: Event) -> Admission {
        self.record(event);
        match *self.admits.borrow() {
            Some(true) => Admission::Admitted,
            Some(false) => Admission::Refused,
            None => {
                let mut admits = self.admits.subscribe();
                let polls = Arc::clone(&self.polls);
                let mut wait = Box::pin(async move {
                    let admits = admits.wait_for(Option::is_some).await;
                    admits.is_ok_and(|admits| *admits == Some(true))
                });
                Admission::Waits(Box::pin(std::future::poll_fn(move |cx| {
                    polls.fetch_add(1, Ordering::Relaxed);
                    wait.as_mut().poll(cx)
                })))
            }
        }
    }
}

impl Plugin for Holding {
    fn name(&self) -> &str {
        self.name
    }

    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        Ok(Attached::default().decisions(self.clone()))
    }
}

/// An inner service that counts its calls and its clones.
#[derive(Default)]
struct Counts {
    calls: AtomicUsize,
    clones: AtomicUsize,
}

struct Counting(Arc<Counts>);

impl Clone for Counting {
    fn clone(&self) -> Self {
        self.0.clones.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Service<Inner> for Counting {
    type Response = Response<Empty<Bytes>>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Inner) -> Self::Future {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Ok(Response::default()))
    }
}

impl Counts {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn clones(&self) -> usize {
        self.clones.load(Ordering::Relaxed)
    }
}

async fn held<const N: usize>(
    engine: Scripted,
    dry_run: bool,
    logs: [&Holding; N],
) -> (Manager, App) {
    let mut builder = builder(engine);
    if dry_run {
        builder = builder
            .config_yaml("plugins: {envoy_ext_authz_grpc: {dry-run: true}}")
            .permit_dry_run(true);
    }
    for log in logs {
        builder = builder.plugin(log.clone());
    }
    let manager = builder.build().unwrap();
    let app = ready_app(&manager, "orders").await;
    (manager, app)
}

/// Calls the layer, in front of a service that counts.
fn call(
    layer: OpaLayer,
    uri: &str,
) -> (
    task::Spawn<impl Future<Output = Result<Answer, std::convert::Infallible>>>,
    Arc<Counts>,
) {
    let counts = Arc::new(Counts::default());
    let mut service = layer.layer(Counting(Arc::clone(&counts)));
    (task::spawn(service.call(get(uri))), counts)
}

#[track_caller]
fn assert_unlogged(app: &App, response: &Answer) {
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(response.headers().len(), 1);
    let decision: &Decision = response.extensions().get().unwrap();
    assert_eq!(decision.reason(), Reason::LogUnavailable);
    assert!(decision.result().is_none());
    let counts = app.decision_counts();
    assert_eq!((counts.of(Reason::LogUnavailable), counts.total()), (1, 1));
}

/// What each kind of end would be: the answer of the policy, the request, dry-run, and the reason
/// and the status when it is logged.
fn ends() -> Vec<(Outcome, &'static str, bool, Reason, StatusCode)> {
    let answer = |json| Outcome::Value(crate::support::value(json));
    let denial = r#"{"allowed": false, "http_status": 401, "headers": {"x": "1"}, "body": "no"}"#;
    let allow =
        r#"{"allowed": true, "headers": {"x": "1"}, "response_headers_to_add": {"x": "1"}}"#;
    let (ok, fault) = (StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR);
    vec![
        (answer(allow), "/", false, Reason::Allowed, ok),
        (answer(allow), "/", true, Reason::Allowed, ok),
        (
            answer(denial),
            "/",
            false,
            Reason::Denied,
            StatusCode::UNAUTHORIZED,
        ),
        (answer(denial), "/", true, Reason::DryRun, ok),
        (answer("1"), "/", false, Reason::InvalidDecision, fault),
        (answer("1"), "/", true, Reason::DryRun, ok),
        (Outcome::Undefined, "/", false, Reason::Undefined, fault),
        (Outcome::Undefined, "/", true, Reason::DryRun, ok),
        (
            answer(allow),
            "/%ff",
            false,
            Reason::MalformedRequest,
            StatusCode::BAD_REQUEST,
        ),
        (answer(allow), "/%ff", true, Reason::DryRun, ok),
    ]
}

#[tokio::test]
async fn what_can_not_be_logged_never_reaches_the_service() {
    for (outcome, uri, dry_run, reason, _) in ends() {
        let log = Holding::new("log", Some(false));
        let engine = Scripted::new(move |_, _, _| outcome.clone());
        let (_manager, app) = held(engine, dry_run, [&log]).await;
        let (mut response, counts) = call(OpaLayer::new(app.clone()), uri);
        assert_unlogged(&app, &assert_ready_ok!(response.poll()));
        assert_eq!(counts.calls(), 0, "{reason}, dry-run: {dry_run}");
        assert_eq!(
            log.reasons(),
            [reason],
            "one event, of what the policy said"
        );
    }
}

#[tokio::test]
async fn nothing_is_answered_or_called_before_the_log_has_it() {
    for admitted in [true, false] {
        for (outcome, uri, dry_run, reason, status) in ends() {
            let log = Holding::new("log", None);
            let engine = Scripted::new(move |_, _, _| outcome.clone());
            let (_manager, app) = held(engine, dry_run, [&log]).await;
            let (mut response, counts) = call(OpaLayer::new(app.clone()), uri);
            assert_pending!(response.poll());
            assert_eq!((counts.calls(), app.decision_counts().total()), (0, 0));
            assert_eq!(log.reasons(), [reason]);
            assert!(!response.is_woken());
            log.tell(admitted);
            assert!(response.is_woken());
            let answer = assert_ready_ok!(response.poll());
            assert_eq!(log.polls.load(Ordering::Relaxed), 2, "no busy polling");
            if admitted {
                assert_eq!(answer.status(), status);
                assert_eq!(
                    answer.extensions().get::<Decision>().unwrap().reason(),
                    reason
                );
                assert_eq!(counts.calls(), usize::from(status == StatusCode::OK));
                let decided = app.decision_counts();
                assert_eq!((decided.of(reason), decided.total()), (1, 1));
            } else {
                assert_unlogged(&app, &answer);
                assert_eq!(counts.calls(), 0);
            }
            assert_eq!(log.reasons(), [reason], "no second event");
            assert_eq!(counts.clones(), 1);
        }
    }
}

#[tokio::test]
async fn a_log_that_holds_nothing_costs_no_clone_and_no_poll() {
    let log = Holding::new("log", Some(true));
    let (_manager, app) = held(Scripted::answering("true"), false, [&log]).await;
    let (mut response, counts) = call(OpaLayer::new(app), "/");
    assert_eq!((counts.calls(), counts.clones()), (1, 0), "called at once");
    assert_ready_ok!(response.poll()).status();
    assert_eq!(log.polls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_dropped_wait_is_a_cancelled_decision_and_no_call() {
    for polled in [true, false] {
        let log = Holding::new("log", None);
        let (_manager, app) = held(Scripted::answering("true"), false, [&log]).await;
        let (mut response, counts) = call(OpaLayer::new(app.clone()), "/");
        if polled {
            assert_pending!(response.poll());
        }
        drop(response);
        log.tell(true);
        tokio::task::yield_now().await;
        let decided = app.decision_counts();
        assert_eq!((decided.of(Reason::Cancelled), decided.total()), (1, 1));
        assert_eq!(counts.calls(), 0);
        assert_eq!(Arc::strong_count(&counts), 1, "the inner service is gone");
    }
}

#[tokio::test]
async fn the_place_of_the_inner_service_is_kept_for_an_allow_alone() {
    let answers = [("true", true), ("false", false), ("1", false)];
    for ((answer, kept), pooled) in answers.map(|case| [(case, false), (case, true)]).concat() {
        let log = Holding::new("log", None);
        let (mut engine, gate) = Scripted::gated();
        if pooled {
            gate.answer(answer);
        } else {
            engine = Scripted::answering(answer);
        }
        let (_manager, app) = held(engine, false, [&log]).await;
        let (inner, mut handle) = mock::pair::<Inner, Response<Full<Bytes>>>();
        let limited = ConcurrencyLimit::new(inner, 1);
        let mut service = mock::Spawn::new(OpaLayer::new(app).layer(limited));
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call(get("/")));
        while log.reasons().is_empty() {
            assert_pending!(response.poll());
            tokio::task::yield_now().await;
        }
        assert_pending!(response.poll());
        let shown = format!("{answer}, on the pool: {pooled}");
        assert_eq!(service.poll_ready().is_pending(), kept, "{shown}");
        // Dropped, it gives the place back.
        drop(response);
        assert_ready_ok!(service.poll_ready());
        assert_pending!(handle.poll_request());
    }
}

#[tokio::test]
async fn an_evaluation_on_the_pool_waits_for_its_log_too() {
    for (answer, admitted, status) in [
        ("true", true, StatusCode::OK),
        ("true", false, StatusCode::SERVICE_UNAVAILABLE),
        ("false", true, StatusCode::FORBIDDEN),
        ("false", false, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let log = Holding::new("log", None);
        let (engine, gate) = Scripted::gated();
        let (_manager, app) = held(engine, false, [&log]).await;
        let (mut response, counts) = call(OpaLayer::new(app.clone()), "/");
        assert_pending!(response.poll());
        gate.answer(answer);
        while !response.is_woken() {
            tokio::task::yield_now().await;
        }
        assert_pending!(response.poll());
        assert_eq!(counts.calls(), 0);
        log.tell(admitted);
        assert!(response.is_woken());
        assert_eq!(assert_ready_ok!(response.poll()).status(), status);
        assert_eq!(counts.calls(), usize::from(status == StatusCode::OK));
        assert_eq!(app.decision_counts().total(), 1);
    }
}

#[tokio::test]
async fn an_app_that_a_request_names_waits_for_its_log_too() {
    for admitted in [true, false] {
        let log = Holding::new("log", None);
        let (manager, app) = held(Scripted::answering("true"), false, [&log]).await;
        let set = manager.app_set(["orders"]).unwrap();
        let counts = Arc::new(Counts::default());
        let later = extract_async(|_: &mut Parts| async { "orders" });
        let layer = OpaLayer::per_request(set, later);
        let mut service = layer.layer(Counting(Arc::clone(&counts)));
        let mut response = task::spawn(service.call(get("/")));
        assert_pending!(response.poll());
        assert_eq!(log.reasons(), [Reason::Allowed]);
        log.tell(admitted);
        assert!(response.is_woken());
        let answer = assert_ready_ok!(response.poll());
        assert_eq!(answer.status() == StatusCode::OK, admitted);
        assert_eq!(counts.calls(), usize::from(admitted));
        assert_eq!(app.decision_counts().total(), 1);
    }
}

#[tokio::test]
async fn one_of_several_logs_refuses() {
    for dry_run in [false, true] {
        let (one, other) = (
            Holding::new("one", None),
            Holding::new("other", Some(false)),
        );
        let (_manager, app) = held(Scripted::answering("true"), dry_run, [&one, &other]).await;
        let (mut response, counts) = call(OpaLayer::new(app.clone()), "/");
        assert_unlogged(&app, &assert_ready_ok!(response.poll()));
        assert_eq!(counts.calls(), 0);
        assert_eq!(one.reasons(), [Reason::Allowed]);
        assert_eq!(other.reasons(), [Reason::Allowed]);
    }
    let (one, other) = (Holding::new("one", None), Holding::new("other", None));
    let (_manager, app) = held(Scripted::answering("true"), false, [&one, &other]).await;
    let (mut response, counts) = call(OpaLayer::new(app.clone()), "/");
    assert_pending!(response.poll());
    one.tell(true);
    assert!(response.is_woken());
    assert_pending!(response.poll());
    other.tell(false);
    assert!(response.is_woken());
    assert_unlogged(&app, &assert_ready_ok!(response.poll()));
    assert_eq!(counts.calls(), 0);
}

#[tokio::test]
async fn while_a_log_is_not_available_no_policy_is_asked() {
    for dry_run in [false, true] {
        // Who is refused for the log's sake need not wait for it.
        let log = Holding::new("log", None);
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let engine = Scripted::new(move |_, _, _| {
            counter.fetch_add(1, Ordering::Relaxed);
            Outcome::Value(Value::from(true))
        });
        let (_manager, app) = held(engine, dry_run, [&log]).await;
        log.available.store(false, Ordering::Relaxed);
        let (mut response, counts) = call(OpaLayer::new(app.clone()), "/");
        assert_unlogged(&app, &assert_ready_ok!(response.poll()));
        assert_eq!((counts.calls(), asked.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(log.reasons(), [Reason::LogUnavailable]);
        log.available.store(true, Ordering::Relaxed);
        log.tell(true);
        let (mut response, counts) = call(OpaLayer::new(app), "/");
        assert_eq!(assert_ready_ok!(response.poll()).status(), StatusCode::OK);
        assert_eq!((counts.calls(), asked.load(Ordering::Relaxed)), (1, 1));
    }
}

#[tokio::test]
async fn an_app_that_is_not_ready_answers_when_its_log_has_it() {
    for admitted in [true, false] {
        let log = Holding::new("log", None);
        let manager = Manager::builder()
            .engine(Scripted::answering("true"))
            .config_yaml("services: {none: {url: 'http://127.0.0.1:1'}}")
            .plugin(log.clone())
            .build()
            .unwrap();
        let app = manager.app("orders").unwrap();
        // The log is known when the configuration is, and by then the first download has failed.
        while app.state().as_str() == "starting" {
            tokio::task::yield_now().await;
        }
        let (mut response, counts) = call(OpaLayer::new(app.clone()), "/");
        assert_pending!(response.poll());
        assert_eq!(log.reasons(), [Reason::NotReady]);
        log.tell(admitted);
        assert!(response.is_woken());
        let answer = assert_ready_ok!(response.poll());
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        let decision: &Decision = answer.extensions().get().unwrap();
        let reasons = [Reason::LogUnavailable, Reason::NotReady];
        assert_eq!(decision.reason(), reasons[usize::from(admitted)]);
        assert_eq!(app.decision_counts().of(decision.reason()), 1);
        assert_eq!(app.decision_counts().total(), 1);
        assert_eq!(counts.calls(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_after_half_a_minute() {
    let log = Holding::new("log", None);
    let engine = Scripted::answering("true");
    let builder = builder(engine).plugin(log.clone()).blocking_pools();
    let manager = builder.build().unwrap();
    let app = ready_app(&manager, "orders").await;
    let (mut response, counts) = call(OpaLayer::new(app.clone()), "/");
    assert_pending!(response.poll());
    tokio::time::advance(Duration::from_secs(29)).await;
    assert!(!response.is_woken());
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(response.is_woken());
    assert_unlogged(&app, &assert_ready_ok!(response.poll()));
    assert_eq!(counts.calls(), 0);
    log.tell(true);
    assert_pending!(response.poll());
    assert_eq!(counts.calls(), 0);
}

/// It sees the request as the client sent it, not as the policy would have changed it.
#[tokio::test]
async fn a_responder_shapes_the_refusal() {
    let answer = r#"{"allowed": true, "headers": {"x-secret": "1"}}"#;
    for admits in [None, Some(false)] {
        let log = Holding::new("log", admits);
        let (_manager, app) = held(Scripted::answering(answer), false, [&log]).await;
        let layer = OpaLayer::new(app).responder(|refusal: Refusal, request: &Parts| {
            assert!(request.headers.is_empty());
            let mut response = refusal.into_response();
            *response.status_mut() = StatusCode::IM_A_TEAPOT;
            response
        });
        let (mut response, counts) = call(layer, "/");
        if admits.is_none() {
            assert_pending!(response.poll());
            log.tell(false);
        }
        let response = assert_ready!(response.poll()).unwrap();
        assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
        assert_eq!(counts.calls(), 0);
    }
}
