//! The end of a service: the server finishes its requests, then the manager ends, and the event of
//! the last request is in the log.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use opa_core::bundle::BundleWriter;
use opa_core::bundle::source::Memory;
use opa_core::config::Section;
use opa_core::engine::Outcome;
use opa_core::plugin::{Scope, State};
use opa_core::{Manager, Value};
use opa_plugins::decision_logs::Lines;
use opa_plugins::decision_logs::output::{Batch, Output, OutputFuture};
use opa_tower::{OpaLayer, RequestBody};
use tests::http_client;
use tests::scripted::Scripted;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tower::{Layer, service_fn};

const LONG: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_request_under_way_is_answered_and_logged() {
    let lines = Lines::default();
    let manager = Manager::builder()
        .config_yaml("decision_logs: {console: true}")
        .source("b", Memory::new(BundleWriter::new().to_vec().unwrap()))
        .engine(Scripted::new(|_, _| Outcome::Value(Value::from(true))))
        .plugin(opa_plugins::decision_logs().console_to(lines.clone()))
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();

    let (arrived, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (in_handler, let_go) = (Arc::clone(&arrived), Arc::clone(&go));
    let handler = service_fn(move |_: Request<RequestBody<Incoming>>| {
        let (arrived, go) = (Arc::clone(&in_handler), Arc::clone(&let_go));
        async move {
            arrived.notify_one();
            go.notified().await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("done"))))
        }
    });
    let service = OpaLayer::new(app.clone()).layer(handler);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let service = TowerToHyperService::new(service);
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await
            .unwrap();
    });

    let client = tokio::spawn(async move { http_client::get(address, "/").await.unwrap() });
    arrived.notified().await;
    // The order of a graceful end: no new connections, the old ones end, then the manager.
    let ending = tokio::spawn(async move {
        server.await.unwrap();
        manager.shutdown(LONG).await;
    });
    go.notify_one();
    assert_eq!(client.await.unwrap().status(), 200);
    ending.await.unwrap();
    assert_eq!(app.state(), State::Closed);
    assert_eq!(lines.take().len(), 1);
}

#[tokio::test]
async fn a_question_without_an_end_leaves_time_for_the_log() {
    struct Count(Arc<AtomicUsize>);
    impl Output for Count {
        fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
            self.0.fetch_add(batch.events.len(), Ordering::Relaxed);
            Box::pin(std::future::ready(Ok(())))
        }
    }
    let delivered = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&delivered);
    let plugin = opa_plugins::decision_logs().output_type(
        "count",
        move |section: &Section, _: &Scope<'_>| {
            section.reader()?.finish()?;
            Ok(Arc::new(Count(Arc::clone(&counted))) as Arc<dyn Output>)
        },
    );
    let manager = Manager::builder()
        .config_yaml("decision_logs: {outputs: [{type: count, batching: {at_period: 1h}}]}")
        .source("b", Memory::new(BundleWriter::new().to_vec().unwrap()))
        .engine(Scripted::new(|_, _| Outcome::Value(Value::from(true))))
        .plugin(plugin)
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    for _ in 0..20 {
        app.decide("a/b", Value::empty_object()).await;
    }
    // As of a client that never sends the rest of its body.
    let question = app.ask();
    manager.shutdown(Duration::from_secs(2)).await;
    assert_eq!(delivered.load(Ordering::Relaxed), 20);
    drop(question);
}
