//! Reloads of the configuration, with each race forced in both orders.

use std::path::Path;

use super::*;
use crate::config::{ConfigError, ConfigErrorKind};
use crate::plugin::{Attached, Event, Plugin, Scope, State};
use crate::{Reason, instance::Hooks};

/// A folder with a configuration and bundles.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(configuration: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.configure(configuration);
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// `DIR` stands for the folder.
    fn configure(&self, text: &str) {
        let text = text.replace("DIR", self.path().to_str().unwrap());
        std::fs::write(self.path().join("opa.yaml"), text).unwrap();
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(name), bytes).unwrap();
    }

    fn builder(&self) -> ManagerBuilder {
        Manager::builder()
            .config_file(self.path().join("opa.yaml"))
            .engine(Scripted::data())
            .blocking_pools()
    }
}

/// Where each decision went: the label `l` that the sink was attached with, and that of the event.
#[derive(Clone, Default)]
struct Sinks(Arc<parking_lot::Mutex<Vec<(String, String)>>>);

impl Plugin for Sinks {
    fn name(&self) -> &str {
        "decision_logs"
    }

    fn attach(&self, scope: &Scope<'_>) -> Result<Attached, ConfigError> {
        let label = |labels: &crate::plugin::Labels| labels.get("l").unwrap_or("").to_owned();
        let (attached, sinks) = (label(scope.labels), Arc::clone(&self.0));
        if let Some(section) = &scope.config.decision_logs {
            let mut reader = section.reader()?;
            if reader.bool("broken")?.unwrap_or(false) {
                return Err(section.error("broken"));
            }
        }
        Ok(Attached::default().decisions(move |event: Event| {
            sinks.lock().push((attached.clone(), label(&event.labels)));
        }))
    }
}

fn hooks(manager: &Manager) -> &Hooks {
    &manager.0.instances.shared.hooks
}

fn snapshot(app: &App) -> *const crate::instance::Snapshot {
    Arc::as_ptr(&app.instance.snapshot().unwrap())
}

fn id(app: &App) -> String {
    app.status().labels.unwrap().get("id").unwrap().to_owned()
}

fn label(app: &App) -> Option<String> {
    Some(app.status().labels?.get("l")?.to_owned())
}

/// Every app has the label `orders`; the one of that name has its own.
fn uneven(value: &str) -> String {
    format!("labels: {{'{{{{ .bundlename }}}}': own, <<: {{orders: {value}}}}}")
}

#[tokio::test(start_paused = true)]
async fn only_apps_whose_configuration_changed_are_touched() {
    let folder = Folder::new(&uneven("one"));
    let source = Counting::new(bundle("1"));
    let manager = folder
        .builder()
        .source("b", source.clone())
        .build()
        .unwrap();
    let (orders, stock) = (
        manager.app("orders").unwrap(),
        manager.app("stock").unwrap(),
    );
    orders.ready(LONG).await.unwrap();
    stock.ready(LONG).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = (snapshot(&orders), snapshot(&stock), id(&stock));
    let asked = source.asked();

    folder.configure(&uneven("two"));
    let report = manager.reload().await.unwrap();
    assert_eq!(report.changed, [stock.id().clone()]);
    assert_eq!(report.unchanged, [orders.id().clone()]);
    assert!(report.failed.is_empty());
    assert_eq!(snapshot(&orders), before.0);
    assert_ne!(snapshot(&stock), before.1, "labels are the snapshot's");
    assert_eq!(id(&stock), before.2);
    assert_eq!(stock.status().labels.unwrap().get("orders"), Some("two"));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        source.asked(),
        asked,
        "the bundle is the same, so its poll goes on"
    );
    source.memory.replace(bundle("2"));
    until_version(&orders, "2").await;
    until_version(&stock, "2").await;

    let again = manager.reload().await.unwrap();
    assert_eq!((again.changed.len(), again.unchanged.len()), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_bad_file_leaves_the_old_configuration_also_for_apps_that_start_later() {
    let folder = Folder::new("labels: {l: old}");
    let source = Counting::new(bundle("1"));
    let builder = folder
        .builder()
        .source("b", source.clone())
        .plugin(Sinks::default());
    let manager = builder.build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    for (bad, kind) in [
        ("labels: {l: new", ConfigErrorKind::Syntax),
        ("labels: {l: [new]}", ConfigErrorKind::Invalid),
        (
            "labels: {l: new}\ndiscovery: {resource: x}",
            ConfigErrorKind::Unsupported,
        ),
        (
            "labels: {l: new}\nstatus: {console: true}",
            ConfigErrorKind::Invalid,
        ),
        (
            "labels: {l: new}\ndecision_logs: {broken: true}",
            ConfigErrorKind::Invalid,
        ),
    ] {
        folder.configure(bad);
        assert_eq!(manager.reload().await.unwrap_err().kind(), kind, "{bad}");
        let later = manager.app(format!("app-{}", bad.len())).unwrap();
        later.ready(LONG).await.unwrap();
        for app in [&app, &later] {
            assert_eq!(label(app).as_deref(), Some("old"), "{bad}");
            assert_eq!(version(app).await.as_deref(), Some("1"));
        }
    }
    std::fs::remove_file(folder.path().join("opa.yaml")).unwrap();
    assert_eq!(
        manager.reload().await.unwrap_err().kind(),
        ConfigErrorKind::Io
    );
    folder.configure("labels: {l: new}");
    assert_eq!(manager.reload().await.unwrap().changed.len(), 6);
    assert_eq!(label(&app).as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn what_fails_for_one_app_leaves_its_old_configuration_and_heals() {
    let folder = Folder::new("labels: {l: old}");
    let source = Counting::new(bundle("1"));
    let manager = folder
        .builder()
        .source("b", source.clone())
        .build()
        .unwrap();
    let (orders, stock) = (
        manager.app("orders").unwrap(),
        manager.app("stock").unwrap(),
    );
    orders.ready(LONG).await.unwrap();
    stock.ready(LONG).await.unwrap();
    let before = snapshot(&orders);
    // A key of the app's own name, twice.
    folder.configure("labels: {l: new, '{{ .bundlename }}': a, orders: b}");
    let report = manager.reload().await.unwrap();
    assert_eq!(report.changed, [stock.id().clone()]);
    assert_eq!(report.failed[0].0, *orders.id());
    assert!(report.failed[0].1.contains("defined twice"), "{report:?}");
    assert_eq!(
        (label(&orders).as_deref(), label(&stock).as_deref()),
        (Some("old"), Some("new"))
    );
    assert_eq!(snapshot(&orders), before);
    assert_eq!(orders.state(), State::Ready);
    let problem = orders.status().configuration_problem.unwrap();
    assert!(problem.contains("defined twice"), "{problem}");
    assert_eq!(stock.status().configuration_problem, None);
    // Its bundles go on meanwhile.
    source.memory.replace(bundle("2"));
    until_version(&orders, "2").await;

    folder.configure("labels: {l: newer}");
    assert_eq!(manager.reload().await.unwrap().changed.len(), 2);
    assert_eq!(label(&orders).as_deref(), Some("newer"));
    assert_eq!(orders.status().configuration_problem, None);
}

#[tokio::test(start_paused = true)]
async fn the_old_state_serves_until_the_new_one_is_complete() {
    let config = |name: &str, label: &str| {
        format!(
            "bundles: {{part: {{resource: 'file://DIR/{name}'}}}}\nlabels: {{l: {label}}}\ndecision_logs: {{}}"
        )
    };
    let folder = Folder::new(&config("one.tar.gz", "old"));
    folder.write("one.tar.gz", &bundle("1"));
    let sinks = Sinks::default();
    let manager = folder.builder().plugin(sinks.clone()).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let under_way = app.ask().prepare(None).unwrap();

    // The new bundle isn't there.
    folder.configure(&config("two.tar.gz", "new"));
    assert_eq!(manager.reload().await.unwrap().changed.len(), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    assert_eq!(label(&app).as_deref(), Some("old"));
    assert_eq!(app.state(), State::Ready);
    let status = app.status();
    assert!(status.bundles[0].message.is_some(), "{status:?}");
    assert_eq!(status.bundles[0].active_revision.as_deref(), Some("1"));
    // What the old configuration named doesn't count any more.
    folder.write("one.tar.gz", &bundle("9"));
    tokio::time::sleep(LONG).await;
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    // A bundle that makes no policy.
    folder.write("two.tar.gz", &broken());
    tokio::time::sleep(LONG).await;
    assert_eq!(version(&app).await.as_deref(), Some("1"));

    folder.write("two.tar.gz", &bundle("2"));
    until_version(&app, "2").await;
    assert_eq!(label(&app).as_deref(), Some("new"));
    assert_eq!(app.status().bundles[0].message, None);
    sinks.0.lock().clear();
    version(&app).await;
    let evaluated = under_way.evaluate(Value::NULL).await;
    let entry = crate::instance::LogEntry::default();
    evaluated.conclude(Reason::Decided, None, entry).await;
    let pair = |text: &str| (text.to_owned(), text.to_owned());
    assert_eq!(
        *sinks.0.lock(),
        [pair("new"), pair("old")],
        "what is under way goes where it went"
    );
}

fn part(root: &str, version: &str) -> Vec<u8> {
    let data = Value::object([("version".into(), version.into())]);
    let bundle = BundleWriter::new().revision(version).roots([root]).unwrap();
    bundle.data(root, &data).unwrap().to_vec().unwrap()
}

async fn all(app: &App) -> String {
    app.decide("x", Value::NULL)
        .await
        .result()
        .unwrap()
        .to_json()
}

async fn until_all(app: &App, wanted: &str) {
    while all(app).await != wanted {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn bundles_come_and_go_and_the_others_stay() {
    let config = |names: &[&str]| {
        let bundles: Vec<_> = names
            .iter()
            .map(|name| format!("{name}: {{resource: 'file://DIR/{name}.tar.gz'}}"))
            .collect();
        format!("bundles: {{{}}}", bundles.join(", "))
    };
    let folder = Folder::new(&config(&["a", "b"]));
    for name in ["a", "b", "c"] {
        folder.write(&format!("{name}.tar.gz"), &part(name, "1"));
    }
    let manager = folder.builder().build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    assert_eq!(
        all(&app).await,
        r#"{"a":{"version":"1"},"b":{"version":"1"}}"#
    );
    let names = |app: &App| -> Vec<String> {
        app.status()
            .bundles
            .iter()
            .map(|bundle| bundle.name.to_string())
            .collect()
    };

    folder.configure(&config(&["a"]));
    manager.reload().await.unwrap();
    assert_eq!(all(&app).await, r#"{"a":{"version":"1"}}"#, "at once");
    assert_eq!(names(&app), ["a"]);

    folder.configure(&config(&["a", "c"]));
    manager.reload().await.unwrap();
    until_all(&app, r#"{"a":{"version":"1"},"c":{"version":"1"}}"#).await;

    // While a new one is missing, those that stay are kept up to date.
    folder.configure(&config(&["a", "c", "d"]));
    manager.reload().await.unwrap();
    folder.write("a.tar.gz", &part("a", "2"));
    until_all(&app, r#"{"a":{"version":"2"},"c":{"version":"1"}}"#).await;
    folder.write("d.tar.gz", &part("d", "1"));
    until_all(
        &app,
        r#"{"a":{"version":"2"},"c":{"version":"1"},"d":{"version":"1"}}"#,
    )
    .await;
    assert_eq!(names(&app), ["a", "c", "d"]);

    // A change of mind while a new one is missing.
    folder.configure(&config(&["a", "e"]));
    manager.reload().await.unwrap();
    folder.configure(&config(&["a", "d"]));
    manager.reload().await.unwrap();
    until_all(&app, r#"{"a":{"version":"2"},"d":{"version":"1"}}"#).await;
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_heals_an_instance_without_a_policy_starts_it() {
    let folder = Folder::new(
        "bundles: {a: {resource: 'file://DIR/a.tar.gz'}, b: {resource: 'file://DIR/b.tar.gz'}}",
    );
    folder.write("a.tar.gz", &part("a", "1"));
    let manager = folder.builder().build().unwrap();
    let app = manager.app("orders").unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(matches!(app.state(), State::Failed { .. }));
    folder.configure("bundles: {a: {resource: 'file://DIR/a.tar.gz'}}");
    manager.reload().await.unwrap();
    assert_eq!(app.state(), State::Ready, "what was there is enough");
    assert_eq!(
        app.status().bundles[0].active_revision.as_deref(),
        Some("1")
    );
    assert_eq!(all(&app).await, r#"{"a":{"version":"1"}}"#);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_starts_right_before_the_switch_is_brought_up_to_date() {
    let folder = Folder::new("labels: {l: old}");
    let source = Counting::new(bundle("1"));
    let manager = folder
        .builder()
        .source("b", source.clone())
        .build()
        .unwrap();
    let weak = Arc::downgrade(&manager.0);
    let (send, taken) = std::sync::mpsc::channel();
    // Its start takes the old blueprint, and goes on only when the new one is in force.
    let (reached, at_the_blueprint) = std::sync::mpsc::channel();
    hooks(&manager).at("configure: the blueprint is taken", move || {
        reached.send(()).unwrap()
    });
    hooks(&manager).at("reload: before the switch", move || {
        let manager = Manager(weak.upgrade().unwrap());
        send.send(manager.app("orders").unwrap()).unwrap();
    });
    folder.configure("labels: {l: new}");
    let report = manager.reload().await.unwrap();
    let app = taken.recv().unwrap();
    app.ready(LONG).await.unwrap();
    assert_eq!(label(&app).as_deref(), Some("new"), "{report}");
    assert!(at_the_blueprint.try_recv().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_took_the_old_blueprint_is_told_the_new_one() {
    let folder = Folder::new("labels: {l: old}");
    let source = Counting::new(bundle("1"));
    let manager = folder
        .builder()
        .source("b", source.clone())
        .build()
        .unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (reached, at_the_blueprint) = std::sync::mpsc::channel();
    hooks(&manager).at("configure: the blueprint is taken", move || {
        reached.send(()).unwrap();
        wait.recv().unwrap();
    });
    let app = manager.app("orders").unwrap();
    tokio::task::spawn_blocking(move || at_the_blueprint.recv().unwrap())
        .await
        .unwrap();
    hooks(&manager).at("reload: before the switch", move || go.send(()).unwrap());
    folder.configure("labels: {l: new}");
    let report = manager.reload().await.unwrap();
    assert_eq!(
        report.changed.len() + report.unchanged.len(),
        1,
        "it was waited for: {report}"
    );
    app.ready(LONG).await.unwrap();
    assert_eq!(label(&app).as_deref(), Some("new"));
}

#[tokio::test(start_paused = true)]
async fn reloads_at_the_same_time_follow_each_other() {
    let folder = Folder::new("labels: {l: old}");
    let source = Counting::new(bundle("1"));
    let manager = folder
        .builder()
        .source("b", source.clone())
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    folder.configure("labels: {l: new}");
    let (one, two) = tokio::join!(manager.reload(), manager.reload());
    let changed = one.unwrap().changed.len() + two.unwrap().changed.len();
    assert_eq!(changed, 1);
    // A reload goes on without its future.
    folder.configure("labels: {l: newer}");
    drop(tokio::time::timeout(Duration::ZERO, manager.reload()).await);
    while label(&app).as_deref() != Some("newer") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_shut_down_reloads_nothing() {
    let folder = Folder::new("labels: {l: old}");
    let source = Counting::new(bundle("1"));
    let manager = folder
        .builder()
        .source("b", source.clone())
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    folder.configure("labels: {l: new}");
    // In the middle of one.
    let weak = Arc::downgrade(&manager.0);
    hooks(&manager).at("reload: before the switch", move || {
        let inner = weak.upgrade().unwrap();
        inner.instances.closed.store(true, Ordering::Release);
        inner.instances.close_all();
    });
    assert_eq!(
        manager.reload().await.unwrap_err().kind(),
        ConfigErrorKind::Closed
    );
    manager.shutdown(Duration::from_secs(1)).await;
    assert_eq!(
        manager.reload().await.unwrap_err().kind(),
        ConfigErrorKind::Closed
    );
    assert_eq!(app.state(), State::Closed);
    assert_eq!(version(&app).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_watched_file_is_reloaded_when_its_content_has_settled() {
    let every = Duration::from_secs(5);
    let folder = Folder::new("labels: {l: old}");
    folder.write("label", b"one");
    let flag = format!("labels.file={}", folder.path().join("label").display());
    let source = Counting::new(bundle("1"));
    let builder = folder
        .builder()
        .source("b", source.clone())
        .set_file(flag)
        .set("labels.set=x");
    let manager = builder.watch_config(every).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let file = |app: &App| app.status().labels.unwrap().get("file").unwrap().to_owned();
    assert_eq!(file(&app), "one");
    assert_eq!(app.status().labels.unwrap().get("set"), Some("x"));

    folder.configure("labels: {l: new}");
    tokio::time::sleep(every * 3).await;
    assert_eq!(label(&app).as_deref(), Some("new"));
    folder.write("label", b"two");
    tokio::time::sleep(every * 3).await;
    assert_eq!(file(&app), "two");

    // A file that is written in pieces is read when it is whole.
    folder.configure("labels: {l: half}");
    tokio::time::sleep(every).await;
    folder.configure("labels: {l: half, m: other}");
    tokio::time::sleep(every * 3).await;
    assert_eq!(app.status().labels.unwrap().get("m"), Some("other"));

    for bad in ["labels: {", "bundles: 5"] {
        folder.configure(bad);
        tokio::time::sleep(every * 3).await;
        assert_eq!(label(&app).as_deref(), Some("half"));
    }
    folder.configure("labels: {l: good}");
    tokio::time::sleep(every * 3).await;
    assert_eq!(label(&app).as_deref(), Some("good"));
}

/// As Kubernetes replaces a ConfigMap: the file's name is a link through a folder's link.
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn a_watched_file_behind_links_is_followed() {
    use std::os::unix::fs::symlink;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for version in ["1", "2"] {
        std::fs::create_dir(at(&format!("..{version}"))).unwrap();
        let text = format!("labels: {{l: '{version}'}}");
        std::fs::write(at(&format!("..{version}/opa.yaml")), text).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/opa.yaml", at("opa.yaml")).unwrap();
    let source = Counting::new(bundle("1"));
    let every = Duration::from_secs(5);
    let builder = builder(&source)
        .config_file(at("opa.yaml"))
        .watch_config(every);
    let manager = builder.build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    assert_eq!(label(&app).as_deref(), Some("1"));
    symlink("..2", at("..tmp")).unwrap();
    std::fs::rename(at("..tmp"), at("..data")).unwrap();
    tokio::time::sleep(every * 3).await;
    assert_eq!(label(&app).as_deref(), Some("2"));
}

/// An activation of the old configuration is under way while the new one is told.
#[tokio::test(flavor = "multi_thread")]
async fn an_activation_under_way_is_waited_for_and_its_poll_is_ended() {
    let config = |name: &str| format!("bundles: {{part: {{resource: 'file://DIR/{name}'}}}}");
    let folder = Folder::new(&config("one.tar.gz"));
    folder.write("one.tar.gz", &bundle("1"));
    folder.write("two.tar.gz", &bundle("2"));
    let manager = folder.builder().build().unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let (reached, activating) = std::sync::mpsc::channel();
    hooks(&manager).at("activation: before the swap", move || {
        reached.send(()).unwrap();
        wait.recv().unwrap();
    });
    let app = manager.app("orders").unwrap();
    tokio::task::spawn_blocking(move || activating.recv().unwrap())
        .await
        .unwrap();
    // It is let go when the reload has made its plan.
    hooks(&manager).at("configure: the blueprint is taken", move || {
        go.send(()).unwrap();
    });
    folder.configure(&config("two.tar.gz"));
    assert_eq!(manager.reload().await.unwrap().changed.len(), 1);
    tokio::time::timeout(LONG, until_version(&app, "2"))
        .await
        .unwrap();
    folder.write("one.tar.gz", &bundle("9"));
    folder.write("two.tar.gz", &bundle("3"));
    tokio::time::timeout(LONG, until_version(&app, "3"))
        .await
        .unwrap();
}

/// Can't be attached to the app `orders`, and knows how often that was tried.
#[derive(Clone, Default)]
struct Refuses(Arc<AtomicUsize>, Arc<std::sync::atomic::AtomicBool>);

impl Plugin for Refuses {
    fn name(&self) -> &str {
        "decision_logs"
    }

    fn attach(&self, scope: &Scope<'_>) -> Result<Attached, ConfigError> {
        if scope.app.as_str() != "orders" || !self.1.load(Ordering::Relaxed) {
            return Ok(Attached::default());
        }
        self.0.fetch_add(1, Ordering::Relaxed);
        Err(ConfigError::new(ConfigErrorKind::Invalid, "not now"))
    }
}

#[tokio::test(start_paused = true)]
async fn reloads_that_fail_for_an_app_leave_one_schedule_of_retries() {
    let folder = Folder::new("labels: {l: '0'}");
    let (refuses, source) = (Refuses::default(), Counting::new(bundle("1")));
    let builder = folder.builder().source("b", source);
    let manager = builder.plugin(refuses.clone()).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    refuses.1.store(true, Ordering::Relaxed);
    for reload in 1..=50 {
        folder.configure(&format!("labels: {{l: '{reload}'}}"));
        assert_eq!(manager.reload().await.unwrap().failed.len(), 1);
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let before = refuses.0.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(600)).await;
    // Twice a minute on average: no pause is longer than a minute.
    let tries = refuses.0.load(Ordering::Relaxed) - before;
    assert!((10..60).contains(&tries), "{tries}");
    refuses.1.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(label(&app).as_deref(), Some("50"));
}
