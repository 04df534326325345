use std::sync::Arc;

use super::{Repr, Value};
use crate::Number;

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self(Repr::Boolean(value))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self(Repr::String(value.into()))
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self(Repr::String(value.into()))
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Self::from(value.as_str())
    }
}

impl From<Arc<str>> for Value {
    fn from(value: Arc<str>) -> Self {
        Self(Repr::String(value))
    }
}

impl From<Number> for Value {
    fn from(value: Number) -> Self {
        Self(Repr::Number(value))
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::from(Number::from(value))
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::from(Number::from(value))
    }
}

impl From<u16> for Value {
    fn from(value: u16) -> Self {
        Self::from(Number::from(value))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::from(Number::from(value))
    }
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::from(Number::from(value))
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::from(Number::from(value))
    }
}
