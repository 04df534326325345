//! Hundreds of apps that wait for news over HTTP/2, beyond the happy path: few streams for each
//! connection, connections that go away, streams that are reset, a service that is started again.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use opa_core::{App, Manager, Value};
use tempfile::TempDir;
use tests::bundle_service::{BundleService, Options, Seen};
use tests::certificates::Authority;
use tests::scripted::Scripted;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

/// Past the capture of libtest: figures are for whoever reads the log.
fn show(text: &str) {
    let shown = writeln!(std::io::stderr(), "{text}");
    shown.unwrap();
}

/// The service, and apps that wait for its news for as long as there are none.
struct World {
    service: BundleService,
    certificates: TempDir,
    manager: Manager,
    apps: Vec<App>,
    tasks_before: usize,
}

impl World {
    async fn start(apps: usize, streams: u32) -> World {
        let certificates = tempfile::tempdir().unwrap();
        let authority = Authority::new("long polls");
        let folder = certificates.path();
        std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
        authority.issue_into(folder, "server", "control");
        let options = Options {
            certificates: Some(folder.to_owned()),
            streams: Some(streams),
        };
        let service = BundleService::start(env!("CARGO_BIN_EXE_bundle_service"), options);
        let config = format!(
            "services: {{control: {{url: '{}', tls: {{ca_cert: '{}/ca.pem'}}}}}}\n\
             bundles: {{b: {{service: control, resource: 'long/{{{{ .bundlename }}}}', \
               polling: {{min_delay_seconds: 1, max_delay_seconds: 2, \
               long_polling_timeout_seconds: 3600}}}}}}",
            service.url(),
            folder.display(),
        );
        let manager = Manager::builder()
            .config_yaml(&config)
            .engine(Scripted::data())
            .grace(Duration::ZERO)
            .build()
            .unwrap();
        let tasks_before = tasks();
        let apps: Vec<_> = (0..apps)
            .map(|app| manager.app(format!("app-{app}")).unwrap())
            .collect();
        for app in &apps {
            app.ready(LONG).await.unwrap();
        }
        World {
            service,
            certificates,
            manager,
            apps,
            tasks_before,
        }
    }

    /// Waits until what the service saw is so.
    async fn until(&mut self, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        let end = Instant::now() + LONG;
        loop {
            let seen = self.service.seen();
            if holds(&seen) {
                return seen;
            }
            assert!(Instant::now() < end, "never: {what}; {seen:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_all_wait(&mut self) -> Seen {
        let all = self.apps.len();
        self.until("all wait", |seen| seen.waiting == all).await
    }

    /// There is another bundle, which all apps come to.
    async fn news(&mut self, version: u64) {
        self.service.change("all", version);
        for app in &self.apps {
            until_version(app, &version.to_string()).await;
        }
    }

    /// How often each app asked since the last reset.
    fn asked(&mut self) -> HashMap<String, usize> {
        let mut by_app = HashMap::new();
        for (_, path) in self.service.requests() {
            *by_app.entry(path).or_default() += 1;
        }
        by_app
    }

    /// No app asked more often than that since the last reset.
    fn nobody_asked_more_than(&mut self, bound: usize, what: &str) {
        let most = self.asked().into_iter().max_by_key(|(_, times)| *times);
        show(&format!("{what}: most requests of an app {most:?}"));
        assert!(
            most.as_ref().is_none_or(|(_, times)| *times <= bound),
            "{what}: {most:?}"
        );
    }

    /// All apps go, and leave nothing behind.
    async fn end(mut self) {
        self.apps.clear();
        self.until("nobody waits", |seen| seen.waiting == 0).await;
        // The connection of downloads may stay for others, with the client library's tasks.
        self.until("connections go", |seen| seen.connections <= 4)
            .await;
        let bound = self.tasks_before + 12;
        until("tasks go", || tasks() <= bound).await;
        assert!(self.manager.statuses().is_empty());
        drop(self.certificates);
    }
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let came = tokio::time::timeout(LONG, wait).await;
    assert!(came.is_ok(), "never: {what}");
}

async fn until_version(app: &App, wanted: &str) {
    let wait = async {
        loop {
            let decision = app.decide("x", Value::NULL).await;
            let version = decision.result().and_then(|data| data.get("version"));
            if version.and_then(Value::as_str) == Some(wanted) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let came = tokio::time::timeout(LONG, wait).await;
    assert!(
        came.is_ok(),
        "{}: never {wanted}: {:?}",
        app.id(),
        app.status()
    );
}

fn message(app: &App) -> Option<String> {
    let status = app.status();
    status
        .bundles
        .first()?
        .message
        .as_ref()
        .map(ToString::to_string)
}

fn nobody_failed(apps: &[App]) {
    let failed = apps.iter().find_map(message);
    assert_eq!(failed, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_streams_for_each_connection_starve_nobody() {
    few_streams(10, 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_stream_for_each_connection_starves_nobody() {
    few_streams(1, 300).await;
}

/// More than the server lets wait with the connections that there may be go on by interval.
async fn few_streams(streams: u32, apps: usize) {
    let what = format!("{streams} streams");
    let mut world = World::start(apps, streams).await;
    let at_first = apps.min(256 * streams as usize);
    let started = Instant::now();
    let seen = world
        .until("as many wait as can", |seen| seen.waiting == at_first)
        .await;
    let took = started.elapsed();
    show(&format!("{what}: {at_first} wait after {took:?}, {seen:?}"));
    let connections = at_first / streams as usize;
    assert!(seen.most_connections <= connections + 32, "{seen:?}");
    nobody_failed(&world.apps);
    world.news(2).await;

    // As over HTTP/1.1 from now on.
    world
        .until("as many wait as may", |seen| seen.waiting == 256)
        .await;
    world.service.reset();
    let started = Instant::now();
    world.news(3).await;
    let others = apps - 256;
    world
        .until("the others poll", |seen| seen.requests >= apps + 2 * others)
        .await;
    world.news(4).await;
    let seen = world
        .until("as many wait", |seen| seen.waiting == 256)
        .await;
    show(&format!("{what}: after news {seen:?}"));
    assert!(seen.most_waiting <= 256, "{seen:?}");
    assert!(seen.most_connections <= 256 + 32, "{seen:?}");
    assert_eq!(world.asked().len(), apps, "everybody asked");
    // Each news costs two requests, and each second one.
    let bound = 6 + started.elapsed().as_secs() as usize;
    world.nobody_asked_more_than(bound, &what);
    nobody_failed(&world.apps);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_go_away_take_nobody_along() {
    let mut world = World::start(300, 128).await;
    world.until_all_wait().await;
    world.service.reset();
    world.service.go_away();
    world.service.change("app-7", 2);
    until_version(&world.apps[7], "2").await;
    world.until_all_wait().await;
    let asked = world.asked();
    assert_eq!(
        asked,
        HashMap::from([("/long/app-7".to_owned(), 1)]),
        "but for its next question"
    );
    world.news(3).await;
    let seen = world.until_all_wait().await;
    assert!(seen.most_connections <= 2 * 5, "{seen:?}");
    world.nobody_asked_more_than(3, "GOAWAY");
    // Those that were to go are gone.
    world
        .until("old ones go", |seen| seen.connections <= 5)
        .await;
    nobody_failed(&world.apps);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_reset_is_one_apps_affair() {
    let mut world = World::start(300, 128).await;
    world.until_all_wait().await;
    world.service.reset();
    world.service.reset_streams("app-5");
    until("it is told", || message(&world.apps[5]).is_some()).await;
    world.until_all_wait().await;
    let asked = world.asked();
    assert_eq!(asked.len(), 1, "{asked:?}");
    world.nobody_asked_more_than(2, "RST_STREAM of one");
    nobody_failed(&world.apps);

    world.service.reset();
    world.service.reset_streams("all");
    world
        .until("all come again", |seen| seen.requests >= 2 * 300)
        .await;
    world.until_all_wait().await;
    assert_eq!(world.asked().len(), 300);
    world.nobody_asked_more_than(3, "RST_STREAM of all");
    nobody_failed(&world.apps);
    world.news(2).await;
    let seen = world.until_all_wait().await;
    assert!(seen.most_connections <= 2 * 5, "{seen:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_started_again_has_all_of_them_again() {
    let mut world = World::start(300, 128).await;
    world.until_all_wait().await;
    // First at once, then after a while.
    for is_down in [false, true] {
        if is_down {
            world.service.stop();
            let apps = world.apps.clone();
            let failed = || apps.iter().all(|app| message(app).is_some());
            until("all are told", failed).await;
        }
        world.service.restart();
        let started = Instant::now();
        let seen = world.until_all_wait().await;
        show(&format!(
            "all wait {:?} after a restart: {seen:?}",
            started.elapsed()
        ));
        assert!(seen.most_connections <= 2 * 5, "{seen:?}");
        world.nobody_asked_more_than(3, "restart");
        assert_eq!(world.service.seen().bundles, 0, "nothing has changed");
        nobody_failed(&world.apps);
    }
    world.news(2).await;
    world.until_all_wait().await;
    world.end().await;
}
