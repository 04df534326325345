//! The configuration changes while apps are served: real files, and a bundle server that counts.

use std::path::PathBuf;
use std::time::Duration;

use opa_core::bundle::BundleWriter;
use opa_core::{App, Manager, Reason, Value};
use tests::bundle_server::{Answer, BundleServer};

const LONG: Duration = Duration::from_secs(60);

fn bundle(root: &str, version: &str) -> Vec<u8> {
    let policy = format!("package {root}\nversion := \"{version}\"");
    BundleWriter::new()
        .revision(version)
        .roots([root])
        .unwrap()
        .module(format!("{root}.rego"), policy)
        .unwrap()
        .to_vec()
        .unwrap()
}

struct Control {
    folder: tempfile::TempDir,
    server: BundleServer,
}

impl Control {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = BundleServer::start().await;
        Self { folder, server }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("opa.yaml")
    }

    /// Bundles by name and resource, and further lines.
    fn configure(&self, bundles: &[(&str, &str)], more: &str) {
        let bundles: String = bundles
            .iter()
            .map(|(name, resource)| {
                format!("  {name}: {{resource: '{resource}', polling: {POLLING}}}\n")
            })
            .collect();
        let url = self.server.url();
        let text = format!("services: {{s: {{url: '{url}'}}}}\nbundles:\n{bundles}{more}\n");
        std::fs::write(self.file(), text).unwrap();
    }

    fn requests(&self, path: &str) -> usize {
        let requests = self.server.requests();
        requests
            .iter()
            .filter(|request| request.path == path)
            .count()
    }
}

/// Nobody is asked twice while a test runs, so that a request more has another cause.
const POLLING: &str = "{min_delay_seconds: 3600, max_delay_seconds: 3600}";

async fn version(app: &App, root: &str) -> Option<String> {
    let path = format!("{root}/version");
    let decision = app.decide(&path, Value::empty_object()).await;
    Some(decision.result()?.as_str()?.to_owned())
}

async fn until(app: &App, root: &str, wanted: Option<&str>) {
    let wait = async {
        while version(app, root).await.as_deref() != wanted {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, wait)
        .await
        .unwrap_or_else(|_| panic!("{:?}", app.status()));
}

fn label(app: &App, name: &str) -> Option<String> {
    Some(app.status().labels?.get(name)?.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_asked_for_again() {
    let control = Control::start().await;
    for (path, root, version) in [("/a", "a", "1"), ("/b", "b", "1"), ("/c", "b", "2")] {
        control
            .server
            .answer(path, Answer::Bundle(bundle(root, version)));
    }
    control.configure(&[("a", "a"), ("b", "b")], "labels: {l: old}");
    let manager = Manager::builder()
        .config_file(control.file())
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let id = label(&app, "id");

    // Another label: at once, and nobody is asked.
    control.configure(&[("a", "a"), ("b", "b")], "labels: {l: new}");
    assert_eq!(manager.reload().await.unwrap().changed.len(), 1);
    assert_eq!(
        (label(&app, "l").as_deref(), label(&app, "id")),
        (Some("new"), id.clone())
    );
    assert_eq!((control.requests("/a"), control.requests("/b")), (1, 1));

    // Another resource of one bundle: only that is fetched.
    control.configure(&[("a", "a"), ("b", "c")], "labels: {l: newer}");
    assert_eq!(manager.reload().await.unwrap().changed.len(), 1);
    until(&app, "b", Some("2")).await;
    assert_eq!(version(&app, "a").await.as_deref(), Some("1"));
    assert_eq!(label(&app, "l").as_deref(), Some("newer"));
    let requests = ["/a", "/b", "/c"].map(|path| control.requests(path));
    assert_eq!(requests, [1, 1, 1]);

    // One bundle less: at once.
    control.configure(&[("b", "c")], "labels: {l: newer}");
    manager.reload().await.unwrap();
    assert_eq!(version(&app, "a").await, None);
    assert_eq!(version(&app, "b").await.as_deref(), Some("2"));

    // The same file again, and one that says the same in other words.
    assert_eq!(manager.reload().await.unwrap().unchanged.len(), 1);
    control.configure(&[("b", "c")], "# a comment\n\nlabels: {'l': \"newer\"}");
    assert_eq!(manager.reload().await.unwrap().unchanged.len(), 1);
    let requests = ["/a", "/b", "/c"].map(|path| control.requests(path));
    assert_eq!(requests, [1, 1, 1]);
    assert_eq!(label(&app, "id"), id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_moves_to_one_that_is_down_leaves_the_last_good_policy() {
    let control = Control::start().await;
    control
        .server
        .answer("/a", Answer::Bundle(bundle("a", "1")));
    control.configure(&[("a", "a")], "labels: {l: old}");
    let manager = Manager::builder()
        .config_file(control.file())
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();

    let other = BundleServer::start().await;
    other.answer("/a", Answer::Status(503, ""));
    let text = std::fs::read_to_string(control.file()).unwrap();
    let moved = text
        .replace(&control.server.url(), &other.url())
        .replace("3600", "1");
    std::fs::write(control.file(), moved).unwrap();
    assert_eq!(manager.reload().await.unwrap().changed.len(), 1);
    let failed = async {
        while app.status().bundles[0].http_code != Some(503) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, failed).await.unwrap();
    assert_eq!(version(&app, "a").await.as_deref(), Some("1"));
    assert_eq!(label(&app, "l").as_deref(), Some("old"));
    other.answer("/a", Answer::Bundle(bundle("a", "2")));
    until(&app, "a", Some("2")).await;
    assert_eq!(app.status().bundles[0].http_code, None);
    assert_eq!(control.requests("/a"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_under_load_make_no_error() {
    let control = Control::start().await;
    for version in ["1", "2"] {
        control
            .server
            .answer(&format!("/{version}"), Answer::Bundle(bundle("a", version)));
    }
    control.configure(&[("a", "1")], "");
    let manager = Manager::builder()
        .config_file(control.file())
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let (over, ended) = tokio::sync::watch::channel(false);
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (app, ended) = (app.clone(), ended.clone());
            tokio::spawn(async move {
                let mut made = 0;
                while !*ended.borrow() {
                    let decision = app.decide("a/version", Value::empty_object()).await;
                    assert_eq!(decision.reason(), Reason::Decided, "{:?}", decision.error());
                    let version = decision.result().and_then(Value::as_str).map(str::to_owned);
                    assert_eq!(decision.revision(), version.as_deref());
                    made += 1;
                    tokio::task::yield_now().await;
                }
                made
            })
        })
        .collect();
    for round in 0..10 {
        let version = if round % 2 == 0 { "2" } else { "1" };
        control.configure(&[("a", version)], &format!("labels: {{round: '{round}'}}"));
        manager.reload().await.unwrap();
        until(&app, "a", Some(version)).await;
    }
    over.send(true).unwrap();
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_a_thousand_apps_asks_nobody_about_what_is_the_same() {
    const APPS: usize = 1_000;
    let control = Control::start().await;
    control
        .server
        .answer("/a", Answer::Bundle(bundle("a", "1")));
    // Every app has the label `app-0`; the one of that name has its own.
    let labels =
        |value: &str| format!("labels: {{'{{{{ .bundlename }}}}': own, <<: {{app-0: {value}}}}}");
    control.configure(&[("a", "a")], &labels("one"));
    let manager = Manager::builder()
        .config_file(control.file())
        .build()
        .unwrap();
    let apps: Vec<_> = (0..APPS)
        .map(|app| manager.app(format!("app-{app}")).unwrap())
        .collect();
    for app in &apps {
        app.ready(LONG).await.unwrap();
    }
    let asked = control.server.request_count();

    let start = std::time::Instant::now();
    let report = manager.reload().await.unwrap();
    let took = start.elapsed();
    assert_eq!((report.changed.len(), report.unchanged.len()), (0, APPS));
    control.configure(&[("a", "a")], &labels("two"));
    let start = std::time::Instant::now();
    let report = manager.reload().await.unwrap();
    println!(
        "{APPS} apps: unchanged in {took:?}, changed in {:?}",
        start.elapsed()
    );
    assert_eq!(
        (report.changed.len(), report.unchanged.len()),
        (APPS - 1, 1)
    );
    assert_eq!(label(&apps[0], "app-0").as_deref(), Some("own"));
    assert_eq!(label(&apps[1], "app-0").as_deref(), Some("two"));
    assert_eq!(control.server.request_count(), asked);
}
