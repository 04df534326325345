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
//! and `Clone`, with bodies of [`Bytes`](bytes::Bytes), and keeps its error type. The bodies that it
//! hands on and answers have types of their own, [`RequestBody`] and [`ResponseBody`]:
//!
//! - Axum's `Router::layer` and `route_layer` take it as it is. Its `from_fn` goes outside of the
//!   layer, or into a call of `layer` of its own, or behind
//!   `.map_request(|request: Request<RequestBody<Body>>| request.map(Body::new))`.
//! - In place of `option_layer`, which would change those types, there is [`OpaLayer::optional`].
//! - hyper serves it through `TowerToHyperService`:
//!
//! ```no_run
//! # use std::convert::Infallible;
//! # use http_body_util::Full;
//! # use hyper_util::rt::{TokioExecutor, TokioIo};
//! use http::{Request, Response};
//! use opa_tower::{App, OpaLayer, PeerAddr, RequestBody};
//! use tower::ServiceBuilder;
//!
//! # async fn example(app: App, listener: tokio::net::TcpListener) -> std::io::Result<()> {
//! let service = ServiceBuilder::new().layer(OpaLayer::new(app)).service_fn(
//!     |_: Request<RequestBody<hyper::body::Incoming>>| async {
//!         Ok::<_, Infallible>(Response::new(Full::<bytes::Bytes>::from("hello")))
//!     },
//! );
//! loop {
//!     let (connection, peer) = listener.accept().await?;
//!     // Outside of the layer: the policy is shown the client's address.
//!     let service = ServiceBuilder::new()
//!         .map_request(move |mut request: Request<_>| {
//!             request.extensions_mut().insert(PeerAddr(peer));
//!             request
//!         })
//!         .service(service.clone());
//!     let service = hyper_util::service::TowerToHyperService::new(service);
//!     tokio::spawn(async move {
//!         let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
//!         if let Err(error) = server.serve_connection(TokioIo::new(connection), service).await {
//!             tracing::debug!(%error, "the connection broke");
//!         }
//!     });
//! }
//! # }
//! ```
//!
//! - tonic's `Server::layer` takes it too. A gRPC call always has a body, so the route must say
//!   [`OpaLayer::body_unseen`]; clients take a 403 for `PERMISSION_DENIED`:
//!
//! ```
//! use opa_tower::{App, OpaLayer};
//! use tonic::transport::Server;
//!
//! # fn example(app: App) {
//! let server = Server::builder().layer(OpaLayer::new(app).body_unseen());
//! # let _ = server;
//! # }
//! ```
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
//! - **A decision log may hold decisions** until their events are safe, see
//!   [`DecisionSink::admit`](opa_core::plugin::DecisionSink::admit): the service is not called and
//!   no denial or fault is answered before, at most 30 s later. What can't be logged is answered 503
//!   ([`LogUnavailable`](Reason::LogUnavailable)) whatever the policy said, in dry-run too. A
//!   timeout around the layer that ends the wait counts as cancelled; the log may have the event.
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
mod ruling;
mod service;
mod settings;

pub use app::{AppExtractor, Rejection};
pub use body::{RequestBody, ResponseBody};
pub use future::ResponseFuture;
pub use input::InputBuilder;
pub use layer::OpaLayer;
pub use opa_core::{App, AppId, AppSet, Decision, Manager, Reason};
pub use peer::PeerAddr;
pub use response::{DefaultResponder, Refusal, Responder};
pub use service::OpaService;
