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
use opa_plugins::metrics::{AppEvents, LastUpload, Metrics};
use opa_tower::admin;
use serde_json::{Value as Json, json};
use tests::bundle_server::{Answer, BundleServer};
use tests::http_client;
use tests::log_sink::{self, LogSink};
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

/// OPA's metrics once all of `wanted` are there.
async fn opa_metrics(
    server: &BundleServer,
    opa: &peers::Opa,
    reporting: &Json,
    wanted: &[&str],
) -> String {
    let polling = json!({"min_delay_seconds": 1, "max_delay_seconds": 1});
    let configuration = json!({
        "services": {"s": {"url": server.url()}},
        "bundles": {
            "good": {"resource": "good", "polling": polling},
            "bad": {"resource": "bad", "polling": polling},
        },
        "status": {"prometheus": true},
        "nd_builtin_cache": true,
        "decision_logs": {"service": "s", "reporting": reporting},
    });
    let running = opa.serve_until(&configuration.to_string(), "/health").await;
    let mut last = String::new();
    let metrics = async {
        for number in 0_u64.. {
            for length in [1, 40, 400] {
                let input = incompressible(number, length);
                running.decide("a/random", &json!(input)).await;
            }
            let response = http_client::get(running.address(), "/metrics")
                .await
                .unwrap();
            last = String::from_utf8_lossy(response.body()).into_owned();
            if wanted.iter().all(|wanted| last.contains(wanted)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(LONG, metrics).await;
    found.unwrap_or_else(|_| panic!("OPA has not all of {wanted:?}: {last}"));
    last
}

/// A text of that many times 16 digits that compresses badly.
fn incompressible(seed: u64, length: u64) -> String {
    let digits = |at: u64| {
        // SplitMix64.
        let state = (seed * 1_000 + at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        format!("{:016x}", state ^ (state >> 31))
    };
    (0..length).map(digits).collect()
}

/// All of OPA's metrics, in the two ways in which they come.
async fn all_opa_metrics(server: &BundleServer, opa: &peers::Opa) -> [String; 2] {
    server.answer("/logs", Answer::Status(200, ""));
    let limited = json!({
        "buffer_type": "event",
        "max_decisions_per_second": 1,
        "min_delay_seconds": 1,
        "max_delay_seconds": 1,
    });
    let of_limited = opa_metrics(
        server,
        opa,
        &limited,
        &[
            "bundle_loaded_counter{",
            "bundle_failed_load_counter{",
            "decision_logs_dropped_rate_limit_exceeded_total ",
            "decision_logs_chunks_uploaded_total ",
            "decision_logs_buffer_size_events ",
            "decision_logs_status_gauge{",
        ],
    )
    .await;
    server.answer("/logs", Answer::Status(503, ""));
    let small = json!({
        "buffer_size_limit_bytes": 3_000,
        "upload_size_limit_bytes": 2_000,
        "min_delay_seconds": 1,
        "max_delay_seconds": 1,
    });
    let of_small = opa_metrics(
        server,
        opa,
        &small,
        &[
            "decision_logs_buffer_size_bytes ",
            "decision_logs_chunks_upload_failed_total ",
            "decision_logs_dropped_buffer_size_limit_bytes_exceeded_total ",
            "decision_logs_dropped_buffer_size_limit_exceeded_total ",
            "decision_logs_encoding_failure_total ",
            "decision_logs_nd_builtin_cache_dropped_total ",
            "enc_log_exceeded_upload_size_limit_bytes_total ",
            "decision_logs_status_gauge{",
        ],
    )
    .await;
    [of_limited, of_small]
}

/// The names of metrics with the names of the labels of their series, but for `le`.
fn labelled(text: &str) -> BTreeMap<&str, BTreeSet<BTreeSet<&str>>> {
    let mut labelled = BTreeMap::<_, BTreeSet<_>>::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(about) = line.strip_prefix("# TYPE ") {
            family = name_of(about);
        } else if !line.starts_with('#') {
            let labels = line
                .split_once('{')
                .and_then(|(_, rest)| rest.rsplit_once('}'));
            let labels = labels.map_or("", |(labels, _)| labels);
            // No value of a label here has such a sequence.
            let names = labels
                .split("\",")
                .filter_map(|label| label.split_once("=\""));
            let names = names.map(|(name, _)| name).filter(|name| *name != "le");
            labelled.entry(family).or_default().insert(names.collect());
        }
    }
    labelled
}

/// What OPA tells of itself: of its runtime, and of its server's requests.
fn is_of_the_process(name: &str) -> bool {
    name.starts_with("go_") || name == "http_request_duration_seconds"
}

/// What is told of all apps together, with OPA's names.
fn is_of_all_apps(name: &str) -> bool {
    name == "opa_info"
        || name.starts_with("decision_logs_chunks_")
        || name.starts_with("decision_logs_buffer_size_")
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
    let metrics = opa_plugins::metrics(&manager)
        .max_series_per_app(1_000)
        .histograms_by_app();
    let events = |app: &App| {
        let mut counts = opa_plugins::decision_logs::AppCounts::default();
        (counts.delivered, counts.buffered, counts.rate_limited) = (1, 2, 3);
        (counts.buffer_full, counts.encoding_failed) = (4, 5);
        let mut events = AppEvents::new(app.id().clone(), counts);
        events.chunks.nd_builtin_cache_dropped = 6;
        events.chunks.exceeded_upload_size_limit = 7;
        events.last_upload = Some(LastUpload::Failure(None));
        events
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
    let module = "package a\n\nallow := true\n\nrandom := [x |\n\tsome i in numbers.range(1, 300)\n\t\
        x := rand.intn(sprintf(\"%d\", [i]), 1000000000)\n]\n";
    let bundle = bundle.module("a/a.rego", module);
    bundle.unwrap().to_vec().unwrap()
}

#[tokio::test]
async fn promtool_complains_about_nothing_but_opas_own_names() {
    let (Some(prometheus), Some(opa)) = (peers::prometheus(), peers::opa()) else {
        return;
    };
    let server = BundleServer::start().await;
    server.answer("/good", Answer::Bundle(rooted()));
    let opas = all_opa_metrics(&server, &opa).await;
    let ours = our_metrics(&server).await;

    let said_of_ours = described(&ours);
    let mut said_of_opas = BTreeMap::new();
    let mut labels_of_opas = BTreeMap::new();
    for opas in &opas {
        said_of_opas.extend(described(opas));
        labels_of_opas.extend(labelled(opas));
    }
    let about = |complaints: Vec<String>| -> BTreeSet<String> {
        let is_common = |it: &String| said_of_ours.contains_key(name_of(it));
        complaints.into_iter().filter(is_common).collect()
    };
    let complaints = prometheus.complaints(&ours);
    let theirs = opas.iter().flat_map(|opas| prometheus.complaints(opas));
    assert_eq!(about(complaints.clone()), about(theirs.collect()));
    for complaint in complaints {
        let name = name_of(&complaint);
        assert!(said_of_opas.contains_key(name), "{complaint}");
        assert!(!name.starts_with("opa_"), "{complaint}");
    }

    // What has OPA's name is OPA's metric, and all of OPA's are there.
    let is_opas = |name: &str| !name.starts_with("opa_") || name == "opa_info";
    let names = |said: &BTreeMap<&str, BTreeSet<&str>>| -> BTreeMap<String, BTreeSet<String>> {
        let said = said.iter();
        let said = said.filter(|(name, _)| is_opas(name) && !is_of_the_process(name));
        let owned = |texts: &BTreeSet<&str>| texts.iter().map(|it| (*it).to_owned()).collect();
        said.map(|(name, texts)| ((*name).to_owned(), owned(texts)))
            .collect()
    };
    assert_eq!(names(&said_of_ours), names(&said_of_opas));
    let labels_of_ours = labelled(&ours);
    for (name, mut expected) in labels_of_opas {
        if is_of_the_process(name) {
            continue;
        }
        if !is_of_all_apps(name) {
            let with_app = expected.into_iter().map(|mut labels| {
                labels.insert("app");
                labels
            });
            expected = with_app.collect();
        }
        assert_eq!(labels_of_ours.get(name), Some(&expected), "{name}");
    }
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

/// The series of an app.
fn series_of<'a>(text: &'a str, app: &str) -> Vec<&'a str> {
    let label = format!("{{app=\"{app}\"");
    text.lines().filter(|line| line.contains(&label)).collect()
}

async fn until(metrics: &Metrics, reached: impl Fn(&str) -> bool) -> String {
    let mut text = metrics.text();
    let waiting = async {
        while !reached(&text) {
            tokio::time::sleep(Duration::from_millis(10)).await;
            text = metrics.text();
        }
    };
    let waited = tokio::time::timeout(LONG, waiting).await;
    assert!(waited.is_ok(), "{text}");
    text
}

#[tokio::test]
async fn a_usual_app_has_twelve_series_of_which_none_is_missed() {
    let (server, sink) = (BundleServer::start().await, LogSink::start().await.unwrap());
    server.answer("/b", Answer::Bundle(bundle("1")));
    let plugin = opa_plugins::decision_logs();
    let report = plugin.report();
    let status = opa_plugins::status().with_decision_logs(plugin.upload_status());
    plugin.on_upload(status.upload_listener());
    let configuration = format!(
        "services: {{s: {{url: '{}'}}, sink: {{url: '{}'}}}}\nbundles: {{b: {{service: s, resource: b}}}}\n\
         status: {{service: sink, prometheus: true}}\n\
         decision_logs: {{service: sink, \
           reporting: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}\n",
        server.url(),
        sink.url()
    );
    let manager = Manager::builder()
        .config_yaml(&configuration)
        .engine(Scripted::data())
        .grace(Duration::from_millis(50))
        .plugin(plugin)
        .plugin(status)
        .build()
        .unwrap();
    let metrics = opa_plugins::metrics(&manager).decision_logs(report);
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    let decide = || {
        for reason in [Reason::Allowed, Reason::Denied] {
            drop(app.ask().refuse(reason, "", Default::default()));
        }
    };
    decide();
    let delivered = r#"opa_decision_log_events_delivered_total{app="shop",output="service"} 2"#;
    let text = until(&metrics, |text| {
        text.contains(delivered) && !text.contains("events_buffered{")
    })
    .await;
    let series = series_of(&text, "shop");
    assert_eq!(series.len(), 12, "{series:#?}");
    assert!(text.contains("\nopa_metrics_omitted_series 0\n"), "{text}");
    assert!(
        text.contains("\ndecision_logs_chunks_uploaded_total "),
        "{text}"
    );
    assert!(
        !text.contains("decision_logs_chunks_uploaded_total 0"),
        "{text}"
    );
    for name in ["bundle", "decision_logs", "discovery", "status"] {
        let plugin = format!(r#"opa_plugins{{name="{name}",status="OK"}} 1"#);
        assert!(text.contains(&plugin), "{plugin}: {text}");
    }

    // A failure is told in the place of what is fine, as long as it lasts.
    sink.script([], log_sink::Answer::Status(503));
    decide();
    let failed = r#"decision_logs_status_gauge{app="shop",output="service",code="decision_log_error",http_code="503"} 1"#;
    let text = until(&metrics, |text| text.contains(failed)).await;
    assert!(series_of(&text, "shop").len() <= 12, "{text}");
    assert!(!text.contains("\ndecision_logs_chunks_upload_failed_total 0\n"));
    assert!(
        !text.contains("\ndecision_logs_buffer_size_bytes 0\n"),
        "{text}"
    );
    sink.script([], log_sink::Answer::Status(200));
    let text = until(&metrics, |text| {
        !text.contains(failed) && text.contains("\ndecision_logs_buffer_size_bytes 0\n")
    })
    .await;

    // What is told of all apps outlives an app, so that the counters never go back.
    let total = |text: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with("decision_logs_chunks_uploaded_total "));
        line.unwrap().to_owned()
    };
    drop(app);
    let gone = until(&metrics, |text| series_of(text, "shop").is_empty()).await;
    assert_eq!(total(&gone), total(&text));
    assert!(!gone.contains("opa_plugins{"), "{gone}");
    manager.shutdown(LONG).await;
}
