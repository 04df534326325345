//! The service: three routers behind one manager.

use std::time::Duration;

use axum::extract::Path;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::routing::get;
use axum::{Extension, Router};
use opa_core::instance::NotReady;
use opa_core::manager::AppError;
use opa_tower::app::path_param;
use opa_tower::{App, AppSet, Decision, Manager, OpaLayer};

/// The virtual OPAs of the service.
pub(crate) struct Apps {
    orders: App,
    reports: App,
    tenants: AppSet,
}

impl Apps {
    /// Starts them. They get ready while the service starts.
    pub(crate) fn new(manager: &Manager) -> Result<Self, AppError> {
        Ok(Self {
            orders: manager.app("orders")?,
            reports: manager.app("reports")?,
            tenants: manager.app_set(["blue", "green"])?,
        })
    }

    /// Waits until every app has a policy, but for green, whose bundle isn't published yet.
    pub(crate) async fn ready(&self, deadline: Duration) -> Result<(), NotReady> {
        let blue = self.tenants.get("blue");
        for app in [&self.orders, &self.reports].into_iter().chain(blue) {
            app.ready(deadline).await?;
        }
        Ok(())
    }

    /// Two routers with an app each, and one whose app is named by the path.
    pub(crate) fn router(self) -> Router {
        let orders = OpaLayer::new(self.orders).entrypoint("orders/decision");
        let orders = Router::new()
            .route("/orders", get(list_orders).post(place_order))
            .route_layer(orders);

        let reports = OpaLayer::new(self.reports).entrypoint("reports/allow");
        let reports = Router::new()
            .route("/reports", get(list_reports))
            .route_layer(reports);

        let tenant_of = |parts: &mut Parts| path_param(parts, "tenant");
        let tenants = OpaLayer::per_request(self.tenants, tenant_of).entrypoint("tenant/decision");
        let tenants = Router::new()
            .route("/t/{tenant}/{feature}", get(use_feature))
            .route_layer(tenants);

        orders.merge(reports).merge(tenants)
    }
}

/// The policy has told the role: what the client sent under this name is gone.
async fn list_orders(headers: HeaderMap) -> String {
    let role = headers
        .get("x-role")
        .and_then(|role| role.to_str().ok())
        .unwrap_or("nobody");
    format!("orders 1 and 2, for the eyes of a {role}\n")
}

async fn place_order() -> &'static str {
    "order 3 is placed\n"
}

/// The decision itself is there too.
async fn list_reports(Extension(decision): Extension<Decision>) -> String {
    format!(
        "reports, by the word of {}\n",
        decision.revision().unwrap_or("no revision")
    )
}

async fn use_feature(Path((tenant, feature)): Path<(String, String)>) -> String {
    format!("{feature} from {tenant}\n")
}
