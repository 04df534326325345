//! A span for each request, in the trace of the one who sent it.

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use opentelemetry::global;
use opentelemetry_http::HeaderExtractor;
use tracing::field::Empty;
use tracing::{Instrument, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Puts the span around `router`, so that decisions and what is behind the layer are in it.
pub(crate) fn traced(router: Router) -> Router {
    router.layer(from_fn(trace))
}

async fn trace(request: Request, next: Next) -> Response {
    let span = span(&request);
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("error.type", status.as_str());
        span.record("otel.status_code", "ERROR");
    }
    response
}

/// By OpenTelemetry's semantic conventions for HTTP servers. The query and the headers can carry
/// secrets and are not told.
fn span(request: &Request) -> Span {
    let method = known(request.method());
    let span = tracing::info_span!(
        target: "serve",
        parent: None,
        "request",
        otel.name = method.unwrap_or("HTTP"),
        otel.kind = "server",
        http.request.method = method.unwrap_or("_OTHER"),
        url.scheme = "http",
        url.path = request.uri().path(),
        http.response.status_code = Empty,
        "error.type" = Empty,
        otel.status_code = Empty,
    );
    let headers = HeaderExtractor(request.headers());
    let caller = global::get_text_map_propagator(|all| all.extract(&headers));
    // An error says that nobody listens to this span.
    let _ = span.set_parent(caller);
    span
}

/// A method that a client made up would be a name of its own.
fn known(method: &Method) -> Option<&str> {
    let known = [
        Method::CONNECT,
        Method::DELETE,
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::POST,
        Method::PUT,
        Method::TRACE,
    ];
    known.contains(method).then(|| method.as_str())
}
