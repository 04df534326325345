//! The services of a control plane: where bundles come from, and logs go to.
//!
//! Clients, and so connections, are shared by all apps whose services have the same TLS settings
//! and client certificate; what differs by app (headers, other credentials) is added to each
//! request. They are made anew, with the name looked up again, after about ten minutes, and after
//! errors for the server that they come from alone. As in OPA, TLS sessions are not resumed: a
//! server's certificate is checked with each new connection, and one that has expired or was replaced
//! ends none that is open. Proxies are those of the environment (`HTTP_PROXY`, `HTTPS_PROXY`,
//! `NO_PROXY`), for other hosts than this one.
//!
//! Redirects are followed, ten at most. Credentials are for the service's own scheme, host and port:
//! another server gets none, nor the configured `Authorization` and cookies.
//!
//! As in OPA, `user:password@` in a service's URL is sent as `Authorization: Basic` where neither
//! credentials nor headers set an `Authorization`, also to where a redirect without a host leads. What
//! another URL has there isn't sent, unlike OPA, if it is of another server.
//!
//! A program's own way to prove who it is implements [`Credentials`].

mod class;
mod client;
mod client_tls;
mod clients;
mod credentials;
mod lanes;
mod long_polls;
mod remote;
mod retry_after;
#[cfg(feature = "s3")]
mod sigv4;
mod target;
mod tls;
mod traced;
mod userinfo;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use tracing::Instrument;

pub(crate) use class::of as class_of;
pub use client::{PostError, Posted, ServiceClient};
pub(crate) use clients::Clients;
pub(crate) use credentials::Registry;
pub use credentials::{Credentials, CredentialsError, CredentialsFuture};
pub(crate) use lanes::Connection;
use lanes::Peer;
pub(crate) use remote::Proof;
pub(crate) use retry_after::retry_after;

use crate::config::ServiceConfig;
use crate::trace::{TraceContext, safe_url};
use crate::{AppId, FailureClass, OPA_VERSION};

/// How long credentials may take.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(30);

/// What is said of a request that is not sent, since others wait.
const NO_ROOM: &str = "too many requests wait for this server";

/// A service and the client that reaches it.
pub(crate) struct Service {
    name: String,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    header_timeout: Option<Duration>,
    credentials: Arc<dyn Credentials>,
    peer: Arc<Peer>,
    trace: Option<Arc<dyn TraceContext>>,
    /// Whose requests they are, if one app's alone.
    app: Option<AppId>,
}

impl Service {
    /// # Errors
    /// When the TLS settings name a file that can't be used, or the credentials a plugin that
    /// isn't there.
    pub(crate) fn new(
        config: &ServiceConfig,
        clients: &Clients,
        registry: &Registry,
    ) -> Result<Self, ServiceError> {
        Ok(Self {
            name: config.name.clone(),
            url: config.url.clone(),
            headers: config.headers.clone(),
            header_timeout: config.response_header_timeout,
            credentials: credentials::from_config(&config.credentials, registry)?,
            peer: clients.peer(config)?,
            trace: None,
            app: None,
        })
    }

    /// Its requests tell of the current trace as `trace` does.
    pub(crate) fn trace(self, trace: Option<Arc<dyn TraceContext>>) -> Self {
        Self { trace, ..self }
    }

    /// Its requests are those of `app` alone.
    pub(crate) fn of_app(self, app: &AppId) -> Self {
        let app = Some(app.clone());
        Self { app, ..self }
    }

    /// The URL of the configuration.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Whether those of its requests that wait for news share connections.
    pub(crate) fn shares_connections(&self) -> bool {
        self.peer.shares_connections()
    }

    /// Asks for `path` below the service's URL and waits for the response's headers, `pending`
    /// longer than the service's timeout. The connection is the response's until its body has come.
    /// `None` when there is no room for one more that is `pending`.
    ///
    /// # Errors
    /// When the request can't be made, no response comes, or it comes too late.
    pub(crate) async fn get(
        &self,
        path: &str,
        headers: HeaderMap,
        pending: Duration,
    ) -> Result<Option<(reqwest::Response, Connection)>, ServiceError> {
        let service = target::below(&self.url, path)?;
        let mut url = service.clone();
        // Once another server has the lead, no request is authorized for it.
        let mut is_own = true;
        for _ in 0..=target::MAX_REDIRECTS {
            is_own &= target::is_same_server(&service, &url);
            let request = self
                .request(Method::GET, &url, headers.clone(), Bytes::new(), is_own)
                .await?;
            let Some((response, connection)) = self.send(request, pending).await? else {
                return Ok(None);
            };
            match target::redirect(&response, &url)? {
                None => return Ok(Some((response, connection))),
                Some(next) => url = next,
            }
        }
        Err(target::too_many())
    }

    async fn request(
        &self,
        method: Method,
        url: &reqwest::Url,
        headers: HeaderMap,
        body: Bytes,
        is_own: bool,
    ) -> Result<reqwest::Request, ServiceError> {
        let (url, userinfo) = userinfo::split(url);
        let mut request = http::Request::builder().method(method).uri(url.as_str());
        if let Some(all) = request.headers_mut() {
            all.insert(http::header::USER_AGENT, user_agent());
            for (name, value) in &self.headers {
                if is_own || !target::is_own(name) {
                    all.insert(name, value.clone());
                }
            }
            all.extend(headers);
        }
        let (mut parts, ()) = request.body(()).map_err(ServiceError::new)?.into_parts();
        if is_own {
            // For credentials that are a signature.
            parts.extensions.insert(Body(body.clone()));
            self.authorize(&mut parts).await?;
            parts.extensions.remove::<Body>();
            userinfo::apply(userinfo, &mut parts.headers);
        }
        let request = http::Request::from_parts(parts, body);
        let request = reqwest::Request::try_from(request);
        request.map_err(|error| ServiceError::new(error.without_url()))
    }

    /// As [`send`](Self::send), for what does not wait for news.
    async fn send_now(&self, request: reqwest::Request) -> Result<reqwest::Response, ServiceError> {
        let sent = self.send(request, Duration::ZERO).await?;
        let (response, _connection) = sent.ok_or_else(|| ServiceError::text(NO_ROOM))?;
        Ok(response)
    }

    async fn send(
        &self,
        mut request: reqwest::Request,
        pending: Duration,
    ) -> Result<Option<(reqwest::Response, Connection)>, ServiceError> {
        loop {
            let waits = !pending.is_zero();
            let Some(connection) = self.peer.connection(waits).await? else {
                return Ok(None);
            };
            // Without a body it can be cloned.
            let again = request.try_clone().filter(|_| waits);
            match (self.send_with(&connection, request, pending).await?, again) {
                (Some(response), _) => return Ok(Some((response, connection))),
                (None, Some(again)) => request = again,
                (None, None) => return Ok(None),
            }
        }
    }

    async fn send_with(
        &self,
        connection: &Connection,
        mut request: reqwest::Request,
        pending: Duration,
    ) -> Result<Option<reqwest::Response>, ServiceError> {
        let span = self.traced(&mut request);
        let exchange = self.exchange(connection, request, pending);
        let ended = exchange.instrument(span.clone()).await;
        traced::record(&span, &ended);
        ended
    }

    async fn exchange(
        &self,
        connection: &Connection,
        request: reqwest::Request,
        pending: Duration,
    ) -> Result<Option<reqwest::Response>, ServiceError> {
        let response = connection.execute(request);
        let response = match self.header_timeout {
            None => response.await,
            Some(timeout) => match tokio::time::timeout(timeout + pending, response).await {
                Ok(response) => response,
                Err(_) => {
                    connection.failed(None);
                    return Err(ServiceError::text("timeout awaiting response headers")
                        .of(FailureClass::Timeout));
                }
            },
        };
        match response {
            None => Ok(None),
            Some(Ok(response)) => {
                connection.answered(&response);
                Ok(Some(response))
            }
            Some(Err(error)) => {
                connection.failed(Some(&error));
                let host = error.url().and_then(host_and_port);
                let error = ServiceError::new(error.without_url());
                let text = match host {
                    Some(host) => format!("`{host}`: {error}"),
                    None => error.text,
                };
                Err(ServiceError {
                    text,
                    class: error.class,
                })
            }
        }
    }

    /// A panic of the user's code, also one before its first await, is an error like others, and
    /// its waiting has an end: a poll holds room that other apps need.
    async fn authorize(&self, parts: &mut Parts) -> Result<(), ServiceError> {
        let authorizing = async { self.credentials.authorize(parts).await };
        let authorizing = AssertUnwindSafe(authorizing).catch_unwind();
        match tokio::time::timeout(CREDENTIALS_TIMEOUT, authorizing).await {
            Ok(Ok(authorized)) => authorized.map_err(ServiceError::new),
            Ok(Err(_)) => Err(ServiceError::text("credentials: a panic ended the attempt")
                .of(FailureClass::Credentials)),
            Err(_) => Err(ServiceError::text("credentials: timeout").of(FailureClass::Credentials)),
        }
    }
}

/// What a request will send, beside its head.
#[derive(Clone)]
#[cfg_attr(
    not(feature = "s3"),
    expect(dead_code, reason = "only signatures read it")
)]
struct Body(Bytes);

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("name", &self.name)
            .field("url", &safe_url(&self.url))
            .finish()
    }
}

/// Of a URL what carries no secret, and tells which name did not resolve.
fn host_and_port(url: &reqwest::Url) -> Option<String> {
    let host = url.host_str()?;
    Some(match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    })
}

/// `User-Agent` as OPA sends it, with Go's names of systems and processors.
fn user_agent() -> HeaderValue {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        arch => arch,
    };
    HeaderValue::try_from(format!("Open-Policy-Agent/{OPA_VERSION} ({os}, {arch})"))
        .unwrap_or(HeaderValue::from_static("Open-Policy-Agent"))
}

/// Why a service did not answer. The text names a host, but no URL: those can carry secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServiceError {
    text: String,
    class: FailureClass,
}

impl ServiceError {
    /// The error with all of its causes.
    fn new(error: impl std::error::Error + 'static) -> Self {
        let class = class::of(&error);
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.ends_with(&said) {
                text = format!("{text}: {said}");
            }
            cause = error.source();
        }
        Self { text, class }
    }

    /// An error of what the configuration says, unless it is [of another](Self::of) class.
    fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            class: FailureClass::Config,
        }
    }

    fn of(self, class: FailureClass) -> Self {
        Self { class, ..self }
    }

    /// What sort of failure it is.
    pub(crate) fn class(&self) -> FailureClass {
        self.class
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for ServiceError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::config;

    struct Stuck;

    impl Credentials for Stuck {
        fn authorize<'a>(&'a self, _: &'a mut Parts) -> CredentialsFuture<'a> {
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_that_never_come_are_not_waited_for() {
        let text = "services: {a: {url: 'http://a.test', credentials: {plugin: stuck}}}";
        let config = config(text).services.remove(0);
        let stuck: Arc<dyn Credentials> = Arc::new(Stuck);
        let mut registry = Registry::default();
        registry.plugins.insert("stuck".to_owned(), stuck);
        let service = Service::new(&config, &Clients::default(), &registry).unwrap();
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let error = service.authorize(&mut parts).await.unwrap_err();
        assert_eq!(error.to_string(), "credentials: timeout");
    }

    #[test]
    fn of_a_url_only_host_and_port_are_told() {
        let told = |url| host_and_port(&reqwest::Url::parse(url).unwrap()).unwrap();
        assert_eq!(told("https://u:s3cret@a.test/t0k3n?x=s3cret"), "a.test");
        assert_eq!(told("http://[::1]:8181/x"), "[::1]:8181");
    }

    #[test]
    fn the_user_agent_is_opas() {
        let agent = user_agent();
        let agent = agent.to_str().unwrap();
        assert!(agent.starts_with("Open-Policy-Agent/1.22.2 ("), "{agent}");
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        assert_eq!(agent, "Open-Policy-Agent/1.22.2 (linux, amd64)");
    }
}
