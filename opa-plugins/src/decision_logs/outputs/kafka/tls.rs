//! TLS as connections to brokers speak it.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls_platform_verifier::BuilderVerifierExt;

use super::super::tls_files::TlsFiles;

/// What a client trusts and shows. It reads files.
pub(super) fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>, String> {
    // What the program chose for the whole process counts; of the two that are built in, ours.
    let provider = CryptoProvider::get_default()
        .map_or_else(|| Arc::new(aws_lc_rs::default_provider()), Arc::clone);
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = match (&files.ca_cert, files.skip_cert_verify) {
        (_, true) => {
            let schemes = provider.signature_verification_algorithms;
            let unchecked = Unchecked(schemes.supported_schemes());
            let config = config.dangerous();
            config.with_custom_certificate_verifier(Arc::new(unchecked))
        }
        (Some(path), false) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| at(path, error))?;
            }
            config.with_root_certificates(roots)
        }
        (None, false) => {
            let config = config.with_platform_verifier();
            config.map_err(|error| error.to_string())?
        }
    };
    let config = match &files.own {
        None => config.with_no_client_auth(),
        Some((cert, key)) => {
            let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| at(key, error))?;
            let config = config.with_client_auth_cert(certificates(cert)?, secret);
            config.map_err(|error| at(cert, error))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let all = CertificateDer::pem_file_iter(path).map_err(|error| at(path, error))?;
    let all: Vec<_> = all
        .collect::<Result<_, _>>()
        .map_err(|error| at(path, error))?;
    match all.is_empty() {
        true => Err(at(path, "there is no certificate in it")),
        false => Ok(all),
    }
}

fn at(path: &Path, problem: impl ToString) -> String {
    format!("`{}`: {}", path.display(), problem.to_string())
}

/// Takes what a server shows for what it should be.
#[derive(Debug)]
struct Unchecked(Vec<SignatureScheme>);

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

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}
