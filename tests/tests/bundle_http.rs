//! Bundles over HTTP: what is sent, what is followed, and which faults hurt whom.

use std::time::Duration;

use opa_core::bundle::BundleWriter;
use opa_core::plugin::State;
use opa_core::{App, Manager, Value};
use tests::bundle_server::{Answer, BundleServer};
use tests::scripted::Scripted;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(30);

fn bundle(version: &str) -> Vec<u8> {
    let data = Value::object([("version".into(), version.into())]);
    BundleWriter::new()
        .revision(version)
        .data("", &data)
        .unwrap()
        .to_vec()
        .unwrap()
}

/// A bundle of these files, as they are.
fn archive(files: &[(&str, &[u8])]) -> Answer {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        // Past the checks of `set_path`: hostile names are wanted here.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, &tar.into_inner().unwrap()).unwrap();
    Answer::Bundle(gzip.finish().unwrap())
}

/// A manager whose apps poll `server` all the time.
fn manager(server: &BundleServer) -> Manager {
    with_polling(server, "{min_delay_seconds: 1, max_delay_seconds: 1}")
}

fn with_polling(server: &BundleServer, polling: &str) -> Manager {
    let config = format!(
        "services: {{control: {{url: '{}', response_header_timeout_seconds: 1, \
           headers: {{x-team: red}}, credentials: {{bearer: {{token: secret}}}}}}}}\n\
         bundles: {{b: {{service: control, resource: '{{{{ .bundlename }}}}', \
           size_limit_bytes: 100000, polling: {polling}}}}}",
        server.url(),
    );
    Manager::builder()
        .config_yaml(&config)
        .engine(Scripted::data())
        .build()
        .unwrap()
}

async fn version(app: &App) -> Option<String> {
    let decision = app.decide("x", Value::NULL).await;
    Some(decision.result()?.get("version")?.as_str()?.to_owned())
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(
        tokio::time::timeout(LONG, wait).await.is_ok(),
        "never: {what}"
    );
}

async fn until_version(app: &App, wanted: &str) {
    until(wanted, || async {
        version(app).await.as_deref() == Some(wanted)
    })
    .await;
}

/// Waits until the bundle of `app` has failed with a message that contains `why`.
async fn until_failed(app: &App, why: &str) {
    let message = || {
        app.status()
            .bundles
            .first()
            .and_then(|bundle| bundle.message.clone())
    };
    let failed = until(why, || async {
        message().is_some_and(|message| message.contains(why))
    });
    if tokio::time::timeout(LONG / 2, failed).await.is_err() {
        panic!("expected `{why}`, found {:?}", message());
    }
}

#[tokio::test]
async fn the_requests_are_those_of_opa() {
    let server = BundleServer::start().await;
    server.answer("/orders", Answer::Bundle(bundle("1")));
    let manager = manager(&server);
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    until("a second request", || async { server.request_count() > 1 }).await;
    let requests = server.requests();
    let agent = requests[0].header("user-agent").unwrap();
    assert!(agent.starts_with("Open-Policy-Agent/1.22.2 ("), "{agent}");
    assert_eq!(requests[0].header("prefer"), Some("modes=snapshot,delta"));
    assert_eq!(requests[0].header("accept-encoding"), Some("gzip"));
    assert_eq!(requests[0].header("if-none-match"), None);
    assert_eq!(requests[0].header("authorization"), Some("Bearer secret"));
    assert_eq!(requests[0].header("x-team"), Some("red"));
    let etag = opa_core::bundle::etag(&bundle("1"));
    assert_eq!(requests[1].header("if-none-match"), Some(&*etag));
}

#[tokio::test]
async fn a_changed_bundle_is_served_and_an_unchanged_one_is_not_sent_again() {
    let server = BundleServer::start().await;
    server.answer("/orders", Answer::Bundle(bundle("1")));
    let manager = manager(&server);
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    until("a second request", || async { server.request_count() > 1 }).await;
    server.answer("/orders", Answer::Bundle(bundle("2")));
    until_version(&app, "2").await;
    assert_eq!(
        app.status().bundles[0].active_revision.as_deref(),
        Some("2")
    );
}

#[tokio::test]
async fn a_long_poll_brings_news_at_once() {
    let server = BundleServer::start().await;
    server.answer("/orders", Answer::LongPoll(bundle("1")));
    // The intervals are so long that only the long poll can bring the news in time.
    let polling = "{min_delay_seconds: 3600, max_delay_seconds: 3600, \
                    long_polling_timeout_seconds: 600}";
    let manager = with_polling(&server, polling);
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    for revision in ["2", "3", "4"] {
        server.answer("/orders", Answer::LongPoll(bundle(revision)));
        until_version(&app, revision).await;
    }
    let prefer = Some("modes=snapshot,delta;wait=600");
    assert!(
        server
            .requests()
            .iter()
            .all(|request| request.header("prefer") == prefer)
    );
}

#[tokio::test]
async fn a_server_that_does_not_wait_is_polled_by_interval() {
    let server = BundleServer::start().await;
    server.answer("/orders", Answer::Bundle(bundle("1")));
    let polling = "{min_delay_seconds: 1, max_delay_seconds: 1, \
                    long_polling_timeout_seconds: 600}";
    let manager = with_polling(&server, polling);
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    until("a third request", || async { server.request_count() > 2 }).await;
    let requests = server.requests();
    assert_eq!(
        requests[0].header("prefer"),
        Some("modes=snapshot,delta;wait=600")
    );
    assert_eq!(requests[1].header("prefer"), Some("modes=snapshot,delta"));
}

/// While one app's server misbehaves, another app of the same service is served and reloaded; when
/// the fault is gone, the app recovers by itself.
#[tokio::test]
async fn a_fault_hurts_only_its_app_and_ends_by_itself() {
    let faults = [
        (Answer::Status(404, ""), "server replied with Not Found"),
        (Answer::Status(403, ""), "server replied with Forbidden"),
        (
            Answer::Status(500, ""),
            "server replied with Internal Server Error",
        ),
        (
            Answer::Status(503, "retry-after: 1\r\n"),
            "server replied with Service Unavailable",
        ),
        (Answer::Status(204, ""), "server replied with No Content"),
        (Answer::Hang, "timeout awaiting response headers"),
        (Answer::Close, "error sending request"),
        (Answer::BreakOff(bundle("1")), "the body broke off"),
        (
            Answer::Bundle(b"no archive".to_vec()),
            "archive read failed",
        ),
        (
            Answer::Bundle(bundle("1")[..40].to_vec()),
            "archive read failed",
        ),
        (Answer::Bundle(Vec::new()), "archive read failed"),
        (
            archive(&[("../../etc/data.json", b"{}")]),
            "../../etc/data.json",
        ),
        (
            archive(&[("x/data.json", &[b' '; 100_001])]),
            "exceeds configured size_limit_bytes",
        ),
        (
            archive(&[("bomb/data.json", &vec![b' '; 64 << 20])]),
            "exceeds configured size_limit_bytes",
        ),
        (
            archive(&[
                (".manifest", br#"{"roots": ["a"]}"#),
                ("b/data.json", b"{}"),
            ]),
            "roots",
        ),
        (
            archive(&[("data.json", br#"{"a": 1}"#), ("a/b/data.json", b"2")]),
            "a/b/data.json",
        ),
        (
            archive(&[("a.rego", b"package a # broken")]),
            "the module is broken",
        ),
        (archive(&[("a.rego", b"pack age")]), "a.rego"),
        (
            archive(&[(
                "patch.json",
                br#"{"data": [{"op": "remove", "path": "/none"}]}"#,
            )]),
            "storage_not_found_error",
        ),
        (archive(&[("data.json", b"{")]), "data.json"),
    ];
    let server = BundleServer::start().await;
    server.answer("/healthy", Answer::Bundle(bundle("0")));
    let manager = manager(&server);
    let healthy = manager.app("healthy").unwrap();
    healthy.ready(LONG).await.unwrap();
    let mut faulty = Vec::new();
    for (at, (fault, why)) in faults.into_iter().enumerate() {
        let path = format!("/faulty-{at}");
        server.answer(&path, fault);
        faulty.push((manager.app(&path[1..]).unwrap(), path, why));
    }
    for (app, _, why) in &faulty {
        until_failed(app, why).await;
        assert!(
            matches!(app.state(), State::Failed { .. }),
            "{why}: {:?}",
            app.state()
        );
    }

    server.answer("/healthy", Answer::Bundle(bundle("1")));
    until_version(&healthy, "1").await;

    for (_, path, _) in &faulty {
        server.answer(path, Answer::Bundle(bundle("good")));
    }
    for (app, _, why) in &faulty {
        until_version(app, "good").await;
        assert_eq!(app.status().bundles[0].message, None, "{why}");
    }
}

#[tokio::test]
async fn servers_that_hang_or_trickle_in_the_body_delay_nobody_else() {
    let server = BundleServer::start().await;
    let manager = manager(&server);
    let mut slow = Vec::new();
    for at in 0..8 {
        let (hanging, trickling) = (format!("hanging-{at}"), format!("trickling-{at}"));
        server.answer(&format!("/{hanging}"), Answer::HangInBody(bundle("1")));
        let trickle = Answer::Trickle(bundle("1"), Duration::from_millis(500));
        server.answer(&format!("/{trickling}"), trickle);
        slow.extend([
            manager.app(hanging).unwrap(),
            manager.app(trickling).unwrap(),
        ]);
    }
    until("all are asked for", || async {
        server.request_count() >= 16
    })
    .await;

    // Another service of another app: its downloads have their own room.
    let other = BundleServer::start().await;
    other.answer("/orders", Answer::Bundle(bundle("1")));
    let config = format!(
        "services: {{other: {{url: '{}'}}}}\nbundles: {{b: {{resource: orders}}}}",
        other.url()
    );
    let other_manager = Manager::builder()
        .config_yaml(&config)
        .engine(Scripted::data())
        .build()
        .unwrap();
    let app = other_manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    assert!(slow.iter().all(|app| app.state() == State::Starting));
}

#[tokio::test]
async fn an_unreachable_server_is_an_error_with_a_reason() {
    // A port that was free a moment ago, and that nobody listens on.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://user:secret@{}", listener.local_addr().unwrap());
    drop(listener);
    let config = format!("services: {{gone: {{url: '{url}'}}}}");
    let manager = Manager::builder()
        .config_yaml(&config)
        .engine(Scripted::data())
        .build();
    let Ok(manager) = manager else {
        return assert!(manager.is_err());
    };
    let app = manager.app("orders").unwrap();
    until_failed(&app, "error sending request").await;
    let message = app.status().bundles[0].message.clone().unwrap();
    assert!(message.to_lowercase().contains("refused"), "{message}");
    assert!(!message.contains("secret"), "{message}");
}

#[tokio::test]
async fn a_304_without_an_etag_keeps_what_is_known() {
    let server = BundleServer::start().await;
    server.answer("/orders", Answer::Bundle(bundle("1")));
    let manager = manager(&server);
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    server.answer("/orders", Answer::NotModified);
    let before = server.request_count();
    until("two more requests", || async {
        server.request_count() > before + 1
    })
    .await;
    let etag = opa_core::bundle::etag(&bundle("1"));
    assert_eq!(
        server.requests().last().unwrap().header("if-none-match"),
        Some(&*etag)
    );
    assert_eq!(version(&app).await.as_deref(), Some("1"));
}

#[tokio::test]
async fn an_app_that_is_closed_takes_its_question_back() {
    let server = BundleServer::start().await;
    server.answer("/orders", Answer::LongPoll(bundle("1")));
    let polling = "{min_delay_seconds: 1, max_delay_seconds: 1, \
                    long_polling_timeout_seconds: 600}";
    let manager = with_polling(&server, polling);
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    until("the long poll waits", || async {
        server.request_count() > 1
    })
    .await;
    manager.shutdown(Duration::from_secs(5)).await;
    until("the connection is given up", || async {
        server.connections() == 0
    })
    .await;
    drop(app);
}

/// As Go's programs do, ten times.
#[tokio::test]
async fn redirects_are_followed_but_not_forever() {
    let server = BundleServer::start().await;
    server.answer("/orders", Answer::Status(302, "location: /elsewhere\r\n"));
    server.answer("/elsewhere", Answer::Bundle(bundle("1")));
    server.answer("/lost", Answer::Status(302, "location: /lost\r\n"));
    let polling = "{min_delay_seconds: 3600, max_delay_seconds: 3600}";
    let manager = with_polling(&server, polling);
    let (orders, lost) = (manager.app("orders").unwrap(), manager.app("lost").unwrap());
    until_version(&orders, "1").await;
    until_failed(&lost, "stopped after 10 redirects").await;
    server.answer("/lost", Answer::Bundle(bundle("2")));
    until_version(&lost, "2").await;
}

/// As OPA does, which asks for it: the archive is what comes out.
#[tokio::test]
async fn a_content_encoding_is_taken_off() {
    let server = BundleServer::start().await;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, &bundle("1")).unwrap();
    let encoded = || "content-encoding: gzip\r\n".to_owned();
    server.answer("/orders", Answer::With(encoded(), gzip.finish().unwrap()));
    // Its own compression is called an encoding: without it, it is no archive.
    server.answer("/wrong", Answer::With(encoded(), bundle("1")));
    let manager = manager(&server);
    until_version(&manager.app("orders").unwrap(), "1").await;
    until_failed(&manager.app("wrong").unwrap(), "archive read failed").await;
}

#[tokio::test]
async fn large_headers_are_read_up_to_a_bound() {
    let server = BundleServer::start().await;
    let headers = |count: usize, bytes: usize| -> String {
        let lines = (0..count).map(|n| format!("x-{n}: {}\r\n", "a".repeat(bytes)));
        lines.collect()
    };
    server.answer("/many", Answer::With(headers(500, 100), bundle("1")));
    server.answer("/long", Answer::With(headers(3, 100_000), bundle("1")));
    server.answer("/endless", Answer::With(headers(900, 10_000), bundle("1")));
    let manager = manager(&server);
    for app in ["many", "long"] {
        until_version(&manager.app(app).unwrap(), "1").await;
    }
    let endless = manager.app("endless").unwrap();
    until_failed(&endless, "error sending request").await;
    server.answer("/endless", Answer::Bundle(bundle("2")));
    until_version(&endless, "2").await;
}
