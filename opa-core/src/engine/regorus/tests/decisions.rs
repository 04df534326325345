//! What is per decision.

use std::sync::Arc;
use std::time::Duration;

use super::super::testing::{
    Lines, answer, bind, compile_all, eval, eval_with, json, show, strict,
};
use crate::Value;
use crate::engine::{
    Budget, Clock, EntrypointPath, EvalContext, EvalError, Interrupt, Memo, Outcome, PrintSink,
};

#[test]
fn conflicts_have_the_code_of_opa() {
    let bound = bind(
        "package a\nx := 1 if input.a\nx := 2 if input.a\n\
         f(_) := 1\nf(_) := 2\ny := f(1)\n\
         o := {k: v | some v in [1, 2]; k := \"secret\"}\n\
         p[k] := v if { some v in [1, 2]; k := \"k\" }",
        "{}",
    );
    for path in ["a/x", "a/y", "a/o", "a/p"] {
        let mut ctx = EvalContext::new(Budget::default());
        let outcome = eval_with(&*bound, path, &json(r#"{"a": true}"#), &mut ctx);
        let Outcome::Error(error) = outcome else {
            panic!("{path}: {outcome:?}")
        };
        assert_eq!(error.code(), "eval_conflict_error", "{path}: {error}");
        assert!(
            error.location().is_some_and(|at| &*at.file == "a.rego"),
            "{error}"
        );
        assert!(!error.message().contains("secret"), "{error}");
    }
}

#[test]
fn an_error_of_a_built_in_is_undefined_or_in_strict_mode_an_error() {
    let source = "package a\nx := to_number(\"nope\")\nrange := numbers.range(\"a\", 1)";
    let bound = bind(source, "{}");
    assert_eq!(answer(&*bound, "a/x"), "undefined");
    assert_eq!(answer(&*bound, "a/range"), "undefined");
    let bound = strict(source);
    for path in ["a/x", "a/range"] {
        let Outcome::Error(error) = eval(&*bound, path) else {
            panic!("{path}")
        };
        assert_eq!(error.code(), "eval_builtin_error");
        assert!(!error.message().contains('\n'));
    }
}

#[test]
fn a_single_evaluation_can_be_strict() {
    let bound = bind("package a\nx := to_number(\"nope\")\ny := 1", "{}");
    for path in ["a/x", "a/y", "a"] {
        let entrypoint = bound
            .prepare(&EntrypointPath::parse(path).unwrap())
            .unwrap();
        let mut ctx = EvalContext::new(Budget::default()).with_strict_builtin_errors();
        let strict = bound.eval(&entrypoint, &Value::NULL, &mut ctx);
        match path {
            "a/y" => assert_eq!(strict, Outcome::Value(Value::from(1))),
            _ => assert!(
                matches!(&strict, Outcome::Error(error) if error.code() == EvalError::BUILTIN)
            ),
        }
        // Others are as they were.
        assert!(!matches!(eval(&*bound, path), Outcome::Error(_)));
    }
}

#[test]
fn an_endless_evaluation_is_ended_by_its_time() {
    let bound = bind(
        "package a\nxs := numbers.range(1, 1000)\n\
         slow := count([1 | some x in xs; some y in xs; some z in xs; x + y + z == 0])\n\
         f(_) := count([1 | some x in xs; some y in xs; some z in xs; x + y + z == 0])\n\
         f(_) := 0\n\
         hidden := f(1)\n\
         negated if not f(1)\n",
        "{}",
    );
    for path in ["a/slow", "a/hidden", "a/negated", "a"] {
        let mut ctx = EvalContext::new(Budget::default().time(Duration::from_millis(20)));
        let outcome = eval_with(&*bound, path, &Value::NULL, &mut ctx);
        assert_eq!(outcome, Outcome::Interrupted(Interrupt::Time), "{path}");
    }
}

#[test]
fn nothing_starts_when_nobody_waits() {
    let bound = bind("package a\nx := 1", "{}");
    let mut ctx = EvalContext::new(Budget::default());
    ctx.cancel_flag().cancel();
    let outcome = eval_with(&*bound, "a/x", &Value::NULL, &mut ctx);
    assert_eq!(outcome, Outcome::Interrupted(Interrupt::Cancelled));
    let mut ctx = EvalContext::new(Budget::default().time(Duration::ZERO));
    let outcome = eval_with(&*bound, "a/x", &Value::NULL, &mut ctx);
    assert_eq!(outcome, Outcome::Interrupted(Interrupt::Time));
}

#[test]
fn a_large_result_is_charged() {
    let bound = bind("package a\nx := numbers.range(1, 10000)", "{}");
    let mut ctx = EvalContext::new(Budget::default().memory(10_000));
    let outcome = eval_with(&*bound, "a/x", &Value::NULL, &mut ctx);
    assert_eq!(outcome, Outcome::Interrupted(Interrupt::Memory));
}

#[test]
fn prints_are_handed_on_if_anybody_wants_them() {
    let source = "package a\nx := 1 if {\n  print(\"to: you\", [1], input.missing)\n}";
    let policy = compile_all(&[("b: c/a.rego", source)]).unwrap();
    let bound = policy.bind(&json("{}")).unwrap();
    let lines = Arc::new(Lines::default());
    let sink = Arc::clone(&lines) as Arc<dyn PrintSink>;
    let mut ctx = EvalContext::new(Budget::default()).with_prints(sink);
    assert_eq!(show(eval_with(&*bound, "a/x", &Value::NULL, &mut ctx)), "1");
    ctx.flush_prints();
    let expected = (
        "b: c/a.rego:3".to_owned(),
        "to: you [1] <undefined>".to_owned(),
    );
    assert_eq!(*lines.0.lock().unwrap(), [expected]);
    assert_eq!(answer(&*bound, "a/x"), "1");
}

#[test]
fn the_time_is_that_of_the_decision() {
    let bound = bind(
        "package a\nnow := time.now_ns()\nsame if time.now_ns() == now",
        "{}",
    );
    let clock = crate::engine::SystemClock::new();
    let now = clock.wall();
    let since = now
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let mut ctx = EvalContext::new(Budget::default()).with_memo(Memo::new(now, 0));
    let outcome = eval_with(&*bound, "a/now", &Value::NULL, &mut ctx);
    assert_eq!(show(outcome), since.to_string());
    assert_eq!(
        show(eval_with(&*bound, "a/same", &Value::NULL, &mut ctx)),
        "true"
    );
}

#[test]
fn evaluations_do_not_see_each_other() {
    let bound = bind("package a\nx := input.n + data.n", r#"{"n": 1}"#);
    let entrypoint = bound
        .prepare(&EntrypointPath::parse("a/x").unwrap())
        .unwrap();
    assert!(entrypoint.inputs().is_all());
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (bound, entrypoint) = (&bound, &entrypoint);
            scope.spawn(move || {
                for _ in 0..100 {
                    let mut ctx = EvalContext::new(Budget::default());
                    let input = Value::object([(Value::from("n"), Value::from(n))]);
                    let outcome = bound.eval(entrypoint, &input, &mut ctx);
                    assert_eq!(outcome, Outcome::Value(Value::from(n + 1)));
                }
            });
        }
    });
}

#[test]
fn an_input_that_regorus_cannot_hold_is_an_error() {
    let bound = bind("package a\nx := 1", "{}");
    let deep = (0..101).fold(Value::NULL, |value, _| Value::array([value]));
    for input in [deep, json("1e1000000000")] {
        let mut ctx = EvalContext::new(Budget::default());
        let outcome = eval_with(&*bound, "a/x", &input, &mut ctx);
        assert!(matches!(outcome, Outcome::Error(_)), "{outcome:?}");
    }
}

#[test]
fn an_entrypoint_of_another_engine_is_an_error() {
    let bound = bind("package a\nx := 1", "{}");
    let path = EntrypointPath::parse("a/x").unwrap();
    let other = crate::engine::Entrypoint::new(path, crate::engine::InputPaths::all(), ());
    let outcome = bound.eval(
        &other,
        &Value::NULL,
        &mut EvalContext::new(Budget::default()),
    );
    assert!(matches!(outcome, Outcome::Error(_)));
}
