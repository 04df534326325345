//! What an operator wants to know of the process, as an HTTP service.
//!
//! `GET /-/apps` answers the state of each app as JSON, sorted by app:
//!
//! ```json
//! [
//!   {"app": "blue", "state": "ready", "bundles": {"blue": {"revision": "7"}}},
//!   {"app": "red", "state": "failed", "reason": "bundle `red`: server replied with Not Found",
//!    "bundles": {"red": {"code": "bundle_error", "http_code": 404, "message": "…"}}}
//! ]
//! ```
//!
//! `state` is `starting`, `ready`, `failed` or `closed`. `reason` tells what failed: nothing is
//! served yet (`failed`), or a bundle fails while its last good one keeps serving (`ready`).
//!
//! `configuration_problem` tells why an app isn't what the configuration says now, if so.
//!
//! A bundle that should be on disk and is not has a reason in `not_persisted`. `"stale": true` tells
//! that decisions are refused until the bundle's source answers (`max_staleness_seconds`).
//!
//! `GET /metrics` answers the text of [`AdminService::metrics`], in Prometheus's format, if it was
//! given one: that of `opa-plugins`, or a program's own.
//!
//! The messages can name hosts and files: serve it on an address that only operators reach. It
//! works on any server that takes a Tower service; on axum as a fallback or a route:
//!
//! ```
//! # async fn example(manager: opa_tower::Manager) {
//! # #[cfg(feature = "axum")]
//! let router: axum::Router =
//!     axum::Router::new().route_service("/-/apps", opa_tower::admin::service(manager));
//! # }
//! ```

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use opa_core::plugin::{BundleStatus, InstanceStatus, State};
use opa_core::{Manager, Value};
use tokio::runtime::Handle;
use tower_service::Service;

pub use self::body::AdminBody;

/// The path of the apps' states.
pub const APPS: &str = "/-/apps";

/// The path of the metrics.
pub const METRICS: &str = "/metrics";

/// Prometheus's text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The service of a manager's endpoints. See the [module docs](self).
#[must_use]
pub fn service(manager: Manager) -> AdminService {
    AdminService {
        manager,
        metrics: None,
    }
}

/// Answers operators. See the [module docs](self).
#[derive(Clone)]
pub struct AdminService {
    manager: Manager,
    metrics: Option<Arc<dyn Fn() -> String + Send + Sync>>,
}

impl AdminService {
    /// Answers `GET /metrics` with what `text` makes, in Prometheus's text format 0.0.4. It runs on
    /// a thread that may block: with many apps the text is long. Default: 404.
    ///
    /// ```
    /// # fn example(manager: opa_tower::Manager) -> opa_tower::admin::AdminService {
    /// let metrics = opa_plugins::metrics(&manager);
    /// opa_tower::admin::service(manager).metrics(move || metrics.text())
    /// # }
    /// ```
    #[must_use]
    pub fn metrics(mut self, text: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.metrics = Some(Arc::new(text));
        self
    }

    fn answer(&self, path: &str, method: &Method) -> Answer {
        let metrics = self.metrics.as_ref().filter(|_| path == METRICS);
        if metrics.is_none() && path != APPS {
            return Answer::Ready(StatusCode::NOT_FOUND);
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Answer::Ready(StatusCode::METHOD_NOT_ALLOWED);
        }
        match metrics {
            Some(metrics) => Answer::Metrics(Arc::clone(metrics)),
            None => Answer::Apps(apps(&self.manager.statuses())),
        }
    }
}

/// What a request is answered with.
enum Answer {
    Ready(StatusCode),
    Apps(Bytes),
    Metrics(Arc<dyn Fn() -> String + Send + Sync>),
}

impl Answer {
    async fn response(self) -> Response<AdminBody> {
        match self {
            Self::Ready(status) => {
                let mut response = Response::new(AdminBody::default());
                *response.status_mut() = status;
                if status == StatusCode::METHOD_NOT_ALLOWED {
                    let allowed = HeaderValue::from_static("GET, HEAD");
                    response.headers_mut().insert(ALLOW, allowed);
                }
                response
            }
            Self::Apps(json) => content("application/json", json),
            Self::Metrics(text) => match off_the_runtime(text).await {
                Some(text) => content(TEXT_FORMAT, text.into()),
                None => Box::pin(Self::Ready(StatusCode::INTERNAL_SERVER_ERROR).response()).await,
            },
        }
    }
}

/// What `make` makes on a thread that may block; `None` if it panics, or the runtime ends.
async fn off_the_runtime(make: Arc<dyn Fn() -> String + Send + Sync>) -> Option<String> {
    match Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(move || make()).await.ok(),
        Err(_) => Some(make()),
    }
}

fn content(kind: &'static str, bytes: Bytes) -> Response<AdminBody> {
    let mut response = Response::new(AdminBody::new(bytes));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The future of [`AdminService`].
pub struct AdminFuture(Pin<Box<dyn Future<Output = Response<AdminBody>> + Send>>);

impl Future for AdminFuture {
    type Output = Result<Response<AdminBody>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}

impl fmt::Debug for AdminFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminFuture")
    }
}

impl<B> Service<Request<B>> for AdminService {
    type Response = Response<AdminBody>;
    type Error = Infallible;
    type Future = AdminFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let answer = self.answer(request.uri().path(), request.method());
        AdminFuture(Box::pin(answer.response()))
    }
}

impl fmt::Debug for AdminService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminService")
            .field("manager", &self.manager)
            .field("metrics", &self.metrics.is_some())
            .finish()
    }
}

fn apps(statuses: &[InstanceStatus]) -> Bytes {
    let mut json = Value::array(statuses.iter().map(app)).to_json();
    json.push('\n');
    json.into()
}

fn app(status: &InstanceStatus) -> Value {
    let bundles = status.bundles.iter();
    let bundles = bundles.map(|status| (Value::from(&*status.name), bundle(status)));
    let members = [
        ("app", Some(Value::from(status.app.as_str()))),
        ("state", Some(Value::from(status.state.as_str()))),
        ("reason", reason(status).map(Value::from)),
        (
            "configuration_problem",
            status.configuration_problem.as_deref().map(Value::from),
        ),
        ("bundles", Some(Value::object(bundles))),
    ];
    object(members)
}

fn reason(status: &InstanceStatus) -> Option<&str> {
    match &status.state {
        State::Failed { reason, .. } => Some(reason),
        State::Ready => status
            .bundles
            .iter()
            .find_map(|bundle| bundle.message.as_deref()),
        State::Starting | State::Closed => None,
    }
}

fn bundle(status: &BundleStatus) -> Value {
    object([
        (
            "revision",
            status.active_revision.as_deref().map(Value::from),
        ),
        ("code", status.code.map(Value::from)),
        ("http_code", status.http_code.map(Value::from)),
        ("message", status.message.as_deref().map(Value::from)),
        (
            "not_persisted",
            status.not_persisted.as_deref().map(Value::from),
        ),
        ("stale", status.stale.then_some(Value::from(true))),
    ])
}

fn object<const N: usize>(members: [(&str, Option<Value>); N]) -> Value {
    let set = members
        .into_iter()
        .filter_map(|(name, value)| Some((Value::from(name), value?)));
    Value::object(set)
}

mod body {
    use std::convert::Infallible;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http_body::{Body, Frame, SizeHint};

    use crate::ResponseBody;

    /// The body of an operator's answer.
    #[derive(Debug, Default)]
    pub struct AdminBody(ResponseBody<Never>);

    impl AdminBody {
        pub(super) fn new(bytes: Bytes) -> Self {
            Self(ResponseBody::own(bytes))
        }
    }

    impl Body for AdminBody {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_end_stream()
        }

        fn size_hint(&self) -> SizeHint {
            self.0.size_hint()
        }
    }

    /// The body of an inner service that doesn't exist.
    #[derive(Debug)]
    enum Never {}

    impl Body for Never {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            match *self {}
        }
    }
}
