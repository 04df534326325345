//! The status of bundles, as the real `opa` posts it and as ours encodes it, for the same server.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use opa_core::Manager;
use opa_core::bundle::BundleWriter;
use opa_core::config::ConfigError;
use opa_core::plugin::{Attached, InstanceStatus, Plugin, Scope};
use opa_plugins::status::{DecisionLogsStatus, StatusReport};
use serde_json::{Value as Json, json};
use tests::bundle_server::{Answer, BundleServer};
use tests::log_sink::{LogSink, Post};
use tests::peers;
use tests::scripted::Scripted;
use tests::statuses::{differences, shape};
use tokio::sync::mpsc;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

fn bundle(module: &str) -> Vec<u8> {
    BundleWriter::new()
        .revision("r1")
        .roots(["a"])
        .unwrap()
        .module("a/a.rego", module)
        .unwrap()
        .to_vec()
        .unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// Hands the status on.
struct Statuses(mpsc::UnboundedSender<Arc<InstanceStatus>>);

impl Plugin for Statuses {
    fn name(&self) -> &str {
        "statuses"
    }

    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        let send = self.0.clone();
        Ok(Attached::default().status(move |status| {
            // The test may have what it waits for.
            let _ = send.send(status);
        }))
    }
}

fn config(server: &BundleServer, more: &str) -> String {
    format!(
        "services: {{control: {{url: '{}'}}}}\nkeys: {{k: {{key: secret, algorithm: HS256}}}}\n\
         bundles: {{b: {{service: control, resource: b, \
           polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}{more}}}}}\n",
        server.url()
    )
}

/// Whether the bundle was asked for, and something became of it.
fn has_ended(status: &Json) -> bool {
    let Some(bundle) = status.pointer("/bundles/b") else {
        return false;
    };
    let activated = bundle.get("active_revision").is_some();
    // The state of the plugin follows in an update of its own.
    let state = status.pointer("/plugins/bundle/state");
    let ready = state.and_then(Json::as_str) == Some("OK");
    activated && ready || bundle.get("code").is_some()
}

async fn ours(config: &str) -> Json {
    let (send, mut statuses) = mpsc::unbounded_channel();
    let manager = Manager::builder()
        .config_yaml(config)
        .engine(Scripted::data())
        .plugin(Statuses(send))
        .build()
        .unwrap();
    let _app = manager.app("shop").unwrap();
    let waiting = async {
        loop {
            let status = statuses.recv().await.unwrap();
            let report = StatusReport::new(&status);
            let mut text = Vec::new();
            report.write(&mut text);
            let json: Json = serde_json::from_slice(&text).unwrap();
            if has_ended(&json) {
                return json;
            }
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap()
}

/// For OPA a download succeeds when the bundle was read and verified, for ours when its bytes came.
const UNREAD: &[&str] = &[
    "/bundles/b/last_successful_download",
    "/bundles/b/last_successful_request",
    "/bundles/b/type",
];

#[tokio::test]
async fn bundles_are_told_of_as_by_opa() {
    let Some(opa) = peers::opa() else { return };
    let good = || Answer::Bundle(bundle("package a\nx := 1"));
    let cases = [
        ("healthy", good(), "", &[][..]),
        ("404", Answer::Status(404, ""), "", &[]),
        ("500", Answer::Status(500, ""), "", &[]),
        (
            "compile error",
            Answer::Bundle(bundle("package a\nx := broken")),
            "",
            // The scripted engine has one text and no places.
            &["/bundles/b/errors"],
        ),
        ("no gzip", Answer::Bundle(b"what?".to_vec()), "", UNREAD),
        ("no archive", Answer::Bundle(gzip(b"what?")), "", UNREAD),
        ("unsigned", good(), ", signing: {keyid: k}", UNREAD),
    ];
    let mut wrong = Vec::new();
    for (name, answer, more, known) in cases {
        let server = BundleServer::start().await;
        server.answer("/b", answer);
        let sink = LogSink::start().await.unwrap();
        let config = config(&server, more);
        let ours = ours(&config).await;
        let with_status = config.replace(
            "services: {",
            &format!("services: {{sink: {{url: '{}'}}, ", sink.url()),
        );
        let _opa = opa
            .serve_until(
                &format!("{with_status}status: {{service: sink}}"),
                "/health",
            )
            .await;
        let wanted = |post: &Post| {
            assert_eq!(post.path, "/status");
            let status: Json = serde_json::from_slice(&post.body).unwrap();
            has_ended(&status).then_some(status)
        };
        let theirs = sink.wait(wanted).await.unwrap();
        println!(
            "{name}: {} / {}",
            theirs["bundles"]["b"], ours["bundles"]["b"]
        );
        let found = differences(&shape(ours), &shape(theirs));
        let unknown = |it: &&String| !known.iter().any(|known| it.starts_with(known));
        wrong.extend(
            found
                .iter()
                .filter(unknown)
                .map(|it| format!("{name}: {it}")),
        );
        let differs = |it: &&&str| found.iter().any(|found| found.starts_with(**it));
        let gone = known.iter().filter(|it| !differs(it));
        wrong.extend(gone.map(|it| format!("{name}: {it} differs no more")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_failed_upload_is_told_of_as_by_opa() {
    let Some(opa) = peers::opa() else { return };
    let sink = LogSink::start().await.unwrap();
    let broken = BundleServer::start().await;
    broken.answer("/logs", Answer::Status(503, ""));
    let server = opa
        .serve(&format!(
            "services: {{sink: {{url: '{}'}}, broken: {{url: '{}'}}}}\nstatus: {{service: sink}}\n\
             decision_logs: {{service: broken, reporting: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}",
            sink.url(),
            broken.url()
        ))
        .await;
    server.decide("a", &json!(1)).await;
    let failed = |post: &Post| {
        let status: Json = serde_json::from_slice(&post.body).unwrap();
        let logs = status.get("decision_logs")?.clone();
        logs.get("code").is_some().then_some(logs)
    };
    let theirs = sink.wait(failed).await.unwrap();
    let mut status = DecisionLogsStatus::default();
    let text = "log upload failed, server replied with HTTP 503 Service Unavailable";
    status.message = Some(text.to_owned());
    status.http_code = Some(503);
    let instance = InstanceStatus::new(
        opa_core::AppId::new("shop").unwrap(),
        None,
        opa_core::plugin::State::Starting,
        None,
        vec![],
    );
    let mut report = StatusReport::new(&instance);
    report.decision_logs = Some(status);
    let mut ours = Vec::new();
    report.write(&mut ours);
    let ours: Json = serde_json::from_slice(&ours).unwrap();
    let mut theirs = theirs;
    if let Some(object) = theirs.as_object_mut() {
        println!("{object:?}");
        object.remove("metrics");
    }
    assert_eq!(ours["decision_logs"], theirs);
}
