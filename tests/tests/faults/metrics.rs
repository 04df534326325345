//! What metrics tell of faults: the app, the bundle, OPA's code and the class of what failed.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use opa_core::Manager;
use opa_core::bundle::BundleWriter;
use serde_json::{Value, json};
use tests::bundle_server::{Answer, BundleServer};
use tests::scripted::Scripted;
use tests::signing::{SECRET, pack};

use super::world::{build, builder, bundle, status, until, until_version};

/// The apps, what each is answered, and the class that its metrics tell.
fn faults() -> Vec<(&'static str, Answer, &'static str)> {
    let whole = bundle("cut");
    let cut = whole[..whole.len() / 2].to_vec();
    let broken = BundleWriter::new().module("a.rego", "package a # broken");
    let broken = broken.unwrap().to_vec().unwrap();
    vec![
        ("a401", Answer::Status(401, ""), "unauthorized"),
        ("a403", Answer::Status(403, ""), "forbidden"),
        ("a404", Answer::Status(404, ""), "not_found"),
        ("a429", Answer::Status(429, ""), "too_many_requests"),
        ("a500", Answer::Status(500, ""), "http_5xx"),
        ("reset", Answer::Reset(Vec::new()), "network"),
        ("hangs", Answer::Hang, "timeout"),
        ("truncated", Answer::With(String::new(), cut), "archive"),
        ("uncompiled", Answer::Bundle(broken), "compile"),
    ]
}

/// A bundle that is signed with an HMAC.
fn signed(version: &str, secret: &str) -> Vec<u8> {
    let mut files = BTreeMap::from([
        (
            ".manifest".to_owned(),
            format!(r#"{{"revision":"{version}","roots":[""]}}"#).into_bytes(),
        ),
        (
            "data.json".to_owned(),
            format!(r#"{{"version":"{version}"}}"#).into_bytes(),
        ),
    ]);
    let hash = |bytes: &[u8]| -> String {
        let digest = digest::digest(&digest::SHA256, bytes);
        digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    let listed: Vec<Value> = files
        .iter()
        .map(|(name, bytes)| json!({"name": name, "hash": hash(bytes), "algorithm": "SHA-256"}))
        .collect();
    let part = |json: Value| BASE64.encode(json.to_string());
    let signed = [
        part(json!({"alg": "HS256", "typ": "JWT"})),
        part(json!({"files": listed})),
    ]
    .join(".");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = BASE64.encode(hmac::sign(&key, signed.as_bytes()));
    let signatures = json!({"signatures": [format!("{signed}.{signature}")]});
    files.insert(
        ".signatures.json".to_owned(),
        signatures.to_string().into_bytes(),
    );
    pack(&files)
}

async fn signing_manager(server: &BundleServer) -> Manager {
    let config = format!(
        "services: {{control: {{url: '{}'}}}}\nkeys: {{k: {{algorithm: HS256, key: '{SECRET}'}}}}\n\
         bundles: {{b: {{service: control, resource: signed, signing: {{keyid: k}}, \
           polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}}}",
        server.url()
    );
    build(
        Manager::builder()
            .config_yaml(&config)
            .engine(Scripted::data()),
    )
    .await
}

/// The app is refused for this, and serves what it had; then it has the next one.
async fn goes_wrong_and_recovers(
    manager: &Manager,
    server: &BundleServer,
    app: &str,
    (wrong, class): (Answer, &str),
    right: Answer,
) {
    let metrics = opa_plugins::metrics(manager);
    let path = format!("/{app}");
    let lease = manager.app(app).unwrap();
    until_version(&lease, "1").await;
    let failed =
        format!(r#"bundle_failed_load_counter{{app="{app}",name="b",code="bundle_error",message="#);
    let ready = format!(r#"opa_instance_state{{app="{app}",state="ready"}} 1"#);
    assert!(!metrics.text().contains(&failed), "{app}");

    server.answer(&path, wrong);
    let of_class = format!("\n{failed}\"{class}\"}} ");
    until(&format!("{of_class} in {}", metrics.text()), || {
        metrics.text().contains(&of_class)
    })
    .await;
    let text = metrics.text();
    assert_eq!(
        text.matches(&failed).count(),
        1,
        "{app}: another class in {text}"
    );
    assert!(
        text.contains(&ready),
        "{app}: it serves its last good one: {text}"
    );
    let told = status(&lease);
    assert_eq!(told.code, Some("bundle_error"));
    assert_eq!(told.class.map(|class| class.as_str()), Some(class));

    server.answer(&path, right);
    until_version(&lease, "2").await;
    let text = metrics.text();
    let activation = r#"last_success_bundle_activation{app=""#;
    let active = format!(r#"{activation}{app}",name="b",active_revision="2"}} "#);
    assert!(text.contains(&active), "{app}: {text}");
    let loaded = format!("\nbundle_loaded_counter{{app=\"{app}\",name=\"b\"}} 2\n");
    assert!(text.contains(&loaded), "{app}: {text}");
    assert!(
        text.contains(&of_class),
        "{app}: what was counted stays: {text}"
    );
    assert_eq!(status(&lease).class, None);
}

#[tokio::test]
async fn metrics_name_app_bundle_code_and_class_of_each_fault() {
    let server = BundleServer::start().await;
    let faults = faults();
    let apps = faults.iter().map(|(app, ..)| *app);
    let manager = build(builder(apps.map(|app| (app, server.url())))).await;
    let signing = signing_manager(&server).await;
    for (app, ..) in &faults {
        server.answer(&format!("/{app}"), Answer::Bundle(bundle("1")));
    }
    server.answer("/signed", Answer::Bundle(signed("1", SECRET)));

    let all = faults.into_iter().map(|(app, wrong, class)| {
        let right = Answer::Bundle(bundle("2"));
        goes_wrong_and_recovers(&manager, &server, app, (wrong, class), right)
    });
    let forged = Answer::Bundle(signed(
        "2",
        "a key that is somebody else's, and long enough",
    ));
    let right = Answer::Bundle(signed("2", SECRET));
    let signed = goes_wrong_and_recovers(&signing, &server, "signed", (forged, "signature"), right);
    for fault in all {
        fault.await;
    }
    signed.await;
}
