//! JSON text as Go's `encoding/json` writes it: with `<`, `>` and `&` escaped too.

use std::borrow::Cow;
use std::io::Write;
use std::time::{Duration, SystemTime};
use std::{iter, slice, vec};

use opa_core::{ObjectIter, Value};

/// Appends a string literal.
pub(crate) fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(is_special) {
        let (plain, following) = rest.split_at(at);
        out.extend_from_slice(plain);
        rest = escape(following, out);
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Appends a value: sets as arrays, keys that are no strings as the text of their JSON.
///
/// Any depth is safe.
pub(crate) fn value(value: &Value, out: &mut Vec<u8>) {
    value_within(value, usize::MAX, out);
}

/// As [`value`], but stops when `out` has more than `limit` bytes, and answers false then. A value
/// that is shared many times in itself can have a text that is far larger than itself.
pub(crate) fn value_within(value: &Value, limit: usize, out: &mut Vec<u8>) -> bool {
    value_by(value, limit, out, |_, _, _| false)
}

/// As [`value_within`], but what `replace` writes, and answers true for, stands for a member's
/// value. It is given the member's name and its value.
pub(crate) fn value_by(
    value: &Value,
    limit: usize,
    out: &mut Vec<u8>,
    replace: impl Fn(&str, &Value, &mut Vec<u8>) -> bool,
) -> bool {
    let mut open: Vec<Open<'_>> = Vec::new();
    open.extend(start(value, out));
    let mut first = true;
    while let Some(container) = open.last_mut() {
        if out.len() > limit {
            return false;
        }
        let Some((key, item)) = container.next() else {
            out.push(container.closing());
            open.pop();
            first = false;
            continue;
        };
        if !first {
            out.push(b',');
        }
        let mut replaced = false;
        if let Some(key) = key {
            string(&key, out);
            out.push(b':');
            replaced = replace(&key, item, out);
        }
        let below = match replaced {
            true => None,
            false => start(item, out),
        };
        first = below.is_some();
        open.extend(below);
    }
    out.len() <= limit
}

/// Appends an object of strings to values that the caller writes.
pub(crate) fn object<K: AsRef<str>, V>(
    members: impl IntoIterator<Item = (K, V)>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(V, &mut Vec<u8>),
) {
    list([b'{', b'}'], members, out, |(key, value), out| {
        string(key.as_ref(), out);
        out.push(b':');
        write(value, out);
    });
}

/// Appends an array whose items the caller writes.
pub(crate) fn array<T>(
    items: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    write: impl FnMut(T, &mut Vec<u8>),
) {
    list([b'[', b']'], items, out, write);
}

fn list<T>(
    [open, close]: [u8; 2],
    items: impl IntoIterator<Item = T>,
    out: &mut Vec<u8>,
    mut write: impl FnMut(T, &mut Vec<u8>),
) {
    out.push(open);
    let separators = iter::once(false).chain(iter::repeat(true));
    for (item, separated) in items.into_iter().zip(separators) {
        if separated {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(close);
}

/// Appends a number.
pub(crate) fn integer(number: impl std::fmt::Display, out: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(out, "{number}");
}

/// Appends a time as Go's `RFC3339Nano` in UTC: trailing zeros of the fraction are left out.
///
/// A clock outside of the years that can be written is shown as Go's zero time.
pub(crate) fn time(time: SystemTime, out: &mut Vec<u8>) {
    match jiff::Timestamp::try_from(time) {
        Ok(timestamp) => {
            let _ = write!(out, "\"{timestamp}\"");
        }
        Err(_) => zero_time(out),
    }
}

/// The console's own time has no fraction.
pub(crate) fn whole_seconds(time: SystemTime) -> SystemTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(_) => time,
    }
}

/// Appends Go's zero time, which stands for a time that isn't known.
pub(crate) fn zero_time(out: &mut Vec<u8>) {
    string("0001-01-01T00:00:00Z", out);
}

/// A container whose opening bracket is written, with what is left of it.
enum Open<'a> {
    Items(slice::Iter<'a, Value>),
    Members(ObjectIter<'a>),
    /// The members of an object that has keys other than strings, ordered by text.
    Renamed(vec::IntoIter<(Cow<'a, str>, &'a Value)>),
}

impl<'a> Open<'a> {
    fn next(&mut self) -> Option<(Option<Cow<'a, str>>, &'a Value)> {
        match self {
            Self::Items(items) => items.next().map(|item| (None, item)),
            Self::Members(members) => members
                .next()
                .map(|(key, item)| (key.as_str().map(Cow::Borrowed), item)),
            Self::Renamed(members) => members.next().map(|(key, item)| (Some(key), item)),
        }
    }

    fn closing(&self) -> u8 {
        match self {
            Self::Items(_) => b']',
            Self::Members(_) | Self::Renamed(_) => b'}',
        }
    }
}

/// Writes a scalar, or opens a container.
fn start<'a>(value: &'a Value, out: &mut Vec<u8>) -> Option<Open<'a>> {
    if let Some(text) = value.as_str() {
        string(text, out);
        return None;
    }
    if let Some(object) = value.as_object() {
        out.push(b'{');
        // Kinds are ordered, so that strings stand together.
        let mut members = object.iter();
        let ends = [members.next(), members.next_back()];
        let is_text = |(key, _): (&Value, &Value)| key.as_str().is_some();
        return Some(if ends.into_iter().flatten().all(is_text) {
            Open::Members(object.iter())
        } else {
            renamed(object.iter())
        });
    }
    let items = value.as_array().map(<[Value]>::iter);
    if let Some(items) = items.or_else(|| value.as_set().map(|set| set.iter())) {
        out.push(b'[');
        return Some(Open::Items(items));
    }
    match value.as_number() {
        Some(number) => out.extend_from_slice(number.as_str().as_bytes()),
        None => value.write_json(out),
    }
    None
}

/// Of keys with one text the later stays, as in OPA.
fn renamed<'a>(members: ObjectIter<'a>) -> Open<'a> {
    let text = |key: &'a Value| match key.as_str() {
        Some(text) => Cow::Borrowed(text),
        None => Cow::Owned(key.to_json()),
    };
    let mut members: Vec<_> = members.map(|(key, item)| (text(key), item)).collect();
    members.reverse();
    members.sort_by(|(left, _), (right, _)| left.cmp(right));
    members.dedup_by(|(left, _), (right, _)| left == right);
    Open::Renamed(members.into_iter())
}

/// What a byte of a text needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// To be copied.
    Plain,
    /// Its number.
    Number,
    /// A letter after a backslash.
    Letter(u8),
    /// A look at what follows: it is the first byte of U+2028 and U+2029, among others.
    MaybeLineEnd,
}

/// Whether a byte of a text may not just be copied.
fn is_special(byte: &u8) -> bool {
    const SPECIAL: [bool; 256] = {
        let mut special = [false; 256];
        let mut rest: &mut [bool] = &mut special;
        let mut byte = 0;
        while let [first, following @ ..] = rest {
            *first = !matches!(class(byte), Class::Plain);
            byte = byte.wrapping_add(1);
            rest = following;
        }
        special
    };
    SPECIAL.get(usize::from(*byte)).copied().unwrap_or(true)
}

const fn class(byte: u8) -> Class {
    match byte {
        b'"' | b'\\' => Class::Letter(byte),
        0x08 => Class::Letter(b'b'),
        0x0c => Class::Letter(b'f'),
        b'\n' => Class::Letter(b'n'),
        b'\r' => Class::Letter(b'r'),
        b'\t' => Class::Letter(b't'),
        0..0x20 | b'<' | b'>' | b'&' => Class::Number,
        0xe2 => Class::MaybeLineEnd,
        _ => Class::Plain,
    }
}

/// Writes the first character of `text`; answers the rest.
fn escape<'a>(text: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
    let Some((byte, rest)) = text.split_first() else {
        return text;
    };
    match (class(*byte), rest) {
        (Class::Number, _) => unicode(*byte, out),
        (Class::Letter(letter), _) => out.extend_from_slice(&[b'\\', letter]),
        (Class::MaybeLineEnd, [0x80, last @ (0xa8 | 0xa9), rest @ ..]) => {
            out.extend_from_slice(b"\\u202");
            out.push(last - 0xa8 + b'8');
            return rest;
        }
        (Class::MaybeLineEnd | Class::Plain, _) => out.push(*byte),
    }
    rest
}

/// Writes an ASCII character by its number.
fn unicode(byte: u8, out: &mut Vec<u8>) {
    let _ = write!(out, "\\u{byte:04x}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &Value) -> String {
        let mut out = Vec::new();
        super::value(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    fn rewritten(json: &str) -> String {
        text(&Value::from_json(json.as_bytes()).unwrap())
    }

    #[test]
    fn strings_are_escaped_as_by_go() {
        let all = "<&>\u{2028}\u{2029}\u{0}\u{8}\u{c}\u{7f}\n\t\r\u{1f}/\"\\é😀\u{2027}€";
        assert_eq!(
            text(&Value::from(all)),
            "\"\\u003c\\u0026\\u003e\\u2028\\u2029\\u0000\\b\\f\u{7f}\\n\\t\\r\\u001f/\\\"\\\\é😀\u{2027}€\""
        );
    }

    #[test]
    fn containers_of_all_shapes_are_written() {
        for json in [
            "[]",
            "{}",
            "[[],{}]",
            r#"{"a":[],"b":[1,[2,{"c":null}],true],"d":{"e":{}}}"#,
            "[1.0,1e5,1E400,-0,0.10,12345678901234567890123,1e-7]",
            "\"a\"",
            "null",
            "false",
        ] {
            assert_eq!(rewritten(json), json);
        }
        let set = Value::set([Value::from("<"), Value::from(1)]);
        assert_eq!(text(&set), r#"[1,"\u003c"]"#);
    }

    #[test]
    fn keys_that_are_no_strings_are_texts() {
        let object = Value::object([
            (Value::from(1), Value::from("&")),
            (Value::from("0"), Value::from("b")),
            (Value::from("1"), Value::from("dup")),
            (
                Value::object([(Value::from("<"), Value::from(1))]),
                Value::from(3),
            ),
        ]);
        assert_eq!(text(&object), r#"{"0":"b","1":"dup","{\"\u003c\":1}":3}"#);
    }

    #[test]
    fn a_text_ends_soon_after_its_limit() {
        let shared = (0..40).fold(Value::from("x"), |value, level| {
            if level % 2 == 0 {
                Value::array([value.clone(), value])
            } else {
                Value::object([(Value::from(1), value.clone()), (Value::from(2), value)])
            }
        });
        let mut out = Vec::new();
        assert!(!value_within(&shared, 1_000, &mut out));
        assert!(out.len() < 1_100);
        let mut out = Vec::new();
        assert!(value_within(&Value::from("abc"), 5, &mut out));
        assert!(!value_within(&Value::from("abc"), 9, &mut out));
    }

    #[test]
    fn any_depth_is_written() {
        let deep = (0..100_000).fold(Value::from(1), |value, _| Value::array([value]));
        assert_eq!(text(&deep).len(), 200_001);
    }

    #[test]
    fn times_are_gos() {
        let at = |nanos| {
            let mut out = Vec::new();
            let since = std::time::Duration::from_nanos(nanos);
            time(SystemTime::UNIX_EPOCH + since, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(at(0), r#""1970-01-01T00:00:00Z""#);
        assert_eq!(at(1_500_000_000), r#""1970-01-01T00:00:01.5Z""#);
        assert_eq!(at(1_000_000_001), r#""1970-01-01T00:00:01.000000001Z""#);
    }
}
