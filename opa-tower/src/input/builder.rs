use std::fmt;

use http::request::Parts;
use opa_core::Value;
use opa_core::engine::InputPaths;

use super::document::document;
use super::{Request, Target};
use crate::settings::Settings;

/// Builds another input document than the one of the [module docs](super).
///
/// Closures are builders. What another layer has found out of the request goes like this:
///
/// ```
/// use opa_core::Value;
/// use opa_tower::{App, OpaLayer};
/// use opa_tower::input::InputRequest;
///
/// #[derive(Clone)]
/// struct User(String);
///
/// fn layer(app: App) -> OpaLayer {
///     OpaLayer::new(app).input(|request: &InputRequest<'_>| {
///         let user = request.parts().extensions.get::<User>();
///         let user = user.map_or(Value::NULL, |user| Value::from(user.0.as_str()));
///         Value::object([
///             (Value::from("user"), user),
///             (Value::from("request"), request.envoy_document()),
///         ])
///     })
/// }
/// ```
///
/// It is asked on the way of each request that can be read, and its document is built whole, also
/// where the policy reads but a part of it. It goes to the decision log as well.
pub trait InputBuilder: Send + Sync + 'static {
    /// The document that the policy sees as `input`.
    fn build(&self, request: &InputRequest<'_>) -> Value;
}

impl<F: Fn(&InputRequest<'_>) -> Value + Send + Sync + 'static> InputBuilder for F {
    fn build(&self, request: &InputRequest<'_>) -> Value {
        self(request)
    }
}

/// Builds the document of the [module docs](super), whole. A layer without a builder gives its
/// policy the parts of it that it reads.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct EnvoyInput;

impl InputBuilder for EnvoyInput {
    fn build(&self, request: &InputRequest<'_>) -> Value {
        request.envoy_document()
    }
}

/// A request that a document is built of.
#[derive(Clone, Copy)]
pub struct InputRequest<'a> {
    pub(super) parts: &'a Parts,
    pub(super) request: &'a Request<'a>,
    pub(super) target: &'a Target<'a>,
    pub(super) settings: &'a Settings,
}

impl InputRequest<'_> {
    /// The request as the inner service will see it, but for what the decision changes.
    #[must_use]
    pub fn parts(&self) -> &Parts {
        self.parts
    }

    /// The document of the [module docs](super).
    #[must_use]
    pub fn envoy_document(&self) -> Value {
        document(self.request, self.target, self.settings, &InputPaths::all())
    }
}

impl fmt::Debug for InputRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InputRequest")
            .field("parts", self.parts)
            .finish_non_exhaustive()
    }
}
