//! Digests that name content.

use sha2::{Digest, Sha256};

/// SHA-256 of bytes.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// SHA-256 over named digests, whatever their order: each name goes in with its length, so that
/// no two lists make the same bytes.
pub(super) fn sha256_of_named<'a>(
    items: impl IntoIterator<Item = (&'a str, [u8; 32])>,
) -> [u8; 32] {
    let mut items: Vec<_> = items.into_iter().collect();
    items.sort_unstable();
    let mut hasher = Sha256::new();
    for (name, digest) in items {
        hasher.update((name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(digest);
    }
    hasher.finalize().into()
}

/// Lower case hexadecimal.
pub(super) fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let (x, y) = (sha256(b"x"), sha256(b"y"));
        assert_eq!(
            sha256_of_named([("a", x), ("b", y)]),
            sha256_of_named([("b", y), ("a", x)])
        );
        assert_ne!(
            sha256_of_named([("a", x), ("b", y)]),
            sha256_of_named([("a", y), ("b", x)])
        );
        assert_eq!(
            hex(&sha256(b"")),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}
