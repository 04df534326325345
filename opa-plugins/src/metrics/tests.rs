use std::time::Duration;

use http::StatusCode;
use opa_core::engine::{EntrypointPath, Module};
use opa_core::{App, AppId, Manager, Reason, Value};

use super::*;
use crate::decision_logs::AppCounts;
use crate::status::Buffer;

async fn shop() -> (Manager, App) {
    let policy = Module::v1("a.rego", "package a\nallow := true");
    let data = Value::from_json(br#"{"b": "\"\\\n"}"#).unwrap();
    let manager = Manager::in_memory([policy], data).unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(Duration::from_secs(30)).await.unwrap();
    (manager, app)
}

fn series_of<'a>(text: &'a str, app: &str) -> Vec<&'a str> {
    let label = format!("app=\"{app}\"");
    text.lines().filter(|line| line.contains(&label)).collect()
}

fn events(app: &str, counts: AppCounts) -> AppEvents {
    AppEvents::new(AppId::new(app).unwrap(), counts)
}

#[tokio::test]
async fn a_healthy_app_tells_what_the_docs_say() {
    let (manager, app) = shop().await;
    app.decide("a/allow", Value::empty_object()).await;
    app.decide("a/nothing", Value::empty_object()).await;
    // A stage of loading is noted when it is over, a moment after it shows.
    let noted = "_count{stage=\"timer_rego_module_compile_ns\"} 1";
    let mut text = metrics(&manager).text();
    while !text.contains(noted) {
        tokio::time::sleep(Duration::from_millis(1)).await;
        text = metrics(&manager).text();
    }
    let has = |line: &str| {
        assert!(
            text.lines().any(|it| it.starts_with(line)),
            "{line}\n{text}"
        )
    };
    has(r#"opa_info{version="1.22.2"} 1"#);
    has(r#"opa_instances{state="ready"} 1"#);
    has(r#"opa_instances{state="failed"} 0"#);
    has("opa_metrics_omitted_series 0");
    has(r#"opa_instance_state{app="shop",state="ready"} 1"#);
    has(r#"opa_decisions_total{app="shop",outcome="decided",reason="decided"} 1"#);
    has(r#"opa_decisions_total{app="shop",outcome="denied",reason="undefined"} 1"#);
    has(r#"bundle_loaded_counter{app="shop",name="bundle"} 1"#);
    has(r#"last_success_bundle_activation{app="shop",name="bundle",active_revision=""} 1"#);
    has(r#"plugin_status_gauge{app="shop",name="bundle",status="OK"} 1"#);
    has(r#"opa_instance_data_bytes{app="shop",use="own"} "#);
    has(r#"opa_instance_policy_bytes{app="shop",use="own"} 23"#);
    has("opa_policies_bytes 23");
    has(r#"bundle_loading_duration_ns_count{stage="timer_rego_module_compile_ns"} 1"#);
    has("# TYPE bundle_loaded_counter counter");
    assert!(!text.contains("reuses"), "counters at zero are left out");
    assert!(series_of(&text, "shop").len() <= MAX_SERIES);
}

#[tokio::test]
async fn an_app_has_at_most_so_many_series_and_those_that_matter_most() {
    let (manager, app) = shop().await;
    for reason in Reason::ALL {
        drop(app.ask().refuse(reason, "", Default::default()));
    }
    let counts = AppCounts {
        buffer_full: 3,
        ..AppCounts::default()
    };
    let all = || move || vec![events("shop", counts)];
    let text = metrics(&manager).decision_logs(all()).text();
    let series = series_of(&text, "shop");
    assert_eq!(series.len(), MAX_SERIES, "{series:?}");
    let state = r#"opa_instance_state{app="shop",state="ready"} 1"#;
    assert_eq!(series[0], state);
    assert!(
        series[1..]
            .iter()
            .all(|line| line.contains(r#"outcome="error""#))
    );

    let everything = metrics(&manager)
        .decision_logs(all())
        .max_series_per_app(1_000)
        .text();
    let all_series = series_of(&everything, "shop");
    // Those that say that all is well are not missed.
    let is_spare = |line: &&&str| {
        let spare = ["last_bundle_request{", "last_success_bundle_download{"];
        spare.iter().any(|it| line.starts_with(it)) || line.contains(r#"name="discovery""#)
    };
    let spare = all_series.iter().filter(is_spare).count();
    assert!(spare > 0);
    let omitted = all_series.len() - spare - MAX_SERIES;
    assert!(
        text.contains(&format!("\nopa_metrics_omitted_series {omitted}\n")),
        "{text}"
    );
    assert!(everything.contains("\nopa_metrics_omitted_series 0\n"));
    let dropped = r#"opa_decision_log_events_dropped_total{app="shop",reason="buffer_full"} 3"#;
    assert!(all_series.contains(&dropped), "{everything}");

    let only = metrics(&manager).max_series_per_app(1).text();
    assert_eq!(series_of(&only, "shop"), [state]);
}

#[tokio::test]
async fn events_are_told_by_output_and_by_what_became_of_them() {
    let (manager, _app) = shop().await;
    let mut counts = AppCounts::default();
    (counts.delivered, counts.buffered, counts.dropped_by_policy) = (1, 2, 3);
    (counts.rate_limited, counts.encoding_failed) = (4, 5);
    let told = move || {
        vec![
            events("shop", counts).output("a\"\\\nb"),
            events("gone", counts),
        ]
    };
    let text = metrics(&manager)
        .decision_logs(told)
        .max_series_per_app(99)
        .text();
    let has = |line: &str| assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    let output = r#"output="a\"\\\nb""#;
    has(&format!(
        r#"opa_decision_log_events_delivered_total{{app="shop",{output}}} 1"#
    ));
    has(&format!(
        r#"opa_decision_log_events_buffered{{app="shop",{output}}} 2"#
    ));
    let dropped = format!(r#"opa_decision_log_events_dropped_total{{app="shop",{output}"#);
    has(&format!(r#"{dropped},reason="policy"}} 3"#));
    has(&format!(r#"{dropped},reason="rate_limited"}} 4"#));
    has(&format!(
        r#"decision_logs_dropped_rate_limit_exceeded_total{{app="shop",{output}}} 4"#
    ));
    has(&format!(
        r#"decision_logs_encoding_failure_total{{app="shop",{output}}} 5"#
    ));
    assert!(
        series_of(&text, "gone").is_empty(),
        "there is no such instance"
    );
}

#[tokio::test]
async fn an_upload_that_failed_stands_before_what_is_fine() {
    let (manager, _app) = shop().await;
    let told = |last| {
        move || {
            let mut events = events("shop", AppCounts::default());
            events.last_upload = last;
            events.chunks.nd_builtin_cache_dropped = 6;
            events.chunks.exceeded_upload_size_limit = 7;
            vec![events]
        }
    };
    let status = r#"decision_logs_status_gauge{app="shop",code="#;
    let text = |last, max| {
        let metrics = metrics(&manager).decision_logs(told(last));
        metrics.max_series_per_app(max).text()
    };
    let refused = LastUpload::Failure(Some(StatusCode::SERVICE_UNAVAILABLE));
    let failed = format!(r#"{status}"decision_log_error",http_code="503"}} 1"#);
    assert!(text(Some(refused), 2).contains(&failed));
    let unanswered = format!(r#"{status}"decision_log_error",http_code=""}} 1"#);
    assert!(text(Some(LastUpload::Failure(None)), 2).contains(&unanswered));
    assert!(!text(Some(LastUpload::Success), MAX_SERIES - 1).contains(status));
    let all = text(Some(LastUpload::Success), 99);
    assert!(
        all.contains(&format!(r#"{status}"",http_code=""}} 1"#)),
        "{all}"
    );
    assert!(all.contains(r#"decision_logs_nd_builtin_cache_dropped_total{app="shop"} 6"#));
    assert!(all.contains(r#"enc_log_exceeded_upload_size_limit_bytes_total{app="shop"} 7"#));
    assert!(!text(None, 99).contains(status), "there was none");
}

#[tokio::test]
async fn what_a_buffer_of_events_has_no_room_for_is_above_no_limit_of_bytes() {
    let (manager, _app) = shop().await;
    let told = |buffer| {
        let mut events = events("shop", AppCounts::default());
        events.counts.buffer_full = 3;
        events.buffer = Some(buffer);
        let metrics = metrics(&manager).decision_logs(move || vec![events.clone()]);
        metrics.max_series_per_app(99).text()
    };
    let bytes = r#"decision_logs_dropped_buffer_size_limit_bytes_exceeded_total{app="shop"} 3"#;
    let any = r#"decision_logs_dropped_buffer_size_limit_exceeded_total{app="shop"} 3"#;
    let text = told(Buffer::Events(0));
    assert!(!text.contains(bytes) && text.contains(any), "{text}");
    let text = told(Buffer::Bytes(0));
    assert!(text.contains(bytes) && text.contains(any), "{text}");
}

#[tokio::test]
async fn chunks_and_buffers_are_told_of_all_apps_together() {
    let (manager, _app) = shop().await;
    let told = || {
        let mut report = LogReport::default();
        (report.chunks_uploaded, report.chunks_upload_failed) = (1, 2);
        (report.buffered_events, report.buffered_bytes) = (3, 4);
        report
    };
    let text = metrics(&manager).decision_logs(told).text();
    for line in [
        "decision_logs_chunks_uploaded_total 1",
        "decision_logs_chunks_upload_failed_total 2",
        "decision_logs_buffer_size_events 3",
        "decision_logs_buffer_size_bytes 4",
    ] {
        assert!(text.lines().any(|it| it == line), "{line}\n{text}");
    }
    assert!(!metrics(&manager).text().contains("decision_logs_"));
}

#[tokio::test]
async fn plugins_are_those_of_the_configuration() {
    let manager = Manager::builder()
        .config_yaml("decision_logs: {console: true}\nstatus: {console: true}")
        .in_memory([], Value::empty_object())
        .unwrap()
        .plugin(crate::decision_logs().console_to(std::io::sink()))
        .plugin(crate::status().console_to(std::io::sink()))
        .build()
        .unwrap();
    let apps = ["shop", "stock"].map(|app| manager.app(app).unwrap());
    for app in &apps {
        app.ready(Duration::from_secs(30)).await.unwrap();
    }
    let text = metrics(&manager).max_series_per_app(99).text();
    let names = ["bundle", "decision_logs", "discovery", "status"];
    for name in names {
        let one = format!(r#"plugin_status_gauge{{app="shop",name="{name}",status="OK"}} 1"#);
        let all = format!(r#"opa_plugins{{name="{name}",status="OK"}} 2"#);
        assert!(text.contains(&one) && text.contains(&all), "{name}: {text}");
    }
    manager.shutdown(Duration::from_secs(5)).await;
    assert!(!metrics(&manager).text().contains("opa_plugins{"));
}

#[tokio::test]
async fn series_go_with_the_instance() {
    let (manager, app) = shop().await;
    let metrics = metrics(&manager);
    app.decide("a/allow", Value::empty_object()).await;
    assert!(!series_of(&metrics.text(), "shop").is_empty());
    manager.shutdown(Duration::from_secs(5)).await;
    let text = metrics.text();
    assert!(series_of(&text, "shop").is_empty());
    assert!(text.contains(r#"opa_instances{state="ready"} 0"#));
}

#[tokio::test]
async fn histograms_have_no_app_unless_asked() {
    let policy = Module::v1("a.rego", "package a\nallow := true");
    let manager = Manager::in_memory([policy], Value::empty_object()).unwrap();
    let by_app = metrics(&manager).histograms_by_app();
    let app = manager.app("shop").unwrap();
    app.ready(Duration::from_secs(30)).await.unwrap();
    let series = r#"bundle_loading_duration_ns_bucket{app="shop",name="bundle",stage="timer_rego_load_bundles_ns",le="+Inf"} 1"#;
    assert!(by_app.text().contains(series), "{}", by_app.text());
    assert!(
        !metrics(&manager)
            .text()
            .contains("bundle_loading_duration_ns_bucket{app")
    );

    let text = metrics(&manager).text();
    assert!(
        text.contains("opa_decision_duration_seconds_count 0"),
        "{text}"
    );
    let path = EntrypointPath::parse("a/allow").unwrap();
    drop(
        app.ask()
            .prepare(Some(&path))
            .unwrap()
            .refuse(Reason::Denied, "", Default::default()),
    );
    let text = metrics(&manager).text();
    assert!(
        text.contains("opa_decision_duration_seconds_count 1"),
        "{text}"
    );
    assert!(
        text.contains(r#"opa_decision_duration_seconds_bucket{le="+Inf"} 1"#),
        "{text}"
    );
}

#[tokio::test]
async fn a_long_revision_is_cut() {
    let revision = format!("{}ä and more", "r".repeat(255));
    let bundle = opa_core::bundle::BundleWriter::new().revision(revision);
    let bundle = bundle.to_vec().unwrap();
    let memory = opa_core::bundle::source::Memory::new(bundle);
    let manager = Manager::builder().source("b", memory).build().unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(Duration::from_secs(30)).await.unwrap();
    let wanted = format!(r#"active_revision="{}"}}"#, "r".repeat(255));
    assert!(metrics(&manager).text().contains(&wanted));
}

/// `cargo test --release -p opa-plugins --lib metrics -- --ignored --nocapture`
#[tokio::test]
#[ignore = "a measurement: run it in release mode, on an idle machine"]
async fn what_the_text_of_ten_thousand_apps_costs() {
    let policy = Module::v1("a.rego", "package a\nallow := true");
    let manager = Manager::in_memory([policy], Value::empty_object()).unwrap();
    let metrics = metrics(&manager);
    let apps = (0..10_000).map(|app| manager.app(format!("app-{app}")).unwrap());
    let apps: Vec<_> = apps.collect();
    for app in &apps {
        app.ready(Duration::from_secs(60)).await.unwrap();
        drop(app.ask().refuse(Reason::Denied, "", Default::default()));
        drop(app.ask().refuse(Reason::Allowed, "", Default::default()));
    }
    for _ in 0..5 {
        let started = std::time::Instant::now();
        let reports = manager.reports();
        let read = started.elapsed();
        drop(reports);
        let started = std::time::Instant::now();
        let text = metrics.text();
        let lines = text.lines().count();
        eprintln!(
            "{lines} lines, {} bytes in {:?}, of which reading {read:?}",
            text.len(),
            started.elapsed(),
        );
    }
}
