use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::{Service, ServiceError, retry_after, target};
use crate::config::ConfigError;

/// How much of an answer is read, and for how long, so that its connection can be used again.
const MAX_ANSWER: usize = 64 * 1024;
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// A configured service, for plugins that send something to it. Clones are the same client.
///
/// Connections, credentials, headers and timeouts are those of the service.
#[derive(Clone)]
pub struct ServiceClient(Arc<Inner>);

enum Inner {
    Service(Service),
    /// The client could not be made, and nobody should need it.
    Unusable(ServiceError),
}

/// What a service answered to a body that was sent.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Posted {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
}

impl Posted {
    /// When the service wants to be asked again (`Retry-After`; RFC 9110, 10.2.3), at most in an
    /// hour.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        retry_after(&self.headers)
    }
}

/// Why a service answered nothing. The text names a host, but no URL: those can carry secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostError(ServiceError);

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for PostError {}

impl ServiceClient {
    pub(crate) fn new(service: Service) -> Self {
        Self(Arc::new(Inner::Service(service)))
    }

    /// A client whose every request is this error.
    pub(crate) fn unusable(error: ConfigError) -> Self {
        let error = ServiceError::text(error.to_string());
        Self(Arc::new(Inner::Unusable(error)))
    }

    /// The URL of the service's configuration. It may carry secrets.
    #[must_use]
    pub fn url(&self) -> &str {
        match &*self.0 {
            Inner::Service(service) => service.url(),
            Inner::Unusable(_) => "",
        }
    }

    /// Whether `path` names a resource below the service's URL that can be asked for.
    ///
    /// # Errors
    /// Why not, such as a `..` in it.
    pub fn check_path(&self, path: &str) -> Result<(), PostError> {
        match &*self.0 {
            Inner::Service(service) => {
                let url = target::below(&service.url, path);
                url.map(|_| ()).map_err(PostError)
            }
            Inner::Unusable(_) => Ok(()),
        }
    }

    /// Posts `body` to `path` below the service's URL, and waits for the answer's status; an
    /// answer that is no success is no error.
    ///
    /// Redirects that keep method and body (307 and 308) are followed, ten at most, and never from
    /// HTTPS to HTTP; another server gets no credentials. Of other redirects Go's client makes a
    /// GET without the body: they are answers like others here.
    ///
    /// # Errors
    /// When the request can't be made, no answer comes, or it comes too late.
    pub async fn post(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Posted, PostError> {
        self.send(Method::POST, Some(path), headers, body).await
    }

    /// Puts `body` at `path` below the service's URL; otherwise as [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn put(
        &self,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Posted, PostError> {
        self.send(Method::PUT, Some(path), headers, body).await
    }

    /// Posts `body` to the service's URL itself; otherwise as [`post`](Self::post).
    ///
    /// # Errors
    /// As [`post`](Self::post).
    pub async fn post_to_url(&self, headers: HeaderMap, body: Bytes) -> Result<Posted, PostError> {
        self.send(Method::POST, None, headers, body).await
    }

    async fn send(
        &self,
        method: Method,
        path: Option<&str>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Posted, PostError> {
        match &*self.0 {
            Inner::Service(service) => service.send_body(method, path, headers, body).await,
            Inner::Unusable(error) => Err(error.clone()),
        }
        .map_err(PostError)
    }
}

impl fmt::Debug for ServiceClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: &dyn fmt::Debug = match &*self.0 {
            Inner::Service(service) => &service.name,
            Inner::Unusable(error) => error,
        };
        f.debug_tuple("ServiceClient").field(shown).finish()
    }
}

impl Service {
    async fn send_body(
        &self,
        method: Method,
        path: Option<&str>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Posted, ServiceError> {
        let service = match path {
            Some(path) => target::below(&self.url, path)?,
            None => reqwest::Url::parse(&self.url).map_err(ServiceError::new)?,
        };
        let mut url = service.clone();
        let mut is_own = true;
        for _ in 0..=target::MAX_REDIRECTS {
            is_own &= target::is_same_server(&service, &url);
            let request = self
                .request(method.clone(), &url, headers.clone(), body.clone(), is_own)
                .await?;
            let response = self.send_now(request).await?;
            let keeps_body = matches!(
                response.status(),
                StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
            );
            match target::redirect(&response, &url)?.filter(|_| keeps_body) {
                None => return Ok(posted(response).await),
                Some(next) if url.scheme() == "https" && next.scheme() != "https" => {
                    return Err(ServiceError::text(
                        "the server redirects from HTTPS to HTTP",
                    ));
                }
                Some(next) => url = next,
            }
        }
        Err(target::too_many())
    }
}

async fn posted(mut response: reqwest::Response) -> Posted {
    let posted = Posted {
        status: response.status(),
        headers: response.headers().clone(),
    };
    let read = async {
        let mut size = 0;
        while let Ok(Some(piece)) = response.chunk().await {
            size += piece.len();
            if size > MAX_ANSWER {
                break;
            }
        }
    };
    // Without the rest the connection is lost, and nothing else.
    let _ = tokio::time::timeout(ANSWER_TIME, read).await;
    posted
}
