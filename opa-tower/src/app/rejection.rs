use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use opa_core::InvalidAppId;

/// What a request is answered that names no app: a status, and perhaps headers and a body.
///
/// The layer's [`Responder`](crate::Responder) has the last word on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection(Box<Answer>);

/// Boxed, since results of extractors carry it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Rejection {
    /// A rejection with an empty body.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self(Box::new(Answer {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }))
    }

    /// 404: there is no such app. The [`Default`].
    #[must_use]
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND)
    }

    /// 400: the request should name an app and doesn't, or not in the right way.
    #[must_use]
    pub fn bad_request() -> Self {
        Self::new(StatusCode::BAD_REQUEST)
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.append(name, value);
        self
    }

    /// With a body. It is sent as `text/plain`, unless a header says what it is.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.0.body = body.into();
        self
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(crate) fn into_answer(self) -> Answer {
        *self.0
    }
}

impl Default for Rejection {
    fn default() -> Self {
        Self::not_found()
    }
}

/// No closed set has an app whose name is no app id.
impl From<InvalidAppId> for Rejection {
    fn from(_: InvalidAppId) -> Self {
        Self::not_found()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the request names no app: answered {}", self.0.status)
    }
}

impl std::error::Error for Rejection {}
