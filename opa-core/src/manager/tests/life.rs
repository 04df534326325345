use super::*;
use crate::engine::{
    Bound, CompileError, CompileErrors, CompileOptions, Engine, Entrypoint, EntrypointPath,
    EvalContext, InputPaths, ModuleSet, Outcome, Policy, Scheduling,
};
use crate::manager::AppError;
use crate::plugin::{Attached, Plugin, PluginFuture, Scope, State};
use crate::{Reason, config::ConfigError};

#[tokio::test(start_paused = true)]
async fn an_app_is_leased_at_once_and_becomes_ready() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    assert_eq!(app.state(), State::Starting);
    let decision = app.decide("a/b", Value::NULL).await;
    assert_eq!(decision.reason(), Reason::NotReady);
    assert_eq!(decision.path(), Some("a/b"));
    app.ready(LONG).await.unwrap();
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    assert_eq!(app.decision_counts().of(Reason::NotReady), 1);
    assert_eq!(app.decision_counts().of(Reason::Decided), 1);
}

#[tokio::test(start_paused = true)]
async fn concurrent_first_uses_start_one_instance() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let leases: Vec<_> = (0..100).map(|_| manager.app("orders").unwrap()).collect();
    for app in &leases {
        app.ready(LONG).await.unwrap();
    }
    assert_eq!(source.downloads(), 1);
    assert_eq!(manager.statuses().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_grace_period_starts_with_the_last_lease_and_reuse_needs_no_download() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source)
        .grace(Duration::from_secs(30))
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let second = app.clone();
    drop(app);
    tokio::time::sleep(LONG).await;
    assert_eq!(second.state(), State::Ready, "one lease is enough");

    drop(second);
    tokio::time::sleep(Duration::from_secs(29)).await;
    let again = manager.app("orders").unwrap();
    assert_eq!(again.state(), State::Ready, "the warm instance is reused");
    assert_eq!(version(&again).await.as_deref(), Some("1"));
    assert_eq!(source.downloads(), 1);

    drop(again);
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(manager.statuses().len(), 0, "nobody came back");
    let anew = manager.app("orders").unwrap();
    assert_eq!(anew.state(), State::Starting);
    anew.ready(LONG).await.unwrap();
    assert_eq!(source.downloads(), 2);
}

#[tokio::test(start_paused = true)]
async fn instances_that_are_used_again_and_again_are_kept_and_unused_ones_are_not() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source)
        .grace(Duration::from_secs(30))
        .build()
        .unwrap();
    drop(manager.app("unused").unwrap());
    for _ in 0..20 {
        drop(manager.app("used").unwrap());
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    let left: Vec<_> = manager
        .statuses()
        .into_iter()
        .map(|status| status.app)
        .collect();
    assert_eq!(left, ["used".parse().unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_start_is_retried_and_recovers_by_itself() {
    let source = Counting::new(bundle("1"));
    source.fail(Some(
        SourceError::new("server replied with Not Found").with_http_code(404),
    ));
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    let not_ready = app.ready(Duration::from_secs(20)).await.unwrap_err();
    let State::Failed { reason, retry_at } = not_ready.state() else {
        panic!("{not_ready}")
    };
    assert_eq!(&**reason, "bundle `b`: server replied with Not Found");
    assert!(retry_at.is_some());
    assert_eq!(app.status().bundles[0].http_code, Some(404));
    assert!(source.asked() > 5, "asked {} times in 20 s", source.asked());

    source.fail(None);
    app.ready(LONG).await.unwrap();
    assert_eq!(app.status().bundles[0].http_code, None);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let source = Counting::new(bundle("1"));
    let wait = Some(Duration::from_secs(300));
    source.fail(Some(
        SourceError::new("busy")
            .with_http_code(429)
            .with_retry_after(wait),
    ));
    let manager = builder(&source).build().unwrap();
    let _app = manager.app("orders").unwrap();
    tokio::time::sleep(Duration::from_secs(299)).await;
    assert_eq!(source.asked(), 1);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(source.asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn ids_that_differ_only_in_case_and_too_many_apps_are_refused() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).max_apps(2).build().unwrap();
    let _orders = manager.app("orders").unwrap();
    assert!(matches!(
        manager.app("Orders"),
        Err(AppError::CaseConflict { .. })
    ));
    assert!(matches!(manager.app("../x"), Err(AppError::InvalidId(_))));
    let _other = manager.app("other").unwrap();
    assert_eq!(
        manager.app("third").unwrap_err(),
        AppError::TooManyApps { max: 2 }
    );
    assert!(manager.app("orders").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_closed_set_gives_only_its_apps() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let set = manager.app_set(["blue", "red"]).unwrap();
    assert!(set.get("blue").is_some());
    assert!(set.get("green").is_none());
    drop(manager.app("green").unwrap());
    assert!(set.get("green").is_none(), "the set stays closed");
}

#[tokio::test(start_paused = true)]
async fn leases_that_outlive_the_manager_answer_closed() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    drop(manager);
    assert_eq!(app.state(), State::Closed);
    assert_eq!(
        app.decide("a/b", Value::NULL).await.reason(),
        Reason::Closed
    );
    assert!(app.ready(LONG).await.is_err());
}

struct Slow(Arc<AtomicUsize>);

impl Plugin for Slow {
    fn name(&self) -> &str {
        "slow"
    }
    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        Ok(Attached::default())
    }
    fn shutdown(&self, _: Duration) -> PluginFuture<'_> {
        Box::pin(async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            self.0.fetch_add(1, Ordering::Relaxed);
        })
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_decisions_closes_and_lets_plugins_deliver() {
    let source = Counting::new(bundle("1"));
    let delivered = Arc::new(AtomicUsize::new(0));
    let manager = builder(&source)
        .plugin(Slow(Arc::clone(&delivered)))
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let question = app.ask();
    let ending = manager.clone();
    let ending = tokio::spawn(async move { ending.shutdown(Duration::from_secs(60)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(app.state(), State::Ready, "a decision is under way");
    assert_eq!(manager.app("orders").unwrap_err(), AppError::Closed);
    drop(question);
    ending.await.unwrap();
    assert_eq!(app.state(), State::Closed);
    assert_eq!(delivered.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_at_its_deadline() {
    let source = Counting::new(bundle("1"));
    let delivered = Arc::new(AtomicUsize::new(0));
    let manager = builder(&source)
        .plugin(Slow(Arc::clone(&delivered)))
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    let _question = app.ask();
    let started = tokio::time::Instant::now();
    manager.shutdown(Duration::from_secs(3)).await;
    assert_eq!(started.elapsed().as_secs(), 3);
    assert_eq!(delivered.load(Ordering::Relaxed), 0);
    assert_eq!(app.state(), State::Closed);
}

#[test]
fn outside_of_a_runtime_is_a_configuration_error() {
    let source = Counting::new(bundle("1"));
    let error = builder(&source).build().unwrap_err();
    assert_eq!(error.kind(), crate::config::ConfigErrorKind::NoRuntime);
}

/// A plugin whose sinks are wrong.
struct Wrong;

impl Plugin for Wrong {
    fn name(&self) -> &str {
        "wrong"
    }
    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        Ok(Attached::default()
            .decisions(|_| panic!("the decision sink is wrong"))
            .status(|_| panic!("the status sink is wrong")))
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_sink_ends_neither_a_decision_nor_a_poll() {
    let source = Counting::new(bundle("1"));
    let manager = builder(&source).plugin(Wrong).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    assert_eq!(version(&app).await.as_deref(), Some("1"));
    source.memory.replace(bundle("2"));
    until_version(&app, "2").await;
}

/// Keeps every status that it is given.
struct Statuses(Arc<parking_lot::Mutex<Vec<Seen>>>);

type Seen = (State, Option<Arc<str>>);

impl Plugin for Statuses {
    fn name(&self) -> &str {
        "statuses"
    }
    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        let seen = Arc::clone(&self.0);
        Ok(
            Attached::default().status(move |status: Arc<crate::plugin::InstanceStatus>| {
                let revision = status
                    .bundles
                    .first()
                    .and_then(|b| b.active_revision.clone());
                seen.lock().push((status.state.clone(), revision));
            }),
        )
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_sink_sees_the_instance_ready_with_its_revision_and_closed_at_the_end() {
    let source = Counting::new(bundle("1"));
    let seen = Arc::new(parking_lot::Mutex::default());
    let manager = builder(&source)
        .plugin(Statuses(Arc::clone(&seen)))
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(seen.lock().last(), Some(&(State::Ready, Some("1".into()))));
    manager.shutdown(LONG).await;
    assert_eq!(seen.lock().last(), Some(&(State::Closed, Some("1".into()))));
}

#[tokio::test(start_paused = true)]
async fn certificates_of_all_apps_are_looked_at_when_the_manager_is_built() {
    let config = |file: &str| {
        format!("services: {{a: {{url: 'https://a.test', tls: {{ca_cert: '{file}'}}}}}}")
    };
    let build = |file: &str| {
        let builder = Manager::builder().engine(Scripted::data());
        builder.config_yaml(&config(file)).build()
    };
    let error = build("/no/such/ca.pem").unwrap_err().to_string();
    assert!(
        error.starts_with("services.a: ") && error.contains("/no/such/ca.pem"),
        "{error}"
    );

    // Each app has a file of its own: what is wrong with one is told by its instance.
    let manager = build("/no/such/{{ .bundlename }}.pem").unwrap();
    let app = manager.app("orders").unwrap();
    let not_ready = app.ready(LONG).await.unwrap_err().to_string();
    assert!(not_ready.contains("/no/such/orders.pem"), "{not_ready}");
}

/// A plugin that can't be attached until it is mended.
struct Broken(Arc<std::sync::atomic::AtomicBool>);

impl Plugin for Broken {
    fn name(&self) -> &str {
        "broken"
    }
    fn attach(&self, scope: &Scope<'_>) -> Result<Attached, ConfigError> {
        let mended = self.0.load(Ordering::Relaxed);
        match scope.app.as_str() {
            "fails" if !mended => Err(ConfigError::new(
                crate::config::ConfigErrorKind::Invalid,
                "not yet",
            )),
            "panics" if !mended => panic!("the plugin is wrong"),
            _ => Ok(Attached::default()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_is_tried_again_and_delays_nobody_else() {
    let source = Counting::new(bundle("1"));
    let mended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let manager = builder(&source)
        .plugin(Broken(Arc::clone(&mended)))
        .build()
        .unwrap();
    let broken = [("fails", "not yet"), ("panics", "a panic ended the start")];
    let broken = broken.map(|(app, why)| (manager.app(app).unwrap(), why));
    let other = manager.app("other").unwrap();
    other.ready(LONG).await.unwrap();
    tokio::time::sleep(LONG).await;
    for (app, why) in &broken {
        let State::Failed { reason, retry_at } = app.state() else {
            panic!("{app:?}")
        };
        assert_eq!(&*reason, *why);
        assert!(retry_at.is_some());
    }
    mended.store(true, Ordering::Relaxed);
    for (app, _) in &broken {
        app.ready(LONG).await.unwrap();
    }
}

/// An engine that tells on which threads what it made is freed.
#[derive(Clone)]
struct Freed(std::sync::mpsc::Sender<std::thread::ThreadId>);

impl Engine for Freed {
    fn name(&self) -> &'static str {
        "freed"
    }

    fn scheduling(&self) -> Scheduling {
        Scheduling::Sliced
    }

    fn compile(&self, _: &ModuleSet, _: &CompileOptions) -> Result<Arc<dyn Policy>, CompileErrors> {
        Ok(Arc::new(self.clone()))
    }
}

impl Policy for Freed {
    fn bind(&self, _: &Value) -> Result<Arc<dyn Bound>, CompileErrors> {
        Ok(Arc::new(TellsFreed(self.clone())))
    }

    fn defines_system_log(&self) -> bool {
        false
    }
}

struct TellsFreed(Freed);

impl Bound for TellsFreed {
    fn prepare(&self, path: &EntrypointPath) -> Result<Entrypoint, CompileError> {
        Ok(Entrypoint::new(path.clone(), InputPaths::all(), ()))
    }

    fn eval(&self, _: &Entrypoint, _: &Value, _: &mut EvalContext) -> Outcome {
        Outcome::Undefined
    }
}

impl Drop for TellsFreed {
    fn drop(&mut self) {
        let _ = self.0.0.send(std::thread::current().id());
    }
}

#[tokio::test]
async fn the_last_lease_frees_nothing_large_on_its_thread() {
    for graceful in [true, false] {
        let (freed, threads) = std::sync::mpsc::channel();
        let manager = builder(&Counting::new(bundle("1"))).engine(Freed(freed));
        let manager = manager.build().unwrap();
        let app = manager.app("a").unwrap();
        app.ready(LONG).await.unwrap();
        if graceful {
            manager.shutdown(LONG).await;
        }
        drop(manager);
        drop(app);
        let thread = threads.recv_timeout(LONG).unwrap();
        assert_ne!(thread, std::thread::current().id());
    }
}
