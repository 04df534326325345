//! Signatures of bytes, by the key that is configured.

use aws_lc_rs::hmac;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, UnparsedPublicKey, VerificationAlgorithm,
};
use pem::Pem;

use super::super::error::BundleError;
use super::fault;
use crate::config::{KeyAlgorithm, KeyConfig};

/// Verifies the signature of `message` by the key's own algorithm.
///
/// RSA keys have at least 2,048 bits, and an elliptic curve is the one of its algorithm
/// (RFC 7518, sections 3.3 and 3.4).
pub(super) fn verify(key: &KeyConfig, message: &[u8], signature: &[u8]) -> Result<(), BundleError> {
    let verified = match Family::of(key.algorithm) {
        Family::Hmac(algorithm) => {
            let key = hmac::Key::new(algorithm, key.key.expose().as_bytes());
            hmac::verify(&key, message, signature)
        }
        Family::Rsa(algorithm) => {
            let public = public_key(&pem(key)?, |der| {
                let pair = rsa::KeyPair::from_pkcs8(der);
                let pair = pair.or_else(|_| rsa::KeyPair::from_der(der)).ok()?;
                Some(pair.public_key().as_ref().to_vec())
            })?;
            UnparsedPublicKey::new(algorithm, public).verify(message, signature)
        }
        Family::Ecdsa(algorithm, curve) => {
            let public = public_key(&pem(key)?, |der| {
                let pair = EcdsaKeyPair::from_private_key_der(curve, der).ok()?;
                Some(pair.public_key().as_ref().to_vec())
            })?;
            UnparsedPublicKey::new(algorithm, public).verify(message, signature)
        }
    };
    verified.map_err(|_| {
        fault(format!(
            "failed to verify JWT signature: it is not the {} signature of the key",
            key.algorithm
        ))
    })
}

enum Family {
    Hmac(hmac::Algorithm),
    Rsa(&'static dyn VerificationAlgorithm),
    /// With what reads a private key of the same curve.
    Ecdsa(
        &'static dyn VerificationAlgorithm,
        &'static EcdsaSigningAlgorithm,
    ),
}

impl Family {
    fn of(algorithm: KeyAlgorithm) -> Self {
        match algorithm {
            KeyAlgorithm::HS256 => Self::Hmac(hmac::HMAC_SHA256),
            KeyAlgorithm::HS384 => Self::Hmac(hmac::HMAC_SHA384),
            KeyAlgorithm::HS512 => Self::Hmac(hmac::HMAC_SHA512),
            KeyAlgorithm::RS256 => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            KeyAlgorithm::RS384 => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            KeyAlgorithm::RS512 => Self::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            KeyAlgorithm::PS256 => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            KeyAlgorithm::PS384 => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            KeyAlgorithm::PS512 => Self::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            KeyAlgorithm::ES256 => Self::Ecdsa(
                &signature::ECDSA_P256_SHA256_FIXED,
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            ),
            KeyAlgorithm::ES384 => Self::Ecdsa(
                &signature::ECDSA_P384_SHA384_FIXED,
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            ),
            KeyAlgorithm::ES512 => Self::Ecdsa(
                &signature::ECDSA_P521_SHA512_FIXED,
                &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
            ),
        }
    }
}

/// The first block of the key's text.
fn pem(key: &KeyConfig) -> Result<Pem, BundleError> {
    pem::parse(key.key.expose()).map_err(|_| unreadable())
}

/// The public key in a block of one of the kinds that OPA takes; `of_private` takes it out of a
/// private key.
fn public_key(
    block: &Pem,
    of_private: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<Vec<u8>, BundleError> {
    let der = block.contents();
    match block.tag() {
        "RSA PUBLIC KEY" | "PUBLIC KEY" => Ok(der.to_vec()),
        "RSA PRIVATE KEY" | "PRIVATE KEY" | "EC PRIVATE KEY" => {
            of_private(der).ok_or_else(unreadable)
        }
        "CERTIFICATE" => {
            let certificate = rustls_pki_types::CertificateDer::from(der);
            let certificate =
                webpki::EndEntityCert::try_from(&certificate).map_err(|_| unreadable())?;
            Ok(certificate.subject_public_key_info().to_vec())
        }
        _ => Err(unreadable()),
    }
}

/// OPA's text. What the parser says could hold parts of the key.
fn unreadable() -> BundleError {
    fault("failed to parse PEM block containing the key")
}
