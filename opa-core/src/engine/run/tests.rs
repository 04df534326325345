//! Every answer of the engine contract, driven through inline rounds, the pool and I/O.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::*;
use crate::engine::pool::PoolConfig;
use crate::engine::testing::Scripted;
use crate::engine::{
    Budget, CompileOptions, Engine, EntrypointPath, ModuleSet, NoIo, Policy, PrintSink,
};

type Script = fn(&Value, &mut EvalContext) -> Outcome;

fn runner(scheduling: Scheduling, io: impl IoDriver) -> Arc<Runner> {
    Arc::new(Runner {
        scheduling,
        pool: Pool::new(PoolConfig::threads(2).reserve(0)),
        slice: Duration::from_micros(100),
        io: Arc::new(io),
    })
}

fn task(
    runner: &Arc<Runner>,
    app: u64,
    script: impl Fn(&Value, &mut EvalContext) -> Outcome + Send + Sync + 'static,
) -> Task {
    let engine = Scripted::new(runner.scheduling, move |_, input, ctx| script(input, ctx));
    let policy: Arc<dyn Policy> = engine
        .compile(&ModuleSet::default(), &CompileOptions::default())
        .unwrap();
    let bound = policy.bind(&Value::empty_object()).unwrap();
    let entrypoint = bound
        .prepare(&EntrypointPath::parse("a/b").unwrap())
        .unwrap();
    Task {
        runner: Arc::clone(runner),
        app: format!("app-{app}").parse().unwrap(),
        key: PoolKey(app),
        bound,
        entrypoint,
        input: Value::from("input"),
        owner: Arc::new(()),
    }
}

fn ctx(budget: Budget) -> Box<EvalContext> {
    Box::new(EvalContext::new(budget))
}

async fn end(task: Task, budget: Budget) -> RunEnd {
    Run::start(task, ctx(budget)).await.0
}

fn short() -> Budget {
    Budget::default().time(Duration::from_millis(40))
}

#[tokio::test]
async fn a_short_evaluation_is_over_before_anybody_waits() {
    let runner = runner(Scheduling::Sliced, NoIo);
    let task = task(&runner, 1, |input, _| Outcome::Value(input.clone()));
    let mut run = Run::start(task, ctx(Budget::default()));
    let (end, _) = run.try_end().unwrap();
    assert_eq!(end, RunEnd::Value(Value::from("input")));
}

#[tokio::test]
async fn an_engine_that_cannot_be_sliced_runs_on_the_pool() {
    let runner = runner(Scheduling::Pooled, NoIo);
    let here = std::thread::current().id();
    let task = task(&runner, 1, move |_, _| {
        Outcome::Value(Value::from(std::thread::current().id() != here))
    });
    assert_eq!(
        end(task, Budget::default()).await,
        RunEnd::Value(Value::from(true))
    );
}

#[tokio::test]
async fn what_is_longer_than_a_slice_starts_again_on_the_pool_and_so_does_the_next() {
    let runner = runner(Scheduling::Sliced, NoIo);
    let inline = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&inline);
    let here = std::thread::current().id();
    let task = task(&runner, 1, move |_, _| {
        if std::thread::current().id() == here {
            counter.fetch_add(1, Ordering::Relaxed);
            return Outcome::Interrupted(Interrupt::Slice);
        }
        Outcome::Value(Value::from(1))
    });
    for _ in 0..3 {
        assert_eq!(
            end(task.clone(), Budget::default()).await,
            RunEnd::Value(Value::from(1))
        );
    }
    assert_eq!(
        inline.load(Ordering::Relaxed),
        1,
        "the entrypoint is known to be slow"
    );
}

#[tokio::test]
async fn the_slice_ends_a_loop_that_charges_its_steps() {
    let runner = runner(Scheduling::Sliced, NoIo);
    let task = task(&runner, 1, |_, ctx| {
        loop {
            if let Err(interrupt) = ctx.step(1) {
                return Outcome::Interrupted(interrupt);
            }
        }
    });
    let budget = Budget::default()
        .time(Duration::from_millis(20))
        .steps(u64::MAX);
    assert_eq!(
        end(task, budget).await,
        RunEnd::Interrupted(Interrupt::Time)
    );
}

#[tokio::test]
async fn undefined_errors_and_budgets_are_handed_on() {
    let cases: [(Script, RunEnd); 5] = [
        (|_, _| Outcome::Undefined, RunEnd::Undefined),
        (
            |_, _| Outcome::Error(EvalError::new(EvalError::CONFLICT, "x")),
            RunEnd::Error(EvalError::new(EvalError::CONFLICT, "x")),
        ),
        (
            |_, _| Outcome::Interrupted(Interrupt::Memory),
            RunEnd::Interrupted(Interrupt::Memory),
        ),
        (
            |_, _| Outcome::Interrupted(Interrupt::Depth),
            RunEnd::Interrupted(Interrupt::Depth),
        ),
        (|_, _| panic!("the engine is wrong"), RunEnd::Panicked),
    ];
    for scheduling in [Scheduling::Sliced, Scheduling::Pooled] {
        let runner = runner(scheduling, NoIo);
        for (script, expected) in &cases {
            assert_eq!(
                end(task(&runner, 1, *script), Budget::default()).await,
                *expected
            );
        }
    }
}

fn call(name: &str) -> IoCall {
    IoCall::new(name, [Value::from(1)])
}

#[tokio::test]
async fn each_distinct_call_is_made_once_and_its_error_is_kept_too() {
    let made = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&made);
    let io = move |app: &AppId, call: &IoCall| -> IoFuture {
        log.lock().unwrap().push(format!("{app} {}", call.name()));
        let answer = if call.name() == "bad" {
            Err("refused".into())
        } else {
            Ok(Value::from(2))
        };
        Box::pin(async move {
            tokio::task::yield_now().await;
            answer
        })
    };
    for scheduling in [Scheduling::Sliced, Scheduling::Pooled] {
        made.lock().unwrap().clear();
        let runner = runner(scheduling, io.clone());
        let task = task(&runner, 7, |_, ctx| {
            let wanted = [call("good"), call("bad"), call("good")];
            if ctx.memo().answer(&wanted[0]).is_none() {
                return Outcome::NeedsIo(wanted.to_vec());
            }
            match (ctx.memo().answer(&wanted[0]), ctx.memo().answer(&wanted[1])) {
                (Some(Ok(good)), Some(Err(_))) => Outcome::Value(good.clone()),
                other => panic!("{other:?}"),
            }
        });
        assert_eq!(
            end(task, Budget::default()).await,
            RunEnd::Value(Value::from(2))
        );
        assert_eq!(*made.lock().unwrap(), ["app-7 good", "app-7 bad"]);
    }
}

#[tokio::test]
async fn an_evaluation_that_asks_again_and_again_is_ended() {
    let runner = runner(Scheduling::Sliced, NoIo);
    let rounds = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&rounds);
    let task = task(&runner, 1, move |_, _| {
        let round = counter.fetch_add(1, Ordering::Relaxed);
        Outcome::NeedsIo(vec![call(&format!("call-{round}"))])
    });
    assert_eq!(end(task, Budget::default()).await, RunEnd::TooManyRounds);
    assert_eq!(rounds.load(Ordering::Relaxed), 65);
}

#[tokio::test]
async fn an_answer_that_does_not_come_ends_the_decision_at_its_deadline() {
    let never = |_: &AppId, _: &IoCall| -> IoFuture { Box::pin(std::future::pending()) };
    let runner = runner(Scheduling::Sliced, never);
    let task = task(&runner, 1, |_, _| Outcome::NeedsIo(vec![call("http.send")]));
    assert_eq!(
        end(task, short()).await,
        RunEnd::Interrupted(Interrupt::Time)
    );
}

#[tokio::test]
async fn budgets_add_up_over_rounds() {
    let runner = runner(Scheduling::Sliced, NoIo);
    let rounds = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&rounds);
    let task = task(&runner, 1, move |_, ctx| {
        let round = counter.fetch_add(1, Ordering::Relaxed);
        match ctx.step(10) {
            Ok(()) => Outcome::NeedsIo(vec![call(&format!("call-{round}"))]),
            Err(interrupt) => Outcome::Interrupted(interrupt),
        }
    });
    let budget = Budget::default().steps(25);
    assert_eq!(
        end(task, budget).await,
        RunEnd::Interrupted(Interrupt::Steps)
    );
    assert_eq!(rounds.load(Ordering::Relaxed), 3);
}

#[derive(Debug, Default)]
struct Prints(Mutex<Vec<String>>);

impl PrintSink for Prints {
    fn print(&self, _: &str, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

#[tokio::test]
async fn prints_of_abandoned_rounds_are_discarded() {
    let runner = runner(Scheduling::Sliced, NoIo);
    let task = task(&runner, 1, |_, ctx| {
        ctx.print("a.rego:1", "hello");
        match ctx.memo().answer(&call("x")) {
            None => Outcome::NeedsIo(vec![call("x")]),
            Some(_) => Outcome::Value(Value::NULL),
        }
    });
    let sink = Arc::new(Prints::default());
    let ctx = EvalContext::new(Budget::default()).with_prints(Arc::clone(&sink) as _);
    Run::start(task, Box::new(ctx)).await;
    assert_eq!(*sink.0.lock().unwrap(), ["hello"]);
}

#[tokio::test]
async fn dropping_the_future_raises_the_cancel_flag_of_a_running_evaluation() {
    let runner = runner(Scheduling::Pooled, NoIo);
    let (send, seen) = mpsc::channel();
    let task = task(&runner, 1, move |_, ctx| {
        send.send("started").unwrap();
        while ctx.check().is_ok() {
            std::thread::yield_now();
        }
        send.send("cancelled").unwrap();
        Outcome::Interrupted(ctx.check().unwrap_err())
    });
    let run = Run::start(task, ctx(Budget::default().time(Duration::from_secs(60))));
    assert_eq!(seen.recv().unwrap(), "started");
    drop(run);
    assert_eq!(seen.recv().unwrap(), "cancelled");
}

/// Occupies both threads of the pool with evaluations that look at no clock.
fn occupy(runner: &Arc<Runner>, budget: Budget) -> (Vec<Run>, Vec<mpsc::Sender<()>>) {
    let (started, wait) = mpsc::channel();
    let occupied = (100..102).map(|app| {
        let (go, gate) = mpsc::channel::<()>();
        let (gate, started) = (Mutex::new(gate), started.clone());
        let stuck = task(runner, app, move |_, _| {
            started.send(()).unwrap();
            let _ = gate.lock().unwrap().recv();
            Outcome::Undefined
        });
        let run = Run::start(stuck, ctx(budget));
        wait.recv().unwrap();
        (run, go)
    });
    occupied.unzip()
}

#[tokio::test]
async fn who_finds_no_thread_until_the_deadline_is_told_overloaded() {
    let runner = runner(Scheduling::Pooled, NoIo);
    let (_runs, gates) = occupy(&runner, Budget::default().time(Duration::from_secs(600)));
    let late = task(&runner, 1, |_, _| Outcome::Undefined);
    assert_eq!(end(late, short()).await, RunEnd::Overloaded);
    assert_eq!(
        runner.pool.load(),
        (0, 2),
        "the late one does not wait any more"
    );
    drop(gates);
}

#[tokio::test]
async fn dropping_a_future_that_waits_for_a_thread_takes_it_out_of_the_queue() {
    let runner = runner(Scheduling::Pooled, NoIo);
    let (_runs, gates) = occupy(&runner, Budget::default().time(Duration::from_secs(600)));
    let waiting = Run::start(task(&runner, 1, |_, _| Outcome::Undefined), ctx(short()));
    assert_eq!(runner.pool.load(), (1, 2));
    drop(waiting);
    assert_eq!(runner.pool.load(), (0, 2));
    drop(gates);
}

#[tokio::test]
async fn a_stuck_evaluation_is_answered_and_its_thread_replaced() {
    let runner = runner(Scheduling::Pooled, NoIo);
    let (runs, gates) = occupy(&runner, short());
    for run in runs {
        assert_eq!(run.await.0, RunEnd::Interrupted(Interrupt::Time));
    }
    let other = task(&runner, 1, |_, _| Outcome::Value(Value::from(1)));
    let long = Budget::default().time(Duration::from_secs(600));
    assert_eq!(end(other, long).await, RunEnd::Value(Value::from(1)));
    drop(gates);
}

#[tokio::test]
async fn a_closed_pool_answers_closed() {
    let runner = runner(Scheduling::Pooled, NoIo);
    let (_runs, gates) = occupy(&runner, Budget::default().time(Duration::from_secs(600)));
    let waiting = Run::start(
        task(&runner, 1, |_, _| Outcome::Undefined),
        ctx(Budget::default().time(Duration::from_secs(600))),
    );
    runner.pool.close();
    assert_eq!(waiting.await.0, RunEnd::Closed);
    drop(gates);
}

#[tokio::test]
async fn a_panic_of_the_driver_fails_the_decision_and_not_its_caller() {
    let before: fn(&AppId, &IoCall) -> IoFuture = |_, _| panic!("the user's code is wrong");
    let inside: fn(&AppId, &IoCall) -> IoFuture =
        |_, _| Box::pin(async { panic!("the user's code is wrong") });
    for driver in [before, inside] {
        for scheduling in [Scheduling::Sliced, Scheduling::Pooled] {
            let runner = runner(scheduling, driver);
            let task = task(&runner, 1, |_, _| Outcome::NeedsIo(vec![call("x")]));
            assert_eq!(end(task, Budget::default()).await, RunEnd::Panicked);
        }
    }
}

#[derive(Debug)]
struct PanickingSink;

impl PrintSink for PanickingSink {
    fn print(&self, _: &str, _: &str) {
        panic!("the user's code is wrong")
    }
}

#[tokio::test]
async fn a_panic_of_a_print_sink_does_not_take_the_decision_with_it() {
    let runner = runner(Scheduling::Sliced, NoIo);
    let task = task(&runner, 1, |_, ctx| {
        ctx.print("a.rego:1", "line");
        Outcome::Value(Value::from(1))
    });
    let ctx = EvalContext::new(Budget::default()).with_prints(Arc::new(PanickingSink));
    let mut run = Run::start(task, Box::new(ctx));
    assert_eq!(run.try_end().unwrap().0, RunEnd::Value(Value::from(1)));
}

#[tokio::test]
async fn time_that_is_used_up_without_waiting_for_a_thread_is_no_overload() {
    let runner = runner(Scheduling::Sliced, NoIo);
    let task = task(&runner, 1, |_, _| Outcome::Undefined);
    assert_eq!(
        end(task, Budget::default().time(Duration::ZERO)).await,
        RunEnd::Interrupted(Interrupt::Time)
    );
}
