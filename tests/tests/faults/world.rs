//! What the families of faults share: apps that a fault hurts beside apps that it must not hurt.

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use opa_core::bundle::{self, BundleWriter};
use opa_core::plugin::BundleStatus;
use opa_core::{App, Manager, ManagerBuilder, Value};
use tests::bundle_server::{Answer, BundleServer};
use tests::scripted::Scripted;

/// Longer than anything here takes; a test that waits for it fails.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// How many bundle changes each healthy app gets.
const CHANGES: usize = 20;

/// How much longer a change may take the median healthy app than without the fault. The machine
/// makes a factor of two or three; a healthy app that waits for the faulty one's timeout, hundreds.
const MAX_RATIO: f64 = 10.0;

/// The same for the sum of all changes: it shows a single one that waited for a slow body's end,
/// and forgives a machine that stood still once.
const MAX_RATIO_OF_SUMS: f64 = 30.0;

/// The least pause before a retry.
pub(crate) const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// A bundle whose data says which one it is.
pub(crate) fn bundle(version: &str) -> Vec<u8> {
    let data = Value::object([("version".into(), version.into())]);
    BundleWriter::new()
        .revision(version)
        .data("", &data)
        .unwrap()
        .to_vec()
        .unwrap()
}

/// The services by name and URL. Each app asks the service of its own name for a bundle of its own
/// name, every second or by long poll.
pub(crate) fn builder<'a>(services: impl IntoIterator<Item = (&'a str, String)>) -> ManagerBuilder {
    let services = services.into_iter();
    builder_with(services.map(|(name, url)| (name, format!("url: '{url}'"))))
}

/// As [`builder`], with all options of the services.
pub(crate) fn builder_with<'a>(
    services: impl IntoIterator<Item = (&'a str, String)>,
) -> ManagerBuilder {
    let mut config = String::from("services:\n");
    for (name, options) in services {
        let timeout = "response_header_timeout_seconds: 1";
        writeln!(config, "  '{name}': {{{options}, {timeout}}}").unwrap();
    }
    // A manager looks once at the configuration of an app of this name.
    config += "  app: {url: 'http://127.0.0.1:1'}\n  other: {url: 'http://127.0.0.1:1'}\n";
    config += "bundles:\n  b:\n    service: '{{ .bundlename }}'\n    \
               resource: '{{ .bundlename }}'\n    polling: {min_delay_seconds: 1, \
               max_delay_seconds: 1, long_polling_timeout_seconds: 600}\n";
    Manager::builder()
        .config_yaml(&config)
        .engine(Scripted::data())
}

/// The manager, built on another thread: it reads the system's authorities, which would delay all
/// that runs on this one.
pub(crate) async fn build(builder: ManagerBuilder) -> Manager {
    let building = tokio::task::spawn_blocking(|| builder.build());
    building.await.unwrap().unwrap()
}

pub(crate) async fn version(app: &App) -> Option<String> {
    let decision = app.decide("x", Value::NULL).await;
    Some(decision.result()?.get("version")?.as_str()?.to_owned())
}

pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let waited = tokio::time::timeout(LONG, wait).await;
    assert!(waited.is_ok(), "never: {what}");
}

pub(crate) async fn until_version(app: &App, wanted: &str) {
    let reached = async {
        while version(app).await.as_deref() != Some(wanted) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let reached = tokio::time::timeout(LONG, reached).await;
    assert!(reached.is_ok(), "never {wanted}: {:?}", app.status());
}

pub(crate) fn status(app: &App) -> BundleStatus {
    app.status().bundles.first().cloned().unwrap_or_default()
}

/// The message of the last failure.
pub(crate) fn said(app: &App) -> String {
    status(app).message.unwrap_or_default().to_string()
}

/// Waits for a failure whose message contains `why`, and looks at the rest of the status.
pub(crate) async fn until_failed(app: &App, why: &str, http_code: Option<u16>) {
    let failed = async {
        loop {
            let status = status(app);
            if status.message.is_some_and(|message| message.contains(why)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let failed = tokio::time::timeout(LONG, failed).await;
    assert!(failed.is_ok(), "never `{why}`: {:?}", app.status());
    let status = app.status();
    assert_eq!(status.app, *app.id());
    let bundle = &status.bundles[0];
    assert_eq!(&*bundle.name, "b");
    assert_eq!(bundle.code, Some("bundle_error"), "{why}");
    assert_eq!(bundle.http_code, http_code, "{why}");
}

/// Writes a figure past the capture of the test harness.
pub(crate) fn print(line: &str) {
    // A closed standard error leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Watches the decisions of an app until it is dropped.
pub(crate) struct Watch {
    decisions: Arc<AtomicUsize>,
    others: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Watch {
    /// Every decision of `app` is to be `wanted`.
    pub(crate) fn over(app: &App, wanted: Option<&'static str>) -> Watch {
        let (decisions, others) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let (app, counted, differed) = (app.clone(), Arc::clone(&decisions), Arc::clone(&others));
        let task = tokio::spawn(async move {
            loop {
                if version(&app).await.as_deref() != wanted {
                    differed.fetch_add(1, Ordering::Relaxed);
                }
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        Watch {
            decisions,
            others,
            task,
        }
    }

    /// Ends the watch after some decisions: all of them were as wanted.
    pub(crate) async fn end(self, what: &str) {
        let enough = || self.decisions.load(Ordering::Relaxed) > 10;
        until("decisions", enough).await;
        let others = self.others.load(Ordering::Relaxed);
        assert_eq!(others, 0, "{what}: decisions that were not as wanted");
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A healthy app, changed again and again.
pub(crate) struct Healthy<'a> {
    server: &'a BundleServer,
    app: App,
    path: String,
    version: usize,
    delays: Vec<Duration>,
}

impl<'a> Healthy<'a> {
    pub(crate) fn new(manager: &Manager, server: &'a BundleServer, name: &str) -> Self {
        let path = format!("/{name}");
        server.answer(&path, Answer::LongPoll(bundle("0")));
        Self {
            server,
            app: manager.app(name).unwrap(),
            path,
            version: 0,
            delays: Vec::new(),
        }
    }

    /// One change while a long poll waits for it, from the moment at which the server has it to
    /// the changed decision.
    pub(crate) async fn change(&mut self) {
        let known = bundle::etag(&bundle(&self.version.to_string()));
        let (server, path) = (self.server, &self.path);
        until("the long poll of a healthy app waits", || {
            let last = server.last_request_for(path);
            last.is_some_and(|last| last.header("if-none-match") == Some(&known))
        })
        .await;
        self.version += 1;
        let next = self.version.to_string();
        let bytes = bundle(&next);
        let started = Instant::now();
        self.server.answer(&self.path, Answer::LongPoll(bytes));
        until_version(&self.app, &next).await;
        self.delays.push(started.elapsed());
    }

    /// A change that is not measured.
    pub(crate) async fn warm_up(&mut self) {
        self.change().await;
        self.delays.clear();
    }

    fn median_and_max(&self) -> (Duration, Duration) {
        let mut delays = self.delays.clone();
        delays.sort_unstable();
        (delays[delays.len() / 2], delays[delays.len() - 1])
    }
}

/// Changes all of them, one after the other, again and again.
pub(crate) async fn change_all(healthy: &mut [Healthy<'_>]) {
    for _ in 0..CHANGES {
        for one in &mut *healthy {
            one.change().await;
        }
    }
}

/// Measures a healthy app of another service beside the fault in `manager`, and the same with
/// `twin`, which has none. Prints the row `what` of the table.
pub(crate) async fn measure(
    what: &str,
    manager: &Manager,
    twin: &Manager,
    other: [&BundleServer; 2],
) {
    let mut healthy = [
        Healthy::new(manager, other[0], "elsewhere"),
        Healthy::new(twin, other[1], "elsewhere"),
    ];
    change_all(&mut healthy).await;
    let ratio = compared(what, &healthy[0], &healthy[1]);
    print(&format!("{what} | - | other service {ratio}"));
}

/// The ratio of the delays with the fault to those without it, at the median, and as text with the
/// figures themselves.
fn figures(with: &Healthy<'_>, without: &Healthy<'_>) -> (f64, String) {
    let ((median, max), (median_without, max_without)) =
        (with.median_and_max(), without.median_and_max());
    let ratio = median.as_secs_f64() / median_without.as_secs_f64();
    let ms = |delay: Duration| delay.as_secs_f64() * 1000.0;
    let text = format!(
        "{ratio:.2} ({:.1}/{:.1} ms, without {:.1}/{:.1})",
        ms(median),
        ms(max),
        ms(median_without),
        ms(max_without)
    );
    (ratio, text)
}

/// As [`figures`], of an app that must not be delayed.
pub(crate) fn compared(what: &str, with: &Healthy<'_>, without: &Healthy<'_>) -> String {
    let (ratio, text) = figures(with, without);
    assert!(ratio < MAX_RATIO, "{what}: {text}");
    let [sum, sum_without] = [with, without].map(|it| it.delays.iter().sum::<Duration>());
    let ratio = sum.as_secs_f64() / sum_without.as_secs_f64();
    assert!(
        ratio < MAX_RATIO_OF_SUMS,
        "{what}: {text}, sums {sum:?} and {sum_without:?}"
    );
    text
}

/// No two requests for `path` since the first `before` came faster than a client that backs off.
/// Answers how many there were.
pub(crate) fn backed_off(
    server: &BundleServer,
    path: &str,
    before: usize,
    least: Duration,
) -> usize {
    let requests = server.requests_for(path).split_off(before);
    for pair in requests.windows(2) {
        let pause = pair[1].at - pair[0].at;
        assert!(pause >= least, "{path}: {pause:?} after the one before");
    }
    requests.len()
}
