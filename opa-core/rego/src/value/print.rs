use std::fmt;

use super::{Repr, Value};
use crate::json;

/// Writes the value's JSON text, see [`Value::write_json`].
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_json())
    }
}

/// Writes the value as a Rego term, which tells sets from arrays and keys of all kinds apart:
/// `{"a": {1, 2}, 3: set()}`.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_term())
    }
}

/// What is left to write, next on top.
enum Step<'a> {
    Value(&'a Value),
    Text(&'static str),
}

impl Value {
    /// The text of this value as a Rego term.
    pub(crate) fn to_term(&self) -> String {
        let mut out = String::new();
        let mut pending = vec![Step::Value(self)];
        while let Some(step) = pending.pop() {
            match step {
                Step::Text(text) => out.push_str(text),
                Step::Value(value) => match &value.0 {
                    Repr::Array(list) => {
                        push_list(&mut pending, "[", list.items.iter().map(|item| [item]), "]");
                    }
                    Repr::Set(list) if list.items.is_empty() => out.push_str("set()"),
                    Repr::Set(list) => {
                        push_list(&mut pending, "{", list.items.iter().map(|item| [item]), "}");
                    }
                    Repr::Object(members) => {
                        let members = members.entries.iter().map(|(key, value)| [key, value]);
                        push_list(&mut pending, "{", members, "}");
                    }
                    scalar => json::write_scalar(scalar, &mut out),
                },
            }
        }
        out
    }
}

fn push_list<'a, const N: usize>(
    pending: &mut Vec<Step<'a>>,
    open: &'static str,
    items: impl DoubleEndedIterator<Item = [&'a Value; N]>,
    close: &'static str,
) {
    pending.push(Step::Text(close));
    let first = pending.len();
    for item in items.rev() {
        for (index, part) in item.into_iter().enumerate().rev() {
            pending.push(Step::Value(part));
            if index > 0 {
                pending.push(Step::Text(": "));
            }
        }
        pending.push(Step::Text(", "));
    }
    // Before the first item stands no comma.
    if pending.len() > first {
        pending.pop();
    }
    pending.push(Step::Text(open));
}
