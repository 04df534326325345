//! A span for each request that is sent, which the one who is asked goes on with.

use reqwest::{Request, Response};
use tracing::Span;
use tracing::field::{Empty, display};

use super::{Service, ServiceError};
use crate::trace::SafeUrl;

impl Service {
    /// The span of `request`, by OpenTelemetry's semantic conventions; its headers tell of it.
    pub(super) fn traced(&self, request: &mut Request) -> Span {
        let span = self.request_span(request);
        if let Some(trace) = &self.trace {
            span.in_scope(|| trace.inject(request.headers_mut()));
        }
        span
    }

    fn request_span(&self, request: &Request) -> Span {
        let url = request.url();
        tracing::info_span!(
            target: "opa::http",
            "open-policy-agent.http",
            otel.name = request.method().as_str(),
            otel.kind = "client",
            opa.service = self.name,
            opa.app = self.app.as_ref().map(display),
            http.request.method = request.method().as_str(),
            url.full = %SafeUrl(url),
            server.address = url.host_str(),
            server.port = url.port_or_known_default(),
            http.response.status_code = Empty,
            network.protocol.version = Empty,
            "error.type" = Empty,
            otel.status_code = Empty,
            otel.status_description = Empty,
        )
    }
}

/// Tells how the request ended. A status of the client's or the server's error is one.
pub(super) fn record(span: &Span, ended: &Result<Option<Response>, ServiceError>) {
    if span.is_disabled() {
        return;
    }
    match ended {
        // It was not sent on this connection.
        Ok(None) => {}
        Ok(Some(response)) => {
            let status = response.status();
            span.record("http.response.status_code", status.as_u16());
            span.record("network.protocol.version", version(response.version()));
            if status.is_client_error() || status.is_server_error() {
                span.record("error.type", status.as_str());
                span.record("otel.status_code", "ERROR");
            }
        }
        Err(error) => {
            span.record("error.type", "_OTHER");
            span.record("otel.status_code", "ERROR");
            span.record("otel.status_description", display(error));
        }
    }
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    }
}
