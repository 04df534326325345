//! The layer on plain hyper, without a web framework.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --bin hyper_service
//! ```

#![expect(clippy::print_stdout, reason = "what to try")]

use std::convert::Infallible;
use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Body;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use opa_core::Value;
use opa_core::engine::Module;
use opa_tower::{App, Decision, Manager, OpaLayer, PeerAddr, RequestBody, ResponseBody};
use tokio::time::timeout;
use tower::{Service, ServiceBuilder};
use tracing_subscriber::filter::LevelFilter;

const POLICY: &str = r#"
package site

default allow := false

allow if {
    input.attributes.request.http.method == "GET"
    input.attributes.source.address.socketAddress.address == "127.0.0.1"
}
"#;

/// How long the end may take.
const DEADLINE: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    examples::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    examples::log(LevelFilter::INFO);
    let mut interrupt = examples::interrupt()?;
    let manager = Manager::in_memory([Module::v1("site.rego", POLICY)], Value::empty_object())?;
    let site = manager.app("site")?;
    site.ready(DEADLINE).await?;
    let listener = examples::listen((Ipv4Addr::LOCALHOST, 0).into()).await?;
    println!("try curl -i http://{}/", listener.local_addr()?);

    let server = Builder::new(TokioExecutor::new());
    let connections = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = &mut interrupt => break,
        };
        let service = TowerToHyperService::new(app(site.clone(), peer));
        let connection = server
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        tokio::spawn(connections.watch(connection));
    }
    let ended = timeout(DEADLINE, connections.shutdown()).await;
    // Whatever is still under way: the decisions that were made are logged.
    manager.shutdown(DEADLINE).await;
    Ok(ended?)
}

/// The service of one connection.
fn app<B>(
    app: App,
    peer: SocketAddr,
) -> impl Service<
    Request<B>,
    Response = Response<ResponseBody<Full<Bytes>>>,
    Error = Infallible,
    Future: Send,
> + Clone
where
    B: Body<Data = Bytes> + Send,
{
    ServiceBuilder::new()
        // Whom a request comes from only the server knows.
        .map_request(move |mut request: Request<B>| {
            request.extensions_mut().insert(PeerAddr(peer));
            request
        })
        .layer(OpaLayer::new(app).entrypoint("site/allow"))
        .service_fn(hello)
}

async fn hello<B>(request: Request<RequestBody<B>>) -> Result<Response<Full<Bytes>>, Infallible> {
    let reason = request.extensions().get().map(Decision::reason);
    let text = format!(
        "hello: {}\n",
        reason.map_or_else(String::new, |it| it.to_string())
    );
    Ok(Response::new(text.into()))
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty};
    use tower::ServiceExt;

    use super::*;

    async fn answer(method: &str, peer: &str) -> (u16, Bytes) {
        let module = Module::v1("site.rego", POLICY);
        let manager = Manager::in_memory([module], Value::empty_object()).unwrap();
        let site = manager.app("site").unwrap();
        site.ready(DEADLINE).await.unwrap();
        let request = Request::builder()
            .method(method)
            .body(Empty::new())
            .unwrap();
        let response = app(site, peer.parse().unwrap())
            .oneshot(request)
            .await
            .unwrap();
        let status = response.status().as_u16();
        (
            status,
            response.into_body().collect().await.unwrap().to_bytes(),
        )
    }

    #[tokio::test]
    async fn the_policy_sees_method_and_peer() {
        assert_eq!(
            answer("GET", "127.0.0.1:1").await,
            (200, "hello: allowed\n".into())
        );
        assert_eq!(answer("PUT", "127.0.0.1:1").await.0, 403);
        assert_eq!(answer("GET", "192.0.2.1:1").await.0, 403);
    }
}
