//! Which app judges a request: a fixed one, or one that an extractor names per request.
//!
//! The client never chooses the policy that judges it: whatever an extractor reads from a request
//! is looked up in the closed [`AppSet`](crate::AppSet) of the layer, case-sensitively. A name that
//! is not in it is answered 404 and no policy is asked.
//!
//! Closures that answer at once are extractors. They may answer an [`AppId`](crate::AppId), a text, an option
//! (`None`: 404) or a result whose error is a [`Rejection`]:
//!
//! ```
//! use http::request::Parts;
//! use opa_tower::app::{AppExtractor, Rejection, path_segment};
//!
//! // `/t/{tenant}/…`
//! let _ = is_extractor(|parts: &mut Parts| path_segment(parts, 1));
//! // A header that only the gateway in front can set; neither policy nor service see it.
//! let _ = is_extractor(|parts: &mut Parts| {
//!     let app = parts.headers.remove("x-opa-app").ok_or_else(Rejection::bad_request)?;
//!     app.to_str().map(str::to_owned).map_err(|_| Rejection::bad_request())
//! });
//! # fn is_extractor(extractor: impl AppExtractor) -> impl AppExtractor { extractor }
//! ```
//!
//! What has to wait is an [`extract_async`] closure or an [`AppExtractor`] of its own:
//!
//! ```
//! use http::request::Parts;
//! use opa_tower::app::{Rejection, extract_async};
//!
//! # async fn tenant_of_session(cookie: Option<http::HeaderValue>) -> Option<String> { None }
//! let extractor = extract_async(|parts: &mut Parts| {
//!     let cookie = parts.headers.get(http::header::COOKIE).cloned();
//!     async move { tenant_of_session(cookie).await.ok_or_else(Rejection::bad_request) }
//! });
//! ```

mod extractor;
mod path;
mod rejection;

pub use extractor::{
    AppExtractor, ExtractAsync, ExtractFuture, IntoExtraction, NoExtractor, extract_async,
};
#[cfg(feature = "axum")]
pub use path::path_param;
pub use path::path_segment;
pub use rejection::Rejection;

pub(crate) use rejection::Answer;
