//! Metrics as Prometheus sees them: real `promtool` beside the real `opa`, and a real scrape of
//! ten thousand apps.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use opa_core::bundle::BundleWriter;
use opa_core::bundle::source::Memory;
use opa_core::{App, Manager, Reason, Value};
use opa_plugins::metrics::{AppEvents, Metrics};
use opa_tower::admin;
use serde_json::json;
use tests::bundle_server::{Answer, BundleServer};
use tests::http_client;
use tests::peers::{self, RunningPrometheus};
use tests::scripted::Scripted;

const APPS: usize = 10_000;

/// How many of them end during the test.
const CLOSED: usize = 100;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(120);

fn bundle(version: &str) -> Vec<u8> {
    let data = Value::object([("version".into(), version.into())]);
    let bundle = BundleWriter::new().revision(version);
    let bundle = bundle.data("", &data).unwrap();
    let bundle = bundle.module("a.rego", "package a\n\nallow := true\n");
    bundle.unwrap().to_vec().unwrap()
}

/// Past the capture of libtest: figures are for whoever reads the log.
fn show(text: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The names of metrics with what `# TYPE` and `# HELP` say.
fn described(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut described = BTreeMap::<_, BTreeSet<_>>::new();
    for line in text.lines() {
        let about = line
            .strip_prefix("# TYPE ")
            .or(line.strip_prefix("# HELP "));
        if let Some((name, said)) = about.and_then(|about| about.split_once(' ')) {
            described.entry(name).or_default().insert(said);
        }
    }
    described
}

/// What a complaint is about.
fn name_of(complaint: &str) -> &str {
    complaint.split(' ').next().unwrap_or_default()
}

async fn opa_metrics(server: &BundleServer, opa: &peers::Opa) -> String {
    let configuration = json!({
        "services": {"s": {"url": server.url()}},
        "bundles": {
            "good": {"resource": "good", "polling": {"min_delay_seconds": 1, "max_delay_seconds": 1}},
            "bad": {"resource": "bad", "polling": {"min_delay_seconds": 1, "max_delay_seconds": 1}},
        },
        "status": {"prometheus": true},
        "decision_logs": {
            "service": "s",
            "reporting": {"max_decisions_per_second": 1, "min_delay_seconds": 1, "max_delay_seconds": 1},
        },
    });
    let running = opa.serve_until(&configuration.to_string(), "/health").await;
    let wanted = [
        "bundle_loaded_counter{",
        "bundle_failed_load_counter{",
        "decision_logs_dropped_rate_limit_exceeded_total ",
    ];
    let metrics = async {
        loop {
            running.decide("a/allow", &json!({})).await;
            let response = http_client::get(running.address(), "/metrics")
                .await
                .unwrap();
            let text = String::from_utf8_lossy(response.body()).into_owned();
            if wanted.iter().all(|wanted| text.contains(wanted)) {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, metrics)
        .await
        .expect("OPA has all of them")
}

/// All that an app can have, of a bundle that loads and one that doesn't.
async fn our_metrics(server: &BundleServer) -> String {
    let configuration = format!(
        "services: {{s: {{url: '{}'}}}}\nbundles: {{good: {{resource: good}}, bad: {{resource: bad}}}}",
        server.url()
    );
    let manager = Manager::builder()
        .config_yaml(&configuration)
        .build()
        .unwrap();
    let metrics = opa_plugins::metrics(&manager).max_series_per_app(1_000);
    let events = |app: &App| {
        let mut counts = opa_plugins::decision_logs::AppCounts::default();
        (counts.delivered, counts.buffered, counts.rate_limited) = (1, 2, 3);
        (counts.buffer_full, counts.encoding_failed) = (4, 5);
        AppEvents::new(app.id().clone(), counts)
    };
    let app = manager.app("shop").unwrap();
    drop(app);
    let app = manager.app("shop").unwrap();
    let told = events(&app);
    let metrics = metrics.decision_logs(move || vec![told.clone()]);
    for reason in Reason::ALL {
        drop(app.ask().refuse(reason, "", Default::default()));
    }
    let complete = async {
        loop {
            let text = metrics.text();
            if text.contains("bundle_failed_load_counter{") && text.contains("_rego_load_bundles") {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let failing = tokio::time::timeout(LONG, complete)
        .await
        .expect("it fails");
    server.answer("/bad", Answer::Bundle(other()));
    app.ready(LONG).await.unwrap();
    // What only one that is served has, and what only one that fails has.
    let text = metrics.text();
    assert!(failing.contains("NOT_READY") && text.contains("opa_instance_data_bytes{"));
    text
}

/// A bundle that can stand beside the first one.
fn other() -> Vec<u8> {
    BundleWriter::new().roots(["b"]).unwrap().to_vec().unwrap()
}

fn rooted() -> Vec<u8> {
    let bundle = BundleWriter::new().revision("1").roots(["a"]).unwrap();
    let bundle = bundle.data("a/b", &Value::from(1_u64)).unwrap();
    let bundle = bundle.module("a/a.rego", "package a\n\nallow := true\n");
    bundle.unwrap().to_vec().unwrap()
}

#[tokio::test]
async fn promtool_complains_about_nothing_but_opas_own_names() {
    let (Some(prometheus), Some(opa)) = (peers::prometheus(), peers::opa()) else {
        return;
    };
    let server = BundleServer::start().await;
    server.answer("/good", Answer::Bundle(rooted()));
    let opas = opa_metrics(&server, &opa).await;
    let ours = our_metrics(&server).await;

    let (said_of_ours, said_of_opas) = (described(&ours), described(&opas));
    let about = |complaints: Vec<String>| -> BTreeSet<String> {
        let is_common = |it: &String| said_of_ours.contains_key(name_of(it));
        complaints.into_iter().filter(is_common).collect()
    };
    let complaints = prometheus.complaints(&ours);
    assert_eq!(
        about(complaints.clone()),
        about(prometheus.complaints(&opas))
    );
    for complaint in complaints {
        let name = name_of(&complaint);
        assert!(said_of_opas.contains_key(name), "{complaint}");
        assert!(!name.starts_with("opa_"), "{complaint}");
    }

    // What has OPA's name is OPA's metric. These two need a full buffer and a bad event there.
    let unseen = [
        "decision_logs_dropped_buffer_size_limit_bytes_exceeded_total",
        "decision_logs_encoding_failure_total",
    ];
    let mut common = 0;
    for (name, said) in &said_of_ours {
        let is_ours = name.starts_with("opa_") && *name != "opa_info";
        if !is_ours && !unseen.contains(name) {
            assert_eq!(Some(said), said_of_opas.get(name), "{name}");
            common += 1;
        }
    }
    assert_eq!(common, 10, "{:?}", said_of_ours.keys());
}

/// Serves `GET /metrics`, as a program would.
async fn serve(manager: &Manager, metrics: Metrics) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = admin::service(manager.clone()).metrics(move || metrics.text());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            // Whoever goes in the middle of an answer is no error of the server.
            tokio::spawn(async { drop(connection.await) });
        }
    });
    address
}

async fn until_number(prometheus: &RunningPrometheus, query: &str, wanted: usize) {
    let mut last = None;
    let reached = async {
        loop {
            last = prometheus.number(query).await;
            if last == Some(wanted as f64) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let reached = tokio::time::timeout(LONG, reached).await;
    assert!(reached.is_ok(), "`{query}` is {last:?}, never {wanted}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_scrapes_ten_thousand_apps_and_forgets_those_that_are_gone() {
    let Some(prometheus) = peers::prometheus() else {
        return;
    };
    let manager = Manager::builder()
        .source("b", Memory::new(bundle("1")))
        .engine(Scripted::data())
        .grace(Duration::from_secs(1))
        .build()
        .unwrap();
    let mut apps: Vec<_> = (0..APPS)
        .map(|app| manager.app(format!("app-{app}")).unwrap())
        .collect();
    for app in &apps {
        app.ready(LONG).await.unwrap();
    }
    let metrics = opa_plugins::metrics(&manager);
    let mut decided = 0;
    for (at, app) in apps.iter().enumerate() {
        for _ in 0..=at % 3 {
            let decision = app.decide("x", Value::NULL).await;
            assert_eq!(decision.reason(), Reason::Decided);
            decided += 1;
        }
    }
    let started = Instant::now();
    let text = metrics.text();
    let took = started.elapsed();
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    show(&format!(
        "{APPS} apps: {series} series, {:.1} MB, made in {took:?}",
        text.len() as f64 / 1e6
    ));
    assert!(series <= APPS * 12 + 200, "{series}");

    let address = serve(&manager, metrics).await;
    let response = http_client::get(address, "/metrics").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let answered = String::from_utf8_lossy(response.body()).into_owned();
    assert_eq!(answered.matches("\nopa_instance_state{").count(), APPS);

    let prometheus = prometheus.scrape(address, Duration::from_secs(5)).await;
    until_number(
        &prometheus,
        "count(count by (app) (opa_instance_state))",
        APPS,
    )
    .await;
    until_number(&prometheus, "sum(opa_decisions_total)", decided).await;
    until_number(&prometheus, "opa_decision_duration_seconds_count", decided).await;
    until_number(&prometheus, "sum(bundle_loaded_counter)", APPS).await;
    let most = "max(count by (app) ({app!=\"\"}))";
    let most = prometheus.number(most).await.unwrap();
    assert!(most <= 12.0, "{most} series of an app");
    let scraped = prometheus.number("scrape_duration_seconds").await;
    show(&format!("a scrape took Prometheus {scraped:?} s"));

    let query = r#"opa_decisions_total{app="app-2"}"#;
    assert_eq!(prometheus.number(query).await, Some(3.0));
    drop(apps.drain(..CLOSED));
    until_number(&prometheus, "count(opa_instance_state)", APPS - CLOSED).await;
    assert_eq!(prometheus.number(query).await, None);
    assert_eq!(prometheus.query(r#"{app="app-2"}"#).await, json!([]));
    let left = prometheus.number(r#"count(opa_decisions_total{app="app-200"})"#);
    assert_eq!(left.await, Some(1.0));
}
