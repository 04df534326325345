//! Three places for the layer in axum: `layer`, `route_layer`, and a router that is nested.
//!
//! Run with
//!
//! ```not_rust
//! cargo run --bin axum_layers
//! ```

#![expect(clippy::print_stdout, reason = "what to try")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use opa_core::Value;
use opa_core::engine::Module;
use opa_tower::{Decision, Manager, OpaLayer};
use tracing_subscriber::filter::LevelFilter;

/// `input` is what opa-envoy-plugin shows its policies behind Envoy.
const POLICY: &str = r#"
package site

default allow := false

allow if input.parsed_path == ["public"]

allow if input.parsed_path[0] == "orders"

# The path is the client's, also where axum strips a prefix of it. The context is the layer's.
allow if {
    input.attributes.request.http.path == "/admin/users"
    input.attributes.contextExtensions.area == "back office"
}
"#;

#[tokio::main]
async fn main() -> ExitCode {
    examples::exit(run().await)
}

async fn run() -> Result<(), Box<dyn Error>> {
    examples::log(LevelFilter::INFO);
    let interrupt = examples::interrupt()?;
    let manager = Manager::in_memory([Module::v1("site.rego", POLICY)], Value::empty_object())?;
    let router = app(&manager)?;
    manager.app("site")?.ready(Duration::from_secs(5)).await?;
    let listener = examples::listen((Ipv4Addr::LOCALHOST, 0).into()).await?;
    println!("try curl -i http://{}/admin/users", listener.local_addr()?);
    examples::serve(listener, router, interrupt, &manager).await?;
    Ok(())
}

fn app(manager: &Manager) -> Result<Router, Box<dyn Error>> {
    let opa = OpaLayer::new(manager.app("site")?).entrypoint("site/allow");

    // `layer` judges whatever reaches this router, also paths that have no route.
    let site = Router::new()
        .route("/public", get(|| async { "for everybody\n" }))
        .route("/secret", get(|| async { "for nobody\n" }))
        .layer(opa.clone());

    // `route_layer` judges what has a route; the rest is 404 and nobody is asked.
    let orders = Router::new()
        .route("/orders/{id}", get(who_decided))
        .route_layer(opa.clone());

    // Inside of `nest` the handler sees `/users`, the policy `/admin/users`.
    let admin = Router::new()
        .route("/users", get(|| async { "ann and bob\n" }))
        .layer(opa.context("area", "back office"));

    Ok(Router::new()
        .nest("/admin", admin)
        .merge(orders)
        .merge(site))
}

/// The decision that let the request pass is one of its extensions.
async fn who_decided(Extension(decision): Extension<Decision>) -> String {
    format!(
        "allowed by {} of {}\n",
        decision.path().unwrap_or_default(),
        decision.app()
    )
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn get(path: &str) -> (u16, String) {
        let module = Module::v1("site.rego", POLICY);
        let manager = Manager::in_memory([module], Value::empty_object()).unwrap();
        manager
            .app("site")
            .unwrap()
            .ready(Duration::from_secs(10))
            .await
            .unwrap();
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = app(&manager).unwrap().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1024).await.unwrap();
        (status, String::from_utf8(body.into()).unwrap())
    }

    #[tokio::test]
    async fn a_layer_judges_all_that_reaches_its_router() {
        assert_eq!(get("/public").await, (200, "for everybody\n".to_owned()));
        assert_eq!(get("/secret").await.0, 403);
        assert_eq!(get("/no/route").await.0, 403);
    }

    #[tokio::test]
    async fn a_route_layer_judges_routes() {
        assert_eq!(
            get("/orders/1").await,
            (200, "allowed by site/allow of site\n".to_owned())
        );
    }

    #[tokio::test]
    async fn a_nested_policy_sees_the_path_of_the_client() {
        assert_eq!(get("/admin/users").await, (200, "ann and bob\n".to_owned()));
        assert_eq!(get("/users").await.0, 403);
    }
}
