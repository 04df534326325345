use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opa_core::Value;
use opa_tower::{Decision, OpaLayer, RequestBody};
use tokio::net::TcpListener;
use tower::ServiceBuilder;

use super::{over_http_1, over_http_2};
use crate::support::{Scripted, serving};

#[tokio::test]
async fn hyper_serves_http_1_and_2() {
    let (_manager, app) = serving(Scripted::showing()).await;
    let seen = |request: Request<RequestBody<hyper::body::Incoming>>| async move {
        let decision: &Decision = request.extensions().get().unwrap();
        let input = decision.result().unwrap().get("input").unwrap();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(input.to_json())))
    };
    let service = ServiceBuilder::new()
        .layer(OpaLayer::new(app))
        .service_fn(seen);
    let service = hyper_util::service::TowerToHyperService::new(service);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let service = service.clone();
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                builder
                    .serve_connection(TokioIo::new(connection), service)
                    .await
            });
        }
    });
    let request = || {
        Request::get("/a?q")
            .header("host", "h")
            .header("x", "1")
            .header("x", "2")
    };
    let input = over_http_1(server, request().body(Empty::new()).unwrap()).await;
    let input = Value::from_json(input.body()).unwrap();
    let http = input.at(&["attributes", "request", "http"]).unwrap();
    assert_eq!(
        http.to_json(),
        r#"{"headers":{":authority":"h",":method":"GET",":path":"/a?q",":scheme":"http","x":"1,2"},"host":"h","method":"GET","path":"/a?q","protocol":"HTTP/1.1","scheme":"http"}"#,
    );

    // A body whose length is not announced, whatever the method.
    for method in ["GET", "POST", "DELETE"] {
        let chunks = [Ok(http_body::Frame::data(Bytes::from("secret")))];
        let chunked = Request::builder()
            .method(method)
            .header("host", "h")
            .header("transfer-encoding", "chunked")
            .body(StreamBody::new(futures_util::stream::iter(chunks)));
        let response = over_http_1(server, chunked.unwrap()).await;
        assert_eq!(
            response.status(),
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "{method}"
        );
    }

    let request = Request::get("http://h/b")
        .header("cookie", "a=1")
        .header("cookie", "b=2");
    let response = over_http_2(server, request.body(Full::default()).unwrap()).await;
    let input = Value::from_json(response.body()).unwrap();
    let http = input.at(&["attributes", "request", "http"]).unwrap();
    assert_eq!(
        http.to_json(),
        r#"{"headers":{":authority":"h",":method":"GET",":path":"/b",":scheme":"http","cookie":"a=1; b=2"},"host":"h","method":"GET","path":"/b","protocol":"HTTP/2","scheme":"http"}"#,
    );
    let request = Request::post("http://h/b")
        .body(Full::from("secret"))
        .unwrap();
    let response = over_http_2(server, request).await;
    assert_eq!(response.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    serving.abort();
}
