//! Apps that requests name.

use std::convert::Infallible;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use opa_core::engine::Outcome;
use opa_tower::app::{extract_async, path_segment};
use opa_tower::{
    AppExtractor, AppId, Decision, OpaLayer, Reason, Refusal, Rejection, RequestBody, ResponseBody,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{Scripted, get, manager, ready_app};

/// Answers with the app and the headers that the inner service sees.
async fn send<E: AppExtractor>(
    layer: OpaLayer<E>,
    request: Request<Empty<Bytes>>,
) -> Response<String> {
    let service = layer.layer(service_fn(|request: Request<RequestBody<Empty<Bytes>>>| {
        let app = request
            .extensions()
            .get::<AppId>()
            .unwrap()
            .as_str()
            .to_owned();
        let names: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
        let body = Full::<Bytes>::from([&[&*app], &*names].concat().join(" "));
        std::future::ready(Ok::<_, Infallible>(Response::new(body)))
    }));
    let response: Response<ResponseBody<Full<Bytes>>> = service.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(parts, String::from_utf8(body.to_vec()).unwrap())
}

async fn tenants() -> (opa_tower::Manager, opa_tower::AppSet) {
    let manager = manager(Scripted::answering("true"));
    for tenant in ["blue", "red", "green"] {
        ready_app(&manager, tenant).await;
    }
    let set = manager.app_set(["blue", "red"]).unwrap();
    (manager, set)
}

fn tenant_of(parts: &mut Parts) -> Result<AppId, Rejection> {
    path_segment(parts, 1)
}

#[tokio::test]
async fn the_app_that_a_request_names_judges_it() {
    let (manager, set) = tenants().await;
    let layer = OpaLayer::per_request(set, tenant_of);
    for tenant in ["blue", "red"] {
        let response = send(layer.clone(), get(&format!("/t/{tenant}/orders"))).await;
        assert_eq!(
            (response.status(), response.body().as_str()),
            (StatusCode::OK, tenant)
        );
        let decision = response.extensions().get::<Decision>().unwrap();
        assert_eq!(decision.app().as_str(), tenant);
        assert_eq!(
            manager
                .app(tenant)
                .unwrap()
                .decision_counts()
                .of(Reason::Allowed),
            1
        );
    }
}

#[tokio::test]
async fn an_app_outside_of_the_closed_set_is_404_and_asked_nothing() {
    let (manager, set) = tenants().await;
    let layer = OpaLayer::per_request(set, tenant_of);
    // `green` exists and would allow.
    for path in [
        "/t/green/orders",
        "/t/BLUE",
        "/t/Blue",
        "/t/none",
        "/t/..%2fblue",
        "/t",
        "/t//x",
    ] {
        let response = send(layer.clone(), get(path)).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert_eq!(
            response.extensions().get::<Reason>(),
            Some(&Reason::UnknownApp),
            "{path}"
        );
        assert!(response.extensions().get::<Decision>().is_none());
        assert!(response.body().is_empty());
    }
    assert_eq!(manager.app("green").unwrap().decision_counts().total(), 0);
}

#[tokio::test]
async fn what_an_extractor_takes_out_is_seen_by_nobody() {
    let manager = manager(Scripted::new(|_, input, _| {
        let header = input.at(&["attributes", "request", "http", "headers", "x-opa-app"]);
        Outcome::Value(header.is_none().into())
    }));
    ready_app(&manager, "blue").await;
    let set = manager.app_set(["blue"]).unwrap();
    let layer = OpaLayer::per_request(set, |parts: &mut Parts| {
        let name = parts
            .headers
            .remove("x-opa-app")
            .ok_or_else(Rejection::bad_request)?;
        name.to_str()
            .map(str::to_owned)
            .map_err(|_| Rejection::bad_request())
    });
    let request = Request::get("/")
        .header("x-opa-app", "blue")
        .header("x-other", "1");
    let response = send(layer.clone(), request.body(Empty::new()).unwrap()).await;
    assert_eq!(
        (response.status(), response.body().as_str()),
        (StatusCode::OK, "blue x-other")
    );
    assert_eq!(
        send(layer, get("/")).await.status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn an_extractor_may_wait() {
    let (_manager, set) = tenants().await;
    let layer = OpaLayer::per_request(
        set,
        extract_async(|parts: &mut Parts| {
            let tenant = path_segment(parts, 0);
            async {
                tokio::task::yield_now().await;
                tenant
            }
        }),
    );
    let response = send(layer.clone(), get("/red")).await;
    assert_eq!(
        (response.status(), response.body().as_str()),
        (StatusCode::OK, "red")
    );
    assert_eq!(
        send(layer.clone(), get("/green")).await.status(),
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        send(layer, get("/red?%ff")).await.status(),
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_rejection_is_the_response_and_goes_through_the_responder() {
    let (_manager, set) = tenants().await;
    let layer = OpaLayer::per_request(set, |_: &mut Parts| {
        let location = http::HeaderValue::from_static("/login");
        let login = Rejection::new(StatusCode::SEE_OTHER).header(http::header::LOCATION, location);
        Err::<AppId, _>(login.body("log in"))
    });
    let response = send(layer.clone(), get("/")).await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    assert_eq!(response.headers()["location"], "/login");
    assert_eq!(response.body(), "log in");
    let layer = layer.responder(|refusal: Refusal, _: &Parts| {
        assert_eq!(refusal.reason(), Reason::UnknownApp);
        assert!(refusal.decision().is_none());
        Response::new(Bytes::from_static(b"shaped"))
    });
    assert_eq!(send(layer, get("/")).await.body(), "shaped");
}
