//! The operator's endpoints.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use opa_core::Value;
use opa_tower::{Manager, admin};
use tower::ServiceExt;

use crate::support::{Scripted, manager, ready_app};

async fn send(manager: &Manager, method: Method, uri: &str) -> Response<Bytes> {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = admin::service(manager.clone())
        .oneshot(request)
        .await
        .unwrap();
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

async fn apps(manager: &Manager) -> Value {
    let response = send(manager, Method::GET, "/-/apps").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "application/json");
    Value::from_json(response.body()).unwrap()
}

#[tokio::test]
async fn the_state_of_each_app_is_told() {
    let manager = manager(Scripted::answering("true"));
    assert_eq!(apps(&manager).await.to_json(), "[]");
    ready_app(&manager, "red").await;
    ready_app(&manager, "blue").await;
    let expected = r#"[{"app":"blue","bundles":{"bundle":{}},"state":"ready"},{"app":"red","bundles":{"bundle":{}},"state":"ready"}]"#;
    assert_eq!(apps(&manager).await.to_json(), expected);
}

#[tokio::test]
async fn an_app_that_cannot_start_says_why() {
    let manager = Manager::builder()
        .engine(Scripted::answering("true"))
        .config_yaml("services: {none: {url: 'http://127.0.0.1:1'}}")
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    while app.state().as_str() == "starting" {
        tokio::task::yield_now().await;
    }
    let apps = apps(&manager).await;
    let app = apps.at(&["0"]).unwrap();
    assert_eq!(app.get("state"), Some(&Value::from("failed")));
    assert!(
        app.get("reason")
            .and_then(Value::as_str)
            .is_some_and(|reason| !reason.is_empty())
    );
    let bundle = app.at(&["bundles", "orders"]).unwrap();
    assert_eq!(
        bundle.get("code"),
        Some(&Value::from("bundle_error")),
        "{app}"
    );
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let manager = manager(Scripted::answering("true"));
    assert_eq!(
        send(&manager, Method::GET, "/").await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        send(&manager, Method::GET, "/-/apps/x").await.status(),
        StatusCode::NOT_FOUND
    );
    let response = send(&manager, Method::POST, "/-/apps").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET, HEAD");
    assert_eq!(
        send(&manager, Method::HEAD, "/-/apps?x").await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn metrics_are_answered_as_prometheus_wants_them() {
    let manager = manager(Scripted::answering("true"));
    assert_eq!(
        send(&manager, Method::GET, "/metrics").await.status(),
        StatusCode::NOT_FOUND,
        "nobody gave any"
    );
    ready_app(&manager, "red").await;
    let metrics = opa_plugins::metrics(&manager);
    let service = admin::service(manager.clone()).metrics(move || metrics.text());
    let ask = async |method: Method, path: &str| {
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        service.clone().oneshot(request).await.unwrap()
    };
    let response = ask(Method::GET, "/metrics").await;
    let kind = &response.headers()["content-type"];
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let text = response.into_body().collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        text.contains("opa_instance_state{app=\"red\",state=\"ready\"} 1\n"),
        "{text}"
    );
    let refused = ask(Method::POST, "/metrics").await;
    assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(ask(Method::GET, "/-/apps").await.status(), StatusCode::OK);

    let broken = admin::service(manager).metrics(|| panic!("as wanted"));
    let request = Request::get("/metrics")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = broken.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}
