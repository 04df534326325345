//! The input document: what a policy is asked about, as opa-envoy-plugin builds it behind Envoy.
//!
//! ```json
//! {
//!   "attributes": {
//!     "contextExtensions": {"team": "blue"},
//!     "metadataContext": {},
//!     "request": {
//!       "http": {
//!         "headers": {":authority": "example.org", ":method": "GET", ":path": "/a%20b?q=1",
//!                     ":scheme": "http", "accept": "text/html,application/json"},
//!         "host": "example.org", "method": "GET", "path": "/a%20b?q=1",
//!         "protocol": "HTTP/1.1", "scheme": "http"
//!       },
//!       "time": {"seconds": 1795511683, "nanos": 367768000}
//!     },
//!     "routeMetadataContext": {},
//!     "source": {"address": {"socketAddress": {"address": "192.0.2.7", "portValue": 48024}}}
//!   },
//!   "parsed_body": null,
//!   "parsed_path": ["a b"],
//!   "parsed_query": {"q": ["1"]},
//!   "truncated_body": false,
//!   "version": {"encoding": "protojson", "ext_authz": "v3"}
//! }
//! ```
//!
//! - `path` and `:path` are the client's, escapes untouched. `parsed_path` is decoded once as a
//!   whole, so that an escaped slash separates; leading slashes are dropped, empty segments inside
//!   stay. In `parsed_query` `+` is a space and `;` is data (the plugin refuses it).
//! - Names of headers are lower-case, the values of repeated ones are joined with `,`; only cookies
//!   that HTTP/2 has split are joined with `; ` (RFC 9113, 8.2.3). `host` is `:authority`.
//! - `x-envoy-auth-partial-body` is not shown: a client must not tell what the policy knows of the
//!   body.
//! - Differences to what Envoy sends: there is no `destination` and no `http.id`; the headers are
//!   those that the service gets, so Envoy's own (`x-request-id`, `x-forwarded-proto`) are missing
//!   and hop-by-hop headers, which Envoy takes out, are there.
//!
//! Only the parts that the policy's entrypoint can read are built for its evaluation. The decision
//! log has the whole.

mod builder;
mod document;
mod headers;
mod request;
mod target;

use std::fmt;
use std::sync::Arc;

use http::request::Parts;
use opa_core::engine::InputPaths;
use opa_core::instance::Prepared;
use opa_core::plugin::{DeferredInput, EventInput};
use opa_core::{Reason, Value};

pub use builder::{EnvoyInput, InputBuilder, InputRequest};

pub(crate) use document::PARTIAL_BODY;
pub(crate) use request::Request;
pub(crate) use target::Target;

use self::document::document;
use self::request::{MAX_HEADERS, OwnedRequest};
use crate::settings::Settings;

/// What the policy is given, and what the log is.
pub(crate) struct Input {
    pub(crate) given: Value,
    pub(crate) logged: EventInput,
}

impl Input {
    /// Builds the parts that the policy can read; `parts` is `request`'s.
    pub(crate) fn build(
        request: &Request<'_>,
        target: &Target<'_>,
        settings: &Arc<Settings>,
        parts: &Parts,
        prepared: &Prepared,
    ) -> Self {
        let inputs = prepared.inputs();
        let (given, is_whole) = match &settings.input {
            Some(builder) => {
                let request = InputRequest {
                    parts,
                    request,
                    target,
                    settings,
                };
                (builder.build(&request), true)
            }
            None => (document(request, target, settings, inputs), inputs.is_all()),
        };
        let logged = if is_whole {
            EventInput::Built(given.clone())
        } else {
            logged(request, settings, prepared)
        };
        Self { given, logged }
    }
}

/// The whole document for the log, to be built when it wants it.
pub(crate) fn logged(
    request: &Request<'_>,
    settings: &Arc<Settings>,
    prepared: &Prepared,
) -> EventInput {
    if !prepared.records_input() {
        return EventInput::None;
    }
    let request = OwnedRequest::of(request);
    EventInput::Deferred(Arc::new(Whole {
        request,
        settings: Arc::clone(settings),
    }))
}

/// A request whose whole document is built when the log wants it.
struct Whole {
    request: OwnedRequest,
    settings: Arc<Settings>,
}

impl DeferredInput for Whole {
    fn build(&self) -> Value {
        let request = self.request.borrow();
        // Only of requests that could be read.
        let target = request.target().unwrap_or_default();
        document(&request, &target, &self.settings, &InputPaths::all())
    }

    fn size_hint(&self) -> usize {
        self.request.size()
    }
}

/// Why a request can't be shown to a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    TooManyHeaders,
    Header,
    Host,
    Path,
    Query,
    TooManyParts,
}

impl Unreadable {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::TooManyHeaders => Reason::TooManyHeaders,
            _ => Reason::MalformedRequest,
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooManyHeaders => write!(f, "the request has more than {MAX_HEADERS} headers"),
            Self::Header => f.write_str("a header is not valid UTF-8"),
            Self::Host => f.write_str("the request names two hosts"),
            Self::Path => f.write_str("the path has a bad escape or is not valid UTF-8"),
            Self::Query => f.write_str("the query has a bad escape or is not valid UTF-8"),
            Self::TooManyParts => f.write_str("the path or the query has too many parts"),
        }
    }
}
