//! Signed bundles: what the real `opa` signs is verified here, and whatever is refused by the one
//! is refused by the other.

use std::fs;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::hmac;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use opa_core::bundle::source::{File, Memory};
use opa_core::bundle::{self, Limits, Verification};
use opa_core::config::{EnvPolicy, Template};
use opa_core::plugin::State;
use opa_core::{App, Manager};
use serde_json::{Value, json};
use tests::bundle_server::{Answer, BundleServer};
use tests::http_client;
use tests::peers::{self, Opa};
use tests::scripted::Scripted;
use tests::signing::{ALGORITHMS, Files, Key, SECRET, build, lay_out, pack, pem, sign, unpack};

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

/// A bundle whose files lie all below `root`, but for manifest and signature.
fn files(root: &str, version: &str) -> Files {
    [
        (
            ".manifest",
            json!({"revision": version, "roots": [root]}).to_string(),
        ),
        ("README.md", "Hello.".to_owned()),
        (
            "policy.rego",
            format!("package {root}\n\nversion := \"{version}\"\n"),
        ),
        (
            "data.json",
            format!("{{\"{root}\":{{\"html\":\"<&>\",\"number\":1.50,\"e\":1E+2}}}}"),
        ),
        ("yaml/data.yaml", "a: [1, x]".to_owned()),
        ("yml/data.yml", "{\"z\":1.0,\"a\":\"\\u2028\"}".to_owned()),
    ]
    .into_iter()
    .map(|(name, content)| {
        let name = match name {
            "yaml/data.yaml" | "yml/data.yml" => format!("{root}/{name}"),
            name => name.to_owned(),
        };
        (name, content.into_bytes())
    })
    .collect()
}

/// The parts of the one token.
fn token_of(files: &Files) -> Vec<String> {
    let json: Value = serde_json::from_slice(&files[".signatures.json"]).unwrap();
    let token = json["signatures"][0].as_str().unwrap();
    token.split('.').map(str::to_owned).collect()
}

fn with_signatures(files: &Files, signatures: &Value) -> Files {
    let mut changed = files.clone();
    changed.insert(
        ".signatures.json".to_owned(),
        signatures.to_string().into_bytes(),
    );
    changed
}

fn with_token(files: &Files, parts: &[&str]) -> Files {
    with_signatures(files, &json!({"signatures": [parts.join(".")]}))
}

/// A header and payload signed by a secret.
fn hs256(header: &Value, payload: &str, secret: &str) -> [String; 3] {
    let header = URL_SAFE_NO_PAD.encode(header.to_string());
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, format!("{header}.{payload}").as_bytes());
    [
        header,
        payload.to_owned(),
        URL_SAFE_NO_PAD.encode(signature),
    ]
}

/// A bundle, what its configuration says of signing, and whether it may be activated.
struct Case {
    name: String,
    signing: Value,
    bundle: Files,
    good: bool,
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(&mut self, name: &str, signing: Value, good: bool, bundle: impl FnOnce(&str) -> Files) {
        self.0.push(Case {
            name: name.to_owned(),
            signing,
            bundle: bundle(name),
            good,
        });
    }
}

/// The same configuration for both: one with all bundles for `opa`, one for each bundle here.
fn config(server: &BundleServer, keys: &Value, cases: &[&Case]) -> Value {
    let bundles = cases.iter().map(|case| {
        let bundle = json!({
            "resource": case.name,
            "polling": {"min_delay_seconds": 1, "max_delay_seconds": 1},
            "signing": case.signing,
        });
        (case.name.clone(), bundle)
    });
    let mut config = json!({
        "services": {"control": {"url": server.url()}},
        "bundles": bundles.collect::<serde_json::Map<_, _>>(),
    });
    if !keys.is_null() {
        config["keys"] = keys.clone();
    }
    config
}

/// Both judge each bundle, and as expected.
async fn judge(opa: &Opa, keys: &Value, Cases(cases): Cases) {
    let server = BundleServer::start().await;
    for case in &cases {
        server.answer(
            &format!("/{}", case.name),
            Answer::Bundle(pack(&case.bundle)),
        );
    }
    let mut configuration = config(&server, keys, &cases.iter().collect::<Vec<_>>());
    configuration["status"] = json!({"console": true});
    let running = opa.serve_until(&configuration.to_string(), "/health").await;
    let mut complaints = Vec::new();
    for case in &cases {
        let theirs = judged_by_opa(running.address(), &case.name).await;
        let ours = judged_here(&config(&server, keys, &[case])).await;
        if theirs.is_ok() != case.good || ours.is_ok() != case.good {
            complaints.push(format!("{}: OPA {theirs:?}, here {ours:?}", case.name));
        }
        if let (Err(theirs), Err(ours)) = (theirs, ours)
            && !alike(&theirs, &ours)
        {
            complaints.push(format!("{}: OPA says {theirs}, here {ours}", case.name));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// The texts are equal, but for what libraries add to them.
fn alike(theirs: &str, ours: &str) -> bool {
    let parts = [
        "failed to verify JWT signature",
        "failed to split compact JWT",
        "decode",
    ];
    theirs == ours
        || parts
            .iter()
            .any(|part| theirs.contains(part) && ours.contains(part))
}

async fn judged_by_opa(address: std::net::SocketAddr, name: &str) -> Result<(), String> {
    let judged = async {
        loop {
            let response = http_client::get(address, "/v1/status").await.unwrap();
            let status: Value = serde_json::from_slice(response.body()).unwrap();
            let bundle = &status["result"]["bundles"][name];
            if let Some(message) = bundle["message"].as_str() {
                return Err(message.to_owned());
            }
            if !bundle["last_successful_activation"]
                .as_str()
                .unwrap_or("0001")
                .starts_with("0001")
            {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, judged)
        .await
        .unwrap_or_else(|_| panic!("OPA and {name}"))
}

async fn judged_here(config: &Value) -> Result<(), String> {
    let manager = Manager::builder()
        .config_yaml(&config.to_string())
        .engine(Scripted::data())
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    until_judged(&app).await
}

async fn until_judged(app: &App) -> Result<(), String> {
    let judged = async {
        loop {
            match app.state() {
                State::Ready => return Ok(()),
                State::Failed { .. } => {
                    let message = app.status().bundles[0].message.clone();
                    return Err(message.unwrap_or_default().to_string());
                }
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    tokio::time::timeout(LONG, judged).await.expect("a verdict")
}

fn keys_of(keys: &[Key]) -> Value {
    let mut json = serde_json::Map::new();
    for key in keys {
        json.insert(key.algorithm.to_lowercase(), key.configured());
    }
    Value::Object(json)
}

#[tokio::test]
async fn whatever_opa_signs_is_verified() {
    let Some(opa) = peers::opa() else { return };
    let keys = ALGORITHMS.map(Key::new);
    let mut cases = Cases::default();
    for key in &keys {
        let id = key.algorithm.to_lowercase();
        cases.add(
            &format!("signed_{id}"),
            json!({"keyid": id}),
            true,
            |name| sign(&opa, &files(name, "1"), key, &json!({})),
        );
        cases.add(&format!("built_{id}"), json!({"keyid": id}), true, |name| {
            unpack(&build(&opa, &files(name, "1"), "1", key, &json!({})))
        });
    }
    // What is digested of a document is its meaning, in OPA's spelling.
    let key = &keys[0];
    cases.add("documents", json!({"keyid": "hs256"}), true, |name| {
        sign(&opa, &documents(name), key, &json!({}))
    });
    cases.add(
        "documents_spaced",
        json!({"keyid": "hs256"}),
        true,
        |name| {
            let mut signed = sign(&opa, &documents(name), key, &json!({}));
            let spaced = |content: &[u8]| [b" \n", content, b"\n\n"].concat();
            for path in ["json/data.json", "flow/data.yml"].map(|path| format!("{name}/{path}")) {
                let content = spaced(&signed[&path]);
                signed.insert(path, content);
            }
            let manifest = spaced(&signed[".manifest"]);
            signed.insert(".manifest".to_owned(), manifest);
            signed
        },
    );
    judge(&opa, &keys_of(&keys), cases).await;
}

/// Made for this test by `openssl ecparam -name prime256v1 -genkey -noout`; it protects nothing.
const PRIVATE_KEY: &str = "\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEID4xRjoZbkdKiExi2AbIl2OSSg4wMiFbuIJKukcacOdaoAoGCCqGSM49
AwEHoUQDQgAE77yD1NsXQC5uTnDZtO0boQVSWoOB643El8iJl5MNjGJERVDrJpck
u8b6k+VJmNpdmmi5QSgH5ILLj19MeNowFw==
-----END EC PRIVATE KEY-----
";

/// Of the key above, by `openssl req -x509 -new -key`. Nobody looks at its dates.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBczCCARmgAwIBAgIUIm+d7haK3ho6s6jljPq5zKWvmxMwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAeFw0yNjExMjQxMDQ0NDdaFw0zNjExMjExMDQ0NDda
MA8xDTALBgNVBAMMBHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATvvIPU
2xdALm5OcNm07RuhBVJag4HrjcSXyImXkw2MYkRFUOsmlyS7xvqT5UmY2l2aaLlB
KAfkgsuPX0x42jAXo1MwUTAdBgNVHQ4EFgQUb2waLNEjxE0DA3HlUiDwNIX1h0sw
HwYDVR0jBBgwFoAUb2waLNEjxE0DA3HlUiDwNIX1h0swDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNIADBFAiEAxoSbKsMD4SmmS2L/aiPyVZ26sDKNKOXxO9oq
M2jjN9gCIEfNOgDxXiPR9/lK9bsp/OwV6UKmVLbTNXQ4HdJ4fZr5
-----END CERTIFICATE-----
";

#[tokio::test]
async fn keys_come_in_the_forms_that_opa_reads() {
    let Some(opa) = peers::opa() else { return };
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    let rsa = Key {
        algorithm: "RS256",
        private: pem("PRIVATE KEY", private.as_ref()),
        public: pem("RSA PUBLIC KEY", pair.public_key().as_ref()),
    };
    let ecdsa = Key {
        algorithm: "ES256",
        private: PRIVATE_KEY.to_owned(),
        public: CERTIFICATE.to_owned(),
    };
    let configured = json!({
        "rsa_public": rsa.configured(),
        "rsa_private": {"key": rsa.private},
        "certificate": ecdsa.configured(),
        "ec_private": {"key": PRIVATE_KEY, "algorithm": "ES256"},
        "with_text": {"key": format!("a text\n{CERTIFICATE}"), "algorithm": "ES256"},
        "no_pem": {"key": "x", "algorithm": "ES256"},
        "cut": {"key": &PRIVATE_KEY[..80], "algorithm": "ES256"},
        "a_path": {"key": "/etc/ssl/certs/ca-certificates.crt", "algorithm": "ES256"},
        "other_label": {"key": CERTIFICATE.replace("CERTIFICATE", "X"), "algorithm": "ES256"},
    });
    let mut cases = Cases::default();
    for (id, key, good) in [
        ("rsa_public", &rsa, true),
        ("rsa_private", &rsa, true),
        ("certificate", &ecdsa, true),
        ("ec_private", &ecdsa, true),
        ("with_text", &ecdsa, true),
        ("no_pem", &ecdsa, false),
        ("cut", &ecdsa, false),
        ("a_path", &ecdsa, false),
        ("other_label", &ecdsa, false),
    ] {
        cases.add(id, json!({"keyid": id}), good, |name| {
            sign(&opa, &files(name, "1"), key, &json!({}))
        });
    }
    judge(&opa, &configured, cases).await;
}

/// A bundle of documents whose spelling is easily lost.
fn documents(root: &str) -> Files {
    let json = r#"{"z": [1.0, 1e3, 1E+2, -0, 0.1e-7, 12345678901234567890123, 1.50], "\u00e9": "\u2028<&>/\/",
        "é2": "\b\f\n\t\u0001\u007f", "𝒳": {}, "\uffff": [], "": null, "A": true, "a": "\"\\"}"#;
    let block = "floats: [1.0, 1e3, 1e21, 1e20, 1e-6, 1e-7, .5, 0.1, 123456789.125]\n\
                 integers: [1, -1, 0x1F, 0o17, 9007199254740993]\n\
                 words: [yes, on, null, ~, true, 2020-01-01, <&>]\n\
                 text: |\n  two\n  lines\nfolded: >\n  two\n  lines\n";
    let files = [
        (
            ".manifest".to_owned(),
            json!({"roots": [root], "metadata": {"b": 1, "a": "<"}}).to_string(),
        ),
        (format!("{root}/json/data.json"), json.to_owned()),
        (format!("{root}/block/data.yaml"), block.to_owned()),
        (
            format!("{root}/flow/data.yml"),
            "{b: 1.0, a: \"\\u2028\"}".to_owned(),
        ),
        (format!("{root}/plain.json"), "{ }".to_owned()),
    ];
    files
        .into_iter()
        .map(|(name, text)| (name, text.into_bytes()))
        .collect()
}

#[tokio::test]
async fn the_matrix_is_that_of_opa() {
    let Some(opa) = peers::opa() else { return };
    let keys = ["RS256", "HS256", "ES256"].map(Key::new);
    let [rs256, hs256_key, _] = &keys;
    let mut configured = keys_of(&keys);
    configured["scoped"] = rs256.configured();
    configured["scoped"]["scope"] = "write".into();
    let plain = |name: &str| files(name, "1");
    let claiming = |claims: Value| {
        let (opa, rs256) = (opa.clone(), rs256.clone());
        move |name: &str| sign(&opa, &files(name, "1"), &rs256, &claims)
    };

    let mut cases = Cases::default();
    let by_claim = json!({"keyid": "rs256"});
    cases.add("unsigned", Value::Null, true, plain);
    cases.add("unsigned_signing", json!({}), false, plain);
    cases.add("unsigned_keyid", json!({"keyid": "rs256"}), false, plain);
    cases.add("claimed_key", Value::Null, true, claiming(by_claim.clone()));
    cases.add(
        "claimed_key_signing",
        json!({}),
        true,
        claiming(by_claim.clone()),
    );
    cases.add("no_key", Value::Null, false, claiming(json!({})));
    cases.add(
        "unknown_key",
        Value::Null,
        false,
        claiming(json!({"keyid": "x"})),
    );
    cases.add(
        "other_key",
        json!({"keyid": "es256"}),
        false,
        claiming(by_claim.clone()),
    );
    cases.add(
        "configured_first",
        json!({"keyid": "rs256"}),
        true,
        claiming(json!({"keyid": "x"})),
    );
    let scoped = json!({"keyid": "rs256", "scope": "write"});
    cases.add(
        "scope",
        json!({"scope": "write"}),
        true,
        claiming(scoped.clone()),
    );
    cases.add("scope_unwanted", json!({}), false, claiming(scoped.clone()));
    cases.add(
        "scope_other",
        json!({"scope": "read"}),
        false,
        claiming(scoped),
    );
    cases.add(
        "scope_missing",
        json!({"scope": "write"}),
        false,
        claiming(by_claim.clone()),
    );
    let of_key = json!({"keyid": "scoped", "scope": "write"});
    cases.add("scope_of_key", json!({}), true, claiming(of_key.clone()));
    cases.add(
        "scope_over_key",
        json!({"scope": "read"}),
        false,
        claiming(of_key),
    );
    cases.add(
        "scope_of_key_missing",
        json!({}),
        false,
        claiming(json!({"keyid": "scoped"})),
    );
    for (name, pattern, good) in [
        ("excluded", "*.md", true),
        ("excluded_name", "README.md", true),
        ("excluded_slash", "/README.md", false),
        ("excluded_other", "*/README.md", false),
        ("excluded_malformed", "[", false),
    ] {
        let signing = json!({"keyid": "rs256", "exclude_files": [pattern]});
        cases.add(name, signing, good, |name| {
            let mut signed = claiming(json!({}))(name);
            signed.insert("README.md".to_owned(), b"changed".to_vec());
            signed
        });
    }
    for (name, signatures, good) in [
        ("says_nothing", json!({}), true),
        ("says_null", json!({"signatures": null}), true),
        ("no_token", json!({"signatures": []}), false),
        (
            "plugin",
            json!({"signatures": ["e30.e30.x"], "plugin": "lenient"}),
            false,
        ),
        ("plugin_alone", json!({"plugin": "lenient"}), false),
        ("one_part", json!({"signatures": ["x"]}), false),
    ] {
        cases.add(name, Value::Null, good, |name| {
            with_signatures(&plain(name), &signatures)
        });
    }
    cases.add("says_nothing_signing", json!({}), false, |name| {
        with_signatures(&plain(name), &json!({}))
    });
    cases.add("in_a_directory", json!({}), true, |name| {
        let mut signed = claiming(by_claim.clone())(name);
        let signatures = signed.remove(".signatures.json").unwrap();
        signed.insert(format!("{name}/.signatures.json"), signatures);
        signed
    });
    cases.add("lookalike", json!({}), false, |name| {
        let mut signed = claiming(by_claim.clone())(name);
        let signatures = signed.remove(".signatures.json").unwrap();
        signed.insert("x.signatures.json".to_owned(), signatures);
        signed
    });
    // From `printf 'package hashes' | openssl dgst`.
    for (index, (algorithm, hash)) in HASHES.iter().enumerate() {
        let name = format!("hashes{index}");
        let good = *algorithm != "MD6";
        cases.add(&name, json!({}), good, |name| {
            let manifest = format!("{{\"roots\":[\"{name}\"]}}");
            let listed = json!({"keyid": "hs256", "files": [
                {"name": "p.txt", "hash": hash, "algorithm": algorithm},
            ]});
            let payload = URL_SAFE_NO_PAD.encode(listed.to_string());
            let [header, payload, signature] = hs256(&json!({}), &payload, SECRET);
            let files = Files::from([
                ("p.txt".to_owned(), b"package hashes".to_vec()),
                (".manifest".to_owned(), manifest.into_bytes()),
            ]);
            with_token(&files, &[&header, &payload, &signature])
        });
        // The manifest names a root of its own for each, so it isn't in the list.
        cases.0.last_mut().unwrap().signing = json!({"exclude_files": [".manifest"]});
    }
    cases.add("shared_secret", json!({"keyid": "hs256"}), true, |name| {
        sign(&opa, &files(name, "1"), hs256_key, &json!({}))
    });
    judge(&opa, &configured, cases).await;

    let mut cases = Cases::default();
    cases.add("unsigned", Value::Null, true, plain);
    cases.add("signed", Value::Null, false, claiming(by_claim));
    judge(&opa, &Value::Null, cases).await;
}

const HASHES: [(&str, &str); 9] = [
    ("MD5", "9e0ba0b9562e66f5670dba911e3ba102"),
    ("SHA-1", "7441cde202cd22f59d89b33d5e13d1a0c6615fab"),
    (
        "SHA-224",
        "ca25ab82823c803b402aa9513b3dc12fa65ceeabc3902961f9d31df7",
    ),
    (
        "SHA-256",
        "84c4053ad407129a00e15a753daebb5136ea675420f3551b0c13e272ff89756b",
    ),
    (
        "SHA-384",
        "5ec70e1feb8e9d7bfbebad17cb588b5ddfb772882b353dee53a08d27b822c56f8fd92e765f3ba6249b240fa9abf5f2d5",
    ),
    (
        "SHA-512",
        "48d02f7923910ae229d161e248d24e40924ce7e2d01ccbbce42fa09a5e095425f19db7cfe2c81399a780a5db8a40e529416cbbe94447d615d2d76f68f4fd3179",
    ),
    (
        "SHA-512-224",
        "c0aaa28f4c2652949b54276be64ae2221802fefd551cd49e4970499b",
    ),
    (
        "SHA-512-256",
        "cb0c311b7077d96dd231b6b349638c0e39522cf7d14e04068733e9784f836998",
    ),
    ("MD6", "00"),
];

/// The signed bundle `name`, tampered with in each way.
fn tampered(opa: &Opa, rs256: &Key, root: &dyn Fn(&str) -> String) -> Vec<(String, Files)> {
    let signed = |case: &str| {
        let name = root(case);
        (sign(opa, &files(&name, "2"), rs256, &json!({})), name)
    };
    let mut all = Vec::new();
    for file in files("x", "2").into_keys() {
        let case = file.replace(['/', '.'], "_").to_lowercase();
        let named = |signed: &Files, name: &str| {
            let file = file.replacen("x/", &format!("{name}/"), 1);
            assert!(signed.contains_key(&file), "{file}");
            file
        };
        let (mut flipped, name) = signed(&format!("flipped_{case}"));
        let path = named(&flipped, &name);
        let content = flipped.get_mut(&path).unwrap();
        let last = content.iter().rposition(u8::is_ascii_alphanumeric).unwrap();
        content[last] ^= 1;
        all.push((name, flipped));

        let (mut removed, name) = signed(&format!("removed_{case}"));
        removed.remove(&named(&removed, &name));
        all.push((name, removed));

        let (mut renamed, name) = signed(&format!("renamed_{case}"));
        let content = renamed.remove(&named(&renamed, &name)).unwrap();
        renamed.insert(format!("{name}/renamed_{case}.rego"), content);
        all.push((name, renamed));
    }
    for added in ["evil.rego", "evil.txt", "x/data.json"] {
        let case = format!("added_{}", added.replace(['/', '.'], "_"));
        let (mut changed, name) = signed(&case);
        let path = added.replacen("x/", &format!("{name}/more/"), 1);
        let content = match added {
            "evil.rego" => format!("package {name}\n\nevil := true"),
            _ => "{}".to_owned(),
        };
        changed.insert(path, content.into_bytes());
        all.push((name, changed));
    }
    let name = root("by_another_key");
    let other = Key::new("RS256");
    all.push((
        name.clone(),
        sign(opa, &files(&name, "2"), &other, &json!({})),
    ));

    let (good, name) = signed("signature_emptied");
    let [header, payload, signature] = token_of(&good).try_into().unwrap();
    all.push((name, with_token(&good, &[&header, &payload, ""])));
    for alg in ["none", "HS256", "ES256", "PS256"] {
        let swapped = URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string());
        let case = format!("header_{}", alg.to_lowercase());
        let (good, name) = signed(&case);
        let [_, payload, signature] = token_of(&good).try_into().unwrap();
        all.push((name, with_token(&good, &[&swapped, &payload, &signature])));
        let (good, name) = signed(&format!("{case}_unsigned"));
        let payload = token_of(&good).swap_remove(1);
        all.push((name, with_token(&good, &[&swapped, &payload, ""])));
    }
    // The public key as a shared secret.
    let (good, name) = signed("confused");
    let payload = token_of(&good).swap_remove(1);
    let forged = hs256(&json!({"alg": "HS256"}), &payload, &rs256.public);
    all.push((
        name,
        with_token(&good, &forged.each_ref().map(String::as_str)),
    ));
    let (good, name) = signed("two_tokens");
    let token = [header, payload, signature].join(".");
    let twice = json!({"signatures": [token, token]});
    all.push((name, with_signatures(&good, &twice)));
    let (mut stripped, name) = signed("stripped");
    stripped.remove(".signatures.json");
    all.push((name, stripped));
    all
}

#[tokio::test]
async fn what_was_tampered_with_is_refused_by_both() {
    let Some(opa) = peers::opa() else { return };
    let rs256 = Key::new("RS256");
    let mut cases = Cases::default();
    for (name, bundle) in tampered(&opa, &rs256, &|case| case.to_owned()) {
        cases.add(&name, json!({"keyid": "rs256"}), false, |_| bundle);
    }
    judge(&opa, &keys_of(&[rs256]), cases).await;
}

/// A manager with one bundle from memory and these keys.
fn manager(source: &Memory, keys: &[(&str, &Key)], required: bool) -> Manager {
    let keys: serde_json::Map<_, _> = keys
        .iter()
        .map(|(id, key)| ((*id).to_owned(), key.configured()))
        .collect();
    Manager::builder()
        .config_yaml(&json!({ "keys": keys }).to_string())
        .source("b", source.clone())
        .require_signed(required)
        .engine(Scripted::data())
        .build()
        .unwrap()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(LONG, wait).await.is_ok(),
        "never: {what}"
    );
}

fn revision(app: &App) -> Option<String> {
    app.status().bundles[0]
        .active_revision
        .as_deref()
        .map(str::to_owned)
}

fn message(app: &App) -> String {
    app.status().bundles[0]
        .message
        .as_deref()
        .unwrap_or_default()
        .to_owned()
}

#[tokio::test]
async fn keys_rotate_and_what_was_tampered_with_leaves_the_last_good_bundle() {
    let Some(opa) = peers::opa() else { return };
    let (old, new) = (Key::new("RS256"), Key::new("ES256"));
    let signed = |key: &Key, id: &str, version: &str| {
        sign(&opa, &files("x", version), key, &json!({"keyid": id}))
    };
    let source = Memory::new(pack(&signed(&old, "old", "1")));
    let manager = manager(&source, &[("old", &old), ("new", &new)], false);
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    source.replace(pack(&signed(&new, "new", "2")));
    until("the next key", || revision(&app).as_deref() == Some("2")).await;

    let mut changed = signed(&new, "new", "3");
    changed.insert(
        "policy.rego".to_owned(),
        b"package x\n\nevil := true".to_vec(),
    );
    source.replace(pack(&changed));
    until("refused", || {
        message(&app).starts_with("policy.rego: digest mismatch")
    })
    .await;
    assert_eq!(revision(&app).as_deref(), Some("2"));
    assert_eq!(app.state(), State::Ready);
    source.replace(pack(&signed(&old, "new", "3")));
    until("refused", || {
        message(&app).starts_with("failed to verify JWT signature")
    })
    .await;
    assert_eq!(revision(&app).as_deref(), Some("2"));
    source.replace(pack(&signed(&new, "new", "4")));
    until("recovered", || revision(&app).as_deref() == Some("4")).await;
    assert_eq!(message(&app), "");
}

#[tokio::test]
async fn programs_can_require_signatures() {
    let Some(opa) = peers::opa() else { return };
    let key = Key::new("HS512");
    let unsigned = pack(&files("x", "1"));
    for keys in [&[][..], &[("k", &key)]] {
        let source = Memory::new(unsigned.clone());
        assert!(
            until_judged(&manager(&source, keys, false).app("a").unwrap())
                .await
                .is_ok()
        );
        let strict = manager(&source, keys, true);
        let app = strict.app("a").unwrap();
        assert_eq!(
            until_judged(&app).await.unwrap_err(),
            "bundle missing .signatures.json file"
        );
        source.replace(pack(&sign(
            &opa,
            &files("x", "2"),
            &key,
            &json!({"keyid": "k"}),
        )));
        if keys.is_empty() {
            until("no key", || {
                message(&app) == "verification key not provided"
            })
            .await;
            assert_eq!(revision(&app), None);
        } else {
            app.ready(LONG).await.unwrap();
            assert_eq!(revision(&app).as_deref(), Some("2"));
        }
    }
}

#[tokio::test]
async fn signed_directories_are_read_whole() {
    let Some(opa) = peers::opa() else { return };
    let key = Key::new("HS256");
    let folder = tempfile::tempdir().unwrap();
    lay_out(
        folder.path(),
        &sign(&opa, &files("x", "1"), &key, &json!({"keyid": "k"})),
    );
    let keys = json!({"keys": {"k": key.configured()}}).to_string();
    let of_folder = || {
        let builder = Manager::builder()
            .config_yaml(&keys)
            .engine(Scripted::data());
        let source = File::new(folder.path());
        builder
            .source("b", source)
            .require_signed(true)
            .build()
            .unwrap()
    };
    assert_eq!(until_judged(&of_folder().app("a").unwrap()).await, Ok(()));
    fs::write(folder.path().join("README.md"), "changed").unwrap();
    let told = until_judged(&of_folder().app("a").unwrap())
        .await
        .unwrap_err();
    assert!(told.starts_with("README.md: digest mismatch"), "{told}");
}

#[test]
fn no_byte_of_a_signed_bundle_can_be_changed() {
    let Some(opa) = peers::opa() else { return };
    let key = Key::new("ES384");
    let config = json!({"keys": {"k": key.configured()}}).to_string();
    let template = Template::parse("opa.yaml", &config).unwrap();
    let keys = template
        .config("orders", &EnvPolicy::default())
        .unwrap()
        .keys;
    let verification = Verification::new(keys, None).require(true);
    let good = sign(&opa, &files("x", "1"), &key, &json!({"keyid": "k"}));
    let read =
        |files: &Files| bundle::read_verified(&pack(files), &Limits::default(), &verification);
    read(&good).unwrap();
    let token = token_of(&good).join(".");
    for name in files("x", "1").into_keys() {
        for position in 0..good[&name].len() {
            let mut changed = good.clone();
            changed.get_mut(&name).unwrap()[position] ^= 1;
            let told = read(&changed);
            assert!(told.is_err(), "{name} at {position}: {told:?}");
        }
    }
    for position in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[position] ^= 1;
        let changed = String::from_utf8(changed).unwrap();
        let told = read(&with_signatures(&good, &json!({"signatures": [changed]})));
        assert!(told.is_err(), "token at {position}: {told:?}");
    }
}

/// With `refuse_older`, which OPA passes over without a word, a signed bundle never goes back in
/// time, neither against one that is active nor against one from disk.
#[tokio::test]
async fn an_older_bundle_is_refused_where_that_is_asked_for() {
    let Some(opa) = peers::opa() else { return };
    let key = Key::new("ES256");
    let made = |version: &str, claims: Value| {
        let mut all = json!({"keyid": "k"});
        all.as_object_mut()
            .unwrap()
            .extend(claims.as_object().unwrap().clone());
        pack(&sign(&opa, &files("x", version), &key, &all))
    };
    let at = |version: &str, time: i64| made(version, json!({"iat": time}));
    let server = BundleServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let mut configuration = json!({
        "services": {"control": {"url": server.url()}},
        "keys": {"k": key.configured()},
        "persistence_directory": folder.path(),
        "bundles": {"b": {
            "resource": "b",
            "persist": true,
            "polling": {"min_delay_seconds": 1, "max_delay_seconds": 1},
            "signing": {"keyid": "k", "refuse_older": true},
        }},
    });
    let start = |configuration: &Value| {
        let manager = Manager::builder().config_yaml(&configuration.to_string());
        let manager = manager.engine(Scripted::data()).build().unwrap();
        (manager.app("orders").unwrap(), manager)
    };
    server.answer("/b", Answer::Bundle(at("1", 1_000)));
    let (app, manager) = start(&configuration);
    app.ready(LONG).await.unwrap();
    server.answer("/b", Answer::Bundle(at("2", 1_000)));
    until("equally old", || revision(&app).as_deref() == Some("2")).await;
    server.answer("/b", Answer::Bundle(at("3", 999)));
    let older = "`refuse_older`: bundle was signed at 999, before the active one (1000";
    until("an older one", || message(&app).starts_with(older)).await;
    server.answer("/b", Answer::Bundle(made("4", json!({}))));
    let timeless = "`refuse_older`: bundle signature does not tell when it was made";
    until("a timeless one", || message(&app).starts_with(timeless)).await;
    assert_eq!(revision(&app).as_deref(), Some("2"));
    drop(app);
    manager.shutdown(LONG).await;

    server.answer("/b", Answer::Bundle(at("5", 999)));
    let (app, _manager) = start(&configuration);
    app.ready(LONG).await.unwrap();
    until("older than the one from disk", || {
        message(&app).starts_with(older)
    })
    .await;
    assert_eq!(revision(&app).as_deref(), Some("2"));
    server.answer("/b", Answer::Bundle(at("6", 1_001)));
    until("a newer one", || revision(&app).as_deref() == Some("6")).await;

    // The same file works in OPA, which has no word for it.
    configuration["persistence_directory"] = json!(folder.path().join("opa"));
    let mut running = opa.serve(&configuration.to_string()).await;
    let warned = running.process().stderr().contains("refuse_older");
    assert!(!warned, "OPA warns of it");
}

/// Other texts of a signed document, and whether they are taken: by both, by none, or by OPA alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Taken {
    Both,
    Neither,
    /// We are stricter.
    OpaAlone,
}

const SIGNED_JSON: &str =
    r#"{"n":[1e1,10,1.0,-0,100000000000000000000],"s":"é/<\u2028","d":{"a":2},"x":"\ufffd"}"#;

fn other_texts() -> Vec<(&'static str, Vec<u8>, Taken)> {
    use Taken::{Both, Neither, OpaAlone};
    let with = |from: &str, to: &str| {
        assert!(SIGNED_JSON.contains(from), "{from}");
        SIGNED_JSON.replacen(from, to, 1).into_bytes()
    };
    let after = |end: &[u8]| [SIGNED_JSON.as_bytes(), end].concat();
    let raw = {
        let (start, end) = SIGNED_JSON.split_once(r"\ufffd").unwrap();
        [start.as_bytes(), b"\xff", end.as_bytes()].concat()
    };
    let deep = format!("{}{}", "[".repeat(10_001), "]".repeat(10_001));
    vec![
        ("spaced", with(",", "\r\n\t , "), Both),
        ("escaped", with("é/<", r"\u00E9\/\u003c"), Both),
        ("unescaped", with(r"\u2028", "\u{2028}"), Both),
        ("twice", with(r#""a":2"#, r#""a":1,"a":2"#), Both),
        (
            "twice_escaped",
            with(r#""a":2"#, r#""a":1,"\u0061":2"#),
            Both,
        ),
        ("twice_first", with(r#""a":2"#, r#""a":2,"a":1"#), Neither),
        ("twice_deep", with(r#""d":{"#, r#""d":{"b":1},"d":{"#), Both),
        ("surrogate", with(r"\ufffd", r"\ud800"), Both),
        ("surrogates", with(r"\ufffd", r"\ud800\ud800"), Neither),
        ("bytes", raw, OpaAlone),
        ("float", with("1e1", "10.0"), Neither),
        ("integer", with("1e1", "10"), Neither),
        ("capital", with("1e1", "1E1"), Neither),
        ("exponent", with("1e1", "1e01"), Neither),
        ("zero", with("-0", "0"), Neither),
        ("large", with("100000000000000000000", "1e20"), Neither),
        (
            "marked",
            [b"\xef\xbb\xbf", SIGNED_JSON.as_bytes()].concat(),
            Both,
        ),
        ("word_behind", after(b" x"), Neither),
        ("bracket_behind", after(b"]"), Neither),
        ("object_behind", after(b" {}"), Neither),
        ("nul_behind", after(b"\0"), Neither),
        ("comment_behind", after(b" # x"), Neither),
        ("document_behind", after(b"\n---\nd: 1\n"), Neither),
        ("comma", with("]", ",]"), Neither),
        ("yaml", with(r#""d":"#, "d: "), Neither),
        (
            "deep",
            with(r#"{"n""#, &format!(r#"{{"n":{deep},"n""#)),
            Neither,
        ),
        ("nothing", Vec::new(), Neither),
    ]
}

const SIGNED_YAML: &str = "a: [1, x]\nb: 1.5\n";

fn other_yaml() -> Vec<(&'static str, Vec<u8>, Taken)> {
    use Taken::{Both, Neither, OpaAlone};
    let texts = [
        ("y_comment", "a: [1, x] # x\nb: 1.5\n", Both),
        ("y_json", "{\"b\":1.5,\"a\":[1,\"x\"]}", Both),
        ("y_json_tab", "{\t\"b\":1.5,\n\t\"a\":[1,\"x\"]}", Both),
        ("y_float", "a: [1, x]\nb: 1.50\n", Both),
        ("y_json_float", "{\"b\":1.50,\"a\":[1,\"x\"]}", Neither),
        ("y_hex", "a: [0x1, x]\nb: 1.5\n", Both),
        ("y_one", "a: [1.0, x]\nb: 1.5\n", Both),
        ("y_twice", "a: 2\na: [1, x]\nb: 1.5\n", Both),
        ("y_anchor", "a: &a [1, x]\nb: 1.5\n", Both),
        ("y_marked", "\u{feff}a: [1, x]\nb: 1.5\n", Both),
        ("y_document", "---\na: [1, x]\nb: 1.5\n", Both),
        ("y_documents", "a: [1, x]\nb: 1.5\n---\nc: 1\n", OpaAlone),
        ("y_ended", "a: [1, x]\nb: 1.5\n...\n", Both),
        ("y_json_twice", "{\"b\":1,\"b\":1.5,\"a\":[1,\"x\"]}", Both),
        ("y_json_behind", "{\"b\":1.5,\"a\":[1,\"x\"]} {}", Neither),
        ("y_tagged", "a: [1, !!str x]\nb: 1.5\n", Both),
        ("y_merge", "<<: {b: 1.5}\na: [1, x]\n", Both),
    ];
    let texts = texts.into_iter();
    texts
        .map(|(case, text, taken)| (case, text.as_bytes().to_vec(), taken))
        .collect()
}

/// Data files are digested by their value, so other texts of one value carry the same signature.
#[tokio::test]
async fn other_texts_of_a_signed_value_are_judged_as_by_opa() {
    let Some(opa) = peers::opa() else { return };
    let key = Key::new("HS256");
    let signing = json!({"keyid": "hs256"});
    let mut cases = Vec::new();
    for (file, text, others) in [
        ("data.json", SIGNED_JSON, other_texts()),
        ("data.yaml", SIGNED_YAML, other_yaml()),
    ] {
        for (case, other, taken) in others {
            let path = format!("{case}/{file}");
            let manifest = json!({"roots": [case]}).to_string().into_bytes();
            let files = Files::from([
                (".manifest".to_owned(), manifest),
                (path.clone(), text.as_bytes().to_vec()),
            ]);
            let mut bundle = sign(&opa, &files, &key, &json!({}));
            bundle.insert(path, other);
            let (name, signing) = (case.to_owned(), signing.clone());
            let good = taken == Taken::Both;
            cases.push((
                Case {
                    name,
                    signing,
                    bundle,
                    good,
                },
                taken,
            ));
        }
    }
    // Of a manifest's members with one name, too, the last one counts for both: no other can hide.
    for (case, first, taken) in [
        ("m_hidden", json!([""]), Taken::Both),
        ("m_elsewhere", json!(["nowhere"]), Taken::Both),
    ] {
        let manifest = json!({"roots": [case]}).to_string();
        let files = Files::from([
            (".manifest".to_owned(), manifest.clone().into_bytes()),
            (format!("{case}/data.json"), SIGNED_JSON.as_bytes().to_vec()),
        ]);
        let mut bundle = sign(&opa, &files, &key, &json!({}));
        let twice = manifest.replacen('{', &format!(r#"{{"roots":{first},"#), 1);
        bundle.insert(".manifest".to_owned(), twice.into_bytes());
        let (name, signing) = (case.to_owned(), signing.clone());
        cases.push((
            Case {
                name,
                signing,
                bundle,
                good: true,
            },
            taken,
        ));
    }
    let server = BundleServer::start().await;
    for (case, _) in &cases {
        let bundle = Answer::Bundle(pack(&case.bundle));
        server.answer(&format!("/{}", case.name), bundle);
    }
    let keys = keys_of(&[key]);
    let all: Vec<_> = cases.iter().map(|(case, _)| case).collect();
    let mut configuration = config(&server, &keys, &all);
    configuration["status"] = json!({"console": true});
    let running = opa.serve_until(&configuration.to_string(), "/health").await;
    let mut complaints = Vec::new();
    for (case, expected) in &cases {
        let theirs = judged_by_opa(running.address(), &case.name).await;
        let ours = judged_here(&config(&server, &keys, &[case])).await;
        let found = match (&theirs, &ours) {
            (Ok(()), Ok(())) => Some(Taken::Both),
            (Err(_), Err(_)) => Some(Taken::Neither),
            (Ok(()), Err(_)) => Some(Taken::OpaAlone),
            (Err(_), Ok(())) => None,
        };
        if found != Some(*expected) {
            let name = &case.name;
            complaints.push(format!("{name}: {found:?}: OPA {theirs:?}, here {ours:?}"));
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}
