//! The layer on axum, hyper and tonic, through real connections where there is a server.

mod axum;
mod hyper;
mod tonic;

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use opa_core::Value;
use opa_core::engine::Outcome;
use opa_tower::{OpaLayer, RequestBody};
use tokio::net::TcpStream;
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{Scripted, serving};

/// Allows what `path` of the input has as `value`.
pub(crate) fn when(path: &'static [&'static str], value: impl Into<Value>) -> Scripted {
    let value = value.into();
    Scripted::new(move |_, input, _| Outcome::Value((input.at(path) == Some(&value)).into()))
}

/// A request and its answer over a connection of its own.
pub(crate) async fn over_http_1<B>(server: SocketAddr, request: Request<B>) -> Response<Bytes>
where
    B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
{
    let io = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let (mut sender, connection) = ::hyper::client::conn::http1::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Response::from_parts(parts, body)
}

pub(crate) async fn over_http_2(
    server: SocketAddr,
    request: Request<Full<Bytes>>,
) -> Response<Bytes> {
    let io = TokioIo::new(TcpStream::connect(server).await.unwrap());
    let handshake = ::hyper::client::conn::http2::handshake(TokioExecutor::new(), io);
    let (mut sender, connection) = handshake.await.unwrap();
    let connection = tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    connection.abort();
    Response::from_parts(parts, body)
}

/// Any service is enough, also one that no server serves.
#[tokio::test]
async fn a_function_is_a_service() {
    let (_manager, app) = serving(Scripted::answering("true")).await;
    let service =
        OpaLayer::new(app).layer(service_fn(|_: Request<RequestBody<Empty<Bytes>>>| async {
            Ok::<_, std::io::Error>(Response::new(Empty::<Bytes>::new()))
        }));
    let response = service.oneshot(Request::new(Empty::new())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}
