use std::sync::Arc;
use std::time::Duration;

use super::testing::{
    Lines, answer, bind, compile, compile_all, compile_v0, eval, eval_with, json, refusal, show,
    strict,
};
use super::{Limits, Regorus};
use crate::Value;
use crate::engine::{
    Budget, Clock, CompileOptions, Engine, EntrypointPath, EvalContext, Interrupt, Memo, Module,
    ModuleSet, Outcome, PrintSink, Scheduling,
};

#[test]
fn the_engine_runs_on_a_pool() {
    let engine = Regorus::default();
    assert_eq!(
        (engine.name(), engine.scheduling()),
        ("regorus", Scheduling::Pooled)
    );
}

// What lies at a path.

#[test]
fn a_rule_at_the_path_answers_its_value() {
    let bound = bind(
        r#"package a.b
        default allow := false
        allow if input.user == "eve"
        never if false
        deny contains "x"
        deny contains "y" if false
        none contains "z" if false
        by_key[k] := v if some k, v in {"one": 1}
        nested.rule := 7
        f(x) := x
        g() := 5"#,
        "{}",
    );
    for (path, expected) in [
        ("a/b/allow", "false"),
        ("a/b/never", "undefined"),
        ("a/b/deny", r#"["x"]"#),
        ("a/b/none", "[]"),
        ("a/b/by_key", r#"{"one":1}"#),
        ("a/b/nested/rule", "7"),
        ("a/b/nested", r#"{"rule":7}"#),
        ("a/b/f", "undefined"),
        ("a/b/g", "5"),
        ("a/b/missing", "undefined"),
    ] {
        assert_eq!(answer(&*bound, path), expected, "{path}");
    }
    let mut ctx = EvalContext::new(Budget::default());
    let outcome = eval_with(&*bound, "a/b/allow", &json(r#"{"user": "eve"}"#), &mut ctx);
    assert_eq!(show(outcome), "true");
    assert!(matches!(eval(&*bound, "a/b/deny"), Outcome::Value(set) if set.as_set().is_some()));
}

#[test]
fn a_path_goes_on_within_the_value_of_a_rule() {
    let bound = bind(
        r#"package a
        object := {"x": [10, {"y": "z"}], "1": "text", "und": input.missing.x}
        array := [1, 2]
        set contains x if some x in ["m", 3]
        keyed[x] := x * 2 if some x in [1, 2]
        "#,
        "{}",
    );
    for (path, expected) in [
        ("a/object", "undefined"),
        ("a/array/1", "2"),
        ("a/array/2", "undefined"),
        ("a/array/x", "undefined"),
        ("a/set/m", r#""m""#),
        ("a/set/3", "3"),
        ("a/set/4", "undefined"),
        ("a/keyed/2", "4"),
    ] {
        assert_eq!(answer(&*bound, path), expected, "{path}");
    }
    let bound = bind(
        r#"package a
        object := {"x": [10, {"y": "z"}], "1": "text"}"#,
        "{}",
    );
    assert_eq!(answer(&*bound, "a/object/x/1/y"), r#""z""#);
    assert_eq!(answer(&*bound, "a/object/1"), r#""text""#);
    assert_eq!(answer(&*bound, "a/object/x/1/y/z"), "undefined");
}

#[test]
fn a_package_answers_its_rules_and_data() {
    let policy = compile_all(&[
        (
            "1",
            "package a.b\nallow := true\nnever if false\nf(x) := x\ndefault d := 3\n",
        ),
        ("2", "package a.b.c\ns contains 1\n"),
        ("3", "package a.empty\n"),
        ("4", "package a.functions\nf(x) := x\n"),
        ("5", "package other\nx := 1\n"),
    ])
    .unwrap();
    let data = json(r#"{"a": {"b": {"roles": ["r"]}, "top": 1}, "z": 2}"#);
    let bound = policy.bind(&data).unwrap();
    for (path, expected) in [
        ("a/b", r#"{"allow":true,"c":{"s":[1]},"d":3,"roles":["r"]}"#),
        ("a/b/c", r#"{"s":[1]}"#),
        ("a/empty", "{}"),
        ("a/functions", "{}"),
        (
            "a",
            r#"{"b":{"allow":true,"c":{"s":[1]},"d":3,"roles":["r"]},"empty":{},"functions":{},"top":1}"#,
        ),
        ("a/b/roles", r#"["r"]"#),
        ("a/b/roles/0", r#""r""#),
        ("a/top", "1"),
        ("z", "2"),
        ("z/y", "undefined"),
        ("nowhere", "undefined"),
    ] {
        assert_eq!(answer(&*bound, path), expected, "{path}");
    }
}

#[test]
fn rules_with_variables_in_their_heads_are_evaluated_as_a_whole() {
    let bound = bind(
        r#"package a
        p[k].size := n if some k, n in {"x": 1, "y": 2}
        p.x.color := "red"
        q[k] := 1 if some k in ["one"]
        q["two-2"] := 2
        "#,
        "{}",
    );
    for (path, expected) in [
        ("a/p/x/size", "1"),
        ("a/p/y", r#"{"size":2}"#),
        ("a/p/x/color", r#""red""#),
        ("a/p/k/size", "undefined"),
        ("a/q/one", "1"),
        ("a/q/two-2", "2"),
        ("a/q", r#"{"one":1,"two-2":2}"#),
    ] {
        assert_eq!(answer(&*bound, path), expected, "{path}");
    }
}

#[test]
fn modules_of_both_versions_work_together() {
    let v0 = r#"package old
        import data.new
        allow { new.allow; input.x }
        deny["no"] { not input.x }
        p.q { true }
        default q = 1"#;
    let modules = ModuleSet::new([
        Module::new("old", v0, opa_rego::RegoVersion::V0),
        Module::v1("new", "package new\nallow if input.x in [1, 2]"),
    ]);
    let policy = Regorus::default()
        .compile(&modules, &CompileOptions::default())
        .unwrap();
    let bound = policy.bind(&json("{}")).unwrap();
    let mut ctx = EvalContext::new(Budget::default());
    let outcome = eval_with(&*bound, "old/allow", &json(r#"{"x": 2}"#), &mut ctx);
    assert_eq!(show(outcome), "true");
    assert_eq!(answer(&*bound, "old/deny"), r#"["no"]"#);
    assert_eq!(answer(&*bound, "old/p"), r#"["q"]"#);
    assert_eq!(answer(&*bound, "old/p/q"), r#""q""#);
    assert_eq!(answer(&*bound, "old/q"), "1");
    assert!(refusal("package a\nallow { true }").contains("a.rego:2"));
}

#[test]
fn defaults_with_a_key_belong_to_the_document() {
    let bound =
        compile_v0("package a\ndefault p[\"q\"] = 1\n").map(|p| p.bind(&json("{}")).unwrap());
    let Ok(bound) = bound else { return };
    assert!(!matches!(eval(&*bound, "a/p"), Outcome::Error(_)));
    assert!(!matches!(eval(&*bound, "a/p/q"), Outcome::Error(_)));
}

/// CVE-2025-46569: the path of a decision was put into a query as text.
#[test]
fn cve_2025_46569_a_path_is_never_query_text() {
    let bound = bind(
        "package a\nsecret := 1\nallow := false\np[\"x\"] := 1",
        r#"{"d": {"k": 1}}"#,
    );
    for path in [
        "a\"]; x := data.a.secret; [\"",
        "a/allow\"] == false; data[\"a",
        "a/allow == false",
        "a.allow",
        "a/secret; true",
        "a[\"allow\"]",
        "a/p/x\"]",
        "a/p/\\",
        "\\\"]; true #",
        "d/k\"]",
        "input",
        "a/[_]",
        "a/_",
        "__internal_query_module",
    ] {
        assert_eq!(answer(&*bound, path), "undefined", "{path}");
    }
    // Names that need quotes are found by themselves, and only then.
    let module = "package b[\"x\\\"]; y := 1 #\"]\nr := 5\n[\"no\"]";
    assert!(compile(module).is_err());
    let bound = bind("package b[\"c\\\"]; true #\"][\"d-e\"]\nr := 5", "{}");
    assert_eq!(answer(&*bound, "b/c\"]; true #/d-e/r"), "5");
    assert_eq!(answer(&*bound, "b/c\"]; true #"), r#"{"d-e":{"r":5}}"#);
    assert_eq!(answer(&*bound, "b/c"), "undefined");
}

// Data.

#[test]
fn rules_and_data_must_not_define_the_same() {
    let policy = compile("package a.b\nallow := true\nf(x) := x\np.q := 1").unwrap();
    for (data, path) in [
        (r#"{"a": {"b": {"allow": false}}}"#, "a/b/allow"),
        (r#"{"a": {"b": {"f": 1}}}"#, "a/b/f"),
        (r#"{"a": {"b": {"p": {"q": 2}}}}"#, "a/b/p/q"),
        (r#"{"a": 1}"#, "a/b/allow"),
        (r#"{"a": {"b": []}}"#, "a/b/allow"),
    ] {
        let errors = policy.bind(&json(data)).err().unwrap();
        let first = errors.iter().next().unwrap();
        let expected = format!("rego_compile_error: conflicting rule for data path {path} found");
        assert!(first.to_string().ends_with(&expected), "{first}");
        assert!(first.location().is_some());
    }
    for data in [
        r#"{"a": {"b": {"x": 1, "p": {"r": 1}}}}"#,
        r#"{"a": {}}"#,
        r#"{"b": 1}"#,
    ] {
        assert!(policy.bind(&json(data)).is_ok(), "{data}");
    }
}

#[test]
fn data_that_regorus_cannot_hold_is_refused() {
    let policy = compile("package a\nx := 1").unwrap();
    let deep = (0..101).fold(Value::NULL, |value, _| Value::array([value]));
    let data = [
        Value::object([(Value::from("d"), deep)]),
        json(r#"{"d": 1e1000000000}"#),
        json("[]"),
    ];
    for data in data {
        assert!(policy.bind(&data).is_err());
    }
}

#[test]
fn a_policy_is_bound_to_several_data() {
    let policy = compile("package a\nx := data.n + 1").unwrap();
    let bounds = [1, 2].map(|n| {
        policy
            .bind(&Value::object([(Value::from("n"), Value::from(n))]))
            .unwrap()
    });
    assert_eq!(bounds.map(|bound| answer(&*bound, "a/x")), ["2", "3"]);
}

#[test]
fn a_package_must_not_have_the_path_of_a_rule() {
    let sources = [("a", "package a\nb := 1"), ("b", "package a.b\nc := 1")];
    let error = compile_all(&sources).err().unwrap().to_string();
    assert!(
        error.contains("rego_type_error: package conflicts with rule"),
        "{error}"
    );
}

#[test]
fn the_policy_of_the_log_is_noticed() {
    for (source, expected) in [
        ("package system.log\nmask contains \"/input/x\"", true),
        ("package system\nlog := {\"mask\": []}", true),
        ("package system\nlog.mask contains \"/input/x\"", true),
        ("package system.log.drop\nx := 1", true),
        ("package system.log\n", false),
        ("package system.logs\nmask := 1", false),
        ("package a.system.log\nmask := 1", false),
    ] {
        assert_eq!(
            compile(source).unwrap().defines_system_log(),
            expected,
            "{source}"
        );
    }
}

// What is refused at load.

#[test]
fn what_does_not_parse_is_told_with_its_place() {
    let errors = compile_all(&[
        ("b/one.rego", "package a\nallow if {\n  x := := 1\n}"),
        ("b/two.rego", "package a\n\nx := [1"),
        ("b/ok.rego", "package a\ny := 1"),
    ]);
    let errors = errors.err().unwrap();
    let places: Vec<_> = errors
        .iter()
        .map(|e| {
            (
                e.code(),
                e.location().map(|l| (l.file.to_string(), l.row)).unwrap(),
            )
        })
        .collect();
    let parse = "rego_parse_error";
    assert!(
        places.contains(&(parse, ("b/two.rego".to_owned(), 3))),
        "{places:?}"
    );
    assert!(!errors.to_string().contains("-->") && !errors.to_string().contains(" | "));
    let error = refusal("package a\n\nallow if {\n  x := := 1\n}");
    assert!(error.starts_with("a.rego:4: rego_parse_error: "), "{error}");
}

#[test]
fn an_unsafe_variable_is_a_compile_error() {
    let error = refusal("package a\nallow if x == y");
    assert!(
        error.starts_with("a.rego:2: rego_unsafe_var_error: var "),
        "{error}"
    );
}

#[test]
fn a_function_that_nobody_defines_is_refused() {
    for (source, name) in [
        ("package a\nx := nope(1)", "nope"),
        ("package a\nx if not data.lib.f(1)", "data.lib.f"),
        ("package a\nimport data.lib\nx if { not lib.f(1) }", "lib.f"),
        (
            "package a\nx := [y | y := io.jwt.decode(input.t)]",
            "io.jwt.decode",
        ),
        ("package a\nf(x) := crypto.sha256(x)", "crypto.sha256"),
        ("package a\nx if every y in [1] { nope(y) }", "nope"),
        ("package a\nx contains nope(1)", "nope"),
        ("package a\nx[nope(1)] := 2", "nope"),
        ("package a\nx := {\"a\": [nope(1)]}", "nope"),
        ("package a\nx if true with input as nope(1)", "nope"),
        ("package a\nx := 1 if false else := nope(1)", "nope"),
        ("package a\nx if input[nope(1)]", "nope"),
        (
            "package a\nx := __builtin_sets.union({1}, {2})",
            "__builtin_sets.union",
        ),
    ] {
        let error = refusal(source);
        let expected = format!("rego_type_error: undefined function {name}");
        assert!(error.ends_with(&expected), "{source}: {error}");
        let row = 1 + source
            .split("nope")
            .next()
            .unwrap()
            .matches('\n')
            .count()
            .max(1);
        assert!(
            name != "nope" || error.starts_with(&format!("a.rego:{row}: ")),
            "{error}"
        );
    }
}

#[test]
fn functions_are_found_wherever_they_are() {
    let policy = compile_all(&[
        ("lib", "package lib\nf(x) := x + 1\ndefault g(_) := 7\nns.h(x) := x"),
        (
            "a",
            "package a\nimport data.lib\nimport data.lib.f as plus\nimport data.lib.ns\n\
             own.f(x) := x\n\
             r := [lib.f(1), plus(1), data.lib.f(1), lib.g(1), ns.h(3), own.f(4), lib.ns.h(5), count([1])]\n\
             s if { data.lib.f(1, y); y == 2 }",
        ),
    ])
    .unwrap();
    let bound = policy.bind(&json("{}")).unwrap();
    assert_eq!(answer(&*bound, "a/r"), "[2,2,2,7,3,4,5,1]");
    assert_eq!(answer(&*bound, "a/s"), "true");
}

#[test]
fn a_wrong_number_of_arguments_is_refused() {
    for source in [
        "package a\nx := count()",
        "package a\nx := count([], 1, 2)",
        "package a\nf(y) := y\nx := f(1, 2, 3)",
        "package a\nf(y) := y\nx := f()",
    ] {
        assert!(refusal(source).contains("rego_type_error: "), "{source}");
    }
}

#[test]
fn built_ins_with_other_answers_are_refused() {
    for name in ["http.send", "net.lookup_ip_addr", "opa.runtime"] {
        let root = name.split('.').next().unwrap();
        let field = name.split('.').nth(1).unwrap();
        let arguments = if name == "opa.runtime" { "" } else { "input.x" };
        for call in [
            format!("x if not {name}({arguments})"),
            format!("x if not {root}[\"{field}\"]({arguments})"),
            format!("x if not {name} ({arguments})"),
            format!("g(y) := y\nx if not g(input.x) with g as {name}"),
            format!("g(y) := y\nx if not g(input.x) with g as {root}[\"{field}\"]"),
        ] {
            let error = refusal(&format!("package a\n{call}"));
            let found = error.contains(name) || error.contains("rego_parse_error");
            assert!(found, "{call}: {error}");
        }
    }
}

#[test]
fn a_mock_of_a_refused_built_in_is_refused_too() {
    // It could be called elsewhere; tests belong in no bundle.
    assert!(refusal("package a\nx if y with http.send as {}\ny := 1").contains("http.send"));
}

// Errors of evaluations.

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

// What is per decision.

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

#[test]
fn limits_are_those_that_were_given() {
    let mut limits = Limits::default();
    limits.source_bytes = 10;
    let modules = ModuleSet::new([Module::v1("a.rego", "package a\nx := 1")]);
    let refused = Regorus::new(limits).compile(&modules, &CompileOptions::default());
    assert!(refused.is_err());
}

#[test]
fn no_modules_are_a_policy_too() {
    let policy = Regorus::default().compile(&ModuleSet::default(), &CompileOptions::default());
    let bound = policy.unwrap().bind(&json(r#"{"a": {"b": 1}}"#)).unwrap();
    assert_eq!(answer(&*bound, "a"), r#"{"b":1}"#);
    assert_eq!(answer(&*bound, "c"), "undefined");
}
