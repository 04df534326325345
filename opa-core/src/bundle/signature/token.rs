//! The JSON Web Signature of a bundle, in its compact form (RFC 7515).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::super::error::BundleError;
use super::{fault, key};
use crate::config::{KeyConfig, SigningConfig};

/// What a verified token says.
#[derive(Debug)]
pub(super) struct Claims {
    /// The files that it lists, by name.
    pub(super) files: BTreeMap<String, File>,
    /// `iat`: when it was made, in seconds since 1970.
    pub(super) issued_at: Option<i64>,
}

/// What a signature says about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    /// Of the digest, in hexadecimal.
    pub(super) hash: String,
    pub(super) algorithm: String,
}

/// Verifies a token. Answers what it says.
///
/// Of the header only the key id is looked at: the algorithm is that of the key.
pub(super) fn verify(
    token: &str,
    keys: &BTreeMap<String, KeyConfig>,
    signing: &SigningConfig,
) -> Result<Claims, BundleError> {
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(fault(
            "failed to split compact JWT: expected three parts between dots",
        ));
    };
    let signed = token
        .strip_suffix(signature)
        .and_then(|rest| rest.strip_suffix('.'));
    let claims = object("payload", payload)?;
    let id = key_id(header, &claims, signing)?;
    let Some(key) = keys.get(&id) else {
        return Err(fault(format!(
            "verification key corresponding to ID {id} not found"
        )));
    };
    let signature = decode("signature", signature)?;
    key::verify(key, signed.unwrap_or_default().as_bytes(), &signature)?;

    let scope = if signing.scope.is_empty() {
        &key.scope
    } else {
        &signing.scope
    };
    if text(&claims, "scope")? != scope {
        return Err(fault("scope mismatch"));
    }
    Ok(Claims {
        files: files(&claims)?,
        issued_at: issued_at(&claims)?,
    })
}

/// OPA reads it as an integer, too.
fn issued_at(claims: &Map<String, Value>) -> Result<Option<i64>, BundleError> {
    match claims.get("iat") {
        None | Some(Value::Null) => Ok(None),
        Some(time) => match time.as_i64() {
            Some(time) => Ok(Some(time)),
            None => Err(malformed("`iat` to be an integer")),
        },
    }
}

/// The configured one, or the header's, or that of the deprecated claim.
fn key_id(
    header: &str,
    claims: &Map<String, Value>,
    signing: &SigningConfig,
) -> Result<String, BundleError> {
    if !signing.key_id.is_empty() {
        return Ok(signing.key_id.clone());
    }
    let header = object("header", header)?;
    let id = match header.get("kid") {
        None => "",
        Some(Value::String(id)) => id,
        Some(_) => {
            return Err(fault(
                "failed to extract key ID from headers: expected a string",
            ));
        }
    };
    let id = if id.is_empty() {
        text(claims, "keyid")?
    } else {
        id
    };
    if id.is_empty() {
        return Err(fault("verification key ID is empty"));
    }
    Ok(id.to_owned())
}

fn files(claims: &Map<String, Value>) -> Result<BTreeMap<String, File>, BundleError> {
    let list = match claims.get("files") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(list)) => list,
        Some(_) => return Err(malformed("`files` to be an array")),
    };
    list.iter()
        .map(|file| {
            let Some(file) = file.as_object() else {
                return Err(malformed("an object for each file"));
            };
            let about = File {
                hash: text(file, "hash")?.to_owned(),
                algorithm: text(file, "algorithm")?.to_owned(),
            };
            Ok((text(file, "name")?.to_owned(), about))
        })
        .collect()
}

/// A member that is a string, or the empty one if it is absent.
fn text<'a>(object: &'a Map<String, Value>, member: &str) -> Result<&'a str, BundleError> {
    match object.get(member) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(malformed(&format!("`{member}` to be a string"))),
    }
}

fn object(part: &str, text: &str) -> Result<Map<String, Value>, BundleError> {
    serde_json::from_slice(&decode(part, text)?)
        .map_err(|error| fault(format!("failed to parse JWT {part}: {error}")))
}

fn decode(part: &str, text: &str) -> Result<Vec<u8>, BundleError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|error| fault(format!("failed to base64 decode JWT {part}: {error}")))
}

fn malformed(expected: &str) -> BundleError {
    fault(format!("failed to parse JWT payload: expected {expected}"))
}
