use super::*;

const HEAD: &str = "package p\nimport rego.v1\n";

fn accept(source: &str) -> Screened {
    screen(source, &Limits::default()).unwrap_or_else(|error| panic!("{error}: {source:.200}"))
}

fn refuse(source: &str) -> ScreenError {
    screen(source, &Limits::default()).expect_err("must be refused")
}

fn nested(open: &str, inner: &str, close: &str, depth: usize) -> String {
    format!(
        "{HEAD}x := {}{inner}{}",
        open.repeat(depth),
        close.repeat(depth)
    )
}

/// What regorus 0.14.1 takes seconds for, or what makes it abort the process.
#[test]
fn hazards_of_the_parser_are_refused() {
    for (name, source, measure) in [
        (
            "arrays, 0.5 s",
            nested("[", "1", "]", 20),
            Measure::Repetitions,
        ),
        (
            "arrays, 9 s",
            nested("[", "1", "]", 24),
            Measure::Repetitions,
        ),
        (
            "arrays, runs on",
            nested("[", "1", "]", 1_000),
            Measure::Repetitions,
        ),
        ("sets", nested("{", "1", "}", 24), Measure::Repetitions),
        (
            "objects by value",
            nested("{1: ", "1", "}", 24),
            Measure::Repetitions,
        ),
        (
            "objects by key",
            nested("{", "1", ": 1}", 24),
            Measure::Repetitions,
        ),
        (
            "comprehensions, 1 s",
            nested("[y | {1: ", "1", "}]", 10),
            Measure::Repetitions,
        ),
        (
            "comprehensions with unions",
            nested("{y | ", "1", " | z}", 14),
            Measure::Repetitions,
        ),
        (
            "calls of comprehensions",
            nested("f([y | ", "1", "])", 14),
            Measure::Repetitions,
        ),
        (
            "unclosed arrays",
            nested("[", "", "", 24),
            Measure::Repetitions,
        ),
        (
            "many nested literals",
            format!("{HEAD}x := [{}]", "[[[[[[[[[[[[1]]]]]]]]]]]],\n".repeat(40)),
            Measure::Repetitions,
        ),
        (
            "arrays by later items, stack",
            nested("[1, ", "1", "]", 2_000),
            Measure::Nesting,
        ),
        (
            "calls, stack",
            nested("f(", "1", ")", 4_000),
            Measure::Nesting,
        ),
        (
            "indices, stack",
            nested("a[", "1", "]", 4_000),
            Measure::Nesting,
        ),
        (
            "empty sets, stack and time",
            nested("set(", "", ")", 3_000),
            Measure::Nesting,
        ),
        (
            "signs, stack",
            nested("- ", "1", "", 4_000),
            Measure::Height,
        ),
        (
            "unions, stack",
            nested("", "{1}", " | {1}", 2_000),
            Measure::Height,
        ),
        (
            "unions over lines, stack",
            nested("", "{1}", "\n| {1}", 2_000),
            Measure::Height,
        ),
        (
            "sums, stack",
            nested("1 + ", "1", "", 2_000),
            Measure::Height,
        ),
        (
            "differences, stack",
            nested("", "1", " -1", 2_000),
            Measure::Height,
        ),
        (
            "memberships, stack",
            nested("", "1", "\nin [1]", 2_000),
            Measure::Height,
        ),
        (
            "comparisons, stack",
            nested("", "1", " == 1", 2_000),
            Measure::Height,
        ),
        (
            "fields, stack",
            nested("", "input", ".with", 2_000),
            Measure::Height,
        ),
        (
            "indices in a row, stack",
            nested("", "input", "[0]", 2_000),
            Measure::Height,
        ),
        (
            "a rule's name, 20 s",
            format!("{HEAD}x{} := 1", ".a".repeat(16_000 / 2 - 10)),
            Measure::Height,
        ),
        (
            "operators named as keywords",
            nested("", "if", " + if + contains", 200),
            Measure::Height,
        ),
        (
            "operators within brackets",
            nested("(", "1", " + 1 + 1 + 1 + 1 + 1 + 1 + 1 + 1)", 30),
            Measure::Height,
        ),
        (
            "imports, 18 s",
            format!("package p\n{}x := 1", "import data.a\n".repeat(16_000)),
            Measure::Imports,
        ),
        (
            "statements, 20 s",
            format!("{HEAD}x if {{\n{}}}", "y = z\n".repeat(16_000)),
            Measure::Statements,
        ),
        (
            "statements with semicolons",
            format!("{HEAD}x if {{ {}true }}", "y = z; ".repeat(1_000)),
            Measure::Statements,
        ),
        (
            "calls as statements",
            format!("{HEAD}x if {{\n{}}}", "contains(a, b)\n".repeat(600)),
            Measure::Statements,
        ),
        (
            "loops, stack",
            format!("{HEAD}x := [{}]", "a[_],\n".repeat(16_000)),
            Measure::Iterations,
        ),
        (
            "loops with some, stack",
            format!("{HEAD}x if {{ {} }}", "f(a[i], a[j])\n".repeat(300)),
            Measure::Iterations,
        ),
        (
            "errors on one line, 0.8 s",
            format!("{HEAD}x := [{}]", "[],".repeat(5_000)),
            Measure::Repetitions,
        ),
        (
            "a line beyond column 65,535, panic",
            format!("{HEAD}x := [{}]", "[],".repeat(64_000)),
            Measure::LineBytes,
        ),
        (
            "bytes",
            format!("{HEAD}{}", "# comment\n".repeat(200_000)),
            Measure::SourceBytes,
        ),
        (
            "tokens",
            format!("{HEAD}{}", "a=1\n".repeat(100_000)),
            Measure::Tokens,
        ),
    ] {
        assert_eq!(
            refuse(&source).measure(),
            Some(measure),
            "{name}: {}",
            refuse(&source)
        );
    }
}

#[test]
fn what_people_write_is_accepted() {
    for source in [
        // Nesting as in real policies, and the deepest that costs nothing.
        nested("[y | y := ", "1", "]", 6),
        nested("f(", "1", ")", 32),
        nested("[1, ", "1", "]", 32),
        nested("{\"a\": 1, \"b\": ", "1", "}", 32),
        nested("[", "1", "]", 12),
        nested("", "1", " + 1", 240),
        // Much of the same.
        format!(
            "{HEAD}{}",
            "allow if { input.x == 1; input.y == \"abc\" }\n".repeat(15_000)
        ),
        format!(
            "{HEAD}x := [\n{}]",
            "{\"name\": \"n\", \"roles\": [\"a\", \"b\"]},\n".repeat(8_000)
        ),
        format!(
            "{HEAD}x := {{\n{}}}",
            "\"k\": {\"a\": [1, 2], \"b\": {\"c\": {\"d\": 1}}},\n".repeat(6_000)
        ),
        format!(
            "{HEAD}x := 1 if input.a{}",
            " else := 2 if input.b\n".repeat(5_000)
        ),
        format!("{HEAD}x if {{\n{}}}", "y := 1\n".repeat(400)),
        format!(
            "{HEAD}x if {{\n{}}}",
            "true\n".repeat(10) + &"with input.a as 1\n".repeat(4_000)
        ),
        // Version 0, braces on lines of their own.
        "package p\n\nallow\n{\n  input.a\n}\n\ndeny[msg] { msg := \"x\" } { msg := \"y\" }\n"
            .to_owned(),
        format!("{HEAD}f(x) := $\"a{{x}}b{{ {{\"c\"}} }}\"\n"),
    ] {
        accept(&source);
    }
}

#[test]
fn errors_say_what_was_found_and_where() {
    for (source, message) in [
        (
            "package p\nx := [1, (2]",
            "line 2, column 12: `]` doesn't close `(` of line 2, column 10",
        ),
        (
            "package p\nx := 1 }",
            "line 2, column 8: `}` has no opening bracket",
        ),
        (
            "package p\nx := {",
            "line 2, column 6: `{` has no closing bracket",
        ),
        (
            "package p\nx := $\"{ ( }\"",
            "line 2, column 12: `}` doesn't close `(` of line 2, column 10",
        ),
        (
            "package p\nx := 'a'",
            "line 2, column 6: unexpected character `\\'`",
        ),
        (
            "package p\nx := 1 # \0\nnot_seen_by_all := 2",
            "line 2, column 10: unexpected character `\\0`",
        ),
        ("", "line 1, column 1: expected `package`"),
        ("allow := true", "line 1, column 1: expected `package`"),
        (
            "package \"a\"",
            "line 1, column 9: expected the name of the package",
        ),
        (
            "package",
            "line 1, column 1: expected the name of the package",
        ),
    ] {
        assert_eq!(refuse(source).to_string(), message, "{source}");
    }
    for (source, message) in [
        (
            nested("(", "1", ")", 33),
            "line 3, column 38: brackets nested 33 deep, at most 32 are allowed",
        ),
        (
            nested("", "1", "+1", 251),
            "line 3, column 505: an expression 251 operators and brackets high, at most 250 are allowed",
        ),
        (
            format!("package p\n# {}\n", "x".repeat(15_999)),
            "line 2, column 1: a line of 16001 bytes, at most 16000 are allowed",
        ),
        (
            format!("{HEAD}x if {{\n{}}}", "a\n".repeat(501)),
            "line 504, column 1: 501 statements in one body, at most 500 are allowed",
        ),
        (
            format!("package p\n{}", "import data.a\n".repeat(501)),
            "line 502, column 1: 501 imports, at most 500 are allowed",
        ),
    ] {
        assert_eq!(refuse(&source).to_string(), message);
    }
}

#[test]
fn limits_can_be_changed() {
    let limits = Limits {
        nesting: 3,
        ..Limits::default()
    };
    assert!(screen(&nested("(", "1", ")", 3), &limits).is_ok());
    let error = screen(&nested("(", "1", ")", 4), &limits).unwrap_err();
    assert_eq!(
        (error.line(), error.column(), error.measure()),
        (3, 9, Some(Measure::Nesting))
    );
}

#[test]
fn tells_the_package() {
    let package = |source| accept(source).package().to_vec();
    assert_eq!(package("package a"), ["a"]);
    assert_eq!(
        package("# c\npackage # c\n  a.b[\"c d\"].e\nimport rego.v1"),
        ["a", "b", "c d", "e"]
    );
    assert_eq!(package("package system[\"l\\u006fg\"]"), ["system", "log"]);
}

/// All spellings that regorus 0.14.1 takes for a call of `http.send`, and some more.
#[test]
fn finds_calls_however_spelled() {
    for call in [
        "http.send({})",
        "http[\"send\"]({})",
        "http[ \"send\" ] ({})",
        "http[\"\\u0073end\"]({})",
        "http[`send`]({})",
        "http[0].send({})",
        "http[x][\"send\"]({})",
        "http.send\n  ({})",
        "http.send # comment (\n  ({})",
        "[1 | not http.send({}).ok]",
        "a[http.send({})]",
        "a[[http.send({})]]",
        "$\"{http.send({})}\"",
        "f(1) with f as http.send",
        "f(1) with f as http[\"send\"]",
        "f(1) with f as (http.send)",
        "f(1) with f as http[0].send",
        "f(1) with f as http[`x`].send",
        "f(1) with f as http[x[\"y\"]].send[0]",
        "true with http.send as 1",
        "true with http[\"send\"] as f",
    ] {
        let screened = accept(&format!("{HEAD}x := {call}"));
        assert!(screened.calls("http.send"), "{call}");
        assert!(screened.called().any(|name| name == "http.send"), "{call}");
    }
    assert!(accept("package p\ndefault x = http.send({})").calls("http.send"));
    assert!(
        accept("package p\nx[y] = z { z := net . lookup_ip_addr (\"a\") }")
            .calls("net.lookup_ip_addr")
    );
}

#[test]
fn what_isnt_called_isnt_a_call() {
    for other in [
        "\"http.send({})\"",
        "`http.send({})`",
        "1 # http.send({})",
        "input.http.send",
        "input.http.send(1)",
        "data.http.send(1)",
        "http.send_all(1)",
        "http.send.all(1)",
        "[http.send]",
        "http_send(1)",
        "http[\"a.send\"](1)",
        "x.with.http.send",
    ] {
        assert!(
            !accept(&format!("{HEAD}x := {other}")).calls("http.send"),
            "{other}"
        );
    }
}

#[test]
fn finds_what_may_mask_or_drop_decisions() {
    for source in [
        "package system.log\nmask contains 1 if true",
        "package system.log.mask\nx := 1",
        "package system[\"log\"]\nx := 1",
        "package system\nlog.mask contains \"/input\" if true",
        "package system\nlog[\"mask\"] = {1}",
        "package system\ndefault log := {}",
        "package system\nx := 1\nlog = {\"drop\": true} { true }",
        "package system\nlog(x) := 1",
        "package system\nimport data.log as other\nx := log",
    ] {
        assert!(accept(source).defines_system_log(), "{source}");
    }
    for source in [
        "package system\nmain := data.log",
        "package system.authz\nlog := 1",
        "package logs\nlog := 1",
        "package a.system.log\nx := 1",
    ] {
        assert!(!accept(source).defines_system_log(), "{source}");
    }
}
