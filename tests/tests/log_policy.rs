//! A sink asks the policy that made a decision; one that doesn't ask sees nothing that it might
//! hide.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use opa_core::config::ConfigError;
use opa_core::engine::{Budget, EntrypointPath, EvalError, Module, Outcome};
use opa_core::plugin::{Attached, DecisionSink, Event, EventInput, LogAnswer, Plugin, Scope};
use opa_core::{Manager, Reason, Value};
use tests::scripted::Scripted;

const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<Event>>>);

struct Asks(Events);

impl DecisionSink for Asks {
    fn record(&self, event: Event) {
        self.0.0.lock().unwrap().push(event);
    }

    fn asks_policy(&self) -> bool {
        true
    }
}

struct Logs {
    asking: Events,
    other: Events,
    policy: Option<EntrypointPath>,
}

struct Other(Events);

impl Plugin for Logs {
    fn name(&self) -> &str {
        "logs"
    }

    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        let attached = Attached::default().decisions(Asks(self.asking.clone()));
        Ok(match &self.policy {
            Some(path) => attached.log_policy(path.clone()),
            None => attached,
        })
    }
}

impl Plugin for Other {
    fn name(&self) -> &str {
        "other"
    }

    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        let events = self.0.clone();
        Ok(Attached::default().decisions(move |event| events.0.lock().unwrap().push(event)))
    }
}

/// Answers by path: what a policy on logs may do.
fn engine() -> Scripted {
    Scripted::new(|asked, ctx| match asked.path.as_str() {
        "system/log/mask" => Outcome::Value(Value::array([asked.input.clone()])),
        "system/log/undefined" => Outcome::Undefined,
        "system/log/error" => Outcome::Error(EvalError::new(EvalError::BUILTIN, "secret")),
        "system/log/panic" => panic!("the policy's fault"),
        "system/log/steps" => loop {
            if let Err(interrupt) = ctx.step(1_000) {
                return Outcome::Interrupted(interrupt);
            }
        },
        _ => Outcome::Value(asked.input.clone()),
    })
}

fn path(text: &str) -> EntrypointPath {
    EntrypointPath::parse(text).unwrap()
}

/// The events of a decision on `"secret"`, for a sink that asks and for one that doesn't.
async fn decided(
    package: &str,
    data: &str,
    policy: Option<&str>,
    engine: Scripted,
) -> (Manager, Event, Event) {
    let (asking, other) = (Events::default(), Events::default());
    let module = Module::v1("a.rego", format!("package {package}"));
    let data = Value::from_json(data.as_bytes()).unwrap();
    let logs = Logs {
        asking: asking.clone(),
        other: other.clone(),
        policy: policy.map(path),
    };
    let manager = Manager::builder()
        .in_memory([module], data)
        .unwrap()
        .engine(engine)
        .plugin(Other(logs.other.clone()))
        .plugin(logs)
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    app.decide("a/b", Value::from("secret")).await;
    let take = |events: &Events| events.0.lock().unwrap().pop().unwrap();
    let events = (take(&asking), take(&other));
    (manager, events.0, events.1)
}

fn shows(event: &Event) -> bool {
    let input = match &event.input {
        EventInput::Built(input) => Some(input),
        _ => None,
    };
    let mut told = input.into_iter().chain(&event.result);
    told.any(|value| value.to_json().contains("secret"))
}

#[tokio::test]
async fn only_a_sink_that_asks_sees_what_a_policy_might_hide() {
    for (package, data, policy, withheld) in [
        ("a", "{}", None, false),
        ("system.log", "{}", None, true),
        ("a", r#"{"system": {"log": {"mask": []}}}"#, None, true),
        ("a", r#"{"logs": {"mask": []}}"#, None, false),
        ("a", r#"{"logs": {"mask": []}}"#, Some("logs/mask"), true),
    ] {
        let (_manager, asking, other) = decided(package, data, policy, engine()).await;
        assert!(shows(&asking));
        assert!(asking.policy.is_some());
        assert_eq!(!shows(&other), withheld, "{package} {data}");
        assert_eq!(matches!(other.input, EventInput::Withheld), withheld);
        assert!(other.policy.is_none());
    }
}

#[tokio::test]
async fn a_policy_tells_what_it_defines_without_being_asked() {
    let never = Scripted::new(|asked, _| {
        assert_eq!(asked.path.as_str(), "a/b");
        Outcome::Undefined
    });
    let (_manager, event, _) = decided("a", r#"{"logs": {"mask": []}}"#, None, never).await;
    let policy = event.policy.unwrap();
    assert!(!policy.defines(&path("system/log/mask")));
    assert!(policy.defines(&path("logs/mask")));
}

#[tokio::test]
async fn every_end_of_an_evaluation_is_an_answer() {
    for engine in [engine(), engine().pooled()] {
        let (manager, event, _) = decided("system.log", "{}", None, engine).await;
        let policy = event.policy.unwrap();
        let ask = |name: &str, budget: Budget| {
            policy.evaluate(&path(&format!("system/log/{name}")), Value::from(1), budget)
        };
        let budget = Budget::default();
        let wanted = LogAnswer::Value(Value::array([Value::from(1)]));
        assert_eq!(ask("mask", budget).await, wanted);
        assert_eq!(ask("undefined", budget).await, LogAnswer::Undefined);
        for (name, reason) in [
            ("error", Reason::EvalError),
            ("panic", Reason::EnginePanic),
            ("steps", Reason::StepBudget),
        ] {
            let answer = ask(name, budget.steps(1_000_000)).await;
            assert_eq!(answer, LogAnswer::Failed(reason), "{name}");
        }
        // Whatever is served since, and whether anything is.
        manager.shutdown(LONG).await;
        let answer = ask("mask", budget).await;
        assert!(
            answer == wanted || matches!(answer, LogAnswer::Failed(_)),
            "{answer:?}"
        );
    }
}
