//! Values: what policies read (input, data) and answer.
//!
//! A [`Value`] is a JSON value, or a set, or an object whose keys are any values. It is immutable
//! and shared: cloning one copies a pointer, whatever its size. Equality, order and hash are Rego's
//! (numbers by value, kinds in the order of [`Kind`]).
//!
//! Nesting of any depth is safe on a stack of any usual size: nothing here recurses deeper than 64
//! levels, dropping included.
//!
//! ```
//! use opa_rego::Value;
//!
//! let input = Value::from_json(br#"{"method": "GET", "path": ["orders", "7"]}"#)?;
//! assert_eq!(input.get("method").and_then(Value::as_str), Some("GET"));
//! assert_eq!(input.at(&["path", "1"]), Some(&Value::from("7")));
//!
//! let roles = Value::set([Value::from("b"), Value::from("a"), Value::from("b")]);
//! assert_eq!(roles.to_json(), r#"["a","b"]"#);
//! # Ok::<(), opa_rego::JsonError>(())
//! ```

use std::sync::Arc;

pub use kind::Kind;
pub use view::{ObjectIter, ObjectView, SetView};
pub use weak::WeakValue;

use crate::Number;
use node::{List, Members};

mod compare;
mod convert;
mod hash;
mod kind;
mod node;
mod print;
mod serde;
mod view;
mod weak;

/// Up to this depth a value is walked by plain recursion, above it with a work list.
const RECURSION_LIMIT: usize = 64;

/// A Rego value. See the [module docs](self).
#[derive(Clone, Default)]
pub struct Value(pub(crate) Repr);

/// How a value is held; private, so that it can become smaller.
#[derive(Clone, Default)]
pub(crate) enum Repr {
    #[default]
    Null,
    Boolean(bool),
    Number(Number),
    String(Arc<str>),
    Array(Arc<List>),
    Object(Arc<Members>),
    /// Sorted, without duplicates.
    Set(Arc<List>),
}

impl Value {
    /// `null`, also the [`Default`].
    pub const NULL: Self = Self(Repr::Null);

    /// An array of `items`, in their order.
    pub fn array(items: impl IntoIterator<Item = Value>) -> Self {
        Self(Repr::Array(Arc::new(List::new(
            items.into_iter().collect(),
        ))))
    }

    /// A set of `items`. Of equal items the first stays.
    pub fn set(items: impl IntoIterator<Item = Value>) -> Self {
        let mut items: Vec<_> = items.into_iter().collect();
        items.sort();
        items.dedup();
        Self(Repr::Set(Arc::new(List::new(items))))
    }

    /// An object of `entries`. Of entries with equal keys the last value stays.
    ///
    /// ```
    /// use opa_rego::Value;
    ///
    /// let object = Value::object([
    ///     (Value::from("b"), Value::from(1)),
    ///     (Value::from("a"), Value::from(2)),
    ///     (Value::from("b"), Value::from(3)),
    /// ]);
    /// assert_eq!(object.to_json(), r#"{"a":2,"b":3}"#);
    /// ```
    pub fn object(entries: impl IntoIterator<Item = (Value, Value)>) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        entries.sort_by(|(left, _), (right, _)| left.cmp(right));
        entries.dedup_by(|(key, value), (kept_key, kept_value)| {
            let duplicate = key == kept_key;
            if duplicate {
                std::mem::swap(value, kept_value);
            }
            duplicate
        });
        Self(Repr::Object(Arc::new(Members::new(entries))))
    }

    /// The object without members, `{}`.
    pub fn empty_object() -> Self {
        Self::object([])
    }

    /// What kind of value this is.
    pub fn kind(&self) -> Kind {
        match &self.0 {
            Repr::Null => Kind::Null,
            Repr::Boolean(_) => Kind::Boolean,
            Repr::Number(_) => Kind::Number,
            Repr::String(_) => Kind::String,
            Repr::Array(_) => Kind::Array,
            Repr::Object(_) => Kind::Object,
            Repr::Set(_) => Kind::Set,
        }
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self.0, Repr::Null)
    }

    /// The boolean, or `None` for another kind.
    pub fn as_bool(&self) -> Option<bool> {
        match self.0 {
            Repr::Boolean(value) => Some(value),
            _ => None,
        }
    }

    /// The string, or `None` for another kind.
    pub fn as_str(&self) -> Option<&str> {
        match &self.0 {
            Repr::String(value) => Some(value),
            _ => None,
        }
    }

    /// The number, or `None` for another kind.
    pub fn as_number(&self) -> Option<&Number> {
        match &self.0 {
            Repr::Number(value) => Some(value),
            _ => None,
        }
    }

    /// The number, if it is an integer in the range of `i64`, see [`Number::as_i64`].
    pub fn as_i64(&self) -> Option<i64> {
        self.as_number()?.as_i64()
    }

    /// The items of an array, or `None` for another kind (also for a set).
    pub fn as_array(&self) -> Option<&[Value]> {
        match &self.0 {
            Repr::Array(list) => Some(&list.items),
            _ => None,
        }
    }

    /// A view of a set, or `None` for another kind.
    pub fn as_set(&self) -> Option<SetView<'_>> {
        match &self.0 {
            Repr::Set(list) => Some(SetView { items: &list.items }),
            _ => None,
        }
    }

    /// A view of an object, or `None` for another kind.
    pub fn as_object(&self) -> Option<ObjectView<'_>> {
        match &self.0 {
            Repr::Object(members) => Some(ObjectView {
                entries: &members.entries,
            }),
            _ => None,
        }
    }

    /// The member of an object with the string key `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.as_object()?.get_str(key)
    }

    /// The value below this one at `path`: each segment is a string key of an object or the
    /// decimal index of an array. The empty path gives this value.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter()
            .try_fold(self, |value, segment| match value.as_array() {
                Some(items) => items.get(array_index(segment)?),
                None => value.get(segment),
            })
    }

    /// How many items or members an array, set or object has; `None` for a scalar.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a scalar has no length; views have is_empty"
    )]
    pub fn len(&self) -> Option<usize> {
        match &self.0 {
            Repr::Array(list) | Repr::Set(list) => Some(list.items.len()),
            Repr::Object(members) => Some(members.entries.len()),
            _ => None,
        }
    }

    /// How deep arrays, sets and objects are nested: 0 for a scalar, 1 for `[]` and `[1]`, 2 for
    /// `[[]]`. Costs nothing: containers know their depth.
    pub fn depth(&self) -> usize {
        match &self.0 {
            Repr::Array(list) | Repr::Set(list) => list.depth,
            Repr::Object(members) => members.depth,
            _ => 0,
        }
    }
}

/// Only the canonical form, so that each item has one path.
fn array_index(segment: &str) -> Option<usize> {
    let canonical = segment == "0" || !segment.starts_with(['0', '+']);
    canonical.then(|| segment.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
