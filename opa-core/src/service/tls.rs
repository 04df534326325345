//! TLS as the HTTP clients speak it: whom a server's certificate is checked by, and which one of
//! our own is shown.
//!
//! As in Go, and so in OPA, no session is resumed: each new connection has the server show a
//! certificate, which is checked. One that has expired, or was replaced by another that is not
//! trusted, ends no connection that is open, but is noticed with the next one.

use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls_platform_verifier::Verifier;

use super::ServiceError;

/// Which servers are the right ones.
pub(super) enum Trust {
    /// Those with a certificate of an authority that the system knows, or of one of these.
    System(Vec<CertificateDer<'static>>),
    /// Those with a certificate of one of these.
    Only(Vec<CertificateDer<'static>>),
    /// All.
    Any,
}

/// A certificate of our own, those between it and its authority, and its key.
pub(super) struct Identity {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Trust {
    /// What a client trusts and shows; `alpn` are the protocols that it offers.
    ///
    /// # Errors
    /// When an authority or the identity can't be used, or the system knows no authority.
    pub(super) fn config(
        &self,
        identity: Option<&Identity>,
        alpn: &[&[u8]],
    ) -> Result<ClientConfig, Error> {
        // What the program chose for the whole process counts.
        let provider = CryptoProvider::get_default()
            .map_or_else(|| Arc::new(aws_lc_rs::default_provider()), Arc::clone);
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let config = match self {
            Self::Only(authorities) => {
                let mut roots = RootCertStore::empty();
                for authority in authorities {
                    roots.add(authority.clone())?;
                }
                config.with_root_certificates(roots)
            }
            Self::System(more) => {
                let verifier = system_and(more, provider)?;
                let config = config.dangerous();
                config.with_custom_certificate_verifier(Arc::new(verifier))
            }
            Self::Any => {
                let config = config.dangerous();
                config.with_custom_certificate_verifier(Arc::new(Unchecked))
            }
        };
        let mut config = match identity {
            Some(identity) => config
                .with_client_auth_cert(identity.certificates.clone(), identity.key.clone_key())?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

#[cfg(any(all(unix, not(target_os = "android")), target_os = "windows"))]
fn system_and(
    more: &[CertificateDer<'static>],
    provider: Arc<CryptoProvider>,
) -> Result<Verifier, Error> {
    Verifier::new_with_extra_roots(more.iter().cloned(), provider)
}

#[cfg(not(any(all(unix, not(target_os = "android")), target_os = "windows")))]
fn system_and(
    more: &[CertificateDer<'static>],
    provider: Arc<CryptoProvider>,
) -> Result<Verifier, Error> {
    match more {
        [] => Verifier::new(provider),
        _ => Err(Error::General(
            "this system takes no authorities besides its own".into(),
        )),
    }
}

/// The certificates of a file.
///
/// # Errors
/// When it can't be read, or is not one or more of them.
pub(super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServiceError> {
    let named =
        |problem: String| ServiceError::text(format!("ca_cert `{}`: {problem}", path.display()));
    let pem = std::fs::read(path).map_err(|error| named(error.to_string()))?;
    let authorities = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let authorities = authorities.map_err(|error| named(error.to_string()))?;
    if authorities.is_empty() {
        // OPA's words.
        let problem = "unable to parse and append CA certificate to certificate pool";
        return Err(named(problem.into()));
    }
    Ok(authorities)
}

/// Takes what a server shows for what it should be.
#[derive(Debug)]
struct Unchecked;

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    /// Whoever is in between could show a certificate of its own: a signature by this one proves
    /// nothing.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    /// All that the library has a name for, as `reqwest` offers them.
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::RSA_PKCS1_SHA1,
            SignatureScheme::ECDSA_SHA1_Legacy,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::ECDSA_NISTP256_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::ECDSA_NISTP384_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
            SignatureScheme::ECDSA_NISTP521_SHA512,
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::ED25519,
            SignatureScheme::ED448,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each has what `reqwest` would have set; sessions show in nothing that can be read here, but
    /// against real servers.
    #[test]
    fn what_is_offered_is_what_the_client_is_for() {
        for trust in [Trust::Any, Trust::Only(Vec::new())] {
            let config = trust.config(None, &[b"h2", b"http/1.1"]).unwrap();
            assert_eq!(config.alpn_protocols, [&b"h2"[..], b"http/1.1"]);
            assert!(config.enable_sni && !config.enable_early_data);
            // Of another version it would be refused.
            let client = reqwest::Client::builder().tls_backend_preconfigured(config);
            client.build().unwrap();
        }
    }

    #[test]
    fn an_authority_that_is_none_is_told() {
        let none = CertificateDer::from(vec![0; 3]);
        for trust in [Trust::Only(vec![none.clone()]), Trust::System(vec![none])] {
            let error = trust.config(None, &[]).unwrap_err().to_string();
            assert!(error.starts_with("invalid peer certificate"), "{error}");
        }
    }
}
