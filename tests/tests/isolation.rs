//! A policy of one app must not hurt another: two hostile apps beside a victim.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opa_core::bundle::BundleWriter;
use opa_core::bundle::source::Memory;
use opa_core::engine::{Budget, Engine, Interrupt, Module, Outcome};
use opa_core::{App, Manager, Reason, Value};
use tests::scripted::Scripted;

const LONG: Duration = Duration::from_secs(60);

/// How many requests each hostile app has under way at a time.
const HOSTILE_REQUESTS: usize = 64;

/// How often the victim is asked.
const VICTIM_REQUESTS: usize = 200;

fn manager(engine: impl Engine) -> Manager {
    let empty = BundleWriter::new().to_vec().unwrap();
    Manager::builder()
        .source("b", Memory::new(empty))
        .engine(engine)
        .budget(
            Budget::default()
                .time(Duration::from_millis(500))
                .steps(u64::MAX),
        )
        .build()
        .unwrap()
}

/// Keeps hostile requests for `path` under way until the victim has all of its answers.
async fn beside_hostile_requests(manager: &Manager, paths: [&'static str; 2]) -> Vec<Reason> {
    let over = Arc::new(AtomicBool::new(false));
    let mut hostile = Vec::new();
    for (app, path) in [("hostile-1", paths[0]), ("hostile-2", paths[1])] {
        let app = manager.app(app).unwrap();
        app.ready(LONG).await.unwrap();
        hostile.extend(
            (0..HOSTILE_REQUESTS)
                .map(|_| tokio::spawn(ask_until(app.clone(), path, Arc::clone(&over)))),
        );
    }
    let victim = manager.app("victim").unwrap();
    victim.ready(LONG).await.unwrap();
    for _ in 0..VICTIM_REQUESTS {
        let decision = victim.decide("a/good", Value::from(1)).await;
        assert_eq!(decision.reason(), Reason::Decided, "{:?}", decision.error());
    }
    over.store(true, Ordering::Relaxed);
    let mut reasons = Vec::new();
    for task in hostile {
        reasons.extend(task.await.unwrap());
    }
    reasons
}

async fn ask_until(app: App, path: &'static str, over: Arc<AtomicBool>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    while !over.load(Ordering::Relaxed) {
        reasons.push(app.decide(path, Value::from(1)).await.reason());
    }
    reasons
}

/// An engine with a path that loops and obeys its budget, one that loops and does not, and one
/// that answers at once.
fn scripted() -> Scripted {
    Scripted::new(|asked, ctx| match asked.path.as_str() {
        "a/loop" => loop {
            if let Err(interrupt) = ctx.step(1) {
                return Outcome::Interrupted(interrupt);
            }
        },
        "a/stuck" => {
            // Twice as long as its budget, and deaf to everything.
            std::thread::sleep(Duration::from_secs(1));
            Outcome::Interrupted(Interrupt::Time)
        }
        _ => Outcome::Value(Value::from(true)),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn loops_that_obey_their_budget_delay_nobody_else() {
    for engine in [scripted(), scripted().pooled()] {
        let reasons = beside_hostile_requests(&manager(engine), ["a/loop", "a/loop"]).await;
        let ended = [Reason::TimeBudget, Reason::Overloaded];
        assert!(
            reasons.iter().all(|reason| ended.contains(reason)),
            "{reasons:?}"
        );
        assert!(reasons.contains(&Reason::TimeBudget));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluations_that_are_stuck_delay_nobody_else() {
    let manager = manager(scripted().pooled());
    let reasons = beside_hostile_requests(&manager, ["a/stuck", "a/stuck"]).await;
    let ended = [Reason::TimeBudget, Reason::Overloaded];
    assert!(
        reasons.iter().all(|reason| ended.contains(reason)),
        "{reasons:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_that_run_long_on_regorus_delay_nobody_else() {
    let policy = "package a\n\
        good := input\n\
        loop := count([1 | \
            numbers.range(1, 1000)[_]; numbers.range(1, 1000)[_]; numbers.range(1, 1000)[_]])";
    let manager = Manager::builder()
        .in_memory([Module::v1("a.rego", policy)], Value::empty_object())
        .unwrap()
        .budget(Budget::default().time(Duration::from_millis(500)))
        .build()
        .unwrap();
    let reasons = beside_hostile_requests(&manager, ["a/loop", "a/loop"]).await;
    let ended = [Reason::TimeBudget, Reason::Overloaded];
    assert!(
        reasons.iter().all(|reason| ended.contains(reason)),
        "{reasons:?}"
    );
    assert!(reasons.contains(&Reason::TimeBudget), "{reasons:?}");
}
