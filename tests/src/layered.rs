//! A service of this process behind the layer, for what the `serve` example can't be told: the
//! context extensions of a route.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opa_core::Manager;
use opa_plugins::decision_logs::Lines;
use opa_tower::{OpaLayer, PeerAddr};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tower::{Layer, ServiceExt};

use crate::echo;
use crate::peers::decision_logs;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running service, stopped when dropped.
#[derive(Debug)]
pub struct Layered {
    address: SocketAddr,
    lines: Lines,
    accept: JoinHandle<()>,
}

impl Layered {
    /// Starts an echo service on a free port, protected by one app of an OPA configuration; ready
    /// when the app is.
    ///
    /// # Panics
    ///
    /// When the configuration is refused, or the app isn't ready within a minute.
    pub async fn start(configuration: &str, app: &str, context: &[(String, String)]) -> Layered {
        let lines = Lines::default();
        let manager = Manager::builder()
            .config_yaml(configuration)
            .plugin(opa_plugins::decision_logs().console_to(lines.clone()))
            .build()
            .unwrap_or_else(|error| panic!("{error}"));
        let app = manager.app(app).expect("a new app");
        app.ready(PATIENCE).await.expect("a ready app");
        let layer = context
            .iter()
            .fold(OpaLayer::new(app), |layer, (key, value)| {
                layer.context(key, value)
            });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a port of loopback can be bound");
        let address = listener.local_addr().expect("a bound address");
        let accept = tokio::spawn(accept(listener, layer, manager));
        Layered {
            address,
            lines,
            accept,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for events of its decision log beyond those already taken.
    ///
    /// # Panics
    ///
    /// When it logs none for a minute.
    pub async fn next_events(&self) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let events = decision_logs(&self.lines.take().join("\n"));
            if !events.is_empty() {
                return events;
            }
            assert!(Instant::now() < deadline, "no event within {PATIENCE:?}");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Layered {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// The manager lives as long as the service.
async fn accept(listener: TcpListener, layer: OpaLayer, _manager: Manager) {
    let protected = layer.layer(tower::service_fn(echo::answer));
    while let Ok((stream, peer)) = listener.accept().await {
        let protected = protected.clone();
        let service = service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(PeerAddr(peer));
            protected.clone().oneshot(request)
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A client that breaks off is a client that saw no response.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
    }
}
