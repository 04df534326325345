use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use opa_tower::{Decision, OpaLayer};
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::transport::server::TcpIncoming;
use tower::Service;

use super::{over_http_2, when};
use crate::support::serving;

/// A gRPC service without generated code: answers an empty message.
#[derive(Clone)]
struct Greeter;

impl tonic::server::NamedService for Greeter {
    const NAME: &'static str = "test.Greeter";
}

impl Service<Request<Body>> for Greeter {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert!(request.extensions().get::<Decision>().is_some());
        let frame = Bytes::from_static(&[0, 0, 0, 0, 0]);
        let body = Body::new(Full::new(frame));
        let response = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "0")
            .body(body);
        ready(Ok(response.unwrap()))
    }
}

#[tokio::test]
async fn tonic_serves_what_the_policy_allows() {
    let method = &["parsed_path", "1"];
    let (_manager, app) = serving(when(method, "Hello")).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    // Every call has a body, which this policy needn't see.
    let layer = OpaLayer::new(app).body_unseen();
    let incoming = TcpIncoming::from(listener);
    let router = tonic::transport::Server::builder()
        .layer(layer)
        .add_service(Greeter);
    let serving = tokio::spawn(router.serve_with_incoming(incoming));
    let call = |method: &str| {
        Request::post(format!("http://{server}/test.Greeter/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::from(Bytes::from_static(&[0, 0, 0, 0, 0])))
            .unwrap()
    };
    let response = over_http_2(server, call("Hello")).await;
    assert_eq!(
        (response.status(), &response.headers()["grpc-status"]),
        (StatusCode::OK, &"0".parse().unwrap())
    );
    let response = over_http_2(server, call("Bye")).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    serving.abort();
}
