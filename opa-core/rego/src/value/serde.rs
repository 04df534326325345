//! To and from `serde_json::Value`, children before their containers, with work lists.

use serde_json::Value as Json;

use super::{Repr, Value};
use crate::Number;
use crate::json::key_text;

/// What is left to convert, next on top.
enum Step<T> {
    Open(T),
    /// All that is in this container is converted.
    Close(T),
}

/// Takes `json` apart without recursion as well, which its own `Drop` doesn't.
impl From<Json> for Value {
    fn from(json: Json) -> Self {
        let value = Self::from(&json);
        release(json);
        value
    }
}

impl From<&Json> for Value {
    fn from(json: &Json) -> Self {
        let mut done = Vec::new();
        let mut pending = vec![Step::Open(json)];
        while let Some(step) = pending.pop() {
            let value = match step {
                Step::Open(container @ (Json::Array(_) | Json::Object(_))) => {
                    pending.push(Step::Close(container));
                    pending.extend(json_children(container).map(Step::Open));
                    continue;
                }
                Step::Close(Json::Array(items)) => Self::array(take_last(&mut done, items.len())),
                Step::Close(Json::Object(members)) => {
                    let values = take_last(&mut done, members.len());
                    Self::object(members.keys().map(Self::from).zip(values))
                }
                Step::Open(scalar) | Step::Close(scalar) => from_scalar(scalar),
            };
            done.push(value);
        }
        done.pop().unwrap_or_default()
    }
}

impl Value {
    /// Converts to `serde_json`'s value: sets become arrays, keys that aren't strings their JSON
    /// text (see [`write_json`](Self::write_json)).
    ///
    /// A number that is no 64-bit integer becomes the nearest `f64`, beyond its range the largest
    /// one of its sign, unless the program switches on `serde_json`'s `arbitrary_precision`.
    ///
    /// Beware of deep values (see [`depth`](Self::depth)): `serde_json` drops, prints and compares
    /// its values by recursion. Convert them back to drop them without.
    pub fn to_serde(&self) -> Json {
        let mut done = Vec::new();
        let mut pending = vec![Step::Open(self)];
        while let Some(step) = pending.pop() {
            let json = match step {
                Step::Open(container) if container.depth() > 0 => {
                    pending.push(Step::Close(container));
                    pending.extend(container.children_reversed().map(Step::Open));
                    continue;
                }
                Step::Open(value) | Step::Close(value) => value.to_json_node(&mut done),
            };
            done.push(json);
        }
        done.pop().unwrap_or_default()
    }

    /// Converts this value, taking the contents of a container from the end of `done`.
    fn to_json_node(&self, done: &mut Vec<Json>) -> Json {
        match &self.0 {
            Repr::Null => Json::Null,
            Repr::Boolean(value) => Json::Bool(*value),
            Repr::Number(value) => Json::Number(to_number(value)),
            Repr::String(value) => Json::String(value.as_ref().to_owned()),
            Repr::Array(list) | Repr::Set(list) => Json::Array(take_last(done, list.items.len())),
            Repr::Object(members) => {
                let values = take_last(done, members.entries.len());
                let keys = members
                    .entries
                    .iter()
                    .map(|(key, _)| key_text(key).into_owned());
                Json::Object(keys.zip(values).collect())
            }
        }
    }

    /// The items of a list or the values of an object, last first.
    fn children_reversed(&self) -> Box<dyn Iterator<Item = &Value> + '_> {
        match &self.0 {
            Repr::Array(list) | Repr::Set(list) => Box::new(list.items.iter().rev()),
            Repr::Object(members) => Box::new(members.entries.iter().rev().map(|(_, value)| value)),
            _ => Box::new(std::iter::empty()),
        }
    }
}

fn json_children(json: &Json) -> Box<dyn Iterator<Item = &Json> + '_> {
    match json {
        Json::Array(items) => Box::new(items.iter().rev()),
        Json::Object(members) => Box::new(members.values().rev()),
        _ => Box::new(std::iter::empty()),
    }
}

fn from_scalar(json: &Json) -> Value {
    match json {
        Json::Bool(value) => Value::from(*value),
        Json::Number(value) => Value::from(from_number(value)),
        Json::String(value) => Value::from(value),
        Json::Null | Json::Array(_) | Json::Object(_) => Value::NULL,
    }
}

fn from_number(number: &serde_json::Number) -> Number {
    match number.as_i64() {
        Some(value) => Number::from(value),
        // Whatever the program's `serde_json` holds, its text is a JSON number.
        None => Number::from_scanned(&number.to_string()),
    }
}

fn to_number(number: &Number) -> serde_json::Number {
    let text = number.as_str();
    serde_json::from_str(&text).unwrap_or_else(|_| {
        // Only a number beyond the range of `f64` is refused.
        let largest = if text.starts_with('-') {
            f64::MIN
        } else {
            f64::MAX
        };
        serde_json::Number::from_f64(largest).unwrap_or_else(|| 0.into())
    })
}

fn take_last<T>(done: &mut Vec<T>, count: usize) -> Vec<T> {
    done.split_off(done.len().saturating_sub(count))
}

/// Drops `json` with a work list.
fn release(json: Json) {
    let mut pending = vec![json];
    while let Some(json) = pending.pop() {
        match json {
            Json::Array(items) => pending.extend(items),
            Json::Object(members) => pending.extend(members.into_iter().map(|(_, value)| value)),
            _ => {}
        }
    }
}
