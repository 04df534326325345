use super::*;

fn read(json: &str) -> Value {
    both_ways(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn refusal(json: &[u8]) -> String {
    both_ways(json).expect_err("must be refused").to_string()
}

/// Reads the slice, and a stream of it that comes in small and odd pieces: with one result.
fn both_ways(json: &[u8]) -> Result<Value, JsonError> {
    let whole = Value::from_json(json);
    let largest = if json.len() > 10_000 { 1 << 20 } else { 1 };
    for piece in [largest, 7 * largest, 1 << 20] {
        let streamed = Value::read_json(Trickle { rest: json, piece });
        match (&whole, streamed) {
            (Ok(value), Ok(streamed)) => assert_eq!(*value, streamed),
            (Err(error), Err(ReadJsonError::Json(streamed))) => assert_eq!(*error, streamed),
            (whole, streamed) => panic!("{whole:?}, but as a stream {streamed:?}"),
        }
    }
    whole
}

/// Gives at most `piece` bytes at a time, and is interrupted before the first of each.
struct Trickle<'a> {
    rest: &'a [u8],
    piece: usize,
}

impl io::Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.piece).min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest = &self.rest[length..];
        Ok(length)
    }
}

#[test]
fn what_is_longer_than_a_window_is_read_as_a_stream_too() {
    let long = "é".repeat(200_000);
    let escaped = r"\u00e9\ud83d\ude00".repeat(30_000);
    let digits = "7".repeat(300_000);
    for text in [
        format!("[\"{long}\", \"{escaped}\", {digits}, -{digits}.{digits}e+1]"),
        format!("{}1{}", " ".repeat(300_000), "\n".repeat(300_000)),
        format!("{{\"{long}\": \"{long}\"}}"),
        (0..50_000)
            .map(|n| format!("{{\"id\": {n}, \"name\": \"n{n}\"}}"))
            .collect::<Vec<_>>()
            .join(",")
            .replacen('{', "[{", 1)
            + "]",
    ] {
        read(&text);
    }
    // The place is where the string starts, long out of the window.
    let open = format!("[1,\n \"{long}");
    assert_eq!(
        refusal(open.as_bytes()),
        "line 2, column 2: the string has no end"
    );
    let late = format!("[\n\"{long}\",\n\"{long}\", ?]");
    assert_eq!(
        refusal(late.as_bytes()),
        "line 3, column 200005: expected a value, found `?`"
    );
    let broken = [open.as_bytes(), b"\xff\""].concat();
    assert_eq!(
        refusal(&broken),
        "line 2, column 200003: invalid UTF-8 at byte `0xff`"
    );
}

#[test]
fn what_comes_first_in_the_text_is_the_error() {
    assert!(refusal(b"[1 x \xff").contains("found `x`"));
    assert!(refusal(b"[1, \xff x").contains("invalid UTF-8"));
    assert!(refusal(b"1 \xff").contains("invalid UTF-8"));
}

#[test]
fn a_stream_that_fails_is_no_json_error() {
    struct Broken;
    impl io::Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("gone"))
        }
    }
    for start in [
        "", "[1", "[1,", "\"abc", "tru", "12", "{\"a\"", "\"\\u00", "1 ",
    ] {
        let stream = io::Read::chain(start.as_bytes(), Broken);
        match Value::read_json(stream) {
            Err(ReadJsonError::Io(error)) => assert_eq!(error.to_string(), "gone"),
            other => panic!("{start}: {other:?}"),
        }
    }
    let wrong = io::Read::chain(&b"[1 2]"[..], Broken);
    assert!(matches!(
        Value::read_json(wrong),
        Err(ReadJsonError::Json(_))
    ));
}

#[test]
fn equal_names_are_held_once() {
    let value = read(r#"[{"name": 1}, {"name": 2}]"#);
    let key = |at: usize| {
        value.as_array().unwrap()[at]
            .as_object()
            .unwrap()
            .iter()
            .next()
            .unwrap()
            .0
            .clone()
    };
    assert!(Value::ptr_eq(&key(0), &key(1)));
}

#[test]
fn reads_every_kind_of_value() {
    for json in [
        "null",
        "true",
        "false",
        "0",
        "-1.50e+3",
        "\"\"",
        "\"é\"",
        "[]",
        "{}",
        "[1,[2,[]],{}]",
        r#"{"a":{"b":[]},"c":null}"#,
    ] {
        assert_eq!(read(json).to_json(), json);
    }
    assert_eq!(
        read(" \t\r\n[ 1 , { \"a\" : 2 } ]\n").to_json(),
        r#"[1,{"a":2}]"#
    );
}

#[test]
fn the_last_of_equal_names_stays() {
    assert_eq!(
        read(r#"{"a": {"x": 1}, "b": 2, "a": {"y": 3}}"#).to_json(),
        r#"{"a":{"y":3},"b":2}"#
    );
    assert_eq!(
        read(r#"{"a": 1, "\u0061": 2, "a": 3}"#).to_json(),
        r#"{"a":3}"#
    );
}

#[test]
fn escapes_are_go_s() {
    assert_eq!(
        read(r#""\"\\\/\b\f\n\r\t\u0041\u00E9\u20ac\ud83d\uDE00z""#).as_str(),
        Some("\"\\/\u{8}\u{c}\n\r\tA\u{e9}\u{20ac}\u{1f600}z")
    );
    for (lone, text) in [
        (r#""\ud800""#, "\u{fffd}"),
        (r#""\udc00""#, "\u{fffd}"),
        (r#""\ud800x""#, "\u{fffd}x"),
        (r#""\ud800\u0041""#, "\u{fffd}A"),
        (r#""\ud800\n""#, "\u{fffd}\n"),
        (r#""\ud800\ud800""#, "\u{fffd}\u{fffd}"),
        (r#""\ud800\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
        (r#""\udc00\ud83d""#, "\u{fffd}\u{fffd}"),
    ] {
        assert_eq!(read(lone).as_str(), Some(text), "{lone}");
    }
}

#[test]
fn says_what_is_wrong_and_where() {
    for (json, message) in [
        (
            "",
            "line 1, column 1: expected a value, found the end of the text",
        ),
        (
            "  \n ",
            "line 2, column 2: expected a value, found the end of the text",
        ),
        ("[1,]", "line 1, column 4: expected a value, found `]`"),
        ("[1 2]", "line 1, column 4: expected `,` or `]`, found `2`"),
        (
            "[1",
            "line 1, column 3: expected `,` or `]`, found the end of the text",
        ),
        ("{\"é\" 1}", "line 1, column 6: expected `:`, found `1`"),
        (
            "{",
            "line 1, column 2: expected a member's name or `}`, found the end of the text",
        ),
        (
            "{a: 1}",
            "line 1, column 2: expected a member's name or `}`, found `a`",
        ),
        (
            "{\"a\": 1,}",
            "line 1, column 9: expected a member's name, found `}`",
        ),
        (
            "{\"a\": 1\n \"b\": 2}",
            "line 2, column 2: expected `,` or `}`, found `\\\"`",
        ),
        ("nul", "line 1, column 1: expected a value, found `nul`"),
        (
            "truetrue",
            "line 1, column 5: expected the end of the text, found `true`",
        ),
        ("NaN", "line 1, column 1: expected a value, found `NaN`"),
        ("'a'", "line 1, column 1: expected a value, found `\\'`"),
        (
            "1 2",
            "line 1, column 3: expected the end of the text, found `2`",
        ),
        ("01", "line 1, column 2: a number must not start with 0"),
        ("-", "line 1, column 1: `-` isn't a number"),
        ("1.e5", "line 1, column 1: `1.e5` isn't a number"),
        ("+1", "line 1, column 1: expected a value, found `+`"),
        ("[\"abc", "line 1, column 2: the string has no end"),
        ("\"a\\", "line 1, column 3: the string has no end"),
        ("\"a\\x\"", "line 1, column 3: `\\x` isn't an escape"),
        (
            "\"\\u12g4\"",
            "line 1, column 2: `\\u` must be followed by four hexadecimal digits",
        ),
        (
            "\"\\u+123\"",
            "line 1, column 2: `\\u` must be followed by four hexadecimal digits",
        ),
        (
            "\"a\nb\"",
            "line 1, column 3: expected an escape for the control character, found `\\n`",
        ),
        (
            "\u{feff}{}",
            "line 1, column 1: expected a value, found a byte order mark",
        ),
        (
            "[1]\0",
            "line 1, column 4: expected the end of the text, found `\\0`",
        ),
    ] {
        assert_eq!(refusal(json.as_bytes()), message, "{json:?}");
    }
    let error = Value::from_json("{\n  \"ä\": ?}".as_bytes()).unwrap_err();
    assert_eq!((error.offset(), error.line(), error.column()), (10, 2, 8));
    assert_eq!(error.message(), "expected a value, found `?`");
}

#[test]
fn invalid_utf8_is_refused_where_it_stands() {
    let error = Value::from_json(b"[\n\"a\xffb\"]").unwrap_err();
    assert_eq!((error.offset(), error.line(), error.column()), (4, 2, 3));
    assert_eq!(error.message(), "invalid UTF-8 at byte `0xff`");
    for bytes in [
        &b"\"\xc0\x80\""[..],
        b"\"\xed\xa0\x80\"",
        b"\xff",
        b"\"\xf4\x90\x80\x80\"",
        b"\"\xe2\x82",
    ] {
        assert!(refusal(bytes).contains("invalid UTF-8"), "{bytes:?}");
    }
}

#[test]
fn long_garbage_is_shortened() {
    assert!(refusal("x".repeat(100_000).as_bytes()).len() < 200);
    assert!(refusal("-.".repeat(100_000).as_bytes()).len() < 200);
}

#[test]
fn ten_thousand_levels_are_read_and_no_more() {
    let arrays = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}1{}", "{\"k\":".repeat(depth), "}".repeat(depth));
    let run = move || {
        for nested in [&arrays as &dyn Fn(usize) -> String, &objects] {
            let value = read(&nested(10_000));
            assert_eq!(value.depth(), 10_000);
            assert_eq!(value.to_json(), nested(10_000));
            assert!(refusal(nested(10_001).as_bytes()).contains("nested deeper than 10000 levels"));
        }
        assert!(refusal("[".repeat(1_000_000).as_bytes()).contains("nested deeper"));
        assert!(refusal("[".repeat(10_000).as_bytes()).contains("expected a value"));
    };
    std::thread::Builder::new()
        .stack_size(256 * 1024)
        .spawn(run)
        .unwrap()
        .join()
        .unwrap();
}

/// A small generator of pseudo-random numbers (Marsaglia's xorshift), the same on each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn text(&mut self) -> String {
        let parts = [
            "a", "key", "\"", "\\", "\u{0}", "\u{1f}", "\u{7f}", "\u{2028}", "é", "😀", "/", "<",
        ];
        (0..self.below(6)).map(|_| self.pick(&parts)).collect()
    }

    fn value(&mut self, depth: usize) -> serde_json::Value {
        match self.below(if depth == 0 { 4 } else { 6 }) {
            0 => serde_json::Value::Null,
            1 => serde_json::Value::Bool(self.below(2) == 0),
            2 => serde_json::json!(f64::from(u32::try_from(self.below(100_000)).unwrap()) / 64.0),
            3 => serde_json::Value::String(self.text()),
            4 => (0..self.below(5)).map(|_| self.value(depth - 1)).collect(),
            _ => (0..self.below(5))
                .map(|_| (self.text(), self.value(depth - 1)))
                .collect(),
        }
    }
}

#[test]
fn agrees_with_serde_json_on_random_documents() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2_000 {
        let serde = random.value(4);
        let text = if random.below(2) == 0 {
            serde.to_string()
        } else {
            serde_json::to_string_pretty(&serde).unwrap()
        };
        let value = read(&text);
        assert_eq!(value, Value::from(&serde), "{text}");
        assert_eq!(read(&value.to_json()), value, "{text}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&value.to_json()).unwrap(),
            serde
        );
    }
}

#[test]
fn accepts_and_refuses_what_serde_json_does_on_random_garbage() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let parts = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"",
        "1",
        "0",
        "-",
        ".",
        "e",
        "true",
        "null",
        " ",
        "\\n",
        "\"\\u00e9\"",
        "x",
        "\n",
    ];
    for round in 0..50_000 {
        let text: String = (0..random.below(9)).map(|_| random.pick(&parts)).collect();
        let serde = serde_json::from_str::<serde_json::Value>(&text);
        // Each stream has a buffer, which takes a while to clear so often.
        let own = match round % 10 {
            0 => both_ways(text.as_bytes()),
            _ => Value::from_json(text.as_bytes()),
        };
        match (serde, own) {
            (Ok(serde), Ok(own)) => assert_eq!(own, Value::from(&serde), "{text}"),
            (Err(_), Err(_)) => {}
            (serde, own) => panic!("{text:?}: serde_json {serde:?}, ours {own:?}"),
        }
    }
}

/// A small generator of numbers that look random (xorshift64*), the same ones each time.
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        usize::try_from(high).unwrap() % bound
    }

    fn pick<'a>(&mut self, of: &[&'a [u8]]) -> &'a [u8] {
        of[self.below(of.len())]
    }
}

/// Gives pieces of random sizes.
struct Uneven<'a> {
    rest: &'a [u8],
    random: &'a mut Seeded,
}

impl io::Read for Uneven<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = 1 + self.random.below(9);
        let length = buffer.len().min(wanted).min(self.rest.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        self.rest = &self.rest[length..];
        Ok(length)
    }
}

#[test]
fn whatever_the_text_and_its_pieces_streams_are_read_as_slices_are() {
    const PARTS: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\"a\"",
        b"\"a\":",
        b"\"\\u00e9\"",
        b"\\u",
        b"\\ud83d",
        b"\\ude00",
        b"\\n",
        b"\\x",
        b"\\",
        b"\"\\ud83d\\ude00\"",
        b"\"\\ud83d\\u0041\"",
        b"\"\\ud83dx\"",
        b"0",
        b"-0",
        b"-",
        b"1",
        b"12.5",
        b"1e",
        b"1e5",
        b"1E+",
        b"-1.0E-7",
        b"0.",
        b"01",
        b".5",
        b"+1",
        b"99999999999999999999999",
        b"true",
        b"false",
        b"null",
        b"tru",
        b"nul1",
        b" ",
        b"\n",
        b"\t",
        b"\r",
        b"\xef\xbb\xbf",
        "\u{e9}".as_bytes(),
        "\u{20ac}".as_bytes(),
        "\u{1f600}".as_bytes(),
        b"\xff",
        b"\xe2\x82",
        b"\xf0\x9f\x98",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\x00",
        b"\x1f",
        b"\x7f",
        b"abc_1",
        b"// x",
    ];
    const VALID: &[&[u8]] = &[
        br#"{"a":[1,2.50,-3e+7,{"b":null}],"\u00e9":"\ud83d\ude00x\n"}"#,
        "[\"\u{e9}\u{20ac}\u{1f600}\", true, false, null, -0, 1E400, \"\\ud800\"]".as_bytes(),
        br#" [ [ ] , { } , { "a" : 1 , "a" : 2 } ] "#,
    ];
    let mut random = Seeded(0x5eed_0bad_cafe_f00d);
    for round in 0..60_000 {
        let text: Vec<u8> = if round % 2 == 0 {
            let parts = 1 + random.below(12);
            (0..parts)
                .flat_map(|_| random.pick(PARTS))
                .copied()
                .collect()
        } else {
            // A text in order, with some bytes of it changed, gone or put in.
            let mut text = random.pick(VALID).to_vec();
            for _ in 0..random.below(4) {
                let (at, part) = (random.below(text.len()), random.pick(PARTS));
                let end = (at + random.below(4)).min(text.len());
                text.splice(at..end, part.iter().copied());
            }
            text
        };
        let whole = both_ways(&text);
        let uneven = Uneven {
            rest: &text,
            random: &mut random,
        };
        let shown = String::from_utf8_lossy(&text);
        match (&whole, Value::read_json(uneven)) {
            (Ok(value), Ok(streamed)) => assert_eq!(value.to_json(), streamed.to_json(), "{shown}"),
            (Err(error), Err(ReadJsonError::Json(streamed))) => {
                assert_eq!(*error, streamed, "{shown}");
            }
            (whole, streamed) => panic!("{shown}: {whole:?}, but as a stream {streamed:?}"),
        }
    }
}
