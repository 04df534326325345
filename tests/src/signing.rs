//! Bundles that the real `opa` signs, with keys made for one test.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, KeyPair, RsaKeyPair};
use serde_json::{Value, json};

use crate::peers::Opa;

/// The key of all that are signed with an HMAC.
pub const SECRET: &str = "a shared secret of enough bytes for each of the three algorithms";

/// All of OPA's.
pub const ALGORITHMS: [&str; 12] = [
    "HS256", "HS384", "HS512", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256",
    "PS384", "PS512",
];

/// A key by which bundles are signed.
#[derive(Clone)]
pub struct Key {
    /// Its name in RFC 7518.
    pub algorithm: &'static str,
    /// PEM, or the secret of an HMAC.
    pub private: String,
    /// PEM, or the secret of an HMAC.
    pub public: String,
}

impl Key {
    /// A new one, unless it is that of an HMAC.
    ///
    /// # Panics
    /// When no key can be made.
    pub fn new(algorithm: &'static str) -> Self {
        let curve = match algorithm {
            "ES256" => &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            "ES384" => &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            "ES512" => &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
            "HS256" | "HS384" | "HS512" => {
                let secret = || SECRET.to_owned();
                let (private, public) = (secret(), secret());
                return Self {
                    algorithm,
                    private,
                    public,
                };
            }
            _ => return Self::rsa(algorithm),
        };
        let pair = EcdsaKeyPair::generate(curve).unwrap();
        let private = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&pair.private_key()).unwrap();
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
        Self {
            algorithm,
            private: pem("EC PRIVATE KEY", private.as_ref()),
            public: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    fn rsa(algorithm: &'static str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
        let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
        Self {
            algorithm,
            private: pem("PRIVATE KEY", private.as_ref()),
            public: pem("PUBLIC KEY", public.as_ref()),
        }
    }

    /// What stands for it in `keys` of a configuration.
    pub fn configured(&self) -> Value {
        json!({"key": self.public, "algorithm": self.algorithm})
    }
}

/// DER as PEM.
pub fn pem(tag: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(tag, der))
}

/// The files of a bundle by their paths.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Writes files into a folder.
///
/// # Panics
/// When it can't be written to.
pub fn lay_out(folder: &Path, files: &Files) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// The options that choose key and claims.
fn options(folder: &Path, key: &Key, claims: &Value) -> Vec<String> {
    let (private, claimed) = (folder.join("private"), folder.join("claims.json"));
    fs::write(&claimed, claims.to_string()).unwrap();
    let private = if key.algorithm.starts_with("HS") {
        key.private.clone()
    } else {
        fs::write(&private, &key.private).unwrap();
        private.display().to_string()
    };
    let claimed = claimed.display().to_string();
    [
        "--signing-alg",
        key.algorithm,
        "--signing-key",
        &private,
        "--claims-file",
        &claimed,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The files with the `.signatures.json` that `opa sign` makes of them.
///
/// # Panics
/// When OPA refuses them.
pub fn sign(opa: &Opa, files: &Files, key: &Key, claims: &Value) -> Files {
    let (folder, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    lay_out(folder.path(), files);
    let options = options(beside.path(), key, claims);
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    opa.sign(folder.path(), &options);
    let mut signed = files.clone();
    let signatures = fs::read(folder.path().join(".signatures.json")).unwrap();
    signed.insert(".signatures.json".to_owned(), signatures);
    signed
}

/// The archive that `opa build --signing-key` makes of the files.
///
/// # Panics
/// When OPA refuses them.
pub fn build(opa: &Opa, files: &Files, revision: &str, key: &Key, claims: &Value) -> Vec<u8> {
    let (folder, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    lay_out(folder.path(), files);
    let options = options(beside.path(), key, claims);
    let mut options: Vec<_> = options.iter().map(String::as_str).collect();
    options.extend(["--revision", revision]);
    let archive = beside.path().join("bundle.tar.gz");
    opa.build_with(folder.path(), &archive, &options);
    fs::read(archive).unwrap()
}

/// The files of an archive.
///
/// # Panics
/// When it is none.
pub fn unpack(archive: &[u8]) -> Files {
    let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(archive));
    let mut files = Files::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        files.insert(name.trim_start_matches('/').to_owned(), content);
    }
    files
}

/// An archive of files.
///
/// # Panics
/// When a path is none that an archive can have.
pub fn pack(files: &Files) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_slice())
            .unwrap();
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar.into_inner().unwrap()).unwrap();
    gzip.finish().unwrap()
}
