use std::borrow::Cow;
use std::{slice, vec};

use crate::value::{Repr, Value};

/// How deep keys may be nested in keys before their JSON text, which doubles its escapes with each
/// level, gives way to the text of a Rego term, which doesn't.
const KEY_NESTING_LIMIT: usize = 6;

impl Value {
    /// Appends the value's compact JSON text to `out`.
    ///
    /// A set is written as an array, an object's key that isn't a string as a string that holds its
    /// JSON text; of two keys that so become equal the one that is later in Rego's order stays, as
    /// in OPA. Members are ordered by the text of their keys. Strings are escaped as Go's
    /// `encoding/json` does without HTML escaping: control characters, `"`, `\`, U+2028 and U+2029.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        write(self, 0, out);
    }

    /// Hands the value's compact JSON text over in pieces, see [`write_json`](Self::write_json).
    pub fn write_json_pieces(&self, mut out: impl FnMut(&[u8])) {
        write(self, 0, &mut Pieces(&mut out));
    }

    /// The value's compact JSON text, see [`write_json`](Self::write_json).
    pub fn to_json(&self) -> String {
        let mut out = String::new();
        write(self, 0, &mut out);
        out
    }
}

/// What JSON text is appended to.
pub(crate) trait Sink {
    fn push(&mut self, text: &str);
}

impl Sink for String {
    fn push(&mut self, text: &str) {
        self.push_str(text);
    }
}

impl Sink for Vec<u8> {
    fn push(&mut self, text: &str) {
        self.extend_from_slice(text.as_bytes());
    }
}

struct Pieces<'a>(&'a mut dyn FnMut(&[u8]));

impl Sink for Pieces<'_> {
    fn push(&mut self, text: &str) {
        (self.0)(text.as_bytes());
    }
}

/// The text of an object's key.
pub(crate) fn key_text(key: &Value) -> Cow<'_, str> {
    key_text_at(key, 0)
}

/// Writes what isn't a container; containers are the caller's.
pub(crate) fn write_scalar(scalar: &Repr, out: &mut impl Sink) {
    match scalar {
        Repr::Boolean(true) => out.push("true"),
        Repr::Boolean(false) => out.push("false"),
        Repr::Number(number) => out.push(&number.as_str()),
        Repr::String(text) => write_string(text, out),
        Repr::Null | Repr::Array(_) | Repr::Object(_) | Repr::Set(_) => out.push("null"),
    }
}

/// A container whose opening bracket is written, with what is left of it.
enum Open<'a> {
    Items(slice::Iter<'a, Value>),
    Members(slice::Iter<'a, (Value, Value)>),
    /// The members of an object that has keys other than strings, ordered by text.
    Renamed(vec::IntoIter<(Cow<'a, str>, &'a Value)>),
}

/// Writes `value`, which is `level` keys away from the outermost value.
fn write(value: &Value, level: usize, out: &mut impl Sink) {
    let mut open = Vec::new();
    start(value, level, &mut open, out);
    let mut separator = "";
    while let Some(container) = open.last_mut() {
        let Some((key, value)) = container.next() else {
            out.push(container.closing());
            open.pop();
            separator = ",";
            continue;
        };
        out.push(separator);
        if let Some(key) = key {
            write_string(&key, out);
            out.push(":");
        }
        separator = if start(value, level, &mut open, out) {
            ""
        } else {
            ","
        };
    }
}

/// Writes a scalar, or opens a container and answers true.
fn start<'a>(
    value: &'a Value,
    level: usize,
    open: &mut Vec<Open<'a>>,
    out: &mut impl Sink,
) -> bool {
    let (bracket, container) = match &value.0 {
        Repr::Array(list) | Repr::Set(list) => ("[", Open::Items(list.items.iter())),
        Repr::Object(members) => ("{", Open::members(&members.entries, level)),
        scalar => {
            write_scalar(scalar, out);
            return false;
        }
    };
    out.push(bracket);
    open.push(container);
    true
}

impl<'a> Open<'a> {
    fn members(entries: &'a [(Value, Value)], level: usize) -> Self {
        if entries.iter().all(|(key, _)| key.as_str().is_some()) {
            return Self::Members(entries.iter());
        }
        let named = entries
            .iter()
            .map(|(key, value)| (key_text_at(key, level), value));
        let mut named: Vec<_> = named.collect();
        named.sort_by(|(left, _), (right, _)| left.cmp(right));
        named.dedup_by(|(key, value), (kept_key, kept_value)| {
            let duplicate = key == kept_key;
            if duplicate {
                *kept_value = value;
            }
            duplicate
        });
        Self::Renamed(named.into_iter())
    }

    fn next(&mut self) -> Option<(Option<Cow<'a, str>>, &'a Value)> {
        match self {
            Self::Items(rest) => rest.next().map(|item| (None, item)),
            Self::Members(rest) => rest
                .next()
                .map(|(key, value)| (Some(Cow::Borrowed(key.as_str().unwrap_or_default())), value)),
            Self::Renamed(rest) => rest.next().map(|(key, value)| (Some(key), value)),
        }
    }

    fn closing(&self) -> &'static str {
        match self {
            Self::Items(_) => "]",
            Self::Members(_) | Self::Renamed(_) => "}",
        }
    }
}

fn key_text_at(key: &Value, level: usize) -> Cow<'_, str> {
    match key.as_str() {
        Some(text) => Cow::Borrowed(text),
        None if level >= KEY_NESTING_LIMIT => Cow::Owned(key.to_term()),
        None => {
            let mut text = String::new();
            write(key, level + 1, &mut text);
            Cow::Owned(text)
        }
    }
}

fn write_string(text: &str, out: &mut impl Sink) {
    out.push("\"");
    let mut rest = text;
    while let Some((plain, escaped, following)) = split_at_escape(rest) {
        out.push(plain);
        write_escape(escaped, out);
        rest = following;
    }
    out.push(rest);
    out.push("\"");
}

/// Splits at the first character that can't stand for itself.
fn split_at_escape(text: &str) -> Option<(&str, char, &str)> {
    let (plain, rest) = text.split_at_checked(text.find(is_escaped)?)?;
    let mut rest = rest.chars();
    let escaped = rest.next()?;
    Some((plain, escaped, rest.as_str()))
}

fn is_escaped(character: char) -> bool {
    // U+2028 and U+2029 end a line in JavaScript, so Go escapes them.
    matches!(
        character,
        '\0'..='\x1f' | '"' | '\\' | '\u{2028}' | '\u{2029}'
    )
}

fn write_escape(character: char, out: &mut impl Sink) {
    match character {
        '"' => out.push("\\\""),
        '\\' => out.push("\\\\"),
        '\x08' => out.push("\\b"),
        '\x0c' => out.push("\\f"),
        '\n' => out.push("\\n"),
        '\r' => out.push("\\r"),
        '\t' => out.push("\\t"),
        other => out.push(&format!("\\u{:04x}", u32::from(other))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Value {
        Value::from_json(text.as_bytes()).expect("valid JSON")
    }

    #[test]
    fn writes_into_bytes_what_it_writes_into_text() {
        let value = json(r#"{"b": [1.50, {"c": null}], "a": "x"}"#);
        let mut out = b"> ".to_vec();
        value.write_json(&mut out);
        assert_eq!(out, br#"> {"a":"x","b":[1.50,{"c":null}]}"#);
        assert_eq!(value.to_string(), value.to_json());
        let mut pieces = Vec::new();
        value.write_json_pieces(|piece| pieces.extend_from_slice(piece));
        assert_eq!(pieces, value.to_json().into_bytes());
    }

    #[test]
    fn escapes_as_go_does_without_html() {
        let text = "\0\x01\x08\t\n\x0b\x0c\r\x1f \"\\/<>&\x7f\u{80}\u{2028}\u{2029}é😀";
        let expected = concat!(
            r#""\u0000\u0001\b\t\n\u000b\f\r\u001f \"\\/<>&"#,
            "\x7f\u{80}",
            r#"\u2028\u2029é😀""#
        );
        assert_eq!(Value::from(text).to_json(), expected);
        assert_eq!(
            Value::object([(Value::from("\n"), Value::NULL)]).to_json(),
            r#"{"\n":null}"#
        );
    }

    #[test]
    fn keys_that_are_no_strings_become_their_text() {
        // What `opa eval` answers for the same object.
        let object = Value::object([
            (json("1"), json("\"n\"")),
            (json("\"1\""), json("\"s\"")),
            (json(r#"[1,"x"]"#), json("2")),
            (Value::set([json("3")]), json("4")),
            (Value::object([(json(r#"{"a": 1}"#), json("2"))]), json("5")),
            (json("null"), json("6")),
        ]);
        assert_eq!(
            object.to_json(),
            r#"{"1":"s","[1,\"x\"]":2,"[3]":4,"null":6,"{\"{\\\"a\\\":1}\":2}":5}"#
        );
    }

    #[test]
    fn keys_nested_in_keys_dont_explode() {
        let nested = (0..200).fold(json("\"k\""), |key, _| Value::object([(key, json("1"))]));
        let text = nested.to_json();
        assert!(text.len() < 200_000, "{}", text.len());
        assert_eq!(
            Value::from_json(text.as_bytes()).expect("valid JSON").len(),
            Some(1)
        );
    }
}
