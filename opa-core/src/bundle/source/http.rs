use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};

use super::{Body, ByteStream, Fetch, Source, SourceAnswer, SourceError, SourceFuture, Waiting};
use crate::FailureClass;
use crate::service::{Connection, Service, class_of, retry_after};

/// The content type by which a server says that it waits for news (OPA, "Long Polling").
const LONG_POLLING: &str = "application/vnd.openpolicyagent.bundles";

/// OPA's HTTP bundle service.
pub(crate) struct HttpSource {
    service: Arc<Service>,
    resource: String,
}

impl HttpSource {
    pub(crate) fn new(service: Arc<Service>, resource: String) -> Self {
        Self { service, resource }
    }

    async fn get(&self, request: Fetch) -> Result<SourceAnswer, SourceError> {
        let waited = self.ask(&request).await?;
        let is_refused = waited.is_none();
        let (response, connection) = match waited {
            Some(answered) => answered,
            None => {
                let now = Fetch {
                    wait: None,
                    ..request.clone()
                };
                let answered = self.ask(&now).await?;
                answered.ok_or_else(|| SourceError::new("no room for a request"))?
            }
        };
        let waiting = match self.service.shares_connections() {
            _ if is_refused => Waiting::Refused,
            true => Waiting::Shared,
            false => Waiting::Alone,
        };
        let header = |name| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        // A header without a value names nothing.
        let etag = header(ETAG).filter(|etag| !etag.is_empty());
        let etag: Option<Arc<str>> = etag.map(Into::into);
        let long_polling = header(CONTENT_TYPE).is_some_and(|kind| kind == LONG_POLLING);
        match response.status() {
            StatusCode::NOT_MODIFIED => {
                let mut answer = SourceAnswer::not_modified();
                answer.etag = etag;
                answer.waiting = waiting;
                // A 304 has no content type: the one who asked to wait is still long polling.
                Ok(answer.long_polling(long_polling || request.wait.is_some()))
            }
            StatusCode::OK => {
                let body = Body::new(ResponseBody::of(response).over(connection));
                let mut answer = SourceAnswer::snapshot(body, etag);
                answer.waiting = waiting;
                Ok(answer.long_polling(long_polling))
            }
            _ => Err(refusal(&response)),
        }
    }

    async fn ask(
        &self,
        request: &Fetch,
    ) -> Result<Option<(reqwest::Response, Connection)>, SourceError> {
        let asked = self
            .service
            .get(&self.resource, headers(request)?, pending(request));
        asked
            .await
            .map_err(|error| SourceError::new(error.to_string()).with_class(error.class()))
    }
}

impl Source for HttpSource {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        Box::pin(self.get(request))
    }
}

/// How much longer than other answers this one may take: a server has nothing to wait with for one
/// who has no bundle yet. If it hangs, that must be known as soon as of any other server.
fn pending(request: &Fetch) -> Duration {
    let waits = request.etag.is_some();
    request.wait.filter(|_| waits).unwrap_or_default()
}

fn headers(request: &Fetch) -> Result<HeaderMap, SourceError> {
    let mut headers = HeaderMap::new();
    if let Some(etag) = &request.etag {
        let etag = HeaderValue::try_from(&**etag)
            .map_err(|_| SourceError::new("the etag of the last answer is no header value"))?;
        headers.insert(IF_NONE_MATCH, etag);
    }
    let modes = match request.deltas {
        true => "modes=snapshot,delta",
        false => "modes=snapshot",
    };
    let prefer = match request.wait {
        Some(wait) => HeaderValue::try_from(format!("{modes};wait={}", wait.as_secs())),
        None => Ok(HeaderValue::from_static(modes)),
    };
    // The text is digits and constants.
    headers.extend(
        prefer
            .ok()
            .map(|prefer| (http::HeaderName::from_static("prefer"), prefer)),
    );
    Ok(headers)
}

/// What a status that brings nothing means.
pub(super) fn refusal(response: &reqwest::Response) -> SourceError {
    let status = response.status();
    let text = status.canonical_reason().unwrap_or("an unknown status");
    let retry_after = retry_after(response.headers());
    SourceError::new(format!("server replied with {text}"))
        .with_http_code(status.as_u16())
        .with_retry_after(retry_after)
}

/// The body of a response.
pub(super) struct ResponseBody {
    chunks: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
    /// Others may wait for its place.
    _connection: Option<Connection>,
}

impl ResponseBody {
    pub(super) fn of(response: reqwest::Response) -> Self {
        Self {
            chunks: Box::pin(response.bytes_stream()),
            _connection: None,
        }
    }

    /// With what it comes over.
    fn over(self, connection: Connection) -> Self {
        Self {
            _connection: Some(connection),
            ..self
        }
    }
}

impl ByteStream for ResponseBody {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, SourceError>>> {
        let chunk = ready!(self.chunks.as_mut().poll_next(cx));
        let failed = |error: reqwest::Error| {
            let class = match class_of(&error) {
                // Of what is read now it is the compression of the transfer that is damaged.
                FailureClass::Tls => FailureClass::Archive,
                class => class,
            };
            SourceError::new(format!("the body broke off: {}", error.without_url()))
                .with_class(class)
        };
        Poll::Ready(chunk.map(|chunk| chunk.map_err(failed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_a_bundle_waits_longer_for_another() {
        let wait = Some(Duration::from_secs(45));
        for (etag, wanted) in [(Some("\"abc\"".into()), 45), (None, 0)] {
            let request = Fetch {
                etag,
                wait,
                ..Fetch::default()
            };
            assert_eq!(pending(&request), Duration::from_secs(wanted));
        }
    }

    #[test]
    fn the_request_is_opas() {
        let request = Fetch {
            etag: Some("\"abc\"".into()),
            wait: Some(Duration::from_secs(45)),
            deltas: true,
        };
        let headers = headers(&request).unwrap();
        assert_eq!(headers[IF_NONE_MATCH], "\"abc\"");
        assert_eq!(headers["prefer"], "modes=snapshot,delta;wait=45");
        let headers = super::headers(&Fetch::default()).unwrap();
        assert_eq!(headers["prefer"], "modes=snapshot");
        assert_eq!(headers.len(), 1);
    }
}
