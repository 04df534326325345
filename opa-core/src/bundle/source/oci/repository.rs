use std::sync::Arc;

use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use reqwest::{Response, Url};

use super::challenge::TokenChallenge;
use crate::bundle::source::http::{ResponseBody, refusal};
use crate::bundle::source::{Body, SourceError};
use crate::service::{Proof, Service};

/// The most bytes of a token endpoint's answer.
const MAX_TOKEN_BYTES: u64 = 128 * 1024;

/// A repository of a registry, asked as the OCI distribution specification says.
///
/// The first request carries the service's credentials, as OPA's does. A registry that wants a
/// token instead says so; the token is kept until it is refused.
pub(super) struct Repository {
    service: Arc<Service>,
    base: Url,
    name: String,
    token: Mutex<Option<HeaderValue>>,
}

impl Repository {
    /// # Errors
    /// When the service's URL is none.
    pub(super) fn new(service: Arc<Service>, name: String) -> Result<Self, String> {
        let unusable = || "the service's URL names no registry".to_owned();
        let mut base = Url::parse(service.url()).map_err(|_| unusable())?;
        // As in OPA, of the URL only scheme, host and port count.
        base.set_username("").map_err(|()| unusable())?;
        base.set_password(None).map_err(|()| unusable())?;
        base.set_query(None);
        base.set_fragment(None);
        base.set_path(&format!("/v2/{name}/"));
        Ok(Self {
            service,
            base,
            name,
            token: Mutex::default(),
        })
    }

    /// Asks for `what`, such as `manifests/1.0`, which has no characters that a URL escapes.
    ///
    /// # Errors
    /// When no answer comes, or another one than 200.
    pub(super) async fn ask(
        &self,
        method: Method,
        what: &str,
        accept: HeaderValue,
    ) -> Result<Response, SourceError> {
        let about = |error: SourceError| error.about(&format!("`{}/{what}`", self.name));
        let response = self.try_ask(&method, what, accept).await.map_err(about)?;
        match response.status() {
            StatusCode::OK => Ok(response),
            _ => Err(about(refusal(&response))),
        }
    }

    async fn try_ask(
        &self,
        method: &Method,
        what: &str,
        accept: HeaderValue,
    ) -> Result<Response, SourceError> {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{what}", self.base.path()));
        let headers = HeaderMap::from_iter([(ACCEPT, accept)]);
        let send = async |token: Option<&HeaderValue>| {
            let proof = token.map_or(Proof::Credentials, Proof::Header);
            let sent = self.service.ask(method, url.clone(), &headers, proof);
            sent.await.map_err(failed)
        };
        let token = self.token.lock().clone();
        let response = send(token.as_ref()).await?;
        // Who answers in another's place has no say in where the credentials go.
        let is_own = response.url().origin() == self.base.origin();
        if response.status() != StatusCode::UNAUTHORIZED || !is_own {
            return Ok(response);
        }
        *self.token.lock() = None;
        let Some(challenge) = TokenChallenge::of(response.headers()) else {
            return Ok(response);
        };
        let token = self.token(&challenge).await?;
        let response = send(Some(&token)).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            *self.token.lock() = Some(token);
        }
        Ok(response)
    }

    /// A token by the distribution specification, asked for with the service's credentials.
    async fn token(&self, challenge: &TokenChallenge) -> Result<HeaderValue, SourceError> {
        let url = challenge.url(&self.base, &self.name);
        let url = url.map_err(SourceError::new)?;
        let place = format!("token of `{}`", url.host_str().unwrap_or_default());
        let about = |error: SourceError| error.about(&place);
        let (get, headers) = (Method::GET, HeaderMap::new());
        let sent = self.service.ask(&get, url, &headers, Proof::Credentials);
        let response = sent.await.map_err(failed).map_err(about)?;
        if response.status() != StatusCode::OK {
            return Err(about(refusal(&response)));
        }
        let body = Body::new(ResponseBody::of(response));
        let bytes = body.read_as("the answer", MAX_TOKEN_BYTES).await;
        read_token(&bytes.map_err(about)?.to_vec())
            .ok_or_else(|| about(SourceError::new("the answer has no usable token")))
    }
}

fn failed(error: crate::service::ServiceError) -> SourceError {
    SourceError::new(error.to_string()).with_class(error.class())
}

/// `access_token` or `token`: the first one counts if both are there, as in OPA.
fn read_token(bytes: &[u8]) -> Option<HeaderValue> {
    let answer: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let token = ["access_token", "token"]
        .into_iter()
        .filter_map(|key| answer.get(key)?.as_str())
        .find(|token| !token.is_empty())?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_two_names() {
        let read = |text: &str| read_token(text.as_bytes());
        assert_eq!(read(r#"{"token": "a"}"#).unwrap(), "Bearer a");
        assert_eq!(
            read(r#"{"token": "a", "access_token": "b"}"#).unwrap(),
            "Bearer b"
        );
        assert_eq!(
            read(r#"{"token": "a", "access_token": ""}"#).unwrap(),
            "Bearer a"
        );
        assert!(read(r#"{"token": "a"}"#).unwrap().is_sensitive());
        for none in [
            "",
            "[]",
            r#"{"token": 1}"#,
            r#"{"token": "a\nb"}"#,
            r#"{"token": ""}"#,
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }
}
