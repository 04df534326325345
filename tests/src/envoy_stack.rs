//! The reference for decisions: a request through real Envoy, whose external authorization asks a
//! real opa-envoy-plugin, to an upstream in this process.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use http::{Request, Response};
use serde_json::{Value, json};

use crate::echo::Echo;
use crate::http_client;
use crate::peers::{self, Envoy, EnvoyPlugin, RunningEnvoy, RunningEnvoyPlugin};

/// The two programs; [`start`](EnvoyPeers::start) is cheap (about 100 ms), so each policy gets its
/// own plugin with the very bundle that our side gets, rather than one that dispatches.
#[derive(Clone, Debug)]
pub struct EnvoyPeers {
    envoy: Envoy,
    plugin: EnvoyPlugin,
}

impl EnvoyPeers {
    /// Fetches both; `None` when one is missing, which has then been said.
    pub fn fetch() -> Option<EnvoyPeers> {
        Some(EnvoyPeers {
            envoy: peers::envoy()?,
            plugin: peers::envoy_plugin()?,
        })
    }

    /// Starts the stack for one decision `path` of a bundle file, with the context extensions of
    /// its route.
    pub async fn start(
        &self,
        bundle: &Path,
        path: &str,
        context: &[(String, String)],
    ) -> EnvoyStack {
        let upstream = Echo::start()
            .await
            .expect("a port of loopback can be bound");
        let plugin = self.plugin.start(bundle, path).await;
        let envoy = self
            .envoy
            .start(&resources(&upstream, &plugin, context))
            .await;
        EnvoyStack {
            envoy,
            plugin,
            upstream,
        }
    }
}

/// A running stack, ended when dropped.
#[derive(Debug)]
pub struct EnvoyStack {
    envoy: RunningEnvoy,
    plugin: RunningEnvoyPlugin,
    upstream: Echo,
}

/// All that one request caused.
#[derive(Debug)]
pub struct Outcome {
    /// What the client got.
    pub response: Response<Bytes>,
    /// What reached the upstream, as [`Echo`] tells it; `None` when nothing did.
    pub upstream: Option<Value>,
    /// The plugin's decision-log event.
    pub event: Value,
}

impl EnvoyStack {
    /// Sends one request and waits for all that it causes.
    ///
    /// # Panics
    ///
    /// When it causes something else than one response, one event and at most one upstream request.
    pub async fn send(&mut self, request: Request<Bytes>) -> Outcome {
        let address = self.envoy.listener(LISTENER);
        let response = http_client::send(address, request)
            .await
            .expect("Envoy answers");
        let events = self
            .plugin
            .next_events()
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        let [event] = <[Value; 1]>::try_from(events).expect("one request, one event");
        let mut upstream = self.upstream.take();
        assert!(
            upstream.len() <= 1,
            "more than one request reached the upstream: {upstream:?}"
        );
        Outcome {
            response,
            upstream: upstream.pop(),
            event,
        }
    }
}

const LISTENER: &str = "service";

fn resources(upstream: &Echo, plugin: &RunningEnvoyPlugin, context: &[(String, String)]) -> Value {
    let to_upstream = json!({"socket_address": {
        "address": upstream.address().ip().to_string(),
        "port_value": upstream.address().port(),
    }});
    let mut authz = cluster("authz", &json!({"pipe": {"path": plugin.socket()}}));
    authz["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    });
    json!({"listeners": [listener(context)], "clusters": [cluster("upstream", &to_upstream), authz]})
}

fn cluster(name: &str, address: &Value) -> Value {
    json!({"name": name, "load_assignment": {
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    }})
}

fn listener(context: &[(String, String)]) -> Value {
    let connection_manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": LISTENER,
        "route_config": {"virtual_hosts": [virtual_host(context)]},
        "http_filters": [authorization(), {
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
            },
        }],
    });
    json!({
        "name": LISTENER,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": connection_manager,
        }]}],
    })
}

fn virtual_host(context: &[(String, String)]) -> Value {
    let mut host = json!({
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
    });
    if !context.is_empty() {
        let context: BTreeMap<_, _> = context.iter().cloned().collect();
        host["typed_per_filter_config"] = json!({AUTHORIZATION: {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute",
            "check_settings": {"context_extensions": context},
        }});
    }
    host
}

const AUTHORIZATION: &str = "envoy.filters.http.ext_authz";

fn authorization() -> Value {
    json!({
        "name": AUTHORIZATION,
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
            "transport_api_version": "V3",
            // The default of 200 ms would deny on a busy machine.
            "grpc_service": {"envoy_grpc": {"cluster_name": "authz"}, "timeout": "30s"},
        },
    })
}
