use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use opa_core::{Decision, Reason};

use super::{Denial, is_passing, status_of};
use crate::app::{Answer, Rejection};

/// A request that does not pass: why, and what the client would be answered.
#[derive(Clone, Debug)]
pub struct Refusal {
    reason: Reason,
    decision: Option<Decision>,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Refusal {
    /// What is wrong, with the status of the table and an empty body.
    pub(crate) fn fault(reason: Reason, decision: Option<Decision>) -> Self {
        let mut headers = HeaderMap::new();
        if is_passing(reason) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Self {
            reason,
            decision,
            status: status_of(reason),
            headers,
            body: Bytes::new(),
        }
    }

    pub(crate) fn denial(denial: Denial, decision: Decision) -> Self {
        let Denial {
            status,
            headers,
            body,
        } = denial;
        Self {
            reason: decision.reason(),
            decision: Some(decision),
            status,
            headers,
            body,
        }
    }

    pub(crate) fn rejection(rejection: Rejection) -> Self {
        let Answer {
            status,
            headers,
            body,
        } = rejection.into_answer();
        Self {
            reason: Reason::UnknownApp,
            decision: None,
            status,
            headers,
            body,
        }
    }

    /// Why the request does not pass.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The decision; `None` when no app could be asked.
    #[must_use]
    pub fn decision(&self) -> Option<&Decision> {
        self.decision.as_ref()
    }

    /// The status: the policy's, the extractor's, or the one of [`status_of`].
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The headers: the policy's, the extractor's, or `Retry-After` of a passing fault.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body: the policy's or the extractor's, empty for faults.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The answer with this status, these headers and this body. Text without a `Content-Type` is
    /// sent as plain text, so that no browser takes it for anything else.
    #[must_use]
    pub fn into_response(self) -> Response<Bytes> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if !response.body().is_empty() && !response.headers().contains_key(CONTENT_TYPE) {
            let plain = HeaderValue::from_static("text/plain; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, plain);
        }
        response
    }
}
