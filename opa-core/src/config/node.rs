//! The filled configuration: a tree whose nodes know where they stand in the file.

use std::sync::Arc;

use serde_json::Number;

use super::error::Position;

/// A value and its place. Clones share the contents.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    /// Unknown for sections that were built in code.
    pub(crate) position: Option<Position>,
    /// The value holds the app's name, so it differs between the apps of one template.
    pub(crate) per_app: bool,
    /// The override that the position is in, if it isn't in the file.
    pub(crate) flag: Option<Arc<str>>,
}

/// The JSON data model.
#[derive(Clone)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(Arc<str>),
    Array(Arc<[Node]>),
    Object(Arc<[Entry]>),
}

/// A member of an object, in file order. Keys are unique within an object.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) key: Arc<str>,
    pub(crate) key_position: Option<Position>,
    pub(crate) node: Node,
}

impl Value {
    /// The kind of value in words, with its article, for messages.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl Node {
    /// The same value without positions.
    ///
    /// Recursion is bounded: rendering bounds the depth of every tree.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Number(value) => serde_json::Value::Number(value.clone()),
            Value::String(value) => (**value).into(),
            Value::Array(items) => items.iter().map(Self::to_json).collect(),
            Value::Object(entries) => serde_json::Value::Object(
                entries
                    .iter()
                    .map(|e| (e.key.to_string(), e.node.to_json()))
                    .collect(),
            ),
        }
    }

    /// Whether both say the same, wherever they stand.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (&self.value, &other.value) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Number(a), Value::Number(b)) => a == b,
            (Value::String(a), Value::String(b)) => a == b,
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(&**b).all(|(a, b)| a.is_same(b))
            }
            (Value::Object(a), Value::Object(b)) => {
                let same = |(a, b): (&Entry, &Entry)| a.key == b.key && a.node.is_same(&b.node);
                a.len() == b.len() && a.iter().zip(&**b).all(same)
            }
            _ => false,
        }
    }

    /// An empty object in place of null.
    pub(crate) fn or_empty_object(self) -> Self {
        if self.value.is_null() {
            return Self {
                value: Value::Object(Arc::new([])),
                ..self
            };
        }
        self
    }

    /// A tree without positions.
    pub(crate) fn from_json(json: &serde_json::Value) -> Self {
        let value = match json {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(*value),
            serde_json::Value::Number(value) => Value::Number(value.clone()),
            serde_json::Value::String(value) => Value::String(value.as_str().into()),
            serde_json::Value::Array(items) => {
                Value::Array(items.iter().map(Self::from_json).collect())
            }
            serde_json::Value::Object(members) => Value::Object(
                members
                    .iter()
                    .map(|(key, value)| Entry {
                        key: key.as_str().into(),
                        key_position: None,
                        node: Self::from_json(value),
                    })
                    .collect(),
            ),
        };
        Self {
            value,
            position: None,
            per_app: false,
            flag: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn json_survives_the_round_trip() {
        let value = json!({"a": [1, -2, 1.5, "x", true, null], "b": {"c": {}}});
        assert_eq!(Node::from_json(&value).to_json(), value);
    }
}
