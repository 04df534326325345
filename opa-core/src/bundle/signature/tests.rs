//! Every row of what OPA 1.22.2 accepts and refuses, with keys that are made here.

use std::collections::BTreeMap;

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RsaEncoding, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pem::Pem;
use serde_json::{Value, json};

use super::super::digest::{hex, sha256};
use super::super::store::Store;
use super::super::{
    ArchiveBytes, Bundle, BundleError, BundleErrorKind, Limits, Update, Verification, read,
    read_shared, read_verified,
};
use crate::config::{KeyAlgorithm, KeyConfig, Secret, SigningConfig};

const SECRET: &str = "a shared secret";

type Files<'a> = Vec<(&'a str, Vec<u8>)>;

fn files() -> Files<'static> {
    vec![
        (".manifest", br#"{"revision":"r"}"#.to_vec()),
        ("README.md", b"hello".to_vec()),
        ("a/data.json", b"{\"k\": 1.50}".to_vec()),
        ("a/p.rego", b"package a.p".to_vec()),
    ]
}

fn listed(files: &Files<'_>) -> Value {
    let list = files.iter().map(|(name, content)| {
        let content = match *name {
            "a/data.json" => b"{\"k\":1.50}",
            _ => content.as_slice(),
        };
        json!({"name": name, "hash": hex(&sha256(content)), "algorithm": "SHA-256"})
    });
    Value::Array(list.collect())
}

fn encode(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn hs256(secret: &str) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

fn archive(files: &Files<'_>, signatures: Option<&Value>) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let signatures = signatures.map(|json| (".signatures.json", json.to_string().into_bytes()));
    for (name, content) in files.iter().chain(&signatures) {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_slice())
            .unwrap();
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &tar.into_inner().unwrap()).unwrap();
    gzip.finish().unwrap()
}

fn key(key: &str, algorithm: KeyAlgorithm) -> KeyConfig {
    KeyConfig::new(Secret::new(key), algorithm)
}

fn keys() -> BTreeMap<String, KeyConfig> {
    let other = key("another secret", KeyAlgorithm::HS256);
    BTreeMap::from([
        ("k".to_owned(), key(SECRET, KeyAlgorithm::HS256)),
        ("other".to_owned(), other),
    ])
}

fn by_key(id: &str) -> SigningConfig {
    SigningConfig {
        key_id: id.to_owned(),
        ..SigningConfig::default()
    }
}

fn verified(archive: &[u8], verification: &Verification) -> Result<Bundle, BundleError> {
    read_verified(archive, &Limits::default(), verification)
}

fn refused(archive: &[u8], verification: &Verification) -> String {
    let error = verified(archive, verification).unwrap_err();
    assert_eq!(error.kind(), BundleErrorKind::Signature, "{error}");
    error.to_string()
}

/// The files signed by the key `k`.
fn signed(files: &Files<'_>, claims: &Value) -> Vec<u8> {
    let token = token(&json!({"alg": "HS256"}), claims, hs256(SECRET));
    archive(files, Some(&json!({"signatures": [token]})))
}

fn well_signed() -> Vec<u8> {
    signed(&files(), &json!({"files": listed(&files()), "keyid": "k"}))
}

#[test]
fn ghsa_g2pf_6v5v_qcc8_unsigned_bundles() {
    for nothing in [
        None,
        Some(json!({})),
        Some(json!(null)),
        Some(json!({"signatures": null})),
    ] {
        let archive = archive(&files(), nothing.as_ref());
        assert!(
            !read(archive.as_slice(), &Limits::default())
                .unwrap()
                .is_signed()
        );
        for accepting in [Verification::default(), Verification::new(keys(), None)] {
            assert!(verified(&archive, &accepting).is_ok());
            let text = refused(&archive, &accepting.require(true));
            assert_eq!(text, "bundle missing .signatures.json file");
        }
        for signing in [SigningConfig::default(), by_key("k")] {
            // Nothing takes back what the configuration demands.
            let verification = Verification::new(keys(), Some(signing)).require(false);
            assert_eq!(
                refused(&archive, &verification),
                "bundle missing .signatures.json file"
            );
        }
    }
}

#[test]
fn ghsa_g2pf_6v5v_qcc8_deltas_cannot_be_signed() {
    let delta = vec![("patch.json", br#"{"data":[]}"#.to_vec())];
    let claims = json!({"files": listed(&delta), "keyid": "k"});
    let verification = Verification::new(keys(), Some(by_key("k")));
    for archive in [archive(&delta, None), signed(&delta, &claims)] {
        assert!(verified(&archive, &verification).is_err());
    }
}

#[test]
fn signed_bundles() {
    let archive = well_signed();
    for verification in [
        Verification::new(keys(), None),
        Verification::new(keys(), None).require(true),
        Verification::new(keys(), Some(SigningConfig::default())),
        Verification::new(keys(), Some(by_key("k"))),
    ] {
        let bundle = verified(&archive, &verification).unwrap();
        assert_eq!(bundle.manifest().revision(), "r");
        assert!(bundle.is_signed());
    }
    for verification in [
        Verification::default(),
        Verification::default().require(true),
    ] {
        assert_eq!(
            refused(&archive, &verification),
            "verification key not provided"
        );
    }
    let other = Verification::new(keys(), Some(by_key("other")));
    assert!(refused(&archive, &other).starts_with("failed to verify JWT signature"));
}

#[test]
fn there_is_exactly_one_token_and_the_bundle_does_not_choose_its_verifier() {
    let claims = json!({"files": listed(&files()), "keyid": "k"});
    let token = token(&json!({}), &claims, hs256(SECRET));
    let text = |signatures: &Value| {
        refused(
            &archive(&files(), Some(signatures)),
            &Verification::new(keys(), None),
        )
    };
    assert_eq!(
        text(&json!({"signatures": []})),
        ".signatures.json: missing JWT (expected exactly one)"
    );
    assert_eq!(
        text(&json!({"signatures": [token, token]})),
        ".signatures.json: multiple JWTs not supported (expected exactly one)"
    );
    assert_eq!(
        text(&json!({"signatures": [token], "plugin": "lenient"})),
        "no verifier exists under id lenient"
    );
    assert_eq!(
        text(&json!({"plugin": "lenient"})),
        "no verifier exists under id lenient"
    );
    for malformed in [json!([]), json!({"signatures": [1]}), json!({"plugin": 1})] {
        assert!(text(&malformed).starts_with("bundle load failed on signatures decode: "));
    }
    let own = json!({"signatures": [token], "plugin": "_default"});
    assert!(
        verified(
            &archive(&files(), Some(&own)),
            &Verification::new(keys(), None)
        )
        .is_ok()
    );
    // Neither its place nor a second file helps.
    let mut twice = files();
    twice.push((
        "a/.signatures.json",
        json!({"signatures": [token]}).to_string().into(),
    ));
    let verification = Verification::new(keys(), None);
    assert!(
        verified(&archive(&twice, None), &verification).is_ok(),
        "in any directory"
    );
    let error = verified(&archive(&twice, Some(&own)), &verification).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("bundle contains multiple signatures files")
    );
    let mut lookalike = files();
    lookalike.push((
        "x.signatures.json",
        json!({"signatures": [token]}).to_string().into(),
    ));
    assert!(
        !verified(&archive(&lookalike, None), &verification)
            .unwrap()
            .is_signed()
    );
}

#[test]
fn the_key_is_that_of_the_configuration_then_of_the_header_then_of_the_claim() {
    let sign = |header: &Value, keyid: &str| {
        let claims = json!({"files": listed(&files()), "keyid": keyid});
        let token = token(header, &claims, hs256(SECRET));
        archive(&files(), Some(&json!({"signatures": [token]})))
    };
    let any = Verification::new(keys(), None);
    let configured = Verification::new(keys(), Some(by_key("k")));
    assert!(verified(&sign(&json!({"kid": "k"}), "other"), &any).is_ok());
    assert!(verified(&sign(&json!({"kid": "other"}), "other"), &configured).is_ok());
    assert!(verified(&sign(&json!({"kid": ""}), "k"), &any).is_ok());
    assert!(refused(&sign(&json!({"kid": "other"}), "k"), &any).starts_with("failed to verify"));
    assert_eq!(
        refused(&sign(&json!({"kid": "x"}), "k"), &any),
        "verification key corresponding to ID x not found"
    );
    assert_eq!(
        refused(&sign(&json!({}), ""), &any),
        "verification key ID is empty"
    );
    assert!(refused(&sign(&json!({"kid": 1}), "k"), &any).starts_with("failed to extract key ID"));
}

#[test]
fn the_scope_is_exactly_the_one_that_is_wanted() {
    let sign = |scope: &str| {
        signed(
            &files(),
            &json!({"files": listed(&files()), "keyid": "k", "scope": scope}),
        )
    };
    let with = |of_key: &str, of_bundle: &str| {
        let mut keys = keys();
        keys.get_mut("k").unwrap().scope = of_key.to_owned();
        let signing = SigningConfig {
            scope: of_bundle.to_owned(),
            ..SigningConfig::default()
        };
        Verification::new(keys, Some(signing))
    };
    for (scope, of_key, of_bundle) in [
        ("", "", ""),
        ("read", "read", ""),
        ("read", "", "read"),
        ("read", "write", "read"),
    ] {
        assert!(
            verified(&sign(scope), &with(of_key, of_bundle)).is_ok(),
            "{scope}"
        );
    }
    for (scope, of_key, of_bundle) in [
        ("read", "", ""),
        ("", "read", ""),
        ("Read", "read", ""),
        ("write", "write", "read"),
    ] {
        assert_eq!(
            refused(&sign(scope), &with(of_key, of_bundle)),
            "scope mismatch"
        );
    }
}

#[test]
fn malformed_tokens() {
    let claims = json!({"files": listed(&files()), "keyid": "k"});
    let good = token(&json!({}), &claims, hs256(SECRET));
    let text = |token: &str| {
        let archive = archive(&files(), Some(&json!({"signatures": [token]})));
        refused(&archive, &Verification::new(keys(), None))
    };
    let unsigned = good.rsplit_once('.').unwrap().0;
    assert!(text(unsigned).starts_with("failed to split compact JWT"));
    assert!(text(&format!("{good}.x")).starts_with("failed to split compact JWT"));
    assert!(text(&format!("{unsigned}.")).starts_with("failed to verify JWT signature"));
    assert!(text(&format!("{unsigned}.*")).starts_with("failed to base64 decode JWT signature"));
    assert!(text("e30.*.x").starts_with("failed to base64 decode JWT payload"));
    assert!(text("*.e30.x").starts_with("failed to base64 decode JWT header"));
    assert!(text(&format!("e30.{}.x", encode(&json!([])))).starts_with("failed to parse JWT"));
    for claims in [
        json!({"keyid": "k", "files": {}}),
        json!({"keyid": "k", "files": [1]}),
        json!({"keyid": "k", "files": [{"name": 1}]}),
    ] {
        let token = token(&json!({}), &claims, hs256(SECRET));
        assert!(
            text(&token).starts_with("failed to parse JWT payload"),
            "{claims}"
        );
    }
}

#[test]
fn each_file_is_the_one_that_was_signed() {
    let any = Verification::new(keys(), None);
    let text = |files: &Files<'_>, claimed: Value| {
        refused(
            &signed(files, &json!({"files": claimed, "keyid": "k"})),
            &any,
        )
    };
    for position in 0..files().len() {
        let mut changed = files();
        let name = changed[position].0;
        changed[position].1 = match name {
            ".manifest" => br#"{"revision":"s"}"#.to_vec(),
            "a/data.json" => b"{\"k\": 1.5}".to_vec(),
            _ => b"package a.q".to_vec(),
        };
        let found = text(&changed, listed(&files()));
        assert!(
            found.starts_with(&format!("{name}: digest mismatch (want: ")),
            "{found}"
        );

        let mut missing = files();
        missing.remove(position);
        assert_eq!(
            text(&missing, listed(&files())),
            format!(
                "file(s) [{name}] specified in bundle signatures but not found in the target bundle"
            )
        );
        assert_eq!(
            text(&files(), listed(&missing)),
            format!("file {name} not included in bundle signature")
        );
    }
    let mut twice = files();
    twice.push(("README.md", b"hello".to_vec()));
    assert_eq!(
        text(&twice, listed(&files())),
        "file README.md not included in bundle signature"
    );
    // Blanks and order don't count in documents.
    let mut reformatted = files();
    reformatted[2].1 = b" {\n\"k\":1.50}\n".to_vec();
    let claims = json!({"files": listed(&files()), "keyid": "k"});
    assert!(verified(&signed(&reformatted, &claims), &any).is_ok());

    for (member, value, expected) in [
        (
            "algorithm",
            "",
            "no hashing algorithm provided for file .manifest",
        ),
        ("algorithm", "MD6", "unsupported hashing algorithm: MD6"),
        ("hash", "zz", ".manifest: expected a digest in hexadecimal"),
    ] {
        let mut claimed = listed(&files());
        claimed[0][member] = value.into();
        assert_eq!(text(&files(), claimed), expected);
    }
    let mut claimed = listed(&files());
    claimed[0]["algorithm"] = "SHA-512".into();
    assert!(text(&files(), claimed).starts_with(".manifest: digest mismatch"));
}

#[test]
fn excluded_files_need_no_signature() {
    let excluding = |patterns: &[&str]| {
        let signing = SigningConfig {
            exclude_files: patterns.iter().map(|&pattern| pattern.to_owned()).collect(),
            ..SigningConfig::default()
        };
        Verification::new(keys(), Some(signing))
    };
    let mut fewer = files();
    fewer.remove(1);
    let unlisted = signed(&files(), &json!({"files": listed(&fewer), "keyid": "k"}));
    assert!(verified(&unlisted, &excluding(&["*.md"])).is_ok());
    assert!(verified(&unlisted, &excluding(&["x", "README.md"])).is_ok());
    for other in ["/README.md", "a/*", "*.MD", "[", ""] {
        assert_eq!(
            refused(&unlisted, &excluding(&[other])),
            "file README.md not included in bundle signature"
        );
    }
    // Listed or changed, it doesn't matter.
    let mut changed = files();
    changed[1].1 = b"changed".to_vec();
    let archive = signed(&changed, &json!({"files": listed(&files()), "keyid": "k"}));
    assert!(verified(&archive, &excluding(&["*.md"])).is_ok());
}

#[test]
fn nothing_is_made_of_files_that_were_not_signed() {
    // A fault of the content would be told if it was looked at before its digest.
    let mut broken = files();
    broken[3].1 = b"no policy".to_vec();
    let archive = signed(&broken, &json!({"files": listed(&files()), "keyid": "k"}));
    let text = refused(&archive, &Verification::new(keys(), None));
    assert!(text.starts_with("a/p.rego: digest mismatch"), "{text}");
    let claims = json!({"files": listed(&broken), "keyid": "k"});
    let error = verified(&signed(&broken, &claims), &Verification::new(keys(), None)).unwrap_err();
    assert_eq!(error.kind(), BundleErrorKind::Module);
}

type Sign = dyn Fn(&[u8]) -> Vec<u8>;

/// Keys of all kinds, each with what signs by it.
struct Pair {
    algorithm: KeyAlgorithm,
    public: String,
    private: String,
    sign: Box<Sign>,
}

fn pem_of(tag: &str, der: &[u8]) -> String {
    pem::encode(&Pem::new(tag, der))
}

fn ecdsa(algorithm: KeyAlgorithm, curve: &'static EcdsaSigningAlgorithm) -> Pair {
    let pair = EcdsaKeyPair::generate(curve).unwrap();
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let private = AsDer::<EcPrivateKeyRfc5915Der<'_>>::as_der(&pair.private_key()).unwrap();
    Pair {
        algorithm,
        public: pem_of("PUBLIC KEY", public.as_ref()),
        private: pem_of("EC PRIVATE KEY", private.as_ref()),
        sign: Box::new(move |message| {
            pair.sign(&SystemRandom::new(), message)
                .unwrap()
                .as_ref()
                .to_vec()
        }),
    }
}

fn rsa(algorithm: KeyAlgorithm, encoding: &'static dyn RsaEncoding) -> Pair {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    Pair {
        algorithm,
        public: pem_of("PUBLIC KEY", public.as_ref()),
        private: pem_of("PRIVATE KEY", private.as_ref()),
        sign: Box::new(move |message| {
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(encoding, &SystemRandom::new(), message, &mut signature)
                .unwrap();
            signature
        }),
    }
}

fn secret(algorithm: KeyAlgorithm, hmac: hmac::Algorithm) -> Pair {
    let key = hmac::Key::new(hmac, SECRET.as_bytes());
    Pair {
        algorithm,
        public: SECRET.to_owned(),
        private: SECRET.to_owned(),
        sign: Box::new(move |message| hmac::sign(&key, message).as_ref().to_vec()),
    }
}

fn pairs() -> Vec<Pair> {
    vec![
        secret(KeyAlgorithm::HS256, hmac::HMAC_SHA256),
        secret(KeyAlgorithm::HS384, hmac::HMAC_SHA384),
        secret(KeyAlgorithm::HS512, hmac::HMAC_SHA512),
        ecdsa(
            KeyAlgorithm::ES256,
            &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
        ),
        ecdsa(
            KeyAlgorithm::ES384,
            &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
        ),
        ecdsa(
            KeyAlgorithm::ES512,
            &signature::ECDSA_P521_SHA512_FIXED_SIGNING,
        ),
        rsa(KeyAlgorithm::RS256, &signature::RSA_PKCS1_SHA256),
        rsa(KeyAlgorithm::RS384, &signature::RSA_PKCS1_SHA384),
        rsa(KeyAlgorithm::RS512, &signature::RSA_PKCS1_SHA512),
        rsa(KeyAlgorithm::PS256, &signature::RSA_PSS_SHA256),
        rsa(KeyAlgorithm::PS384, &signature::RSA_PSS_SHA384),
        rsa(KeyAlgorithm::PS512, &signature::RSA_PSS_SHA512),
    ]
}

#[test]
fn the_algorithm_is_that_of_the_key_alone() {
    let pairs = pairs();
    let claims = json!({"files": listed(&files()), "keyid": "k"});
    for pair in &pairs {
        // The header names each algorithm, and none: it counts for nothing.
        for alg in ["none", "HS256", "RS256", "ES256"] {
            let token = token(&json!({"alg": alg}), &claims, &pair.sign);
            let archive = archive(&files(), Some(&json!({"signatures": [token]})));
            let of_same_key = pairs.iter().flat_map(|other| {
                let same = other.algorithm == pair.algorithm;
                [
                    (&pair.public, other.algorithm, same),
                    (&pair.private, other.algorithm, same),
                ]
            });
            let of_others = pairs
                .iter()
                .filter(|other| other.public != pair.public)
                .map(|other| (&other.public, pair.algorithm, false));
            for (text, algorithm, good) in of_same_key.chain(of_others) {
                let keys = BTreeMap::from([("k".to_owned(), key(text, algorithm))]);
                let verification = Verification::new(keys, None);
                let told = verified(&archive, &verification).map(|_| ());
                assert_eq!(
                    told.is_ok(),
                    good,
                    "{} as {algorithm}: {told:?}",
                    pair.algorithm
                );
            }
        }
    }
}

#[test]
fn the_public_key_is_no_secret() {
    // RS256 turned into HS256: the attacker signs by the public key, which everybody has.
    let pair = rsa(KeyAlgorithm::RS256, &signature::RSA_PKCS1_SHA256);
    let claims = json!({"files": listed(&files()), "keyid": "k"});
    let token = token(&json!({"alg": "HS256"}), &claims, hs256(&pair.public));
    let archive = archive(&files(), Some(&json!({"signatures": [token]})));
    let keys = BTreeMap::from([("k".to_owned(), key(&pair.public, KeyAlgorithm::RS256))]);
    let text = refused(&archive, &Verification::new(keys, None));
    assert!(text.starts_with("failed to verify JWT signature"), "{text}");
}

#[test]
fn keys_that_are_none() {
    let archive = well_signed();
    for text in [
        "",
        "x",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----",
    ] {
        for algorithm in [
            KeyAlgorithm::RS256,
            KeyAlgorithm::PS512,
            KeyAlgorithm::ES256,
        ] {
            let keys = BTreeMap::from([("k".to_owned(), key(text, algorithm))]);
            let told = refused(&archive, &Verification::new(keys, None));
            assert!(told.starts_with("failed to "), "{told}");
        }
    }
    for tag in [
        "CERTIFICATE",
        "RSA PRIVATE KEY",
        "PRIVATE KEY",
        "EC PRIVATE KEY",
        "DSA KEY",
    ] {
        let keys = BTreeMap::from([("k".to_owned(), key(&pem_of(tag, b"x"), KeyAlgorithm::ES256))]);
        assert_eq!(
            refused(&archive, &Verification::new(keys, None)),
            "failed to parse PEM block containing the key"
        );
    }
}

#[test]
fn who_has_another_key_is_refused_whoever_holds_the_same_bytes() {
    let store = Store::default();
    let archive = ArchiveBytes::from(well_signed());
    let read = |verification: &Verification| {
        read_shared(&archive, &Limits::default(), verification, &store).map(Update::into_bundle)
    };
    let verification = Verification::new(keys(), Some(by_key("k")));
    let held = read(&verification).unwrap();
    let again = read(&verification).unwrap();
    assert!(opa_rego::Value::ptr_eq(held.data(), again.data()));
    for other in [
        Verification::new(keys(), Some(by_key("other"))),
        Verification::default(),
    ] {
        let error = read(&other).unwrap_err();
        assert_eq!(error.kind(), BundleErrorKind::Signature, "{error}");
    }
    assert_eq!(store.used().2, 1, "{}", held.data());
}

#[test]
fn a_file_that_others_hold_must_be_the_signed_one_too() {
    let store = Store::default();
    let read = |archive: Vec<u8>| {
        let verification = Verification::new(keys(), Some(by_key("k")));
        let archive = ArchiveBytes::from(archive);
        read_shared(&archive, &Limits::default(), &verification, &store).map(Update::into_bundle)
    };
    let mut tampered = files();
    tampered[2].1 = br#"{"k":2}"#.to_vec();
    // Somebody else may have just these bytes, signed or not.
    let open = ArchiveBytes::from(archive(&tampered, None));
    let none = Verification::default();
    let held = read_shared(&open, &Limits::default(), &none, &store)
        .unwrap()
        .into_bundle();
    let claims = json!({"files": listed(&files()), "keyid": "k"});
    let error = read(signed(&tampered, &claims)).unwrap_err();
    assert!(error.to_string().contains("digest mismatch"), "{error}");
    let mut list = listed(&files());
    list[2]["hash"] = json!(hex(&sha256(&tampered[2].1)));
    let signed = read(signed(&tampered, &json!({"files": list, "keyid": "k"}))).unwrap();
    assert!(opa_rego::Value::ptr_eq(held.data(), signed.data()));
}
