use axum::body::Body;
use axum::middleware::Next;
use axum::routing::get;
use axum::{Extension, Router};
use http::{Request, StatusCode};
use opa_tower::{Decision, OpaLayer, RequestBody};
use tower::{ServiceBuilder, ServiceExt};

use super::when;
use crate::support::serving;

const PATH: &[&str] = &["attributes", "request", "http", "path"];

async fn pass(request: axum::extract::Request, next: Next) -> axum::response::Response {
    next.run(request).await
}

async fn status(router: &Router, uri: &str) -> StatusCode {
    let request = Request::get(uri).body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn axum_router_layer_and_handler() {
    let (_manager, app) = serving(when(PATH, "/a")).await;
    let handler =
        |Extension(decision): Extension<Decision>| async move { decision.id().to_owned() };
    let router: Router = Router::new()
        .route("/a", get(handler))
        .route("/b", get(handler))
        .layer(OpaLayer::new(app));
    assert_eq!(status(&router, "/a").await, StatusCode::OK);
    assert_eq!(status(&router, "/b").await, StatusCode::FORBIDDEN);
    // `layer` is around the fallback too: the policy judges what no route knows.
    assert_eq!(status(&router, "/c").await, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn axum_route_layer_and_layers_around_it() {
    let (_manager, app) = serving(when(PATH, "/a")).await;
    let count = axum::middleware::from_fn(pass);
    let layers = ServiceBuilder::new()
        .layer(count.clone())
        .layer(OpaLayer::new(app))
        // `from_fn` asks for axum's own body; outside of the layer the server's is one.
        .map_request(|request: Request<RequestBody<Body>>| request.map(Body::new))
        .layer(count.clone());
    let router: Router = Router::new()
        .route("/a", get(|| async {}).post(|| async {}))
        .route("/b", get(|| async {}))
        // In a call of its own the router does that.
        .route_layer(count)
        .route_layer(layers);
    assert_eq!(status(&router, "/a").await, StatusCode::OK);
    assert_eq!(status(&router, "/b").await, StatusCode::FORBIDDEN);
    assert_eq!(status(&router, "/c").await, StatusCode::NOT_FOUND);
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn inside_of_nest_the_policy_sees_the_path_of_the_client() {
    let (_manager, app) = serving(when(PATH, "/api/a?q")).await;
    let nested = |layer| Router::new().route("/a", get(|| async {})).layer(layer);
    let router: Router = Router::new()
        .nest("/api", nested(OpaLayer::new(app.clone())))
        .nest("/rewritten", nested(OpaLayer::new(app).rewritten_path()));
    assert_eq!(status(&router, "/api/a?q").await, StatusCode::OK);
    assert_eq!(
        status(&router, "/rewritten/a?q").await,
        StatusCode::FORBIDDEN
    );

    let (_manager, app) = serving(when(PATH, "/a?q")).await;
    let router: Router = Router::new()
        .nest("/api", nested(OpaLayer::new(app.clone())))
        .nest("/rewritten", nested(OpaLayer::new(app).rewritten_path()));
    assert_eq!(status(&router, "/api/a?q").await, StatusCode::FORBIDDEN);
    assert_eq!(status(&router, "/rewritten/a?q").await, StatusCode::OK);
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_path_parameters_name_apps() {
    use http::request::Parts;
    use opa_tower::app::path_param;

    use crate::support::{Scripted, manager, ready_app};

    let manager = manager(Scripted::answering("true"));
    ready_app(&manager, "blue").await;
    ready_app(&manager, "red").await;
    let set = manager.app_set(["blue"]).unwrap();
    let layer = OpaLayer::per_request(set, |parts: &mut Parts| path_param(parts, "tenant"));
    let app = |Extension(decision): Extension<Decision>| async move { decision.app().to_string() };
    let router: Router = Router::new()
        .nest("/t", Router::new().route("/{tenant}/{rest}", get(app)))
        .route("/none", get(app))
        .layer(layer);
    assert_eq!(status(&router, "/t/blue/x").await, StatusCode::OK);
    assert_eq!(status(&router, "/t/%62lue/x").await, StatusCode::OK);
    for path in ["/t/red/x", "/t/none/x", "/t/a%2Fb/x", "/t/%ff/x", "/none"] {
        assert_eq!(status(&router, path).await, StatusCode::NOT_FOUND, "{path}");
    }
}

/// What the crate's docs warn of.
#[cfg(not(feature = "axum"))]
#[tokio::test]
async fn without_the_feature_the_policy_sees_the_path_inside_of_nest() {
    let (_manager, app) = serving(when(PATH, "/a?q")).await;
    let nested = Router::new()
        .route("/a", get(|| async {}))
        .layer(OpaLayer::new(app));
    let router: Router = Router::new().nest("/api", nested);
    assert_eq!(status(&router, "/api/a?q").await, StatusCode::OK);
}

#[tokio::test]
async fn axum_may_be_without_a_policy() {
    let layer = OpaLayer::optional(None::<OpaLayer>);
    let router: Router = Router::new().route("/a", get(|| async {})).layer(layer);
    assert_eq!(status(&router, "/a").await, StatusCode::OK);
}

#[cfg(feature = "axum")]
#[tokio::test]
async fn axum_serves_over_a_connection_whose_peer_is_known() {
    use std::net::SocketAddr;

    use axum::extract::ConnectInfo;
    use http_body_util::Empty;
    use tokio::net::TcpListener;

    use super::over_http_1;

    let address = &[
        "attributes",
        "source",
        "address",
        "socketAddress",
        "address",
    ];
    let (_manager, app) = serving(when(address, "127.0.0.1")).await;
    let router: Router = Router::new()
        .route(
            "/",
            get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }),
        )
        .layer(OpaLayer::new(app));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serving = tokio::spawn(async { axum::serve(listener, service).await });
    let request = Request::get("/")
        .header("host", "h")
        .body(Empty::new())
        .unwrap();
    assert_eq!(over_http_1(server, request).await.status(), StatusCode::OK);
    serving.abort();
}
