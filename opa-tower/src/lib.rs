//! Open Policy Agent as a Tower layer: a request reaches the inner service only when the policy of
//! its app allows it.
//!
//! ```
//! use axum::{Router, routing::get};
//! use opa_core::engine::Module;
//! use opa_tower::{Manager, OpaLayer};
//! # use tower::ServiceExt;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = r#"
//!     package orders
//!     default allow := false
//!     allow if input.attributes.request.http.method == "GET"
//! "#;
//! let manager = Manager::in_memory([Module::v1("orders.rego", policy)], opa_core::Value::empty_object())?;
//! let app = manager.app("orders")?;
//!
//! let router: Router = Router::new()
//!     .route("/orders", get(|| async { "all orders" }).delete(|| async { "gone" }))
//!     .layer(OpaLayer::new(app.clone()).entrypoint("orders/allow"));
//!
//! # app.ready(std::time::Duration::from_secs(5)).await?;
//! # let request = |method| http::Request::builder().method(method).uri("/orders").body(axum::body::Body::empty());
//! # assert_eq!(router.clone().oneshot(request("GET")?).await?.status(), 200);
//! # assert_eq!(router.oneshot(request("DELETE")?).await?.status(), 403);
//! # Ok(())
//! # }
//! ```
//!
//! - [`OpaLayer::new`]: one app judges all requests. [`OpaLayer::per_request`]: each request names
//!   one of a closed set; see [`app`].
//! - [`input`]: what the policy sees. [`response`]: what it may answer, and what the client gets.
//! - The [`Decision`] is in the extensions of the request that the inner service is given, and of
//!   every response: of the service's own, of denials and of faults. The request's also have the
//!   [`AppId`]. Where no app could be asked, the response has the [`Reason`] instead.
//! - [`admin`]: the state of all apps, for operators.
//!
//! # Any Tower service
//! The layer asks of the inner service `Service<Request<RequestBody<B>>, Response = Response<R>>`
//! and `Clone`, with bodies of [`Bytes`](bytes::Bytes), and keeps its error type. The bodies it
//! hands on and answers have types of their own, [`RequestBody`] and [`ResponseBody`]: `from_fn`
//! and handlers of axum, hyper's `TowerToHyperService` and tonic take them as they are; in place of
//! `option_layer` there is [`OpaLayer::optional`].
//!
//! # Deployment caveats
//! - **Without the feature `axum`** (on by default) the layer does not know axum's `OriginalUri`:
//!   inside of `nest` the policy sees the path without the prefix, and the client's address is
//!   known only where the server inserts [`PeerAddr`].
//! - **The path that is judged is the client's.** What rewrites paths between this layer and the
//!   handler can lead an allowed request elsewhere: judge after it, with
//!   [`OpaLayer::rewritten_path`]. What rewrites them before axum's router is seen by the policy.
//! - **Bodies** are not shown to policies: a request with one is answered 415, unless the route
//!   says [`OpaLayer::body_unseen`]. A gRPC call always has a body.
//! - **Headers of proxies** (`X-Forwarded-For`, `Forwarded`) are the client's word unless a proxy in
//!   front sets them.
//! - **Nothing is buffered before the decision**, but the decision may wait, up to its time budget,
//!   for a thread; a timeout around the layer counts the decision as cancelled.
//! - **Order**: layers outside of this one (tracing, compression, timeouts) see refused requests,
//!   those inside don't. Authentication that the policy relies on goes outside.

pub mod admin;
pub mod app;
pub mod input;
pub mod response;

mod body;
mod future;
mod judge;
mod layer;
mod peer;
mod service;
mod settings;

pub use app::{AppExtractor, Rejection};
pub use body::{RequestBody, ResponseBody};
pub use future::ResponseFuture;
pub use layer::OpaLayer;
pub use opa_core::{App, AppId, AppSet, Decision, Manager, Reason};
pub use peer::PeerAddr;
pub use response::{DefaultResponder, Refusal, Responder};
pub use service::OpaService;
