//! What is known to make regorus run on, panic or abort: each is refused, stopped or contained.
//!
//! What is neither is a known limit, see the module's documentation.

use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use super::testing::{answer, bind, compile, eval, json, refusal};
use crate::engine::{Bound, Interrupt, Outcome};

/// Runs `work` on a stack as that of a pool's thread. What hangs fails.
fn promptly<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (send, done) = mpsc::channel();
    let thread = thread::Builder::new().stack_size(64 << 20);
    let thread = thread.spawn(move || send.send(work())).unwrap();
    match done.recv_timeout(Duration::from_secs(60)) {
        Ok(result) => result,
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(thread.join().err().unwrap())
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it runs on"),
    }
}

fn refused(source: String) -> String {
    promptly(move || refusal(&source))
}

#[test]
fn deeply_nested_brackets() {
    for depth in [20, 24, 1_000, 100_000] {
        for (open, close) in [
            ("[", "]"),
            ("{", "}"),
            ("(", ")"),
            ("{\"a\": ", "}"),
            ("{1 | ", "}"),
        ] {
            let nested = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            // Parentheses are read once, so that regorus allows 32 of them.
            if (open, depth) != ("(", 20) && (open, depth) != ("(", 24) {
                let error = refused(format!("package a\nx := {nested}"));
                assert!(error.starts_with("a.rego:2: rego_parse_error: "), "{error}");
            }
        }
    }
}

#[test]
fn long_chains_of_operators() {
    for operator in ["|", "&", "+", "-", "*", "==", "in"] {
        let chain = format!("1 {operator} ").repeat(5_000);
        let error = refused(format!("package a\nx if {chain}1"));
        assert!(error.contains("rego_parse_error"), "{error}");
    }
    refused(format!("package a\nx := {}1", "- ".repeat(5_000)));
}

#[test]
fn numbers_that_would_be_written_out() {
    for number in ["1e1000000000", "1E+999999", "1.5e99999999999999999999"] {
        let error = refused(format!("package a\nx if input.y < {number}"));
        assert!(
            error.starts_with("a.rego:2: rego_parse_error: a number of more than"),
            "{error}"
        );
    }
}

#[test]
fn functions_that_call_themselves() {
    for (source, cycle) in [
        ("f(x) := f(x - 1)", "data.a.f -> data.a.f"),
        (
            "f(x) := 1 if { not g(x) }\ng(x) := [y | y := f(x)]",
            "data.a.f -> data.a.g -> data.a.f",
        ),
        ("f(x) := data.a.f(x)", "data.a.f -> data.a.f"),
        (
            "h(x) := x\nf(x) := y if { y := h(x) with h as f }",
            "data.a.f -> data.a.f",
        ),
        (
            "h(x) := x\nf(x) := y if { y := h(x) with h as data.a.f }",
            "data.a.f -> data.a.f",
        ),
    ] {
        let error = refused(format!("package a\n{source}"));
        let expected = format!("rego_recursion_error: rule data.a.f is recursive: {cycle}");
        assert!(error.ends_with(&expected), "{error}");
    }
    let import = refused("package a\nimport data.a.f as again\nf(x) := again(x)".to_owned());
    assert!(import.contains("rego_recursion_error"), "{import}");
}

#[test]
fn rules_that_depend_on_themselves() {
    let source = "package a\np := q\nq if p\nf(_) := r\nr := f(1)\ns if data.a[x] == 1";
    for path in ["a/p", "a/r"] {
        let bound = bind(source, "{}");
        let outcome = promptly(move || eval(&*bound, path));
        assert!(matches!(outcome, Outcome::Error(_)), "{path}: {outcome:?}");
    }
}

/// A chain of `n` rules `r0`, `r1`, …, each made by `rule` of its number, and its end.
fn chain(n: usize, rule: impl Fn(usize, usize) -> String, end: &str) -> String {
    let mut source = String::from("package a\n");
    for i in 0..n {
        writeln!(source, "{}", rule(i, i + 1)).unwrap();
    }
    source + &end.replace("END", &n.to_string())
}

/// The longest chain that is accepted must fit on the stack of a pool's thread.
#[test]
fn chains_of_rules() {
    type Rule = fn(usize, usize) -> String;
    let kinds: [(&str, Rule, &str); 7] = [
        ("bodies", |i, j| format!("r{i} if r{j}"), "rEND := true"),
        ("values", |i, j| format!("r{i} := r{j} + 1"), "rEND := 1"),
        (
            "sets",
            |i, j| format!("r{i} contains x if some x in r{j}"),
            "rEND := {1}",
        ),
        (
            "comprehensions",
            |i, j| format!("r{i} := [x | some y in [1]; x := r{j}[_]]"),
            "rEND := [1]",
        ),
        (
            "functions",
            |i, j| format!("f{i}(x) := f{j}(x)"),
            "fEND(x) := x\nr0 := f0(1)",
        ),
        (
            "calls",
            |i, j| format!("f{i}(x) := [abs(abs(f{j}(x)))][0]"),
            "fEND(x) := x\nr0 := f0(1)",
        ),
        (
            "every",
            |i, j| format!("r{i} if every x in [1] {{ data.a.r{j}; x }}"),
            "rEND := true",
        ),
    ];
    for (kind, rule, end) in kinds {
        let (mut accepted, mut too_long) = (256, 4096);
        while too_long - accepted > accepted / 16 {
            let n = usize::midpoint(accepted, too_long);
            match compile(&chain(n, rule, end)) {
                Ok(_) => accepted = n,
                Err(errors) => {
                    assert!(
                        errors.to_string().contains("a chain that is too long"),
                        "{errors}"
                    );
                    too_long = n;
                }
            }
        }
        let bound = compile(&chain(accepted, rule, end))
            .unwrap()
            .bind(&json("{}"))
            .unwrap();
        let outcome = promptly(move || eval(&*bound, "a/r0"));
        assert!(
            matches!(outcome, Outcome::Value(_)),
            "{kind} {accepted}: {outcome:?}"
        );
    }
}

#[test]
fn built_ins_that_take_all_memory() {
    for call in [
        r#"count(net.cidr_expand("0.0.0.0/0"))"#,
        "count(numbers.range(1, 1000000000000))",
        "bits.lsh(1, 1000000000000)",
        // The error is not lost, whatever hides it.
        "[1 | not numbers.range(1, 1000000000000)]",
        "hide(1000000000000)",
    ] {
        let source =
            format!("package a\nx := {call}\nhide(n) := count(numbers.range(1, n))\nhide(_) := 0");
        let bound = bind(&source, "{}");
        let outcome = promptly(move || eval(&*bound, "a/x"));
        assert_eq!(outcome, Outcome::Interrupted(Interrupt::Memory), "{call}");
    }
}

#[test]
fn built_ins_that_run_on() {
    for call in [
        r#"units.parse("1e1000000000")"#,
        r#"units.parse_bytes("10e10000000Ei")"#,
        r#"sprintf("%.2000000000f", [1.5])"#,
        r#"sprintf("%2000000000d", [1])"#,
        r#"to_number("1e1000000000")"#,
        r#"json.unmarshal("1e1000000000")"#,
        "numbers.range_step(1, 10, 0)",
    ] {
        let bound = bind(&format!("package a\nx := {call}"), "{}");
        assert_eq!(
            promptly(move || answer(&*bound, "a/x")),
            "undefined",
            "{call}"
        );
    }
    let source = format!(
        "package a\nx := glob.match(\"{}\", [], \"y\")",
        "{".repeat(12_000)
    );
    let bound = bind(&source, "{}");
    assert_eq!(promptly(move || answer(&*bound, "a/x")), "undefined");
}

/// The caller of an evaluation contains its panics; the policy stays usable.
#[test]
fn built_ins_that_panic() {
    let bound: Arc<dyn Bound> = bind(
        "package a\ncounted := strings.count(\"abc\", \"\")\n\
         matched := regex.template_match(\"abc{x}\", \"a\", \"{\", \"}\")\nok := 1",
        "{}",
    );
    for path in ["a/counted", "a/matched"] {
        let panicking = Arc::clone(&bound);
        let contained =
            promptly(move || catch_unwind(AssertUnwindSafe(|| eval(&*panicking, path))).is_err());
        assert!(contained, "{path}");
        assert_eq!(answer(&*bound, "a/ok"), "1");
    }
}

#[test]
fn walk_in_a_form_that_yields_nothing() {
    for rule in [
        "x if { [p, v] := walk(input); v == 1 }",
        "x if { some [p, v] in walk(input) }",
        "x := walk(input)",
        "x if not walk(input, [[\"a\"], 1])",
        "x := [v | v := walk(input, [p, v])]",
        "x if walk(input)",
    ] {
        let error = refused(format!("package a\n{rule}"));
        assert!(error.contains("walk"), "{rule}: {error}");
    }
    let bound = bind(
        "package a\nx contains v if walk({\"k\": [1]}, [_, v])",
        "{}",
    );
    assert_eq!(answer(&*bound, "a/x"), r#"[1,[1],{"k":[1]}]"#);
}

#[test]
fn an_error_text_with_the_values_of_variables() {
    let source = "package a\n\
        x := y if { secret := \"s3cret\"; y := missing_rule(secret) }\n\
        missing_rule(s) := data.a.p[s] if s\np[k] := v if { k := \"s3cret\"; some v in [1, 2] }\n";
    let bound = bind(source, "{}");
    let Outcome::Error(error) = eval(&*bound, "a/x") else {
        panic!()
    };
    assert!(!error.to_string().contains("s3cret"), "{error}");
}
