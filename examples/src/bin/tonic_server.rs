//! The layer on a gRPC server. A denial reaches the client as a gRPC status: 403 is
//! `PERMISSION_DENIED`, 401 `UNAUTHENTICATED`, 503 `UNAVAILABLE`.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --bin tonic_server
//! ```

#![expect(clippy::print_stdout, reason = "where it listens")]

use std::convert::Infallible;
use std::error::Error;
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BufMut};
use opa_core::Value;
use opa_core::engine::Module;
use opa_tower::{App, Decision, Manager, OpaLayer};
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::transport::server::{Router, TcpIncoming};
use tonic::{Request, Response, Status};
use tower::layer::util::{Identity, Stack};
use tower::{Service, service_fn};
use tracing_subscriber::filter::LevelFilter;

/// A call is a request `POST /package.Service/Method`, its metadata are headers.
const POLICY: &str = r#"
package grpc

default allow := false

allow if {
    input.parsed_path == ["hello.Greeter", "Hello"]
    input.attributes.request.http.headers["x-user"] == "ann"
}
"#;

const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    examples::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    examples::log(LevelFilter::INFO);
    let interrupt = examples::interrupt()?;
    let manager = Manager::in_memory([Module::v1("grpc.rego", POLICY)], Value::empty_object())?;
    let greeter = manager.app("greeter")?;
    greeter.ready(DEADLINE).await?;
    let listener = examples::listen((Ipv4Addr::LOCALHOST, 0).into()).await?;
    println!("listening on http://{}", listener.local_addr()?);
    app(greeter)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener), interrupt)
        .await?;
    manager.shutdown(DEADLINE).await;
    Ok(())
}

/// The policy judges by path and metadata. It isn't shown the messages, and every call has one.
fn app(app: App) -> Router<Stack<OpaLayer, Identity>> {
    let opa = OpaLayer::new(app).entrypoint("grpc/allow").body_unseen();
    Server::builder().layer(opa).add_service(Greeter)
}

async fn hello(request: Request<String>) -> Result<Response<String>, Status> {
    let decision: Option<&Decision> = request.extensions().get();
    let reason = decision
        .map(|it| it.reason().to_string())
        .unwrap_or_default();
    Ok(Response::new(format!(
        "hello {}: {reason}",
        request.get_ref()
    )))
}

/// What `tonic-build` generates of a service definition, written by hand.
#[derive(Clone)]
struct Greeter;

impl NamedService for Greeter {
    const NAME: &'static str = "hello.Greeter";
}

impl Service<http::Request<Body>> for Greeter {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/hello.Greeter/Hello" => Grpc::new(Text).unary(service_fn(hello), request).await,
                _ => Status::unimplemented("no such method").into_http(),
            })
        })
    }
}

/// Messages that are plain text, in the place of Protobuf.
#[derive(Clone, Copy)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, message: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = message.copy_to_bytes(message.remaining());
        let text = String::from_utf8(bytes.into());
        text.map(Some)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic::client;
    use tonic::transport::Endpoint;

    use super::*;

    async fn call(user: &str, method: &'static str) -> Result<String, Status> {
        let module = Module::v1("grpc.rego", POLICY);
        let manager = Manager::in_memory([module], Value::empty_object()).unwrap();
        let greeter = manager.app("greeter").unwrap();
        greeter.ready(DEADLINE).await.unwrap();
        let listener = examples::listen((Ipv4Addr::LOCALHOST, 0).into())
            .await
            .unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(app(greeter).serve_with_incoming(TcpIncoming::from(listener)));

        let channel = Endpoint::from_shared(url).unwrap().connect().await.unwrap();
        let mut client = client::Grpc::new(channel);
        client.ready().await.unwrap();
        let mut request = Request::new("world".to_owned());
        request
            .metadata_mut()
            .insert("x-user", user.parse().unwrap());
        let path = http::uri::PathAndQuery::from_static(method);
        client
            .unary(request, path, Text)
            .await
            .map(Response::into_inner)
    }

    #[tokio::test]
    async fn calls_are_judged_by_method_and_metadata() {
        assert_eq!(
            call("ann", "/hello.Greeter/Hello").await.unwrap(),
            "hello world: allowed"
        );
        let denied = call("bob", "/hello.Greeter/Hello").await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
        let denied = call("ann", "/hello.Greeter/Other").await.unwrap_err();
        assert_eq!(denied.code(), Code::PermissionDenied);
    }
}
