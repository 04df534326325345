//! Hostile paths and inputs through `App::decide`, with the first engine.

use std::time::Duration;

use opa_core::engine::Module;
use opa_core::{App, Manager, Reason, Value};

const POLICY: &str = r#"package a
allow if input.x == 1
same := input
big := [n | some n in numbers.range(1, 20000)]
printed if { print(input); print("x") }
walked := count([1 | walk(input, _)])
text := json.marshal(input)
"#;

async fn serving() -> (Manager, App) {
    let modules = [Module::v1("a.rego", POLICY)];
    let manager = Manager::in_memory(modules, Value::empty_object()).unwrap();
    let app = manager.app("a").unwrap();
    app.ready(Duration::from_secs(60)).await.unwrap();
    (manager, app)
}

#[tokio::test]
async fn hostile_paths_are_refused_and_counted() {
    let (_manager, app) = serving().await;
    let long = "a/".repeat(100_000);
    let paths = [
        "",
        "/",
        "a",
        "//",
        "a//allow",
        "a/../a/allow",
        "a/%61llow",
        "a/allow\0",
        "data.a.allow",
        "a.allow",
        "a/allow; true",
        "a/allow[0]",
        "a/💥",
        "system/main",
        &long,
        "a/allow/x/y",
    ];
    for path in paths {
        let decision = app.decide(path, Value::empty_object()).await;
        let reason = decision.reason();
        let harmless = matches!(
            reason,
            Reason::InvalidEntrypoint | Reason::Undefined | Reason::Decided | Reason::EvalError
        );
        assert!(harmless, "{:.40}: {reason:?}", path);
        // Only the package itself may be answered.
        assert!(
            reason != Reason::Decided || ["", "/", "a", "//"].contains(&path),
            "{:.40}: {:?}",
            path,
            decision.result()
        );
    }
    assert_eq!(app.decision_counts().total(), paths.len() as u64);
}

#[tokio::test]
async fn deep_and_large_inputs_end_no_process_and_allow_nothing() {
    let (_manager, app) = serving().await;
    let deep = |levels: usize, key: bool| {
        (0..levels).fold(Value::from(1), |value, _| match key {
            true => Value::object([(Value::from("x"), value)]),
            false => Value::array([value]),
        })
    };
    let wide = Value::array((0..200_000).map(Value::from));
    let mut asked = 0;
    for input in [
        deep(99, true),
        deep(101, false),
        deep(10_000, false),
        deep(10_000, true),
        deep(200_000, false),
        wide,
        Value::from("x".repeat(8 << 20)),
    ] {
        for path in [
            "a/allow",
            "a/same",
            "a/printed",
            "a/walked",
            "a/text",
            "a/big",
        ] {
            let decision = app.decide(path, input.clone()).await;
            asked += 1;
            assert_ne!(decision.reason(), Reason::EnginePanic, "{path}");
            if path == "a/allow" {
                assert_eq!(decision.result(), None);
            }
        }
    }
    assert_eq!(app.decision_counts().total(), asked);
    let input = Value::object([(Value::from("x"), Value::from(1))]);
    let decision = app.decide("a/allow", input).await;
    assert_eq!(decision.result(), Some(&Value::from(true)));
}

#[test]
fn a_lease_is_dropped_outside_of_any_runtime() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (manager, app) = runtime.block_on(serving());
    let entered = runtime.enter();
    let decide = app.decide("a/allow", Value::empty_object());
    drop(entered);
    drop(runtime);
    drop(decide);
    assert_eq!(app.decision_counts().of(Reason::Cancelled), 1);
    drop((manager, app));
}
