//! Ten thousand apps on one service, which is a process of its own: what they cost here and there.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opa_core::bundle::BundleWriter;
use opa_core::plugin::State;
use opa_core::{App, Manager, Value};
use tempfile::TempDir;
use tests::bundle_server::{Answer, BundleServer};
use tests::bundle_service::{BundleService, Options, Seen};
use tests::certificates::Authority;
use tests::scripted::Scripted;

const APPS: usize = 10_000;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(120);

/// The tests measure their process and load the machine: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Past the capture of libtest: figures are for whoever reads the log.
fn show(text: &str) {
    let shown = writeln!(std::io::stderr(), "{text}");
    shown.unwrap();
}

fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test)
}

struct Control {
    service: BundleService,
    certificates: Option<TempDir>,
}

impl Control {
    fn http1() -> Self {
        Self {
            service: BundleService::start(env!("CARGO_BIN_EXE_bundle_service"), Options::default()),
            certificates: None,
        }
    }

    fn http2() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("scale");
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        authority.issue_into(folder.path(), "server", "control");
        let program = env!("CARGO_BIN_EXE_bundle_service");
        let options = Options {
            certificates: Some(folder.path().to_owned()),
            ..Options::default()
        };
        Self {
            service: BundleService::start(program, options),
            certificates: Some(folder),
        }
    }

    fn manager(&self, resource: &str, polling: &str, grace: Duration) -> Manager {
        let tls = self.certificates.as_ref().map_or(String::new(), |folder| {
            format!(", tls: {{ca_cert: '{}/ca.pem'}}", folder.path().display())
        });
        let config = format!(
            "services: {{control: {{url: '{}'{tls}}}}}\n\
             bundles: {{b: {{service: control, resource: '{resource}', polling: {polling}}}}}",
            self.service.url(),
        );
        Manager::builder()
            .config_yaml(&config)
            .engine(Scripted::data())
            .grace(grace)
            .build()
            .unwrap()
    }

    /// Waits until what it saw is so.
    async fn until(&mut self, what: &str, holds: impl Fn(&Seen) -> bool) -> Seen {
        let end = tokio::time::Instant::now() + LONG;
        loop {
            let seen = self.service.seen();
            if holds(&seen) {
                return seen;
            }
            assert!(tokio::time::Instant::now() < end, "never: {what}; {seen:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn lease(manager: &Manager, apps: usize) -> Vec<App> {
    (0..apps)
        .map(|app| manager.app(format!("app-{app}")).unwrap())
        .collect()
}

async fn ready(apps: &[App]) {
    for app in apps {
        app.ready(LONG).await.unwrap();
    }
}

fn bundle(version: &str) -> Vec<u8> {
    let data = Value::object([("version".into(), version.into())]);
    let bundle = BundleWriter::new().data("", &data).unwrap();
    bundle.to_vec().unwrap()
}

async fn version(app: &App) -> Option<String> {
    let decision = app.decide("x", Value::NULL).await;
    Some(decision.result()?.get("version")?.as_str()?.to_owned())
}

async fn until_version(app: &App, wanted: &str) {
    let wait = async {
        while version(app).await.as_deref() != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let came = tokio::time::timeout(LONG, wait).await;
    assert!(came.is_ok(), "{}: never {wanted}", app.id());
}

fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

async fn until_tasks(limit: usize) {
    let wait = async {
        while tasks() > limit {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let fell = tokio::time::timeout(LONG, wait).await;
    assert!(fell.is_ok(), "{} tasks, more than {limit}", tasks());
}

/// In KiB.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_default()
}

#[test]
fn ten_thousand_apps_poll_in_turn_and_spread_over_the_interval() {
    let _alone = alone();
    run(async {
        let mut control = Control::http1();
        let polling = "{min_delay_seconds: 4, max_delay_seconds: 8}";
        let manager = control.manager("poll/{{ .bundlename }}", polling, LONG);
        ready(&lease(&manager, 1)).await;
        let before = memory();
        let apps = lease(&manager, APPS);
        ready(&apps).await;
        show(&format!(
            "{APPS} polling apps: {} KiB each, {} tasks",
            memory().saturating_sub(before) as f64 / APPS as f64,
            tasks(),
        ));
        assert!(tasks() < 64, "{} tasks", tasks());

        control.service.reset();
        let seen = control
            .until("everybody asks twice", |seen| seen.requests >= 3 * APPS)
            .await;
        assert!(seen.most_connections <= 32, "{seen:?}");
        assert_eq!(seen.bundles, 0, "nothing has changed");
        let requests = control.service.requests();

        let mut by_app = HashMap::<&str, usize>::new();
        for (_, path) in &requests {
            *by_app.entry(path).or_default() += 1;
        }
        let (least, most) = (by_app.values().min(), by_app.values().max());
        show(&format!("requests of an app: {least:?} to {most:?}"));
        assert_eq!(by_app.len(), APPS, "everybody has asked");
        // The longest interval is twice the shortest one.
        assert!(most.unwrap() <= &(2 * least.unwrap() + 2), "unfair");

        let first = requests[0].0;
        let mut buckets = HashMap::<u64, usize>::new();
        for (at, _) in &requests {
            *buckets.entry((at - first) / 250).or_default() += 1;
        }
        let mean = requests.len() / buckets.len();
        let most = *buckets.values().max().unwrap();
        show(&format!(
            "requests in 250 ms: {mean} on average, {most} at most"
        ));
        assert!(most < 4 * mean, "all at once");
    });
}

#[test]
fn ten_thousand_apps_wait_for_news_over_a_hundred_connections() {
    let _alone = alone();
    run(async {
        let mut control = Control::http2();
        let polling = "{min_delay_seconds: 3600, max_delay_seconds: 3600, \
                       long_polling_timeout_seconds: 3600}";
        let manager = control.manager("long/{{ .bundlename }}", polling, Duration::ZERO);
        let first = lease(&manager, 1);
        control
            .until("the first waits", |seen| seen.waiting == 1)
            .await;
        let (tasks_before, memory_before) = (tasks(), memory());
        let apps = lease(&manager, APPS);
        let seen = control.until("all wait", |seen| seen.waiting == APPS).await;
        show(&format!(
            "{APPS} waiting apps: {} KiB each, {tasks_before} -> {} tasks, {seen:?}",
            memory().saturating_sub(memory_before) as f64 / APPS as f64,
            tasks(),
        ));
        // None of ours: the client library has one for each request over HTTP/2 that is not
        // answered, and three for each connection.
        assert!(tasks() < APPS + 350, "{} tasks", tasks());
        assert!(seen.connections <= 104, "{seen:?}");
        assert!(seen.most_connections <= 130, "{seen:?}");

        control.service.reset();
        control.service.change("app-4321", 2);
        until_version(&apps[4321], "2").await;
        assert_eq!(version(&apps[4320]).await.as_deref(), Some("1"));
        let seen = control.until("all wait", |seen| seen.waiting == APPS).await;
        assert_eq!(
            (seen.requests, seen.bundles),
            (1, 1),
            "nobody else was told"
        );

        control.service.reset();
        control.service.change("all", 3);
        for app in &apps {
            until_version(app, "3").await;
        }
        let seen = control.until("all wait", |seen| seen.waiting == APPS).await;
        show(&format!("after news for all: {seen:?}"));
        assert_eq!(seen.bundles, APPS, "each bundle was sent once");
        assert!(seen.most_connections <= 130, "{seen:?}");

        // They go while their questions wait.
        drop((first, apps));
        control.until("all go", |seen| seen.waiting == 0).await;
        until_tasks(tasks_before + 4).await;
        let seen = control
            .until("connections go", |seen| seen.connections <= 4)
            .await;
        assert!(manager.statuses().is_empty());
        show(&format!("after all went: {} tasks, {seen:?}", tasks()));
    });
}

#[test]
fn over_http1_as_many_wait_as_connections_are_bounded_and_the_others_poll() {
    let _alone = alone();
    run(async {
        let mut control = Control::http1();
        let polling = "{min_delay_seconds: 1, max_delay_seconds: 2, \
                       long_polling_timeout_seconds: 3600}";
        let manager = control.manager("long/{{ .bundlename }}", polling, Duration::ZERO);
        let apps = lease(&manager, 1_000);
        ready(&apps).await;
        control
            .until("as many wait as may", |seen| seen.waiting == 256)
            .await;
        control.service.reset();
        let seen = control
            .until("the others poll", |seen| seen.requests >= 3 * (1_000 - 256))
            .await;
        assert_eq!((seen.waiting, seen.most_waiting), (256, 256), "{seen:?}");
        assert!(seen.most_connections <= 256 + 32, "{seen:?}");
        assert_eq!(seen.bundles, 0, "{seen:?}");
        control.service.change("all", 2);
        for app in &apps {
            until_version(app, "2").await;
        }
    });
}

#[test]
fn apps_that_go_while_their_downloads_hang_leave_nothing_behind() {
    let _alone = alone();
    run(async {
        for resource in ["hang/{{ .bundlename }}", "body/{{ .bundlename }}"] {
            let mut control = Control::http1();
            let polling = "{min_delay_seconds: 1, max_delay_seconds: 2}";
            let manager = control.manager(resource, polling, Duration::ZERO);
            let tasks_before = tasks();
            let apps = lease(&manager, APPS);
            control
                .until("downloads hang", |seen| seen.waiting == 16)
                .await;
            drop(apps);
            control
                .until("nothing hangs", |seen| {
                    seen.waiting == 0 && seen.connections == 0
                })
                .await;
            until_tasks(tasks_before).await;
            assert!(manager.statuses().is_empty());
            // Whoever comes next finds all the room there is.
            let next = lease(&manager, 16);
            control
                .until("downloads hang", |seen| seen.waiting == 16)
                .await;
            drop(next);
        }
    });
}

#[test]
fn a_thousand_apps_with_the_same_bundle_download_it_once() {
    let _alone = alone();
    run(async {
        let mut control = Control::http1();
        // Each by itself would come about it in an hour.
        let polling = "{min_delay_seconds: 1, max_delay_seconds: 3600}";
        let manager = control.manager("poll/common", polling, LONG);
        let apps = lease(&manager, 1_000);
        ready(&apps).await;
        let seen = control.service.seen();
        assert_eq!((seen.requests, seen.bundles), (1, 1), "{seen:?}");

        control.service.change("all", 2);
        for app in &apps {
            until_version(app, "2").await;
        }
        let seen = control.service.seen();
        assert_eq!(seen.bundles, 2, "{seen:?}");
        control.service.reset();
        let seen = control.until("it goes on", |seen| seen.requests >= 3).await;
        assert_eq!(seen.bundles, 0, "{seen:?}");
        let at: Vec<u64> = control.service.requests().iter().map(|it| it.0).collect();
        let took = at[at.len() - 1] - at[0];
        assert!(
            took / 1_000 + 2 >= at.len() as u64,
            "not all by one interval: {at:?}"
        );
    });
}

#[test]
fn hundreds_of_services_that_hang_delay_no_other() {
    let _alone = alone();
    run(async {
        let server = BundleServer::start_counting().await;
        // A service for each app.
        let config = format!(
            "services: {{control: {{url: '{}/{{{{ .bundlename }}}}'}}}}\n\
             bundles: {{b: {{service: control, resource: b, \
               polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}}}",
            server.url(),
        );
        let manager = Manager::builder()
            .config_yaml(&config)
            .engine(Scripted::data())
            .build()
            .unwrap();
        let mut slow = Vec::new();
        for app in 0..400 {
            server.answer(&format!("/hangs-{app}/b"), Answer::Hang);
            let half = Answer::HangInBody(bundle("1"));
            server.answer(&format!("/half-{app}/b"), half);
            slow.push(manager.app(format!("hangs-{app}")).unwrap());
            slow.push(manager.app(format!("half-{app}")).unwrap());
        }
        let all_asked = async {
            while server.request_count() < slow.len() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, all_asked).await.unwrap();
        // More than may hang at a time in total, if it counted: the good one comes first all the
        // same, since what hangs ends after ten seconds at the earliest.
        server.answer("/good/b", Answer::Bundle(bundle("1")));
        let good = manager.app("good").unwrap();
        until_version(&good, "1").await;
        server.answer("/good/b", Answer::Bundle(bundle("2")));
        until_version(&good, "2").await;
        assert!(slow.iter().all(|app| app.state() == State::Starting));
    });
}
