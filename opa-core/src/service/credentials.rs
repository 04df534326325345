use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use http::HeaderValue;
use http::header::AUTHORIZATION;
use http::request::Parts;
use opa_rego::eval::{Clock, SystemClock};

use super::ServiceError;
use crate::config::{BearerConfig, BearerToken, CredentialsConfig, EnvPolicy};

/// A boxed future of [`Credentials::authorize`].
pub type CredentialsFuture<'a> =
    Pin<Box<dyn Future<Output = Result<(), CredentialsError>> + Send + 'a>>;

/// What proves to a service who sends a request.
///
/// A program registers its own with
/// [`ManagerBuilder::credentials`](crate::ManagerBuilder::credentials); a configuration names it
/// in `services.*.credentials.plugin`, as that of an OPA with a custom plugin does. Headers of
/// `services.*.headers` are there before it is asked. A closure that only adds what it has at hand
/// is credentials, too.
///
/// An error or a panic of it fails the request alone: the bundle keeps its last good state, the
/// status says why, and it is tried again. It may take 30 s.
///
/// ```
/// use http::HeaderValue;
/// use http::request::Parts;
/// use opa_core::Manager;
/// use opa_core::service::{Credentials, CredentialsError, CredentialsFuture};
///
/// /// Tokens that are asked for when they are needed.
/// struct Vault;
///
/// impl Vault {
///     async fn token(&self) -> Result<String, std::io::Error> {
///         Ok("t0k3n".to_owned())
///     }
/// }
///
/// impl Credentials for Vault {
///     fn authorize<'a>(&'a self, request: &'a mut Parts) -> CredentialsFuture<'a> {
///         Box::pin(async move {
///             let token = self.token().await;
///             let token = token.map_err(|error| CredentialsError::new(error.to_string()))?;
///             let mut value = HeaderValue::try_from(format!("Bearer {token}"))
///                 .map_err(|_| CredentialsError::new("the token is no header value"))?;
///             value.set_sensitive(true);
///             request.headers.insert("authorization", value);
///             Ok(())
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), opa_core::config::ConfigError> {
/// let configuration = "\
///     services:
///       control: {url: 'https://control.example.com', credentials: {plugin: vault}}
///       other: {url: 'https://other.example.com', credentials: {plugin: team}}";
/// let manager = Manager::builder()
///     .config_yaml(configuration)
///     .credentials("vault", Vault)
///     .credentials("team", |request: &mut Parts| {
///         request.headers.insert("x-team", HeaderValue::from_static("red"));
///         Ok(())
///     })
///     .build()?;
/// # drop(manager);
/// # Ok(())
/// # }
/// ```
pub trait Credentials: Send + Sync + 'static {
    /// Adds the proof to a request, right before it is sent. Bodies are not shown.
    ///
    /// # Errors
    /// Why there is no proof; the request is then not sent.
    fn authorize<'a>(&'a self, request: &'a mut Parts) -> CredentialsFuture<'a>;
}

impl<F> Credentials for F
where
    F: Fn(&mut Parts) -> Result<(), CredentialsError> + Send + Sync + 'static,
{
    fn authorize<'a>(&'a self, request: &'a mut Parts) -> CredentialsFuture<'a> {
        Box::pin(std::future::ready(self(request)))
    }
}

impl fmt::Debug for dyn Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<credentials>")
    }
}

/// What a program gives for credentials.
pub(crate) struct Registry {
    /// The program's own, by name.
    pub(crate) plugins: HashMap<String, Arc<dyn Credentials>>,
    /// Where keys of the environment are looked up.
    pub(crate) env: EnvPolicy,
    /// The time of signatures.
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for Registry {
    fn default() -> Self {
        Self {
            plugins: HashMap::new(),
            env: EnvPolicy::default(),
            clock: Arc::new(SystemClock::new()),
        }
    }
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialsError(String);

impl CredentialsError {
    /// An error with a text, which must carry no secret: logs and status show it.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credentials: {}", self.0)
    }
}

impl std::error::Error for CredentialsError {}

pub(super) fn from_config(
    config: &CredentialsConfig,
    registry: &Registry,
) -> Result<Arc<dyn Credentials>, ServiceError> {
    match config {
        // A client certificate is shown by the connection.
        CredentialsConfig::None | CredentialsConfig::ClientTls(_) => Ok(Arc::new(Anonymous)),
        CredentialsConfig::Bearer(bearer) => Ok(Arc::new(Bearer(bearer.clone()))),
        #[cfg(feature = "s3")]
        CredentialsConfig::S3Signing(config) => {
            let (env, clock) = (registry.env.clone(), Arc::clone(&registry.clock));
            Ok(Arc::new(super::sigv4::Signer::new(config, env, clock)))
        }
        #[cfg(not(feature = "s3"))]
        CredentialsConfig::S3Signing(_) => Err(ServiceError::text(
            "s3_signing needs the feature `s3` of opa-core",
        )),
        CredentialsConfig::Plugin(name) => match registry.plugins.get(name) {
            Some(credentials) => Ok(Arc::clone(credentials)),
            // OPA's words.
            None => Err(ServiceError::text(format!(
                "auth plugin {name:?} not found"
            ))),
        },
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
        let credentials = from_config(&config, &Registry::default()).unwrap();
        credentials.authorize(&mut parts).await?;
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
