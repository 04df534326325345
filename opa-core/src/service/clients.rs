use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::ServiceError;
use super::client_tls::Rotating;
use super::lanes::{Lane, Peer};
use super::tls::{self, Trust};
use crate::config::{ClientTlsConfig, CredentialsConfig, ServiceConfig};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// How long an HTTP/2 connection with requests is silent before the server is asked for a sign of
/// life, and how long that may take: a connection that leads nowhere any more ends.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How many headers an answer may have. Go's programs take any number, up to 10 MiB; over HTTP/1.1
/// the client library takes about 400 KiB.
const MAX_HEADERS: usize = 1_000;
const MAX_HEADER_BYTES: u32 = 1 << 20;

/// How many bytes a server may send ahead. All bodies of a connection fit into its window: those
/// that wait for room must not stop the one that has it.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 2 * STREAM_WINDOW * super::long_polls::PER_LANE;

/// The HTTP clients of a manager: one for each distinct identity, however many apps use it. One
/// that no app uses any more goes.
#[derive(Default)]
pub(crate) struct Clients(Mutex<HashMap<Identity, Weak<Client>>>);

/// All that decides whether two services may share connections.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Identity {
    tls: Tls,
    client_tls: Option<ClientTlsConfig>,
}

/// How the server is reached and checked.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Tls {
    ca_cert: Option<PathBuf>,
    system_ca_required: bool,
    insecure: bool,
    /// No proxy of the environment is asked.
    direct: bool,
}

/// What services of the same identity share.
pub(super) struct Client {
    pub(super) maker: Arc<Maker>,
    /// A certificate of its own, which may be replaced.
    pub(super) own: Option<Rotating>,
    /// The connections of everything but long polls over HTTP/2.
    pub(super) plain: Arc<Lane>,
    /// By scheme, host and port.
    peers: Mutex<HashMap<String, Weak<Peer>>>,
}

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any version of HTTP.
    Plain,
    /// HTTP/2 only, with one connection for each server.
    Multiplexed,
}

/// Makes clients that differ in their own certificate only.
pub(super) struct Maker {
    trust: Trust,
    direct: bool,
    #[cfg(test)]
    resolver: Option<Arc<super::lanes::tests::Names>>,
}

impl Clients {
    /// The server of a service, as all apps share it.
    pub(super) fn peer(&self, config: &ServiceConfig) -> Result<Arc<Peer>, ServiceError> {
        let client = self.get(config)?;
        Ok(client.peer(origin(&config.url)))
    }

    /// A server whose name is looked up so.
    #[cfg(test)]
    pub(super) fn resolved(
        config: &ServiceConfig,
        names: &Arc<super::lanes::tests::Names>,
    ) -> Result<Arc<Peer>, ServiceError> {
        let identity = Identity::of(config);
        let maker = Maker {
            trust: Trust::System(Vec::new()),
            direct: identity.tls.direct,
            resolver: Some(Arc::clone(names)),
        };
        let client = Arc::new(identity.client_of(maker)?);
        Ok(client.peer(origin(&config.url)))
    }

    fn get(&self, config: &ServiceConfig) -> Result<Arc<Client>, ServiceError> {
        let identity = Identity::of(config);
        let mut clients = self.0.lock();
        if let Some(client) = clients.get(&identity).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let client = Arc::new(identity.client()?);
        if clients.len() == clients.capacity() {
            // It would grow: first what no app uses any more goes, since paths can name apps.
            clients.retain(|_, client| client.strong_count() > 0);
        }
        clients.insert(identity, Arc::downgrade(&client));
        Ok(client)
    }
}

impl Identity {
    fn of(config: &ServiceConfig) -> Self {
        let url = reqwest::Url::parse(&config.url).ok();
        let is_https = url.as_ref().is_some_and(|url| url.scheme() == "https");
        let host = url.as_ref().and_then(reqwest::Url::host_str);
        Self {
            tls: Tls {
                ca_cert: config.tls.ca_cert.clone(),
                system_ca_required: config.tls.system_ca_required,
                // As in OPA, no leave for what a redirect to `https` leads to.
                insecure: config.allow_insecure_tls && is_https,
                direct: host.is_some_and(is_this_host),
            },
            client_tls: match &config.credentials {
                CredentialsConfig::ClientTls(client_tls) => Some(client_tls.clone()),
                _ => None,
            },
        }
    }

    fn client(&self) -> Result<Client, ServiceError> {
        self.client_of(Maker {
            trust: self.tls.trust()?,
            direct: self.tls.direct,
            #[cfg(test)]
            resolver: None,
        })
    }

    fn client_of(&self, maker: Maker) -> Result<Client, ServiceError> {
        let maker = Arc::new(maker);
        let mut plain = Lane::new(Kind::Plain);
        let own = match &self.client_tls {
            None => {
                // What can't be used is known when the service is.
                plain = plain.with(maker.client(Kind::Plain, None)?);
                None
            }
            Some(client_tls) => Some(Rotating::new(client_tls.clone(), Arc::clone(&maker))),
        };
        Ok(Client {
            maker,
            own,
            plain: Arc::new(plain),
            peers: Mutex::default(),
        })
    }
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> String {
    let url = reqwest::Url::parse(url).ok();
    url.map(|url| url.origin().ascii_serialization())
        .unwrap_or_default()
}

/// Go's programs, and so OPA, never ask a proxy for their own host.
fn is_this_host(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

impl Tls {
    fn trust(&self) -> Result<Trust, ServiceError> {
        let authorities = self.ca_cert.as_deref().map(tls::authorities).transpose()?;
        Ok(match authorities {
            _ if self.insecure => Trust::Any,
            Some(authorities) if !self.system_ca_required => Trust::Only(authorities),
            authorities => Trust::System(authorities.unwrap_or_default()),
        })
    }
}

impl Client {
    pub(super) fn peer(self: &Arc<Self>, origin: String) -> Arc<Peer> {
        let mut peers = self.peers.lock();
        if let Some(peer) = peers.get(&origin).and_then(Weak::upgrade) {
            return peer;
        }
        let peer = Arc::new(Peer::new(Arc::clone(self), origin.clone()));
        if peers.len() == peers.capacity() {
            // It would grow: first what no app uses any more goes, since URLs can name apps.
            peers.retain(|_, peer| peer.strong_count() > 0);
        }
        peers.insert(origin, Arc::downgrade(&peer));
        peer
    }
}

impl Maker {
    pub(super) fn client(
        &self,
        kind: Kind,
        identity: Option<&tls::Identity>,
    ) -> Result<reqwest::Client, ServiceError> {
        let alpn: &[&[u8]] = match kind {
            Kind::Plain => &[b"h2", b"http/1.1"],
            Kind::Multiplexed => &[b"h2"],
        };
        let tls = self.trust.config(identity, alpn);
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            // The service follows them: its credentials must not.
            .redirect(reqwest::redirect::Policy::none())
            .tls_backend_preconfigured(tls.map_err(ServiceError::new)?)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http1_max_headers(MAX_HEADERS)
            .http2_max_header_list_size(MAX_HEADER_BYTES);
        if kind == Kind::Multiplexed {
            // Otherwise each of many requests at once opens a connection to find out.
            client = client.http2_prior_knowledge();
        }
        #[cfg(test)]
        if let Some(resolver) = &self.resolver {
            client = client.dns_resolver(Arc::clone(resolver));
        }
        if self.direct {
            client = client.no_proxy();
        }
        client.build().map_err(ServiceError::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::config;

    fn services(text: &str) -> Vec<ServiceConfig> {
        config(&format!("services: {text}")).services
    }

    #[test]
    fn equal_identities_share_a_client_and_one_that_is_unused_goes() {
        let clients = Clients::default();
        let all = services(
            "{a: {url: 'https://a.test'}, b: {url: 'https://b.test'}, \
             c: {url: 'https://c.test', allow_insecure_tls: true}, \
             d: {url: 'https://d.test', credentials: {client_tls: {cert: c, private_key: k}}}, \
             e: {url: 'https://e.test', credentials: {client_tls: {cert: c, private_key: l}}}}",
        );
        let held: Vec<_> = all.iter().map(|one| clients.get(one).unwrap()).collect();
        assert!(Arc::ptr_eq(&held[0], &held[1]));
        for (a, b) in [(0, 2), (0, 3), (2, 3), (3, 4)] {
            assert!(!Arc::ptr_eq(&held[a], &held[b]), "{a} {b}");
        }
        drop(held);
        assert!(clients.0.lock().values().all(|one| one.strong_count() == 0));
    }

    #[test]
    fn any_certificate_is_accepted_over_https_only() {
        let all = services(
            "{a: {url: 'https://a.test', allow_insecure_tls: true}, \
             b: {url: 'http://a.test', allow_insecure_tls: true}}",
        );
        let insecure: Vec<_> = all.iter().map(|s| Identity::of(s).tls.insecure).collect();
        assert_eq!(insecure, [true, false]);
    }

    #[test]
    fn this_host_is_reached_without_a_proxy() {
        for (url, direct) in [
            ("http://localhost:1", true),
            ("http://127.8.0.1", true),
            ("http://[::1]:8080/x", true),
            ("http://0.0.0.0", false),
            ("http://localhost.test", false),
        ] {
            let service = services(&format!("{{a: {{url: '{url}'}}}}")).remove(0);
            assert_eq!(Identity::of(&service).tls.direct, direct, "{url}");
        }
    }
}
