use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::request::Parts;

use crate::config::{BearerConfig, BearerToken, CredentialsConfig};

/// A boxed future of [`Credentials::authorize`].
pub(super) type CredentialsFuture<'a> =
    Pin<Box<dyn Future<Output = Result<(), CredentialsError>> + Send + 'a>>;

/// What proves to a service who sends a request.
pub(super) trait Credentials: Send + Sync + 'static {
    /// Adds the proof to a request, right before it is sent.
    fn authorize<'a>(&'a self, request: &'a mut Parts) -> CredentialsFuture<'a>;
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CredentialsError(String);

impl CredentialsError {
    /// An error with a text that carries no secret.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credentials: {}", self.0)
    }
}

impl std::error::Error for CredentialsError {}

pub(super) fn from_config(config: &CredentialsConfig) -> Arc<dyn Credentials> {
    match config {
        CredentialsConfig::None => Arc::new(Anonymous),
        CredentialsConfig::Bearer(bearer) => Arc::new(Bearer(bearer.clone())),
    }
}

struct Anonymous;

impl Credentials for Anonymous {
    fn authorize<'a>(&'a self, _: &'a mut Parts) -> CredentialsFuture<'a> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// `credentials.bearer`: a token, or a file that is read for each request.
struct Bearer(BearerConfig);

impl Credentials for Bearer {
    fn authorize<'a>(&'a self, request: &'a mut Parts) -> CredentialsFuture<'a> {
        Box::pin(async move {
            let token = match &self.0.token {
                BearerToken::Value(token) => token.expose().to_owned(),
                BearerToken::File(path) => read_token(path).await?,
            };
            let header = HeaderValue::try_from(format!("{} {token}", self.0.scheme));
            let mut header =
                header.map_err(|_| CredentialsError::new("the bearer token is no header value"))?;
            header.set_sensitive(true);
            request.headers.insert(AUTHORIZATION, header);
            Ok(())
        })
    }
}

async fn read_token(path: &Path) -> Result<String, CredentialsError> {
    let path = path.to_owned();
    let named = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    let problem = match read {
        Ok(Ok(token)) => return Ok(token.trim().to_owned()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Err(CredentialsError::new(format!(
        "token_path `{named}`: {problem}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    async fn sent(token: BearerToken) -> Result<String, CredentialsError> {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        let config = bearer(token);
        from_config(&config).authorize(&mut parts).await?;
        Ok(parts.headers[AUTHORIZATION].to_str().unwrap().to_owned())
    }

    fn bearer(token: BearerToken) -> CredentialsConfig {
        CredentialsConfig::Bearer(BearerConfig {
            token,
            scheme: "Bearer".into(),
        })
    }

    #[tokio::test]
    async fn a_token_is_sent_after_its_scheme() {
        let token = BearerToken::Value(Secret::new("abc"));
        assert_eq!(sent(token).await.unwrap(), "Bearer abc");
    }

    #[tokio::test]
    async fn a_token_file_is_read_each_time_and_trimmed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        for token in ["first", "second"] {
            std::fs::write(&path, format!(" {token}\n")).unwrap();
            let sent = sent(BearerToken::File(path.clone())).await.unwrap();
            assert_eq!(sent, format!("Bearer {token}"));
        }
    }

    #[tokio::test]
    async fn a_missing_file_and_a_bad_token_are_errors_without_the_token() {
        let missing = sent(BearerToken::File("/nonexistent/token".into()))
            .await
            .unwrap_err();
        assert!(
            missing.to_string().contains("/nonexistent/token"),
            "{missing}"
        );
        let bad = sent(BearerToken::Value(Secret::new("se\ncret")))
            .await
            .unwrap_err();
        assert_eq!(
            bad.to_string(),
            "credentials: the bearer token is no header value"
        );
    }
}
