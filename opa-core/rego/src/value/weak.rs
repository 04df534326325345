use std::fmt;
use std::sync::{Arc, Weak};

use super::node::{List, Members};
use super::{Repr, Value};

/// A reference to an array, object or set that does not keep its contents in memory: for stores
/// that hand the same value to all who need an equal one.
///
/// ```
/// use opa_rego::Value;
///
/// let data = Value::array([Value::from(1)]);
/// let weak = data.downgrade().expect("an array is shared");
/// assert!(weak.is_of(&data));
/// assert!(weak.upgrade().is_some_and(|found| Value::ptr_eq(&found, &data)));
/// drop(data);
/// assert!(weak.upgrade().is_none());
/// ```
#[derive(Clone)]
pub struct WeakValue(WeakRepr);

#[derive(Clone)]
enum WeakRepr {
    Array(Weak<List>),
    Object(Weak<Members>),
    Set(Weak<List>),
}

impl Value {
    /// A reference that does not keep the value's contents in memory, or `None` for a value that has
    /// none: strings and other scalars.
    pub fn downgrade(&self) -> Option<WeakValue> {
        let weak = match &self.0 {
            Repr::Array(list) => WeakRepr::Array(Arc::downgrade(list)),
            Repr::Object(members) => WeakRepr::Object(Arc::downgrade(members)),
            Repr::Set(list) => WeakRepr::Set(Arc::downgrade(list)),
            Repr::Null | Repr::Boolean(_) | Repr::Number(_) | Repr::String(_) => return None,
        };
        Some(WeakValue(weak))
    }

    /// Whether both are the same value in memory; never for null, booleans and numbers.
    pub fn ptr_eq(left: &Self, right: &Self) -> bool {
        match (&left.0, &right.0) {
            (Repr::String(left), Repr::String(right)) => Arc::ptr_eq(left, right),
            (Repr::Object(left), Repr::Object(right)) => Arc::ptr_eq(left, right),
            (Repr::Array(left), Repr::Array(right)) | (Repr::Set(left), Repr::Set(right)) => {
                Arc::ptr_eq(left, right)
            }
            _ => false,
        }
    }
}

impl WeakValue {
    /// The value, if somebody still holds it.
    pub fn upgrade(&self) -> Option<Value> {
        Some(Value(match &self.0 {
            WeakRepr::Array(list) => Repr::Array(list.upgrade()?),
            WeakRepr::Object(members) => Repr::Object(members.upgrade()?),
            WeakRepr::Set(list) => Repr::Set(list.upgrade()?),
        }))
    }

    /// Whether this is a reference to the very value `value`.
    pub fn is_of(&self, value: &Value) -> bool {
        match (&self.0, &value.0) {
            (WeakRepr::Object(weak), Repr::Object(members)) => {
                std::ptr::eq(weak.as_ptr(), Arc::as_ptr(members))
            }
            (WeakRepr::Array(weak), Repr::Array(list)) | (WeakRepr::Set(weak), Repr::Set(list)) => {
                std::ptr::eq(weak.as_ptr(), Arc::as_ptr(list))
            }
            _ => false,
        }
    }

    /// Whether somebody still holds the value.
    pub fn is_used(&self) -> bool {
        let holders = match &self.0 {
            WeakRepr::Array(list) | WeakRepr::Set(list) => list.strong_count(),
            WeakRepr::Object(members) => members.strong_count(),
        };
        holders > 0
    }
}

impl fmt::Debug for WeakValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakValue")
    }
}
