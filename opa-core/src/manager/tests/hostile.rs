//! Sources, bodies, servers and plugins that misbehave.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

use super::*;
use crate::bundle::source::{Body, ByteStream, Content};
use crate::config::{ConfigError, ConfigErrorKind};
use crate::plugin::{Attached, Plugin, PluginFuture, Scope, State};

/// Panics as `how` says the first time, and works afterwards.
struct PanicsOnce {
    how: How,
    asked: AtomicUsize,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum How {
    BeforeTheFuture,
    InTheFuture,
    InTheBody,
}

struct Bad;

impl ByteStream for Bad {
    fn poll_chunk(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, SourceError>>> {
        panic!("the user's code is wrong")
    }
}

impl Source for PanicsOnce {
    fn fetch(&self, _: Fetch) -> SourceFuture<'_> {
        if self.asked.fetch_add(1, Ordering::Relaxed) > 0 {
            let body = Body::from(self.bytes.clone());
            let answer = SourceAnswer::snapshot(body, Some("1".into()));
            return Box::pin(std::future::ready(Ok(answer)));
        }
        match self.how {
            How::BeforeTheFuture => panic!("the user's code is wrong"),
            How::InTheFuture => Box::pin(async { panic!("the user's code is wrong") }),
            How::InTheBody => Box::pin(std::future::ready(Ok(SourceAnswer::snapshot(
                Body::new(Bad),
                None,
            )))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn polling_goes_on_after_a_panic_of_a_source_wherever_it_is() {
    for how in [How::BeforeTheFuture, How::InTheFuture, How::InTheBody] {
        let source = PanicsOnce {
            how,
            asked: AtomicUsize::new(0),
            bytes: bundle("1"),
        };
        let manager = Manager::builder()
            .source("b", source)
            .engine(Scripted::data())
            .blocking_pools()
            .build()
            .unwrap();
        let app = manager.app("orders").unwrap();
        let ready = app.ready(LONG).await;
        assert!(ready.is_ok(), "{how:?}: {ready:?}");
    }
}

/// Answers as an HTTP server with long polling does: only a bundle, or an answer to a question that
/// would wait, says that it does.
struct Server {
    memory: Memory,
    etags: bool,
    /// The times of the questions, and whether they would wait.
    asked: parking_lot::Mutex<Vec<(Instant, bool)>>,
    fails: std::sync::atomic::AtomicBool,
}

impl Server {
    fn new(bytes: Vec<u8>, etags: bool) -> Arc<Self> {
        Arc::new(Self {
            memory: Memory::new(bytes),
            etags,
            asked: parking_lot::Mutex::default(),
            fails: Default::default(),
        })
    }
}

struct Shared(Arc<Server>);

impl Source for Shared {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        let waits = request.wait.is_some();
        self.0.asked.lock().push((Instant::now(), waits));
        if self.0.fails.load(Ordering::Relaxed) {
            return Box::pin(std::future::ready(Err(SourceError::new("busy"))));
        }
        Box::pin(async move {
            let mut answer = self.0.memory.fetch(request).await?;
            if matches!(answer.content, Content::NotModified) {
                answer.long_polling = waits;
            }
            if !self.0.etags {
                answer.etag = None;
            }
            Ok(answer)
        })
    }
}

fn served(server: &Arc<Server>) -> Manager {
    Manager::builder()
        .source("b", Shared(Arc::clone(server)))
        .engine(Scripted::data())
        .blocking_pools()
        .build()
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_error_does_not_end_long_polling() {
    let server = Server::new(bundle("1"), true);
    let manager = served(&server);
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    // The question under way is answered with a bundle, the next one with an error.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.fails.store(true, Ordering::Relaxed);
    server.memory.replace(bundle("2"));
    until_version(&app, "2").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    server.fails.store(false, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(
        server.asked.lock().last().map(|(_, waits)| *waits),
        Some(true)
    );
}

#[tokio::test(start_paused = true)]
async fn a_long_polling_server_without_etags_is_asked_by_interval() {
    let server = Server::new(bundle("1"), false);
    let manager = served(&server);
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    tokio::time::sleep(Duration::from_secs(20)).await;
    // Sources from code are asked once a second.
    let asked = server.asked.lock().len();
    assert!((10..=25).contains(&asked), "asked {asked} times in 20 s");
}

/// Can't be attached the first times.
struct Reluctant {
    left: AtomicUsize,
    how: fn() -> Result<Attached, ConfigError>,
}

impl Plugin for Reluctant {
    fn name(&self) -> &str {
        "reluctant"
    }

    fn attach(&self, scope: &Scope<'_>) -> Result<Attached, ConfigError> {
        let fails = scope.app.as_str() == "orders"
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    left.checked_sub(1)
                })
                .is_ok();
        if fails {
            return (self.how)();
        }
        Ok(Attached::default())
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_could_not_be_started_is_started_again() {
    let fails: fn() -> Result<Attached, ConfigError> = || {
        Err(ConfigError::new(
            ConfigErrorKind::Invalid,
            "the file is missing".to_owned(),
        ))
    };
    for (how, reason) in [
        (fails, "the file is missing"),
        (
            || panic!("the user's code is wrong"),
            "a panic ended the start",
        ),
    ] {
        let source = Counting::new(bundle("1"));
        let plugin = Reluctant {
            left: AtomicUsize::new(3),
            how,
        };
        let manager = builder(&source).plugin(plugin).build().unwrap();
        let app = manager.app("orders").unwrap();
        let error = app.ready(Duration::from_millis(40)).await.unwrap_err();
        let State::Failed {
            reason: why,
            retry_at,
        } = error.state()
        else {
            panic!("{error}")
        };
        assert_eq!(&**why, reason);
        assert!(retry_at.is_some());
        app.ready(LONG).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_could_not_be_started_goes_when_nobody_uses_it() {
    let source = Counting::new(bundle("1"));
    let plugin = Reluctant {
        left: AtomicUsize::new(usize::MAX),
        how: || panic!("the user's code is wrong"),
    };
    let manager = builder(&source).plugin(plugin).build().unwrap();
    let app = manager.app("orders").unwrap();
    assert!(app.ready(LONG).await.is_err());
    drop(app);
    tokio::time::sleep(LONG).await;
    assert!(manager.statuses().is_empty());
}

struct Ends(Arc<AtomicUsize>, bool);

impl Plugin for Ends {
    fn name(&self) -> &str {
        "ends"
    }

    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        Ok(Attached::default())
    }

    fn shutdown(&self, _: Duration) -> PluginFuture<'_> {
        assert!(!self.1, "the user's code is wrong");
        Box::pin(async {
            tokio::task::yield_now().await;
            self.0.fetch_add(1, Ordering::Relaxed);
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_called_again_and_again_is_one_and_may_take_forever() {
    let source = Counting::new(bundle("1"));
    let ended = Arc::new(AtomicUsize::new(0));
    let manager = builder(&source)
        .plugin(Ends(Arc::default(), true))
        .plugin(Ends(Arc::clone(&ended), false))
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    tokio::join!(
        manager.shutdown(Duration::MAX),
        manager.shutdown(LONG),
        async { drop(manager.app("other")) },
    );
    manager.shutdown(LONG).await;
    assert_eq!(ended.load(Ordering::Relaxed), 1);
    assert_eq!(app.state(), State::Closed);
    assert!(manager.app("other").is_err());
}

#[test]
fn a_manager_and_its_leases_outlive_their_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let (manager, app) = runtime.block_on(async {
        let source = Counting::new(bundle("1"));
        let manager = Manager::builder()
            .source("b", source)
            .engine(Scripted::data())
            .build()
            .unwrap();
        let app = manager.app("orders").unwrap();
        app.ready(LONG).await.unwrap();
        (manager, app)
    });
    drop(runtime);
    let other = manager.app("other").unwrap();
    assert_eq!(other.state(), State::Starting);
    drop(manager);
    assert_eq!(app.state(), State::Closed);
    drop((app, other));
}

#[tokio::test]
async fn a_manager_is_dropped_in_a_task_of_its_runtime() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    tokio::spawn(async move { drop(manager) }).await.unwrap();
    assert_eq!(app.state(), State::Closed);
    let decision = app.decide("a/b", Value::NULL).await;
    assert_eq!(decision.reason(), crate::Reason::Closed);
}

#[tokio::test(start_paused = true)]
async fn thousands_of_apps_that_are_used_first_at_the_same_time_become_ready() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let uses = (0..2_000).map(|n| {
        let manager = manager.clone();
        tokio::spawn(async move {
            let app = manager.app(format!("app-{n}")).unwrap();
            app.ready(LONG).await.map(|()| app)
        })
    });
    for used in futures_util::future::join_all(uses).await {
        used.unwrap().unwrap();
    }
}

/// Never answers.
struct Hangs;

impl Source for Hangs {
    fn fetch(&self, _: Fetch) -> SourceFuture<'_> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_delays_no_other() {
    let good = Counting::new(bundle("1"));
    let manager = builder(&good).source("hangs", Hangs).build().unwrap();
    let apps: Vec<_> = (0..50)
        .map(|n| manager.app(format!("app-{n}")).unwrap())
        .collect();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(good.downloads(), apps.len());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_an_app_whose_next_poll_is_far_away() {
    let polling = "{min_delay_seconds: 360000, max_delay_seconds: 360000}";
    let config = format!(
        "services: {{a: {{url: 'http://127.0.0.1:1'}}}}\n\
         bundles: {{b: {{resource: '{{{{ .bundlename }}}}', polling: {polling}}}}}"
    );
    let manager = Manager::builder()
        .config_yaml(&config)
        .engine(Scripted::data())
        .grace(Duration::from_secs(1))
        .blocking_pools()
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    // Retries are far apart by now.
    tokio::time::sleep(Duration::from_secs(36_000)).await;
    let downloads = || manager.0.scheduler.downloads();
    assert_eq!(downloads(), 1);
    drop(app);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(downloads(), 0);
}
