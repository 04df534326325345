//! What lies at a path.

use super::super::Regorus;
use super::super::testing::{
    answer, bind, compile, compile_all, compile_v0, eval, eval_with, json, refusal, show,
};
use crate::engine::{Budget, CompileOptions, Engine, EvalContext, Module, ModuleSet, Outcome};

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
    let policy = compile_v0("package a\ndefault p[\"q\"] = 1\n").unwrap();
    let bound = policy.bind(&json("{}")).unwrap();
    for path in ["a/p", "a/p/q"] {
        assert!(!matches!(eval(&*bound, path), Outcome::Error(_)), "{path}");
    }
}

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
