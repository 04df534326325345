//! The status of bundles, as the real `opa` posts it and as ours encodes it, for the same server.

use std::collections::BTreeMap;
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
use tests::log_sink::{self, LogSink, Post};
use tests::peers;
use tests::scripted::Scripted;
use tests::statuses::{differences, shape};
use tokio::sync::mpsc;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

const SUCCESS: log_sink::Answer = log_sink::Answer::Status(200);

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
    // It is compiled when it is active, and the last timer follows.
    let activated = bundle.get("active_revision").is_some()
        && bundle
            .pointer("/metrics/timer_rego_module_compile_ns")
            .is_some();
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
    assert_eq!(ours["decision_logs"], theirs);
}

/// What a status tells of decision logs in `metrics`, once uploads have failed and succeeded: names,
/// and how families and their series are made.
async fn told_of_logs(sink: &LogSink) -> BTreeMap<String, Json> {
    let told = |post: &Post| {
        let status: Json = serde_json::from_slice(&post.body).unwrap();
        let all = status.pointer("/metrics/prometheus")?.as_object()?;
        let of_logs = all
            .iter()
            .filter(|(name, _)| name.contains("decision_logs_"));
        let of_logs: BTreeMap<_, _> = of_logs.map(|(name, it)| (name.clone(), it)).collect();
        let has = |name: &str| of_logs.contains_key(name);
        let is_complete = has("decision_logs_chunks_uploaded_total")
            && has("decision_logs_chunks_upload_failed_total");
        let shaped = of_logs
            .into_iter()
            .map(|(name, it)| (name, unvalued(it.clone())));
        is_complete.then(|| shaped.collect())
    };
    sink.wait(told).await.unwrap()
}

/// With zeros for numbers, and one text for those of labels.
fn unvalued(value: Json) -> Json {
    match value {
        Json::Number(_) => json!(0),
        Json::Array(items) => items.into_iter().map(unvalued).collect(),
        Json::Object(members) => {
            let members = members.into_iter().map(|(name, value)| match &*name {
                "value" if value.is_string() => (name, json!("some")),
                _ => (name, unvalued(value)),
            });
            Json::Object(members.collect())
        }
        other => other,
    }
}

#[tokio::test]
async fn chunks_and_buffers_are_told_of_as_by_opa() {
    let Some(opa) = peers::opa() else { return };
    for buffer in ["size", "event"] {
        let (sink, logs) = (
            LogSink::start().await.unwrap(),
            LogSink::start().await.unwrap(),
        );
        let config = format!(
            "services: {{sink: {{url: '{}'}}, logs: {{url: '{}'}}}}\n\
             status: {{service: sink, prometheus: true}}\n\
             decision_logs: {{service: logs, reporting: {{buffer_type: {buffer}, \
               min_delay_seconds: 1, max_delay_seconds: 1}}}}\n",
            sink.url(),
            logs.url()
        );
        let fails_first = || logs.script([log_sink::Answer::Status(503)], SUCCESS);
        fails_first();
        let server = opa.serve(&config).await;
        server.decide("a", &json!(1)).await;
        let mut theirs = told_of_logs(&sink).await;
        drop(server);

        sink.take();
        fails_first();
        let plugin = opa_plugins::decision_logs();
        let status = opa_plugins::status().with_decision_logs(plugin.upload_status());
        plugin.on_upload(status.upload_listener());
        let manager = Manager::builder()
            .config_yaml(&format!(
                "{config}bundles: {{}}\n",
                config =
                    config.replace("prometheus: true", "prometheus: true, heartbeat_seconds: 1")
            ))
            .in_memory([], opa_core::Value::empty_object())
            .unwrap()
            .engine(Scripted::data())
            .plugin(plugin)
            .plugin(status)
            .build()
            .unwrap();
        let app = manager.app("shop").unwrap();
        app.ready(LONG).await.unwrap();
        app.decide("a", opa_core::Value::from(1_u64)).await;
        let mut ours = told_of_logs(&sink).await;
        manager.shutdown(LONG).await;
        // A counter's creation time is of Go's client.
        for told in [&mut ours, &mut theirs] {
            for family in told.values_mut() {
                let series = family.get_mut("metric").and_then(Json::as_array_mut);
                let counters = series.into_iter().flatten();
                for counter in counters.filter_map(|it| it.get_mut("counter")?.as_object_mut()) {
                    counter.remove("createdTimestamp");
                }
            }
        }
        assert_eq!(ours, theirs, "{buffer}");
    }
}
