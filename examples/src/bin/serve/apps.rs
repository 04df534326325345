//! Which app judges a request: one for all, or the one that a header names.

use std::convert::Infallible;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use opa_core::manager::AppError;
use opa_tower::{App, AppId, Manager, OpaLayer, RequestBody};
use tower::ServiceExt;
use tower::{Layer, service_fn};

use crate::echo::echo;

/// The header that names the app. Neither policy nor service see it.
const X_OPA_APP: HeaderName = HeaderName::from_static("x-opa-app");

/// An echo service that is protected by one app.
pub(crate) fn fixed(app: App, body_unseen: bool) -> Router {
    Router::new().fallback(echo).layer(layer(app, body_unseen))
}

/// An echo service that is protected by the app that a header names. An app is started when it is
/// named first, and ends when it wasn't named for the manager's grace period; the manager bounds
/// how many there are.
pub(crate) fn named_by_header(manager: Manager, body_unseen: bool) -> Router {
    Router::new()
        .fallback(judge)
        .with_state((manager, body_unseen))
}

async fn judge(
    State((manager, body_unseen)): State<(Manager, bool)>,
    mut request: Request,
) -> Response {
    let app = match take_name(request.headers_mut()) {
        Ok(name) => manager.app(name),
        Err(problem) => return (StatusCode::BAD_REQUEST, problem).into_response(),
    };
    match app {
        // The lease is held until there is a response.
        Ok(app) => layer(app, body_unseen)
            .layer(service_fn(echo_any))
            .oneshot(request)
            .await
            .into_response(),
        Err(error) => refused(&error),
    }
}

async fn echo_any(request: Request<RequestBody<Body>>) -> Result<Response, Infallible> {
    Ok(echo(request.map(Body::new)).await)
}

fn layer(app: App, body_unseen: bool) -> OpaLayer {
    let layer = OpaLayer::new(app);
    if body_unseen {
        layer.body_unseen()
    } else {
        layer
    }
}

/// Takes the app's name out of the headers.
fn take_name(headers: &mut HeaderMap) -> Result<AppId, String> {
    let values: Vec<_> = headers.get_all(X_OPA_APP).iter().cloned().collect();
    headers.remove(X_OPA_APP);
    let [name] = &*values else {
        return Err(format!(
            "expected one header `{X_OPA_APP}`, found {}\n",
            values.len()
        ));
    };
    let name = name
        .to_str()
        .map_err(|_| format!("`{X_OPA_APP}` is no app id\n"))?;
    AppId::new(name).map_err(|error| format!("{error}\n"))
}

fn refused(error: &AppError) -> Response {
    let text = format!("{error}\n");
    match error {
        AppError::InvalidId(_) | AppError::CaseConflict { .. } => {
            (StatusCode::BAD_REQUEST, text).into_response()
        }
        // An app that nobody names any more makes room.
        _ => (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], text).into_response(),
    }
}
