//! Bundles kept on disk: what a restart serves without a control plane, what OPA and we read of
//! each other, and what is refused.

#![cfg(unix)]

#[path = "persistence/crash.rs"]
mod crash;

use std::convert::Infallible;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use opa_core::bundle::{self, BundleWriter};
use opa_core::{App, Manager, ManagerBuilder, Reason, Value};
use opa_tower::{OpaLayer, RequestBody, ResponseBody};
use serde_json::json;
use tests::bundle_server::{Answer, BundleServer};
use tests::peers;
use tests::scripted::Scripted;
use tower::{Layer, ServiceExt};

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

/// A control plane that is down.
const DOWN: Answer = Answer::Status(503, "");

fn bundle(version: &str) -> Vec<u8> {
    let data = Value::object([("version".into(), version.into())]);
    BundleWriter::new()
        .revision(version)
        .data("", &data)
        .unwrap()
        .module("a.rego", "package a")
        .unwrap()
        .to_vec()
        .unwrap()
}

fn builder(url: &str, directory: &str, more: &str) -> ManagerBuilder {
    let config = format!(
        "services: {{control: {{url: '{url}'}}}}\n\
         persistence_directory: '{directory}'\n\
         bundles: {{b: {{resource: b, persist: true, {more} polling: \
           {{min_delay_seconds: 1, max_delay_seconds: 1}}}}}}",
    );
    Manager::builder()
        .config_yaml(&config)
        .engine(Scripted::data())
}

fn start(server: &BundleServer, directory: &Path) -> (Manager, App) {
    let manager = builder(&server.url(), &directory.display().to_string(), "");
    let manager = manager.build().unwrap();
    let app = manager.app("shop").unwrap();
    (manager, app)
}

async fn version(app: &App) -> Option<String> {
    let decision = app.decide("x", Value::NULL).await;
    Some(decision.result()?.get("version")?.as_str()?.to_owned())
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, wait).await;
    assert!(waited.is_ok(), "never: {what}");
}

fn message(app: &App) -> Option<String> {
    let status = app.status();
    Some(status.bundles.first()?.message.as_ref()?.to_string())
}

fn not_persisted(app: &App) -> Option<String> {
    let status = app.status();
    Some(status.bundles.first()?.not_persisted.as_ref()?.to_string())
}

fn archive_of(directory: &Path, app: &str) -> PathBuf {
    directory.join(app).join("bundles/b/bundle.tar.gz")
}

/// A directory with what a manager kept of `archive`.
async fn kept(server: &BundleServer, archive: &[u8]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    server.answer("/b", Answer::Bundle(archive.to_vec()));
    let (manager, app) = start(server, directory.path());
    app.ready(LONG).await.unwrap();
    let etag = archive_of(directory.path(), "shop").with_file_name("bundle.etag.json");
    until("the bundle is kept", || etag.exists()).await;
    manager.shutdown(LONG).await;
    directory
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_a_control_plane_serves_the_last_good_bundle() {
    let server = BundleServer::start().await;
    let directory = kept(&server, &bundle("1")).await;
    let file = archive_of(directory.path(), "shop");
    assert_eq!(fs::read(&file).unwrap(), bundle("1"));
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    for down in [DOWN, Answer::Hang, Answer::Close] {
        server.answer("/b", down);
        let before = server.request_count();
        let (manager, app) = start(&server, directory.path());
        app.ready(LONG).await.unwrap();
        assert_eq!(version(&app).await.as_deref(), Some("1"));
        let status = app.status();
        assert_eq!(status.bundles[0].active_revision.as_deref(), Some("1"));
        until("it is asked", || server.request_count() > before).await;
        let first = server.requests().swap_remove(before);
        let etag = bundle::etag(&bundle("1"));
        assert_eq!(first.header("if-none-match"), Some(&*etag));
        assert_eq!(version(&app).await.as_deref(), Some("1"));
        manager.shutdown(LONG).await;
    }

    server.answer("/b", Answer::Bundle(bundle("1")));
    let (manager, app) = start(&server, directory.path());
    app.ready(LONG).await.unwrap();
    let request_ended = || app.status().bundles[0].last_successful_request.is_some();
    until("304", request_ended).await;
    assert_eq!(app.status().bundles[0].last_successful_download, None);
    server.answer("/b", Answer::Bundle(bundle("2")));
    let is_new = || fs::read(&file).unwrap() == bundle("2");
    until("the new one is kept", is_new).await;
    assert_eq!(version(&app).await.as_deref(), Some("2"));
    manager.shutdown(LONG).await;
}

/// How old it is nobody knows: with a bound on that it decides nothing until its source has answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_kept_bundle_is_stale_until_its_source_answers() {
    let server = BundleServer::start().await;
    let directory = kept(&server, &bundle("1")).await;
    let directory = directory.path().display().to_string();
    server.answer("/b", DOWN);
    let manager = builder(&server.url(), &directory, "max_staleness_seconds: 3600,");
    let manager = manager.build().unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    let decision = app.decide("x", Value::NULL).await;
    assert_eq!(
        (decision.reason(), decision.result()),
        (Reason::Stale, None)
    );
    assert_eq!(decision.path(), Some("x"));
    assert!(app.status().bundles[0].stale);
    let inner = |_: Request<RequestBody<Empty<Bytes>>>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::from("hello"))))
    };
    let layered = OpaLayer::new(app.clone()).layer(tower::service_fn(inner));
    let request = Request::new(Empty::<Bytes>::new());
    let response: Response<ResponseBody<Full<Bytes>>> = layered.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()["retry-after"], "1");
    server.answer("/b", Answer::Bundle(bundle("1")));
    until("304", || !app.status().bundles[0].stale).await;
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    assert_eq!(app.status().bundles[0].last_successful_download, None);
    manager.shutdown(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_fails_is_not_kept() {
    let server = BundleServer::start().await;
    let directory = kept(&server, &bundle("1")).await;
    let (_manager, app) = start(&server, directory.path());
    app.ready(LONG).await.unwrap();
    let broken = BundleWriter::new().module("a.rego", "package a # broken");
    server.answer("/b", Answer::Bundle(broken.unwrap().to_vec().unwrap()));
    until("it fails", || message(&app).is_some()).await;
    let file = archive_of(directory.path(), "shop");
    assert_eq!(fs::read(file).unwrap(), bundle("1"));
}

fn part(root: &str, policy: &str) -> Vec<u8> {
    let writer = BundleWriter::new().revision(root).roots([root]).unwrap();
    let writer = writer.module(format!("{root}/a.rego"), policy).unwrap();
    writer.to_vec().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_waits_for_others_is_kept_when_they_are_there() {
    let server = BundleServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let second = "}, c: {resource: c, persist: true, ";
    let begin = || {
        let path = directory.path().display().to_string();
        // The options end with a comma, since `polling` follows them.
        let polling = "polling: {min_delay_seconds: 1, max_delay_seconds: 1}";
        let manager = builder(&server.url(), &path, &format!("{polling}{second}"));
        let manager = manager.build().unwrap();
        let app = manager.app("shop").unwrap();
        (manager, app)
    };
    let c = directory.path().join("shop/bundles/c/bundle.tar.gz");
    let b = archive_of(directory.path(), "shop");
    server.answer("/b", Answer::Bundle(part("b", "package b")));
    server.answer("/c", Answer::Bundle(part("c", "package c # broken")));
    let (manager, app) = begin();
    until("both were tried", || {
        let bundles = app.status().bundles;
        let tried = bundles
            .iter()
            .filter(|one| one.last_successful_download.is_some());
        tried.count() == 2 && bundles.iter().any(|one| one.message.is_some())
    })
    .await;
    assert!(!b.exists() && !c.exists(), "nothing was compiled yet");
    server.answer("/c", Answer::Bundle(part("c", "package c")));
    app.ready(LONG).await.unwrap();
    until("both are kept", || b.exists() && c.exists()).await;
    manager.shutdown(LONG).await;

    server.answer("/b", DOWN);
    server.answer("/c", DOWN);
    let (_manager, app) = begin();
    app.ready(LONG).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_reported_and_the_poll_goes_on() {
    let good = bundle("1");
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for damaged in [&[][..], &good[..good.len() / 2], b"no archive", &flipped] {
        let server = BundleServer::start().await;
        let directory = kept(&server, &good).await;
        let file = archive_of(directory.path(), "shop");
        fs::write(&file, damaged).unwrap();
        server.answer("/b", Answer::Hang);
        let before = server.request_count();
        let (_manager, app) = start(&server, directory.path());
        until("it is asked", || server.request_count() > before).await;
        assert_eq!(server.requests()[before].header("if-none-match"), None);
        let message = message(&app).unwrap();
        assert!(
            message.starts_with("persisted bundle not loaded: "),
            "{message}"
        );
        server.answer("/b", Answer::Bundle(good.clone()));
        app.ready(LONG).await.unwrap();
        until("it is kept again", || fs::read(&file).unwrap() == good).await;
        assert_eq!(self::message(&app), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_bundle_is_verified_again() {
    let Some(opa) = peers::opa() else { return };
    let (folder, beside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(folder.path().join("data.json"), r#"{"version": "1"}"#).unwrap();
    fs::write(folder.path().join("a.rego"), "package a\n").unwrap();
    let secret = "a shared secret of enough bytes for the algorithm";
    let built = beside.path().join("bundle.tar.gz");
    let options = ["--signing-alg", "HS256", "--signing-key", secret];
    opa.build_with(folder.path(), &built, &options);
    let signed = fs::read(built).unwrap();

    let server = BundleServer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().display().to_string();
    let with_key = |key: &str| {
        let keys = format!(
            "signing: {{keyid: default}}}}}}\nkeys: {{default: {{key: {key}, \
            algorithm: HS256}}}}\nlabels: {{x: y"
        );
        let config = format!(
            "services: {{control: {{url: '{}'}}}}\npersistence_directory: '{path}'\n\
             bundles: {{b: {{resource: b, persist: true, {keys}}}",
            server.url(),
        );
        let manager = Manager::builder().config_yaml(&config);
        let manager = manager.engine(Scripted::data()).build().unwrap();
        let app = manager.app("shop").unwrap();
        (manager, app)
    };
    server.answer("/b", Answer::Bundle(signed.clone()));
    let file = archive_of(directory.path(), "shop");
    let (manager, app) = with_key(secret);
    app.ready(LONG).await.unwrap();
    until("it is kept", || file.exists()).await;
    manager.shutdown(LONG).await;

    server.answer("/b", Answer::Hang);
    let (manager, app) = with_key(secret);
    app.ready(LONG).await.unwrap();
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    manager.shutdown(LONG).await;

    // The key was replaced meanwhile; or somebody put another bundle there.
    for (key, archive) in [("another secret", signed), (secret, bundle("1"))] {
        fs::write(&file, archive).unwrap();
        let (manager, app) = with_key(key);
        until("refused", || message(&app).is_some()).await;
        let message = message(&app).unwrap();
        assert!(
            message.contains("persisted") && message.contains("signature"),
            "{message}"
        );
        assert_eq!(version(&app).await, None);
        manager.shutdown(LONG).await;
    }
}

fn for_opa(url: &str, directory: &Path) -> String {
    let polling = json!({"min_delay_seconds": 1, "max_delay_seconds": 1});
    json!({
        "services": {"control": {"url": url}},
        "persistence_directory": directory,
        "bundles": {"b": {"resource": "b", "persist": true, "polling": polling}},
    })
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_ours_is_read_by_opa() {
    let Some(opa) = peers::opa() else { return };
    let server = BundleServer::start().await;
    let directory = kept(&server, &bundle("1")).await;
    server.answer("/b", DOWN);
    // Ready although its service is down.
    let own = directory.path().join("shop");
    let running = opa.serve(&for_opa(&server.url(), &own)).await;
    let decided = running.decide("version", &json!({})).await;
    assert_eq!(decided, Some(json!("1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_of_opas_is_read_here() {
    let Some(opa) = peers::opa() else { return };
    let server = BundleServer::start().await;
    server.answer("/b", Answer::Bundle(bundle("1")));
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("shop");
    let running = opa.serve(&for_opa(&server.url(), &own)).await;
    let file = archive_of(directory.path(), "shop");
    until("OPA keeps it", || file.exists()).await;
    drop(running);
    server.answer("/b", DOWN);
    // With the app's placeholder the directory is the app's own, without it has one for each.
    let placeholder = format!("{}/{{{{ .bundlename }}}}", directory.path().display());
    for path in [placeholder, directory.path().display().to_string()] {
        let manager = builder(&server.url(), &path, "").build().unwrap();
        let app = manager.app("shop").unwrap();
        app.ready(LONG).await.unwrap();
        assert_eq!(version(&app).await.as_deref(), Some("1"));
        let other = manager.app("other").unwrap();
        until("the other app has none", || message(&other).is_some()).await;
        assert_eq!(version(&other).await, None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_link_is_refused_and_the_app_serves() {
    let server = BundleServer::start().await;
    server.answer("/b", Answer::Bundle(bundle("1")));
    for level in ["shop", "shop/bundles", "shop/bundles/b"] {
        let (directory, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let link = directory.path().join(level);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(other.path(), &link).unwrap();
        let (_manager, app) = start(&server, directory.path());
        app.ready(LONG).await.unwrap();
        until("it is refused", || not_persisted(&app).is_some()).await;
        let problem = not_persisted(&app).unwrap();
        assert!(problem.contains("symbolic link"), "{problem}");
        assert_eq!(fs::read_dir(other.path()).unwrap().count(), 0);
        assert_eq!(version(&app).await.as_deref(), Some("1"));

        // Once it is gone the same bundle is written, although the server answers 304.
        fs::remove_file(&link).unwrap();
        until("it is kept", || {
            archive_of(directory.path(), "shop").exists()
        })
        .await;
        until("nothing is wrong", || not_persisted(&app).is_none()).await;
    }
}

/// A file system of its own, until it is dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    /// `None`, said loudly, where the test may not mount.
    fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                eprintln!("SKIPPED: no file system can be mounted here: {other:?}");
                None
            }
        }
    }

    fn remount(&self, options: &str) {
        let mut command = Command::new("mount");
        command.args(["-o", options]).arg(self.0.path());
        assert!(command.status().unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, since a writer may still be at work.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_or_read_only_never_stops_serving() {
    let large = {
        // Does not compress.
        let mut state = 1_u64;
        let text: String = (0..20_000)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                format!("{:x}", state >> 40)
            })
            .collect();
        let data = Value::object([("version".into(), "2".into()), ("x".into(), text.into())]);
        let writer = BundleWriter::new().revision("2").data("", &data).unwrap();
        writer.to_vec().unwrap()
    };
    for (before, fault, after) in [
        ("size=32k,mode=700", None, "remount,size=1m"),
        ("size=1m,mode=700", Some("remount,ro"), "remount,rw"),
    ] {
        let Some(mount) = Mount::new(before) else {
            return;
        };
        let server = BundleServer::start().await;
        server.answer("/b", Answer::Bundle(bundle("1")));
        let (manager, app) = start(&server, mount.0.path());
        app.ready(LONG).await.unwrap();
        let file = archive_of(mount.0.path(), "shop");
        until("it is kept", || {
            file.with_file_name("bundle.etag.json").exists()
        })
        .await;
        if let Some(options) = fault {
            mount.remount(options);
        }
        server.answer("/b", Answer::Bundle(large.clone()));
        until("it fails", || not_persisted(&app).is_some()).await;
        let problem = not_persisted(&app).unwrap();
        assert!(problem.contains("os error"), "{problem}");
        assert_eq!(version(&app).await.as_deref(), Some("2"));
        assert_eq!(message(&app), None);
        assert_eq!(
            fs::read(&file).unwrap(),
            bundle("1"),
            "the old one is still there"
        );
        mount.remount(after);
        until("it is kept", || fs::read(&file).unwrap() == large).await;
        until("nothing is wrong", || not_persisted(&app).is_none()).await;
        manager.shutdown(LONG).await;
    }
}

/// One app, two bundles, and a configuration that can change.
fn reloadable(server: &BundleServer, folder: &Path, bundles: &str) -> PathBuf {
    let file = folder.join("opa.yaml");
    let polling = "polling: {min_delay_seconds: 1, max_delay_seconds: 1}";
    let config = format!(
        "services: {{control: {{url: '{}'}}}}\n\
         persistence_directory: '{}'\n\
         bundles: {{{}}}",
        server.url(),
        folder.join("kept").display(),
        bundles.replace("POLLING", polling),
    );
    fs::write(&file, config).unwrap();
    file
}

fn versioned(root: &str, version: &str) -> Vec<u8> {
    let bundle = BundleWriter::new().revision(version).roots([root]).unwrap();
    let data = Value::object([("version".into(), version.into())]);
    bundle.data(root, &data).unwrap().to_vec().unwrap()
}

async fn version_of(app: &App, root: &str) -> Option<String> {
    let decision = app.decide("x", Value::NULL).await;
    Some(
        decision
            .result()?
            .get(root)?
            .get("version")?
            .as_str()?
            .to_owned(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_disk_takes_the_place_of_nothing_that_the_source_brought() {
    let server = BundleServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let old = archive_of(&folder.path().join("kept"), "shop");
    fs::create_dir_all(old.parent().unwrap()).unwrap();
    fs::write(&old, bundle("1")).unwrap();
    server.answer("/b", Answer::Bundle(bundle("2")));
    let file = reloadable(&server, folder.path(), "b: {resource: b, POLLING}");
    let builder = Manager::builder().config_file(&file);
    let manager = builder.engine(Scripted::data()).build().unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();

    server.answer("/b", DOWN);
    reloadable(
        &server,
        folder.path(),
        "b: {resource: b, persist: true, POLLING}",
    );
    manager.reload().await.unwrap();
    assert_eq!(version(&app).await.as_deref(), Some("2"), "not the old one");
    server.answer("/b", Answer::Bundle(bundle("3")));
    until("the new one is kept", || {
        fs::read(&old).unwrap() == bundle("3")
    })
    .await;
    assert_eq!(version(&app).await.as_deref(), Some("3"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_for_a_configuration_that_is_gone_is_not_written() {
    let server = BundleServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = archive_of(&folder.path().join("kept"), "shop");
    let answers = [
        ("/b1", versioned("b", "1")),
        ("/b2", versioned("b", "2")),
        ("/c", versioned("c", "1")),
    ];
    for (path, bundle) in answers {
        server.answer(path, Answer::Bundle(bundle));
    }
    server.answer("/b3", DOWN);
    server.answer("/missing", DOWN);
    let configure = |b: &str, other: &str| {
        let bundles = format!(
            "b: {{resource: {b}, persist: true, POLLING}}, {other}: {{resource: {other}, POLLING}}"
        );
        reloadable(&server, folder.path(), &bundles)
    };
    let builder = Manager::builder().config_file(configure("b1", "c"));
    let manager = builder.engine(Scripted::data()).build().unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    until("the first is kept", || {
        fs::read(&file).is_ok_and(|kept| kept == versioned("b", "1"))
    })
    .await;

    // The second one comes, and waits for one that never does.
    configure("b2", "missing");
    manager.reload().await.unwrap();
    let named = bundle::etag(&versioned("b", "2"));
    let is_taken = || {
        let last = server.last_request_for("/b2");
        last.is_some_and(|last| last.header("if-none-match") == Some(&*named))
    };
    until("the second is taken", is_taken).await;
    assert!(fs::read(&file).unwrap() == versioned("b", "1"));

    configure("b3", "c");
    manager.reload().await.unwrap();
    server.answer("/c", Answer::Bundle(versioned("c", "2")));
    let named = bundle::etag(&versioned("c", "2"));
    let is_served = || {
        let last = server.last_request_for("/c");
        last.is_some_and(|last| last.header("if-none-match") == Some(&*named))
    };
    until("the other one is served", is_served).await;
    let kept = fs::read(&file).unwrap();
    assert!(
        kept == versioned("b", "1"),
        "what was never active was written"
    );
    assert_eq!(version_of(&app, "b").await.as_deref(), Some("1"));
}
