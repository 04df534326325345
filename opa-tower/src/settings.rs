use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use http::Uri;
use http::request::Parts;
use http::uri::Scheme;
use opa_core::Value;
use opa_core::engine::{EntrypointPath, InvalidPath};

use crate::PeerAddr;
use crate::input::InputBuilder;
use crate::response::{DefaultResponder, Responder};

type SourceAddress = dyn Fn(&Parts) -> Option<SocketAddr> + Send + Sync;

/// How a layer asks its policy and answers, whichever app judges.
#[derive(Clone)]
pub(crate) struct Settings {
    /// The configured one when `None`. A text that is no path fails every request.
    pub(crate) entrypoint: Option<Result<EntrypointPath, InvalidPath>>,
    pub(crate) body_unseen: bool,
    pub(crate) responder: Arc<dyn Responder>,
    /// The document of the Envoy plugin when `None`.
    pub(crate) input: Option<Arc<dyn InputBuilder>>,
    pub(crate) source_address: Option<Arc<SourceAddress>>,
    pub(crate) rewritten_path: bool,
    pub(crate) scheme: Scheme,
    context: BTreeMap<String, String>,
    context_extensions: Option<Value>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            entrypoint: None,
            body_unseen: false,
            responder: Arc::new(DefaultResponder::default()),
            input: None,
            source_address: None,
            rewritten_path: false,
            scheme: Scheme::HTTP,
            context: BTreeMap::new(),
            context_extensions: None,
        }
    }
}

impl Settings {
    pub(crate) fn set_context(&mut self, key: String, value: String) {
        self.context.insert(key, value);
        let members = self.context.iter();
        self.context_extensions =
            Some(Value::object(members.map(|(key, value)| {
                (Value::from(key.as_str()), Value::from(value.as_str()))
            })));
    }

    pub(crate) fn context_extensions(&self) -> Option<&Value> {
        self.context_extensions.as_ref()
    }

    pub(crate) fn scheme(&self) -> &str {
        self.scheme.as_str()
    }

    /// The URI that the policy is shown: the client's, unless the route wants the rewritten one.
    pub(crate) fn shown_uri<'a>(&self, parts: &'a Parts) -> &'a Uri {
        #[cfg(feature = "axum")]
        if !self.rewritten_path
            && let Some(original) = parts.extensions.get::<axum::extract::OriginalUri>()
        {
            return &original.0;
        }
        &parts.uri
    }

    pub(crate) fn peer(&self, parts: &Parts) -> Option<SocketAddr> {
        if let Some(source_address) = &self.source_address {
            return source_address(parts);
        }
        if let Some(PeerAddr(peer)) = parts.extensions.get() {
            return Some(*peer);
        }
        #[cfg(feature = "axum")]
        if let Some(axum::extract::ConnectInfo(peer)) = parts.extensions.get() {
            return Some(*peer);
        }
        None
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("entrypoint", &self.entrypoint)
            .field("context", &self.context)
            .field("body_unseen", &self.body_unseen)
            .field("rewritten_path", &self.rewritten_path)
            .field("scheme", &self.scheme)
            .finish_non_exhaustive()
    }
}
