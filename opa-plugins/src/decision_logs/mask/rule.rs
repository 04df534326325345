//! One rule of a mask.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::Arc;

use opa_core::Value;

use super::{Budget, MaskError};

/// What is done at a path of a part of the event.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) op: Op,
    pub(super) part: Part,
    /// The segments below the part, escaped, each a string; none for the whole part.
    pub(super) segments: Vec<Value>,
    /// The whole path with escaped segments, as `erased` and `masked` show it.
    pub(super) path: Arc<str>,
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Remove,
    Upsert(Value),
}

/// A part of an event that may be masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Input,
    Result,
    NdBuiltinCache,
}

impl Rule {
    pub(super) fn read(element: &Value, budget: &mut Budget) -> Result<Self, MaskError> {
        if let Some(path) = element.as_str() {
            return Self::new(Op::Remove, path, budget);
        }
        if element.as_object().is_none() {
            return Err(MaskError::Element);
        }
        let path = match element.get("path") {
            Some(path) => path.as_str().ok_or(MaskError::PathType)?,
            None => "",
        };
        let op = match element.get("op").and_then(Value::as_str) {
            Some("remove") => Op::Remove,
            Some("upsert") => Op::Upsert(element.get("value").cloned().unwrap_or_default()),
            _ => return Err(MaskError::Op),
        };
        Self::new(op, path, budget)
    }

    fn new(op: Op, path: &str, budget: &mut Budget) -> Result<Self, MaskError> {
        budget.spend(path.len())?;
        if path.is_empty() {
            return Err(MaskError::EmptyPath);
        }
        let mut segments = path.strip_prefix('/').ok_or(MaskError::NoSlash)?.split('/');
        let (part, mut escaped_path) = match segments.next() {
            Some("input") => (Part::Input, "/input".to_owned()),
            Some("result") => (Part::Result, "/result".to_owned()),
            Some("nd_builtin_cache") => (Part::NdBuiltinCache, "/nd_builtin_cache".to_owned()),
            _ => return Err(MaskError::Prefix),
        };
        let mut below = Vec::new();
        for segment in segments {
            if !has_valid_escapes(segment) {
                return Err(MaskError::Escape);
            }
            let segment = escaped(segment);
            escaped_path.push('/');
            escaped_path.push_str(&segment);
            below.push(Value::from(&*segment));
        }
        Ok(Self {
            op,
            part,
            segments: below,
            path: escaped_path.into(),
        })
    }
}

/// Whether two hexadecimal digits follow each `%`, as Go's `url.PathUnescape` demands.
fn has_valid_escapes(segment: &str) -> bool {
    let mut parts = segment.split('%');
    parts.next();
    parts.all(|part| matches!(part.as_bytes(), [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()))
}

/// Go's `url.PathEscape`.
fn escaped(segment: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~$&+:=@".contains(&byte);
    if segment.bytes().all(is_plain) {
        return Cow::Borrowed(segment);
    }
    let mut escaped = String::with_capacity(segment.len() + 8);
    for byte in segment.bytes() {
        if is_plain(byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to memory does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    Cow::Owned(escaped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_escaped_as_by_go() {
        assert_eq!(escaped("aZ09-_.~$&+:=@"), "aZ09-_.~$&+:=@");
        assert_eq!(
            escaped("a b;,?/#[]!*'()\"é%2F"),
            "a%20b%3B%2C%3F%2F%23%5B%5D%21%2A%27%28%29%22%C3%A9%252F"
        );
    }

    #[test]
    fn escapes_are_two_digits() {
        for (segment, valid) in [
            ("", true),
            ("%2F", true),
            ("a%c3%A9", true),
            ("%", false),
            ("%2", false),
            ("%zz", false),
            ("%%20", false),
        ] {
            assert_eq!(has_valid_escapes(segment), valid, "{segment}");
        }
    }
}
