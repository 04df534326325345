use super::*;

fn json(yaml: &str) -> String {
    match read(yaml) {
        Ok(value) => value.to_json(),
        Err(error) => panic!("{yaml:?}: {error}"),
    }
}

fn error(yaml: &str) -> String {
    read(yaml).unwrap_err().to_string()
}

#[test]
fn json_keeps_its_numbers() {
    assert_eq!(
        json(r#"{"a": 1.50, "b": 1e400}"#),
        r#"{"a":1.50,"b":1e400}"#
    );
}

#[test]
fn plain_scalars_as_opa_reads_them() {
    for (yaml, expected) in [
        ("yes", "\"yes\""),
        ("on", "\"on\""),
        ("True", "true"),
        ("~", "null"),
        ("", "null"),
        ("12", "12"),
        ("+12", "12"),
        ("-0", "0"),
        ("1_000", "1000"),
        ("0777", "511"),
        ("0o17", "15"),
        ("0x1F", "31"),
        ("-0x1F", "-31"),
        ("0b11", "3"),
        ("089", "89"),
        ("18446744073709551615", "18446744073709551615"),
        ("18446744073709551616", "18446744073709552000"),
        ("123456789012345678901234567890", "1.2345678901234568e+29"),
        ("1.0", "1"),
        ("1.", "1"),
        (".5", "0.5"),
        ("-.5e1", "-5"),
        ("1e-7", "1e-7"),
        ("1.10", "1.1"),
        ("-0.0", "-0"),
        ("1e400", "\"1e400\""),
        ("1e21", "1e+21"),
        ("1e20", "100000000000000000000"),
        ("0.000001", "0.000001"),
        ("1645184989898176.25", "1645184989898176.2"),
        (".8_9", "0.89"),
        ("0b-11", "-3"),
        ("0o+17", "15"),
        ("2023-01-01", "\"2023-01-01\""),
        ("1.2.3", "\"1.2.3\""),
        ("+", "\"+\""),
        ("--1", "\"--1\""),
        ("0x", "\"0x\""),
        ("0x-1", "\"0x-1\""),
        ("0B-1", "\"0B-1\""),
        ("12:30:45", "\"12:30:45\""),
        ("1e", "\"1e\""),
        ("._5", "\"._5\""),
        ("'12'", "\"12\""),
        ("\"true\"", "\"true\""),
    ] {
        assert_eq!(
            json(&format!("a: {yaml}")),
            format!("{{\"a\":{expected}}}"),
            "{yaml}"
        );
    }
    assert!(error("a: .inf").contains("`.inf` is not a finite number"));
    assert!(error("a: .nan").contains("line 1, column 4"));
}

#[test]
fn keys_become_strings() {
    assert_eq!(
        json("1: a\ntrue: b\n1.5: c\n1e6: d\n0.00001: e\n"),
        r#"{"1":"a","1.5":"c","1e+06":"d","1e-05":"e","true":"b"}"#
    );
    assert_eq!(json("a: 1\nb: 2\na: 3\n"), r#"{"a":3,"b":2}"#);
    assert!(error("null: a").contains("expected a key that is not null"));
    assert!(error("? [1, 2]\n: v\n").contains("expected a scalar as key"));
}

#[test]
fn block_and_flow() {
    assert_eq!(
        json(
            "---\nusers:\n  - name: a\n    roles: [x, 'y']\n  - {name: b}\ntext: |\n  one\n  two\n"
        ),
        r#"{"text":"one\ntwo\n","users":[{"name":"a","roles":["x","y"]},{"name":"b"}]}"#
    );
    assert_eq!(json("# only a comment\n"), "null");
    assert_eq!(json("\u{feff}a: 1"), r#"{"a":1}"#);
}

#[test]
fn anchors_aliases_and_merge_keys() {
    assert_eq!(
        json("base: &b\n  on: 1\nderived:\n  <<: *b\n  y: 2\n"),
        r#"{"base":{"on":1},"derived":{"on":1,"y":2}}"#
    );
    // Own members win wherever they stand, then the earlier source.
    assert_eq!(
        json("a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc:\n  y: 3\n  <<: [*a, *b]\n"),
        r#"{"a":{"x":1,"y":1},"b":{"x":2,"z":2},"c":{"x":1,"y":3,"z":2}}"#
    );
    assert_eq!(json("\"<<\": 1"), r#"{"<<":1}"#);
    assert_eq!(json("a: &k key\n*k : v\n"), r#"{"a":"key","key":"v"}"#);
    assert!(error("a: &a 1\nb:\n  <<: *a\n").contains("for `<<`"));
    assert!(error("a: &a [*a]").contains("inside of the value"));
    assert!(error("a: *nowhere").contains("line 1"));
}

#[test]
fn tags_of_the_core_schema_only() {
    assert_eq!(
        json(
            "a: !!str 12\nb: !!int \"3\"\nc: !!float 3\nd: !!map {}\ne: !!seq []\nf: !<tag:yaml.org,2002:str> 12\ng: !!null ~\nh: !!bool true"
        ),
        r#"{"a":"12","b":3,"c":3,"d":{},"e":[],"f":"12","g":null,"h":true}"#
    );
    // As in OPA, `!` alone says nothing.
    assert_eq!(
        json("a: ! 12\nb: ! [x]\nc: ! '1'"),
        r#"{"a":12,"b":["x"],"c":"1"}"#
    );
    assert_eq!(json("a: !!float 0x10"), r#"{"a":16}"#);
    assert!(error("a: !!int x").contains("is not of type"));
    for tag in ["!!binary", "!!timestamp", "!!set", "!mine", "!!seq"] {
        let message = error(&format!("a: {tag} x"));
        assert!(
            message.contains(&format!("tag `{tag}` has no meaning")),
            "{message}"
        );
    }
    assert!(error("a: !!set {x}").contains("has no meaning in data"));
    assert!(error("a: !!map [x]").contains("has no meaning in data"));
}

#[test]
fn one_document() {
    assert_eq!(json("a: 1\n---\n"), r#"{"a":1}"#);
    assert!(error("a: 1\n---\nb: 2\n").contains("more than one document"));
    // The dedent ends the first mapping: an error, not a silent loss of `b`.
    assert!(read("  a:\nb: 1").is_err());
}

#[test]
fn billion_laughs() {
    let mut yaml = String::from("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n");
    for level in 1..=9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        yaml.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(error(&yaml).contains("aliases blow the document up"));
}

#[test]
fn hostile_nesting_ends_without_overflow() {
    let run = || {
        let deep = |count: usize| format!("{}1", "- ".repeat(count));
        assert_eq!(read(&deep(2_000)).unwrap().depth(), 2_000);
        assert!(read(&deep(MAX_DEPTH + 1)).is_err());
        for opening in [
            "[", "{", "{a: ", "[{a: ", "? ", "- ? ", "&a ", "!!str ", "- - ",
        ] {
            let _ = read(&opening.repeat(20_000));
        }
    };
    let thread = std::thread::Builder::new().stack_size(256 << 10);
    thread.spawn(run).unwrap().join().unwrap();
}
