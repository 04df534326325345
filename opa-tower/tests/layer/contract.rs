//! The contract of `tower::Service`: readiness, clones, and futures that are dropped.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use opa_tower::app::extract_async;
use opa_tower::{Manager, OpaLayer, Reason, RequestBody, ResponseBody};
use tokio_test::{assert_pending, assert_ready, assert_ready_err, assert_ready_ok, task};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt};
use tower_test::mock;

use crate::support::{Scripted, get, ready_app, serving};

type InnerRequest = Request<RequestBody<Empty<Bytes>>>;
type InnerResponse = Response<Full<Bytes>>;
type Handle = mock::Handle<InnerRequest, InnerResponse>;

fn spawn<L>(layer: L) -> (mock::Spawn<L::Service>, Handle)
where
    L: Layer<mock::Mock<InnerRequest, InnerResponse>>,
{
    mock::spawn_layer(layer)
}

#[tokio::test]
async fn the_service_is_ready_when_the_inner_one_is() {
    let (_manager, app) = serving(Scripted::answering("true")).await;
    let (mut service, mut inner) = spawn(OpaLayer::new(app));
    inner.allow(0);
    assert_pending!(service.poll_ready());
    inner.allow(1);
    assert!(service.is_woken());
    assert_ready_ok!(service.poll_ready());
    inner.send_error("gone");
    assert_eq!(assert_ready_err!(service.poll_ready()).to_string(), "gone");
}

#[tokio::test]
async fn the_inner_error_stays_the_inner_error() {
    let (_manager, app) = serving(Scripted::answering("true")).await;
    let (mut service, mut inner) = spawn(OpaLayer::new(app));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(get("/")));
    assert_pending!(response.poll());
    inner.next_request().await.unwrap().1.send_error("broken");
    assert!(response.is_woken());
    assert_eq!(assert_ready_err!(response.poll()).to_string(), "broken");
}

#[tokio::test]
async fn the_inner_service_is_not_called_on_a_denial() {
    let (_manager, app) = serving(Scripted::answering("false")).await;
    let (mut service, mut inner) = spawn(OpaLayer::new(app));
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(get("/")));
    assert_eq!(
        assert_ready_ok!(response.poll()).status(),
        StatusCode::FORBIDDEN
    );
    assert_pending!(inner.poll_request());
}

#[tokio::test]
async fn a_refusal_gives_back_the_place_that_the_inner_service_reserved() {
    let (_manager, app) = serving(Scripted::answering("false")).await;
    let limited = ConcurrencyLimit::new(Counting(Arc::default()), 1);
    let mut one = OpaLayer::new(app).layer(limited);
    let mut other = one.clone();
    let refused = one.ready().await.unwrap().call(get("/")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    // A connection that stays open after a refusal takes nobody's place.
    let ready = other.ready().now_or_never().expect("the place is free");
    let refused = ready.unwrap().call(get("/")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    drop(one);
}

#[tokio::test]
async fn the_inner_service_is_not_called_before_the_decision() {
    for (answer, allowed) in [("false", false), ("true", true)] {
        let (engine, gate) = Scripted::gated();
        let (_manager, app) = serving(engine).await;
        let (mut service, mut inner) = spawn(OpaLayer::new(app));
        inner.allow(1);
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call(get("/")));
        assert_pending!(response.poll());
        assert_pending!(inner.poll_request());
        gate.answer(answer);
        wait_for_wake(&response).await;
        if allowed {
            assert_pending!(response.poll());
            let (_, send) = inner.next_request().await.unwrap();
            send.send_response(Response::new("hello".into()));
            let response = assert_ready_ok!(response.poll());
            assert_eq!(
                response.into_body().collect().await.unwrap().to_bytes(),
                "hello"
            );
        } else {
            assert_eq!(
                assert_ready_ok!(response.poll()).status(),
                StatusCode::FORBIDDEN
            );
            assert_pending!(inner.poll_request());
        }
    }
}

/// The mock panics when a clone is called that `poll_ready` was not called on.
#[tokio::test]
async fn the_service_that_was_ready_is_the_one_that_is_called() {
    let (engine, gate) = Scripted::gated();
    let (_manager, app) = serving(engine).await;
    let (mut service, mut inner) = spawn(OpaLayer::new(app));
    inner.allow(1);
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(get("/")));
    inner.allow(0);
    // What was left behind is not ready, and does not claim to be.
    assert_pending!(service.poll_ready());
    gate.answer("true");
    while response.poll().is_pending() && inner.poll_request().is_pending() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_place_of_the_inner_service_is_given_back_by_denials_and_dropped_futures() {
    for dropped in [true, false] {
        let (engine, gate) = Scripted::gated();
        let (_manager, app) = serving(engine).await;
        let (inner, mut handle) = mock::pair::<InnerRequest, InnerResponse>();
        let limited = ConcurrencyLimit::new(inner, 1);
        let mut service = mock::Spawn::new(OpaLayer::new(app).layer(limited));
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call(get("/")));
        assert_pending!(response.poll());
        assert_pending!(service.poll_ready());
        if dropped {
            drop(response);
        } else {
            gate.answer("false");
            wait_for_wake(&response).await;
            assert_eq!(
                assert_ready_ok!(response.poll()).status(),
                StatusCode::FORBIDDEN
            );
        }
        assert_ready_ok!(service.poll_ready());
        assert_pending!(handle.poll_request());
    }
}

#[tokio::test]
async fn a_decision_that_is_known_at_once_costs_no_clone() {
    let (manager, app) = serving(Scripted::answering("true")).await;
    ready_app(&manager, "blue").await;
    let set = manager.app_set(["blue"]).unwrap();
    let named = OpaLayer::per_request(set.clone(), |_: &mut Parts| "blue");
    assert_eq!(clones(OpaLayer::new(app)).await, (StatusCode::OK, 0));
    assert_eq!(
        clones(OpaLayer::optional(None::<OpaLayer>)).await,
        (StatusCode::OK, 0)
    );
    assert_eq!(clones(named).await, (StatusCode::OK, 0));
    let later = extract_async(|_: &mut Parts| async { "blue" });
    assert_eq!(
        clones(OpaLayer::per_request(set, later)).await,
        (StatusCode::OK, 1)
    );
}

/// How the service answers one request, and how often that clones the inner service.
async fn clones<L>(layer: L) -> (StatusCode, usize)
where
    L: Layer<Counting>,
    L::Service: Service<Request<Empty<Bytes>>, Response = Answer, Error = Infallible>,
{
    let clones = Arc::new(AtomicUsize::new(0));
    let mut service = layer.layer(Counting(Arc::clone(&clones)));
    let response = service.ready().await.unwrap().call(get("/")).await.unwrap();
    (response.status(), clones.load(Ordering::Relaxed))
}

type Answer = Response<ResponseBody<Empty<Bytes>>>;

struct Counting(Arc<AtomicUsize>);

impl Clone for Counting {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl Service<InnerRequest> for Counting {
    type Response = Response<Empty<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: InnerRequest) -> Self::Future {
        ready(Ok(Response::default()))
    }
}

#[tokio::test]
async fn a_future_dropped_before_the_decision_is_a_cancelled_decision() {
    for polled in [false, true] {
        let (engine, gate) = Scripted::gated();
        let (_manager, app, log) = crate::support::logged(engine).await;
        let (mut service, mut inner) = spawn(OpaLayer::new(app.clone()));
        assert_ready_ok!(service.poll_ready());
        let mut response = task::spawn(service.call(get("/")));
        if polled {
            assert_pending!(response.poll());
        }
        assert_eq!(app.decision_counts().total(), 0);
        drop(response);
        assert_eq!(
            app.decision_counts().of(Reason::Cancelled),
            1,
            "polled: {polled}"
        );
        assert_eq!(app.decision_counts().total(), 1);
        assert!(gate.is_cancelled());
        assert!(log.take().is_empty(), "no event");
        assert_pending!(inner.poll_request());
    }
}

#[tokio::test]
async fn a_future_dropped_while_the_app_is_looked_up_asked_nobody() {
    let (manager, app) = serving(Scripted::answering("true")).await;
    let set = manager.app_set(["orders"]).unwrap();
    let never = extract_async(|_: &mut Parts| std::future::pending::<&str>());
    let (mut service, mut inner) = spawn(OpaLayer::per_request(set, never));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(get("/")));
    assert_pending!(response.poll());
    drop(response);
    assert_eq!(app.decision_counts().total(), 0);
    assert_pending!(inner.poll_request());
}

#[tokio::test]
async fn a_future_dropped_after_the_decision_changes_nothing_of_it() {
    let (_manager, app, log) = crate::support::logged(Scripted::answering("true")).await;
    let (mut service, mut inner) = spawn(OpaLayer::new(app.clone()));
    assert_ready_ok!(service.poll_ready());
    let response = task::spawn(service.call(get("/")));
    assert_eq!(
        log.only().reason,
        Reason::Allowed,
        "handed over before the inner call"
    );
    let (_, send) = inner.next_request().await.unwrap();
    drop(response);
    send.send_response(Response::default());
    assert_eq!(app.decision_counts().of(Reason::Allowed), 1);
    assert_eq!(app.decision_counts().total(), 1);
}

/// Leases are back when nothing holds them: the instance closes after the grace period.
#[tokio::test(start_paused = true)]
async fn dropped_futures_and_services_give_their_leases_back() {
    let engine = Scripted::answering("true");
    let manager = crate::support::builder(engine)
        .blocking_pools()
        .build()
        .unwrap();
    let app = ready_app(&manager, "orders").await;
    let set = manager.app_set(["orders"]).unwrap();
    let never = extract_async(|_: &mut Parts| std::future::pending::<&str>());
    let (mut fixed, mut inner) = spawn(OpaLayer::new(app));
    let (mut named, _handle) = spawn(OpaLayer::per_request(set, never));
    assert_ready_ok!(fixed.poll_ready());
    assert_ready_ok!(named.poll_ready());
    let mut first = task::spawn(fixed.call(get("/")));
    let mut second = task::spawn(named.call(get("/")));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    drop(inner.next_request().await);

    let grace = Duration::from_secs(3_600);
    tokio::time::sleep(grace).await;
    assert!(has_app(&manager), "the services hold leases");
    drop((fixed, named));
    tokio::time::sleep(grace).await;
    assert!(
        has_app(&manager),
        "the future that looks up the app holds a lease"
    );
    drop((first, second));
    tokio::time::sleep(grace).await;
    assert!(!has_app(&manager));
}

fn has_app(manager: &Manager) -> bool {
    !manager.statuses().is_empty()
}

#[tokio::test]
async fn a_future_polled_after_its_end_is_pending() {
    let (_manager, app) = serving(Scripted::answering("false")).await;
    let (mut service, _inner) = spawn(OpaLayer::new(app));
    assert_ready_ok!(service.poll_ready());
    let mut response = task::spawn(service.call(get("/")));
    let _ = assert_ready!(response.poll());
    assert_pending!(response.poll());
}

/// What servers ask of services: compiled, not run.
#[test]
fn services_and_futures_can_be_sent_kept_and_cloned() {
    fn assert_server<S>()
    where
        S: Service<Request<Empty<Bytes>>, Future: Send + 'static> + Clone + Send + Sync + 'static,
    {
    }
    fn assert_layer<L: Clone + Send + Sync + 'static>(_: Option<L>) {}
    assert_server::<opa_tower::OpaService<Counting>>();
    assert_layer(None::<OpaLayer>);
    assert_layer(None.map(|set| OpaLayer::per_request(set, |_: &mut Parts| "blue")));
}

/// The pool's thread wakes the task; nothing else does.
async fn wait_for_wake<F>(future: &task::Spawn<F>) {
    while !future.is_woken() {
        tokio::task::yield_now().await;
    }
}
