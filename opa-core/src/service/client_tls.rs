//! Certificates of our own, read again when they are replaced.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::ServiceError;
use super::clients::{Kind, Maker};
use super::tls::Identity;
use crate::config::ClientTlsConfig;

/// A certificate and a key that are files, read again before requests.
///
/// Other content makes other clients, so that no connection goes on with the old certificate;
/// requests on their way end undisturbed.
pub(super) struct Rotating {
    shared: Arc<Shared>,
    state: Arc<Mutex<State>>,
}

struct Shared {
    files: ClientTlsConfig,
    maker: Arc<Maker>,
}

/// A certificate and its key.
pub(super) struct Own {
    /// Of both files.
    pub(super) digest: [u8; 32],
    pub(super) identity: Identity,
}

#[derive(Default)]
struct State {
    active: Option<Arc<Own>>,
    /// What was wrong when the files were read last.
    problem: Option<ServiceError>,
    /// When that reading began.
    read: Option<Instant>,
}

impl Rotating {
    pub(super) fn new(files: ClientTlsConfig, maker: Arc<Maker>) -> Self {
        Self {
            shared: Arc::new(Shared { files, maker }),
            state: Arc::default(),
        }
    }

    /// # Errors
    /// When the files can't be used and never could be.
    pub(super) async fn current(&self) -> Result<Arc<Own>, ServiceError> {
        let asked = Instant::now();
        let mut state = Arc::clone(&self.state).lock_owned().await;
        if state.serves(asked, &self.shared.files) {
            return state.answer();
        }
        let shared = Arc::clone(&self.shared);
        let reading = tokio::task::spawn_blocking(move || {
            state.read = Some(Instant::now());
            state.reread(&shared);
            state.answer()
        });
        reading
            .await
            .unwrap_or_else(|error| Err(ServiceError::new(error)))
    }
}

impl State {
    /// Whether what is known need not be read again: by the interval, or since another request
    /// read it while this one waited for its turn.
    fn serves(&self, asked: Instant, files: &ClientTlsConfig) -> bool {
        let Some(read) = self.read else {
            return false;
        };
        let is_good = self.problem.is_none();
        read >= asked || (is_good && asked.duration_since(read) < files.cert_reread_interval)
    }

    fn answer(&self) -> Result<Arc<Own>, ServiceError> {
        match (&self.active, &self.problem) {
            (Some(active), _) => Ok(Arc::clone(active)),
            (None, Some(problem)) => Err(problem.clone()),
            (None, None) => Err(ServiceError::text("the client certificate was not read")),
        }
    }

    fn reread(&mut self, shared: &Shared) {
        let active = self.active.as_ref();
        match shared.load(active.map(|active| active.digest)) {
            Ok(loaded) => {
                self.problem = None;
                self.active = loaded.map(Arc::new).or(self.active.take());
            }
            Err(problem) => {
                // Once for each problem, however often it is met.
                if active.is_some() && self.problem.as_ref() != Some(&problem) {
                    tracing::warn!(
                        target: "opa::service",
                        cert = %shared.files.cert.display(),
                        "the last good client certificate stays in use: {problem}",
                    );
                }
                self.problem = Some(problem);
            }
        }
    }
}

impl Shared {
    /// `None` when the files have the `known` content.
    fn load(&self, known: Option<[u8; 32]>) -> Result<Option<Own>, ServiceError> {
        let cert = read(&self.files.cert, "certificate")?;
        let key = read(&self.files.private_key, "key")?;
        let digest = digest(&cert, &key);
        if known == Some(digest) {
            return Ok(None);
        }
        let identity = key_pair(&cert, &key)?;
        // Whether it can be used at all is known from a client only.
        let client = self.maker.client(Kind::Plain, Some(&identity));
        drop(client.map_err(unusable)?);
        Ok(Some(Own { digest, identity }))
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, ServiceError> {
    std::fs::read(path).map_err(|error| {
        let path = path.display();
        // OPA's words, with the path that Go's error has.
        let text = format!("failed to read client {what} file: open {path}: {error}");
        ServiceError::text(text)
    })
}

/// Of both, each for itself: where the one ends counts.
fn digest(cert: &[u8], key: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(Sha256::digest(cert));
    digest.update(Sha256::digest(key));
    digest.finalize().into()
}

/// The certificates of the one file and the first private key of the other, as Go reads them.
fn key_pair(cert: &[u8], key: &[u8]) -> Result<Identity, ServiceError> {
    let blocks = pem::parse_many(cert).unwrap_or_default();
    let certificates: Vec<_> = blocks
        .into_iter()
        .filter(|block| block.tag() == "CERTIFICATE")
        .map(|block| CertificateDer::from(block.into_contents()))
        .collect();
    if certificates.is_empty() {
        return Err(unusable("failed to find any PEM data in certificate input"));
    }
    let keys = pem::parse_many(key).unwrap_or_default();
    if keys.is_empty() {
        return Err(ServiceError::text("PEM data could not be found"));
    }
    let Some(key) = keys
        .into_iter()
        .find(|block| block.tag() == "PRIVATE KEY" || block.tag().ends_with(" PRIVATE KEY"))
    else {
        return Err(unusable("failed to find any private key in key input"));
    };
    if key.headers().get("DEK-Info").is_some() || key.tag() == "ENCRYPTED PRIVATE KEY" {
        return Err(ServiceError::text(
            "the client's private key is encrypted, which this version can't read",
        ));
    }
    // By what it is, whatever it is called.
    let key = PrivateKeyDer::try_from(key.into_contents()).map_err(unusable)?;
    Ok(Identity { certificates, key })
}

/// In OPA's words.
fn unusable(problem: impl std::fmt::Display) -> ServiceError {
    ServiceError::text(format!(
        "failed to parse public/private key pair: {problem}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERT: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nMAMCAQE=\n-----END EC PRIVATE KEY-----\n";

    fn pair(cert: &str, key: &str) -> Result<Identity, String> {
        key_pair(cert.as_bytes(), key.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_pair_is_all_certificates_of_the_one_and_the_first_key_of_the_other() {
        let parameters = "-----BEGIN EC PARAMETERS-----\nAAAA\n-----END EC PARAMETERS-----\n";
        let cert = format!("{CERT}{KEY}{}", CERT.replace("AAAA", "BBBB"));
        let other = KEY.replace("MAMCAQE=", "MAMCAQA=");
        let key = format!("{parameters}{CERT}{KEY}{other}");
        let read = pair(&cert, &key).unwrap();
        let certificates: Vec<&[u8]> = read.certificates.iter().map(|it| &**it).collect();
        assert_eq!(certificates, [[0, 0, 0], [4, 0x10, 0x41]]);
        assert_eq!(read.key.secret_der(), [0x30, 3, 2, 1, 1]);
        assert!(matches!(read.key, PrivateKeyDer::Sec1(_)));
        // As Go, by its content, whatever it is called.
        let misnamed = KEY.replace("EC PRIVATE", "PRIVATE");
        let read = pair(CERT, &misnamed).unwrap();
        assert!(matches!(read.key, PrivateKeyDer::Sec1(_)));
    }

    #[test]
    fn what_makes_no_pair_is_told_in_opas_words() {
        let unusable =
            |why| Err::<(), _>(format!("failed to parse public/private key pair: {why}"));
        let pair = |cert: &str, key: &str| pair(cert, key).map(|_| ());
        let nothing = unusable("failed to find any PEM data in certificate input");
        assert_eq!(pair("", KEY), nothing);
        assert_eq!(pair(KEY, KEY), nothing);
        assert_eq!(pair(CERT, "x"), Err("PEM data could not be found".into()));
        let no_key = unusable("failed to find any private key in key input");
        assert_eq!(pair(CERT, CERT), no_key);
        let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\
                      DEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        for encrypted in [legacy, &KEY.replace("EC", "ENCRYPTED")] {
            let error = pair(CERT, encrypted).unwrap_err();
            assert!(error.contains("is encrypted"), "{error}");
        }
    }

    /// Files are read again when the interval has passed, at once after a problem, and once for
    /// all who asked before the reading began.
    #[tokio::test(start_paused = true)]
    async fn files_are_read_again_by_the_interval() {
        let files = |seconds| ClientTlsConfig {
            cert: "c".into(),
            private_key: "k".into(),
            cert_reread_interval: std::time::Duration::from_secs(seconds),
        };
        let asked = Instant::now();
        let second = std::time::Duration::from_secs(1);
        let mut state = State::default();
        assert!(!state.serves(asked, &files(5)));
        state.read = Some(asked);
        for seconds in [0, 5] {
            assert!(state.serves(asked, &files(seconds)));
            assert_eq!(state.serves(asked + second, &files(seconds)), seconds == 5);
            assert!(!state.serves(asked + second * 5, &files(seconds)));
        }
        state.problem = Some(ServiceError::text("x"));
        assert!(state.serves(asked, &files(5)));
        assert!(!state.serves(asked + second, &files(5)));
    }
}
