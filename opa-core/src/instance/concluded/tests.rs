use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::task::noop_waker;
use tokio::sync::watch;

use super::*;
use crate::config::ConfigError;
use crate::engine::testing::Scripted;
use crate::engine::{Outcome, Scheduling};
use crate::instance::LogEntry;
use crate::plugin::{Attached, DecisionSink, Event, Plugin, Scope};
use crate::{App, Manager, Value};

const LONG: Duration = Duration::from_secs(600);

/// What a sink says of every event.
#[derive(Clone)]
enum Says {
    Admits,
    Refuses,
    Panics,
    /// What is sent, when it is sent.
    Waits(watch::Receiver<Option<bool>>),
    PanicsLater,
    Never,
}

/// A sink, and the plugin that attaches it.
#[derive(Clone)]
struct Log {
    name: &'static str,
    says: Says,
    available: Arc<AtomicBool>,
    admitted: Arc<parking_lot::Mutex<Vec<Event>>>,
    recorded: Arc<parking_lot::Mutex<Vec<Event>>>,
}

impl Log {
    fn new(name: &'static str, says: Says) -> Self {
        Self {
            name,
            says,
            available: Arc::new(true.into()),
            admitted: Arc::default(),
            recorded: Arc::default(),
        }
    }

    fn waiting(name: &'static str) -> (Self, watch::Sender<Option<bool>>) {
        let (send, receive) = watch::channel(None);
        (Self::new(name, Says::Waits(receive)), send)
    }
}

impl DecisionSink for Log {
    fn record(&self, event: Event) {
        self.recorded.lock().push(event);
    }

    fn is_available(&self) -> bool {
        self.available.load(Ordering::Relaxed)
    }

    fn admit(&self, event: Event) -> Admission {
        self.admitted.lock().push(event);
        match &self.says {
            Says::Admits => Admission::Admitted,
            Says::Refuses => Admission::Refused,
            Says::Panics => panic!("the log is wrong"),
            Says::Never => Admission::Waits(Box::pin(std::future::pending())),
            Says::PanicsLater => Admission::Waits(Box::pin(async { panic!("the log is wrong") })),
            Says::Waits(told) => {
                let mut told = told.clone();
                Admission::Waits(Box::pin(async move {
                    let told = told.wait_for(Option::is_some).await;
                    told.is_ok_and(|told| *told == Some(true))
                }))
            }
        }
    }
}

impl Plugin for Log {
    fn name(&self) -> &str {
        self.name
    }
    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        Ok(Attached::default().decisions(self.clone()))
    }
}

/// A ready app with these logs, and how often its policy was asked.
async fn serving<const N: usize>(logs: [&Log; N]) -> (Manager, App, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let engine = Scripted::new(Scheduling::Sliced, move |_, _, _| {
        counter.fetch_add(1, Ordering::Relaxed);
        Outcome::Value(Value::from("answer"))
    });
    let mut builder = Manager::builder()
        .engine(engine)
        .in_memory([], Value::empty_object())
        .unwrap();
    for log in logs {
        builder = builder.plugin(log.clone());
    }
    let manager = builder.blocking_pools().build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    (manager, app, asked)
}

async fn conclude(app: &App) -> Concluded {
    let prepared = app.ask().prepare(None).unwrap();
    let evaluated = prepared.evaluate(Value::NULL).await;
    evaluated.conclude(Reason::Decided, None, LogEntry::default())
}

/// Once, for nobody.
fn poll(concluded: &mut Concluded) -> Poll<Decision> {
    Pin::new(concluded).poll(&mut Context::from_waker(&noop_waker()))
}

#[track_caller]
fn assert_unlogged(app: &App, decision: &Decision) {
    assert_eq!(decision.reason(), Reason::LogUnavailable);
    assert!(decision.result().is_none() && !decision.is_allowed());
    let error = decision.error().expect("an error tells what failed");
    assert_eq!(&*error.code, "log_unavailable");
    assert!(!error.message.is_empty());
    let counts = app.decision_counts();
    assert_eq!(
        (counts.of(Reason::LogUnavailable), counts.total()),
        (1, 1),
        "counted once, with the final reason"
    );
}

#[tokio::test]
async fn a_decision_that_no_sink_holds_is_there_at_once() {
    let recorder = Log::new("a", Says::Admits);
    for logs in [vec![], vec![&recorder]] {
        let (_manager, app, _) = match logs[..] {
            [] => serving([]).await,
            _ => serving([&recorder]).await,
        };
        let decision = conclude(&app).await.now().unwrap();
        assert_eq!(decision.reason(), Reason::Decided);
        assert_eq!(app.decision_counts().of(Reason::Decided), 1);
        assert!(app.decide("a", Value::NULL).now_or_never().is_some());
    }
}

#[tokio::test]
async fn a_held_decision_is_final_and_counted_when_it_is_admitted() {
    let (log, told) = Log::waiting("a");
    let (_manager, app, _) = serving([&log]).await;
    let mut concluded = conclude(&app).await.now().unwrap_err();
    assert!(poll(&mut concluded).is_pending());
    assert_eq!(app.decision_counts().total(), 0);
    assert!(app.instance.is_deciding());
    assert_eq!(log.admitted.lock().len(), 1, "handed over before");

    let waiting = tokio::spawn(concluded);
    tokio::task::yield_now().await;
    told.send(Some(true)).unwrap();
    let decision = waiting.await.unwrap();
    assert_eq!(decision.reason(), Reason::Decided);
    assert_eq!(decision.result(), Some(&Value::from("answer")));
    assert_eq!(decision.error(), None);
    let counts = app.decision_counts();
    assert_eq!((counts.of(Reason::Decided), counts.total()), (1, 1));
    assert!(!app.instance.is_deciding());
    let events = log.admitted.lock();
    assert_eq!(
        (&*events[0].decision_id, events.len()),
        (decision.id(), 1),
        "one event"
    );
}

#[tokio::test]
async fn a_refused_decision_shows_no_result() {
    let (later, told) = Log::waiting("a");
    told.send(Some(false)).unwrap();
    for log in [
        Log::new("a", Says::Refuses),
        Log::new("a", Says::Panics),
        Log::new("a", Says::PanicsLater),
        later,
    ] {
        let (_manager, app, _) = serving([&log]).await;
        let decision = conclude(&app).await.await;
        assert_unlogged(&app, &decision);
        assert_eq!(decision.path(), Some("envoy/authz/allow"));
        assert_eq!(log.admitted.lock()[0].reason, Reason::Decided);
        assert!(log.recorded.lock().is_empty(), "no second event");
    }
}

#[tokio::test]
async fn one_sink_that_refuses_is_enough_and_all_have_the_event() {
    for (one, other) in [
        (Says::Never, Says::Refuses),
        (Says::Refuses, Says::Never),
        (Says::Admits, Says::Refuses),
        (Says::Refuses, Says::Admits),
        (Says::Never, Says::PanicsLater),
    ] {
        let (one, other) = (Log::new("a", one), Log::new("b", other));
        let (_manager, app, _) = serving([&one, &other]).await;
        let mut concluded = conclude(&app).await;
        let Poll::Ready(decision) = poll(&mut concluded) else {
            panic!("nothing more is waited for");
        };
        assert_unlogged(&app, &decision);
        assert_eq!(one.admitted.lock().len(), 1);
        assert_eq!(other.admitted.lock().len(), 1);
        assert!(poll(&mut concluded).is_pending(), "after its end");
        assert_eq!(app.decision_counts().total(), 1);
    }
}

#[tokio::test]
async fn all_sinks_must_admit() {
    let ((one, told_one), (other, told_other)) = (Log::waiting("a"), Log::waiting("b"));
    let (_manager, app, _) = serving([&one, &other]).await;
    let mut concluded = conclude(&app).await;
    told_other.send(Some(true)).unwrap();
    assert!(poll(&mut concluded).is_pending());
    assert!(
        poll(&mut concluded).is_pending(),
        "an end is not polled again"
    );
    told_one.send(Some(true)).unwrap();
    let Poll::Ready(decision) = poll(&mut concluded) else {
        panic!("all have admitted it");
    };
    assert_eq!(decision.reason(), Reason::Decided);
}

#[tokio::test]
async fn a_held_decision_that_is_dropped_is_cancelled() {
    for polled in [false, true] {
        let log = Log::new("a", Says::Never);
        let (_manager, app, _) = serving([&log]).await;
        let mut concluded = conclude(&app).await;
        assert!(!polled || poll(&mut concluded).is_pending());
        drop(concluded);
        let counts = app.decision_counts();
        assert_eq!((counts.of(Reason::Cancelled), counts.total()), (1, 1));
        assert!(!app.instance.is_deciding());
    }
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_bounded() {
    let log = Log::new("a", Says::Never);
    let (_manager, app, _) = serving([&log]).await;
    let mut concluded = conclude(&app).await;
    let almost = LONGEST_WAIT - Duration::from_millis(2);
    let waited = tokio::time::timeout(almost, &mut concluded).await;
    assert!(waited.is_err(), "{waited:?}");
    let rest = tokio::time::timeout(Duration::from_millis(4), concluded).await;
    assert_unlogged(&app, &rest.unwrap());
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_bounded_from_the_conclusion_on() {
    let log = Log::new("a", Says::Never);
    let (_manager, app, _) = serving([&log]).await;
    let mut concluded = conclude(&app).await;
    tokio::time::advance(LONGEST_WAIT + Duration::from_millis(2)).await;
    let Poll::Ready(decision) = poll(&mut concluded) else {
        panic!("it waited long enough");
    };
    assert_unlogged(&app, &decision);
}

#[tokio::test]
async fn while_a_sink_is_not_available_no_policy_is_asked() {
    // What would hold it is no longer asked to admit, only to record.
    let (one, other) = (Log::new("a", Says::Never), Log::new("b", Says::Admits));
    let (_manager, app, asked) = serving([&one, &other]).await;
    other.available.store(false, Ordering::Relaxed);
    let decision = app.decide("a/b", Value::NULL).now_or_never().unwrap();
    assert_unlogged(&app, &decision);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    for log in [&one, &other] {
        assert!(log.admitted.lock().is_empty());
        let events = std::mem::take(&mut *log.recorded.lock());
        let [event] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(event.reason, Reason::LogUnavailable);
        assert_eq!(event.path.as_deref(), Some("a/b"));
        assert_eq!(event.error.as_ref(), decision.error());
    }
    other.available.store(true, Ordering::Relaxed);
    drop(app.decide("a/b", Value::NULL));
    assert_eq!(asked.load(Ordering::Relaxed), 1, "available again");
}

/// Panics when it is asked whether it is available, and when it records.
struct Wrong;

impl DecisionSink for Wrong {
    fn record(&self, _: Event) {
        panic!("the log is wrong");
    }
    fn is_available(&self) -> bool {
        panic!("the log is wrong");
    }
}

impl Plugin for Wrong {
    fn name(&self) -> &str {
        "wrong"
    }
    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        Ok(Attached::default().decisions(Self))
    }
}

#[tokio::test]
async fn a_panic_over_the_availability_is_a_no() {
    let manager = Manager::builder()
        .engine(Scripted::data())
        .in_memory([], Value::empty_object())
        .unwrap()
        .plugin(Wrong)
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    assert_unlogged(&app, &app.decide("a", Value::NULL).await);
}

#[tokio::test]
async fn a_sink_that_never_holds_a_decision_stops_none_by_its_panic() {
    let manager = Manager::builder()
        .engine(Scripted::data())
        .in_memory([], Value::empty_object())
        .unwrap()
        .plugin(Closure)
        .build()
        .unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let decision = conclude(&app).await.now().unwrap();
    assert_eq!(decision.reason(), Reason::Decided);
}

struct Closure;

impl Plugin for Closure {
    fn name(&self) -> &str {
        "closure"
    }
    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        Ok(Attached::default().decisions(|_| panic!("the log is wrong")))
    }
}

#[tokio::test]
async fn every_way_to_end_waits() {
    let log = Log::new("a", Says::Never);
    let (_manager, app, _) = serving([&log]).await;
    let entry = LogEntry::default;
    let reason = Reason::BodyUnseen;
    let ends = [
        app.ask().refuse(reason, "a", entry()),
        app.ask()
            .prepare(None)
            .unwrap()
            .refuse(reason, "a", entry()),
        app.ask()
            .prepare(None)
            .unwrap()
            .pass_in_dry_run(reason, "a", entry()),
        conclude(&app).await,
    ];
    for concluded in ends {
        assert!(concluded.now().unwrap_err().now().is_err());
    }
    for path in ["a/b", "", "a\n"] {
        assert!(app.decide(path, Value::NULL).now_or_never().is_none());
    }
    let counts = app.decision_counts();
    assert_eq!((counts.of(Reason::Cancelled), counts.total()), (7, 7));
}

#[tokio::test]
async fn an_app_that_is_not_ready_waits_and_is_refused_likewise() {
    let (waits, told) = Log::waiting("a");
    for log in [waits, Log::new("a", Says::Refuses)] {
        let manager = Manager::builder()
            .config_yaml("services: {none: {url: 'http://127.0.0.1:1'}}")
            .plugin(log.clone())
            .build()
            .unwrap();
        let app = manager.app("orders").unwrap();
        // The sinks are known when the configuration is.
        while app.instance.profile().is_none() {
            tokio::task::yield_now().await;
        }
        let decision = app.decide("a", Value::NULL);
        if matches!(log.says, Says::Refuses) {
            assert_unlogged(&app, &decision.await);
        } else {
            let waiting = tokio::spawn(decision);
            while log.admitted.lock().is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(app.decision_counts().total(), 0);
            told.send(Some(true)).unwrap();
            assert_eq!(waiting.await.unwrap().reason(), Reason::NotReady);
        }
        assert_eq!(log.admitted.lock()[0].reason, Reason::NotReady);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_held_decisions() {
    let (log, told) = Log::waiting("a");
    let (manager, app, _) = serving([&log]).await;
    let held = tokio::spawn(conclude(&app).await);
    let ending = manager.clone();
    let ending = tokio::spawn(async move { ending.shutdown(LONG).await });
    tokio::time::sleep(LONGEST_WAIT / 2).await;
    assert!(!ending.is_finished());
    told.send(Some(true)).unwrap();
    ending.await.unwrap();
    assert_eq!(held.await.unwrap().reason(), Reason::Decided);
}

#[tokio::test]
async fn questions_are_numbered_from_1_for_each_app() {
    let log = Log::new("a", Says::Admits);
    let (manager, app, _) = serving([&log]).await;
    let other = manager.app("other").unwrap();
    other.ready(LONG).await.unwrap();
    for app in [&app, &app, &other] {
        conclude(app).await.await;
    }
    drop(app.ask());
    conclude(&app).await.await;
    let numbers: Vec<_> = log
        .admitted
        .lock()
        .iter()
        .map(|event| event.req_id)
        .collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(1), Some(4)]);
}
