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
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use opa_core::plugin::{BundleStatus, InstanceStatus, State};
use opa_core::{Manager, Value};
use tower_service::Service;

pub use self::body::AdminBody;

/// The path of the apps' states.
pub const APPS: &str = "/-/apps";

/// The service of a manager's endpoints. See the [module docs](self).
#[must_use]
pub fn service(manager: Manager) -> AdminService {
    AdminService { manager }
}

/// Answers operators. See the [module docs](self).
#[derive(Clone)]
pub struct AdminService {
    manager: Manager,
}

impl<B> Service<Request<B>> for AdminService {
    type Response = Response<AdminBody>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut response = Response::new(AdminBody::default());
        let headers = response.headers_mut();
        if request.uri().path() != APPS {
            *response.status_mut() = StatusCode::NOT_FOUND;
        } else if !matches!(*request.method(), Method::GET | Method::HEAD) {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        } else {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            *response.body_mut() = AdminBody::new(apps(&self.manager.statuses()));
        }
        ready(Ok(response))
    }
}

impl fmt::Debug for AdminService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminService")
            .field("manager", &self.manager)
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
