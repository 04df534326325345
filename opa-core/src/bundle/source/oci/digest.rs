use std::fmt;

use crate::bundle::digest::{hex, sha256};

/// How many characters of what is no digest an error repeats.
const MAX_SHOWN: usize = 80;

/// SHA-256 of a manifest or blob, by which a registry names it: `sha256:<hex>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Digest([u8; 32]);

impl Digest {
    /// # Errors
    /// When it is no SHA-256 in lower case hexadecimal. OPA's store of blobs knows no others.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let Some(digits) = text.strip_prefix("sha256:") else {
            let text = shown(text);
            return Err(format!("unsupported digest `{text}`: expected `sha256:…`"));
        };
        let invalid = || {
            let text = shown(text);
            format!("invalid digest `{text}`: expected 64 lower case hex digits")
        };
        let mut digest = [0; 32];
        let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
        if pairs.len() != digest.len() || !rest.is_empty() {
            return Err(invalid());
        }
        for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
            *byte = match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(invalid()),
            };
        }
        Ok(Self(digest))
    }

    pub(super) fn of(bytes: &[u8]) -> Self {
        Self(sha256(bytes))
    }

    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its digits alone: OPA's etag.
    pub(super) fn hex(&self) -> String {
        hex(&self.0)
    }
}

/// A registry may say anything, at any length.
fn shown(text: &str) -> String {
    let start = text.chars().take(MAX_SHOWN);
    start.flat_map(char::escape_debug).collect()
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_they_are_written() {
        let digest = Digest::of(b"x");
        assert_eq!(Digest::parse(&digest.to_string()), Ok(digest));
        let text = digest.to_string();
        for wrong in [
            text.to_uppercase(),
            text.replace("sha256:", "sha256:A"),
            text.replace("sha256:", ""),
            format!("{text}00"),
            text[..70].to_owned(),
            text.replace("sha256:2", "sha256:g"),
            String::new(),
        ] {
            assert!(Digest::parse(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_registry_says_is_not_repeated_at_length() {
        let error = Digest::parse(&format!("sha512:\n{}", "a".repeat(10_000))).unwrap_err();
        assert!(
            error.starts_with("unsupported digest `sha512:\\naaa"),
            "{error}"
        );
        assert!(error.len() < 150, "{error}");
    }
}
