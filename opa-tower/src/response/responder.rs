use bytes::Bytes;
use http::Response;
use http::request::Parts;

use super::Refusal;

/// Shapes what a client is answered when its request does not pass.
///
/// Closures are responders:
///
/// ```
/// use bytes::Bytes;
/// use http::request::Parts;
/// use opa_tower::{Refusal, Responder};
///
/// # fn is_responder(responder: impl Responder) -> impl Responder { responder }
/// // The decision's id, to be quoted to support.
/// let _ = is_responder(|refusal: Refusal, _: &Parts| {
///     let id = refusal.decision().map(|decision| decision.id().to_owned());
///     let mut response = refusal.into_response();
///     if let Some(id) = id.and_then(|id| id.parse().ok()) {
///         response.headers_mut().insert("x-decision-id", id);
///     }
///     response
/// });
/// ```
///
/// A responder has the last word on the answer, but the request does not pass whatever it says.
pub trait Responder: Send + Sync + 'static {
    /// The answer to `request`.
    fn respond(&self, refusal: Refusal, request: &Parts) -> Response<Bytes>;
}

impl<F> Responder for F
where
    F: Fn(Refusal, &Parts) -> Response<Bytes> + Send + Sync + 'static,
{
    fn respond(&self, refusal: Refusal, request: &Parts) -> Response<Bytes> {
        self(refusal, request)
    }
}

/// Answers what the policy or the [table](super) says: [`Refusal::into_response`].
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct DefaultResponder;

impl Responder for DefaultResponder {
    fn respond(&self, refusal: Refusal, _: &Parts) -> Response<Bytes> {
        refusal.into_response()
    }
}
