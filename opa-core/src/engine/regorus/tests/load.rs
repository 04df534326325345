//! What is refused when modules are compiled and joined with data.

use super::super::testing::{answer, compile, compile_all, json, refusal};
use super::super::{Limits, Regorus};
use crate::Value;
use crate::engine::{CompileOptions, Engine, Module, ModuleSet, Scheduling};

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
        error.contains("rego_type_error: package a.b conflicts with the rule defined at a:2"),
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

#[test]
fn the_engine_runs_on_a_pool() {
    let engine = Regorus::default();
    assert_eq!(
        (engine.name(), engine.scheduling()),
        ("regorus", Scheduling::Pooled)
    );
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
