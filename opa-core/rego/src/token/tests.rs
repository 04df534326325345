use super::*;

fn texts(source: &str) -> Vec<&str> {
    tokens(source)
        .map(|token| {
            token
                .unwrap_or_else(|error| panic!("{source}: {error}"))
                .text
        })
        .collect()
}

fn failure(source: &str) -> String {
    let mut all = tokens(source);
    let error = all.by_ref().find_map(Result::err).expect("must fail");
    assert!(all.next().is_none(), "nothing follows an error");
    error.to_string()
}

#[test]
fn splits_a_module() {
    assert_eq!(
        texts("package a.b\nimport rego.v1 # why\r\nallow if {\n\tinput.n >= 1.5e3; x[0]:=-2\n}"),
        [
            "package", "a", ".", "b", "import", "rego", ".", "v1", "allow", "if", "{", "input",
            ".", "n", ">=", "1.5e3", ";", "x", "[", "0", "]", ":=", "-", "2", "}"
        ]
    );
    assert_eq!(
        texts("a==b!=c<=d=e:f|g&h%i/j*k+l"),
        [
            "a", "==", "b", "!=", "c", "<=", "d", "=", "e", ":", "f", "|", "g", "&", "h", "%", "i",
            "/", "j", "*", "k", "+", "l"
        ]
    );
    assert_eq!(texts("\u{feff}package"), ["package"]);
    assert_eq!(texts(" # only a comment"), [""; 0]);
    assert_eq!(texts(""), [""; 0]);
}

#[test]
fn tells_kinds_and_places() {
    let source = "e_x 1\n \"ä\" `b\n#` \"\\\"\\u00e9\" z";
    let found: Vec<_> = tokens(source)
        .map(|token| {
            token
                .map(|t| (t.kind, t.text, t.line, t.column, t.offset))
                .unwrap()
        })
        .collect();
    assert_eq!(
        found,
        [
            (TokenKind::Identifier, "e_x", 1, 1, 0),
            (TokenKind::Number, "1", 1, 5, 4),
            (TokenKind::String, "\"ä\"", 2, 2, 7),
            (TokenKind::RawString, "`b\n#`", 2, 6, 12),
            (TokenKind::String, "\"\\\"\\u00e9\"", 3, 4, 18),
            (TokenKind::Identifier, "z", 3, 15, 29),
        ]
    );
}

#[test]
fn strings_hide_what_looks_like_rego() {
    assert_eq!(
        texts("\"#not{[(\" `\"{` \"\\\\\" x"),
        ["\"#not{[(\"", "`\"{`", "\"\\\\\"", "x"]
    );
    assert_eq!(texts("# \"open\nx"), ["x"]);
}

#[test]
fn template_strings_are_split_at_their_expressions() {
    use TokenKind::{
        Identifier, Punctuation, String, Template, TemplateEnd, TemplateMiddle, TemplateStart,
    };
    let kinds = |source| -> Vec<_> {
        tokens(source)
            .map(|token| token.map(|token| (token.kind, token.text)).unwrap())
            .collect()
    };
    assert_eq!(
        kinds(r#"$"plain \{\"" $`\{`"#),
        [(Template, r#"$"plain \{\"""#), (Template, "$`\\{`")]
    );
    assert_eq!(
        kinds(r#"$"a{x}b{ {"}"} }c" y"#),
        [
            (TemplateStart, "$\"a{"),
            (Identifier, "x"),
            (TemplateMiddle, "}b{"),
            (Punctuation, "{"),
            (String, "\"}\""),
            (Punctuation, "}"),
            (TemplateEnd, "}c\""),
            (Identifier, "y"),
        ]
    );
    assert_eq!(
        kinds("$`{ $\"{y}\" }\n`"),
        [
            (TemplateStart, "$`{"),
            (TemplateStart, "$\"{"),
            (Identifier, "y"),
            (TemplateEnd, "}\""),
            (TemplateEnd, "}\n`"),
        ]
    );
}

#[test]
fn says_what_is_wrong_and_where() {
    for (source, message) in [
        ("x \"abc", "line 1, column 3: the string has no end"),
        ("\"abc\n\"", "line 1, column 1: the string has no end"),
        ("\"abc\\", "line 1, column 1: the string has no end"),
        ("x\n  `abc", "line 2, column 3: the string has no end"),
        ("\"ä\\x\"", "line 1, column 3: `\\x` isn't an escape"),
        ("\"\\{\"", "line 1, column 2: `\\{` isn't an escape"),
        (
            "\"\\u00\"",
            "line 1, column 2: `\\u` must be followed by four hexadecimal digits",
        ),
        (
            "\"a\tb\"",
            "line 1, column 3: control character `0x09` in a string",
        ),
        ("$\"a{x", "line 1, column 6: the template string has no end"),
        ("$\"a{x}b", "line 1, column 6: the string has no end"),
        ("$x", "line 1, column 1: unexpected character `$`"),
        ("a ! b", "line 1, column 3: unexpected character `!`"),
        ("a 'b'", "line 1, column 3: unexpected character `\\'`"),
        (
            "a\u{a0}b",
            "line 1, column 2: unexpected character `\\u{a0}`",
        ),
        ("a \0", "line 1, column 3: unexpected character `\\0`"),
        ("a # \0 b", "line 1, column 5: unexpected character `\\0`"),
        ("é", "line 1, column 1: unexpected character `é`"),
        ("01", "line 1, column 1: invalid number"),
        ("1.", "line 1, column 1: invalid number"),
        ("1e", "line 1, column 1: invalid number"),
        ("0x1", "line 1, column 1: invalid number"),
        ("1_0", "line 1, column 1: invalid number"),
        ("1.2.3", "line 1, column 1: invalid number"),
    ] {
        assert_eq!(failure(source), message, "{source:?}");
    }
}

#[test]
fn long_and_deep_sources_cost_their_length() {
    let deep = "$\"{".repeat(100_000);
    assert_eq!(tokens(&deep).filter(Result::is_ok).count(), 100_000);
    let line = "x ".repeat(300_000);
    assert_eq!(tokens(&line).last().unwrap().unwrap().column, 599_999);
    let strings = "\"ä\"".repeat(100_000);
    assert_eq!(tokens(&strings).filter(Result::is_ok).count(), 100_000);
}

#[test]
fn tokens_cover_all_but_blanks_and_comments() {
    let source = "package p # c\nx := [{\"a\": `b`}, $\"c{d}e\", 1.5] # end\n";
    let mut covered = String::new();
    for token in tokens(source).map(Result::unwrap) {
        assert_eq!(
            source.get(token.offset..token.offset + token.text.len()),
            Some(token.text)
        );
        covered.push_str(token.text);
    }
    assert_eq!(covered, "packagepx:=[{\"a\":`b`},$\"c{d}e\",1.5]");
}
