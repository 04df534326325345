//! The digests of files: by name, and over what.

use md5::Md5;
use sha1::Sha1;
use sha2::digest::Digest;
use sha2::{Sha224, Sha256, Sha384, Sha512, Sha512_224, Sha512_256};

use super::super::data_file;
use super::super::error::BundleError;
use super::super::path::{EntryPath, FileKind};
use super::fault;

/// The digest of a file's content, by OPA's name of the algorithm.
///
/// MD5 and SHA-1 are broken and yet accepted: whoever signed chose them, and only who has the key
/// could choose them for others.
pub(super) fn digest(
    algorithm: &str,
    content: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), BundleError>,
) -> Result<Vec<u8>, BundleError> {
    match algorithm {
        "MD5" => of::<Md5>(content),
        "SHA-1" => of::<Sha1>(content),
        "SHA-224" => of::<Sha224>(content),
        "SHA-256" => of::<Sha256>(content),
        "SHA-384" => of::<Sha384>(content),
        "SHA-512" => of::<Sha512>(content),
        "SHA-512-224" => of::<Sha512_224>(content),
        "SHA-512-256" => of::<Sha512_256>(content),
        _ => Err(fault(format!("unsupported hashing algorithm: {algorithm}"))),
    }
}

fn of<D: Digest>(
    content: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), BundleError>,
) -> Result<Vec<u8>, BundleError> {
    let mut digest = D::new();
    content(&mut |piece| digest.update(piece))?;
    Ok(digest.finalize().to_vec())
}

/// Documents are digested by their meaning: as JSON without blanks, with sorted keys, numbers as
/// they were written, and without HTML escapes. Of data files it is at hand as a value; this is
/// for the manifest. `None` stands for the bytes themselves.
pub(super) fn canonical(path: &EntryPath, bytes: &[u8]) -> Result<Option<Vec<u8>>, BundleError> {
    // `x.manifest` is a manifest too, but digested by its bytes.
    if path.kind() != FileKind::Manifest || path.base() != ".manifest" {
        return Ok(None);
    }
    let mut canonical = Vec::new();
    data_file::json(path, bytes)?.write_json(&mut canonical);
    Ok(Some(canonical))
}

/// Lower or upper case hexadecimal.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::digest::hex;
    use super::*;

    #[test]
    fn digests_by_name() {
        fn digest(algorithm: &str, content: &[u8]) -> Result<Vec<u8>, BundleError> {
            super::digest(algorithm, |take| {
                take(content);
                Ok(())
            })
        }
        // From `printf abc | md5sum` and its kin.
        for (algorithm, expected) in [
            ("MD5", "900150983cd24fb0d6963f7d28e17f72"),
            ("SHA-1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "SHA-224",
                "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7",
            ),
            (
                "SHA-256",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                "SHA-512-224",
                "4634270f707b6a54daae7530460842e20e37ed265ceee9a43e8924aa",
            ),
            (
                "SHA-512-256",
                "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23",
            ),
        ] {
            assert_eq!(hex(&digest(algorithm, b"abc").unwrap()), expected);
        }
        assert_eq!(digest("SHA-384", b"abc").unwrap().len(), 48);
        assert_eq!(digest("SHA-512", b"abc").unwrap().len(), 64);
        for unknown in ["MD6", "sha-256", "SHA256", "none"] {
            assert_eq!(
                digest(unknown, b"").unwrap_err().to_string(),
                format!("unsupported hashing algorithm: {unknown}")
            );
        }
    }

    #[test]
    fn documents_are_digested_by_their_meaning() {
        let canonical = |name: &str, text: &str| {
            let path = EntryPath::new(name.as_bytes()).unwrap();
            canonical(&path, text.as_bytes())
                .unwrap()
                .map(|bytes| String::from_utf8(bytes).unwrap())
        };
        let text = "{ \"b\": [1.50, 1E3, 10000000000000000000001],\n\"a\": \"<&>\\u2028\\u00e9/\"}";
        let expected = "{\"a\":\"<&>\\u2028é/\",\"b\":[1.50,1E3,10000000000000000000001]}";
        assert_eq!(canonical(".manifest", text).as_deref(), Some(expected));
        for format in [data_file::json, data_file::yaml] {
            let path = EntryPath::new(b"data.x").unwrap();
            assert_eq!(format(&path, text.as_bytes()).unwrap().to_json(), expected);
        }
        for name in ["x.json", "a.rego", "x.manifest", "plan.json", "x.yaml"] {
            assert_eq!(canonical(name, text), None, "{name}");
        }
    }

    #[test]
    fn hexadecimal() {
        assert_eq!(from_hex("00fFa1"), Some(vec![0, 255, 161]));
        assert_eq!(from_hex(""), Some(vec![]));
        for malformed in ["0", "0g", "+1", "0x", "é"] {
            assert_eq!(from_hex(malformed), None, "{malformed}");
        }
    }
}
