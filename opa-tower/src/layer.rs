use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::request::Parts;
use http::uri::Scheme;
use opa_core::engine::EntrypointPath;
use opa_core::{App, AppSet};
use tower_layer::Layer;

use crate::app::NoExtractor;
use crate::input::InputBuilder;
use crate::settings::Settings;
use crate::{OpaService, Responder};

/// Lets a request reach the inner service only when the policy of an app allows it.
///
/// Cheap to clone. See the [crate docs](crate) for examples.
#[must_use = "a layer does nothing unless it is applied to a service"]
pub struct OpaLayer<E = NoExtractor> {
    /// `None` lets everything pass.
    gate: Option<Arc<Gate<E>>>,
}

/// Who judges, and how.
pub(crate) struct Gate<E> {
    pub(crate) judge: Judge<E>,
    pub(crate) settings: Arc<Settings>,
}

pub(crate) enum Judge<E> {
    Fixed(App),
    Named { set: AppSet, extractor: Arc<E> },
}

impl OpaLayer {
    /// A layer whose requests are all judged by `app`.
    pub fn new(app: App) -> Self {
        Self::of(Judge::Fixed(app))
    }
}

impl<E> OpaLayer<E> {
    /// A layer whose requests are judged by the app of `set` that `extractor` names; see
    /// [`app`](crate::app). A name that is not in the set is answered 404.
    pub fn per_request(set: AppSet, extractor: E) -> Self {
        Self::of(Judge::Named {
            set,
            extractor: Arc::new(extractor),
        })
    }

    /// The layer, or one of the same type that **lets every request pass**, as a program without
    /// policies wants it. (`tower::util::option_layer` would change the type of the bodies.)
    ///
    /// ```
    /// use opa_tower::{App, OpaLayer};
    ///
    /// fn layer(app: Option<App>) -> OpaLayer {
    ///     OpaLayer::optional(app.map(OpaLayer::new))
    /// }
    /// ```
    pub fn optional(layer: Option<Self>) -> Self {
        layer.unwrap_or(Self { gate: None })
    }

    fn of(judge: Judge<E>) -> Self {
        Self {
            gate: Some(Arc::new(Gate {
                judge,
                settings: Arc::default(),
            })),
        }
    }

    /// Asks for the decision at `path` below `data`, such as `orders/allow`. Default: the path that
    /// the app's configuration names (`plugins.envoy_ext_authz_grpc.path`), which this one wins
    /// over.
    ///
    /// A text that is no path is told at once in an error event, and every request is answered 500
    /// with the reason [`InvalidEntrypoint`](opa_core::Reason::InvalidEntrypoint). Who makes paths
    /// at run time reads them with [`EntrypointPath::parse`] first. A path that no policy defines
    /// is undefined: 500 as well.
    pub fn entrypoint(self, path: impl AsRef<str>) -> Self {
        let path = EntrypointPath::parse(path.as_ref());
        if let Err(error) = &path {
            tracing::error!(target: "opa::layer", %error, "every request will be refused");
        }
        self.set(|settings| settings.entrypoint = Some(path))
    }

    /// Shows the policy `value` as `input.attributes.contextExtensions[key]`. Of equal keys the
    /// last value stays.
    pub fn context(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let (key, value) = (key.into(), value.into());
        self.set(|settings| settings.set_context(key, value))
    }

    /// Lets requests with a body be judged although the policy is not shown the body: it sees
    /// `parsed_body: null`, as for a request without one. Default: they are answered 415.
    ///
    /// For routes whose policy doesn't depend on the body; a rule such as
    /// `not input.parsed_body.admin` **allows** what it can't see.
    pub fn body_unseen(self) -> Self {
        self.set(|settings| settings.body_unseen = true)
    }

    /// Tells the client's address, which the policy sees as `input.attributes.source` and the
    /// decision log as `requested_by`. Default: the request's extension
    /// [`PeerAddr`](crate::PeerAddr) or, with the feature `axum`, axum's
    /// `ConnectInfo<SocketAddr>`; without them the address is not shown.
    ///
    /// Trust a header such as `X-Forwarded-For` only behind a proxy that sets it.
    pub fn source_address<F>(self, source_address: F) -> Self
    where
        F: Fn(&Parts) -> Option<SocketAddr> + Send + Sync + 'static,
    {
        self.set(|settings| settings.source_address = Some(Arc::new(source_address)))
    }

    /// Shows the policy the path as the inner service sees it. Default: the path that the client
    /// sent, also inside of axum's `nest` (feature `axum`).
    pub fn rewritten_path(self) -> Self {
        self.set(|settings| settings.rewritten_path = true)
    }

    /// The scheme that the server speaks, which only it knows: what a client claims in an HTTP/2
    /// request is not shown to the policy. Default: `http`.
    pub fn scheme(self, scheme: Scheme) -> Self {
        self.set(|settings| settings.scheme = scheme)
    }

    /// Shows the policy the document that `builder` builds. Default: the one of
    /// [`input`](crate::input).
    pub fn input(self, builder: impl InputBuilder) -> Self {
        self.set(|settings| settings.input = Some(Arc::new(builder)))
    }

    /// Shapes the answers to requests that don't pass. Default:
    /// [`DefaultResponder`](crate::DefaultResponder).
    pub fn responder(self, responder: impl Responder) -> Self {
        self.set(|settings| settings.responder = Arc::new(responder))
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        if let Some(gate) = &mut self.gate {
            change(Arc::make_mut(&mut Arc::make_mut(gate).settings));
        }
        self
    }
}

impl<E, S> Layer<S> for OpaLayer<E> {
    type Service = OpaService<S, E>;

    fn layer(&self, inner: S) -> Self::Service {
        OpaService::new(inner, self.gate.clone())
    }
}

// By hand: the extractor is shared, so that it need not be `Clone`.
impl<E> Clone for OpaLayer<E> {
    fn clone(&self) -> Self {
        Self {
            gate: self.gate.clone(),
        }
    }
}

impl<E> Clone for Gate<E> {
    fn clone(&self) -> Self {
        Self {
            judge: self.judge.clone(),
            settings: Arc::clone(&self.settings),
        }
    }
}

impl<E> Clone for Judge<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Fixed(app) => Self::Fixed(app.clone()),
            Self::Named { set, extractor } => Self::Named {
                set: set.clone(),
                extractor: Arc::clone(extractor),
            },
        }
    }
}

impl<E> fmt::Debug for OpaLayer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpaLayer")
            .field("gate", &self.gate)
            .finish()
    }
}

impl<E> fmt::Debug for Gate<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut gate = f.debug_struct("Gate");
        match &self.judge {
            Judge::Fixed(app) => gate.field("app", app.id()),
            Judge::Named { set, .. } => gate.field("apps", set),
        };
        gate.field("settings", &self.settings).finish()
    }
}
