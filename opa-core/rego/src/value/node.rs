//! The shared containers: built once, they know their depth and come apart without recursion.

use std::mem;
use std::sync::Arc;

use super::{RECURSION_LIMIT, Repr, Value};

/// The items of an array or a set.
pub(crate) struct List {
    pub(super) depth: usize,
    pub(crate) items: Box<[Value]>,
}

/// The members of an object, sorted by key, keys distinct.
pub(crate) struct Members {
    pub(super) depth: usize,
    pub(crate) entries: Box<[(Value, Value)]>,
}

impl List {
    pub(super) fn new(items: Vec<Value>) -> Self {
        let below = items.iter().map(Value::depth).max().unwrap_or(0);
        Self {
            depth: below + 1,
            items: items.into(),
        }
    }

    fn take(&mut self) -> impl Iterator<Item = Value> + use<> {
        mem::take(&mut self.items).into_iter()
    }
}

impl Members {
    pub(super) fn new(entries: Vec<(Value, Value)>) -> Self {
        let below = entries
            .iter()
            .map(|(key, value)| key.depth().max(value.depth()))
            .max();
        Self {
            depth: below.unwrap_or(0) + 1,
            entries: entries.into(),
        }
    }

    fn take(&mut self) -> impl Iterator<Item = Value> + use<> {
        mem::take(&mut self.entries)
            .into_iter()
            .flat_map(|(key, value)| [key, value])
    }
}

impl Drop for List {
    fn drop(&mut self) {
        if self.depth > RECURSION_LIMIT {
            release(self.take().collect());
        }
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        if self.depth > RECURSION_LIMIT {
            release(self.take().collect());
        }
    }
}

/// Drops values of any depth with a work list. Shallow ones are left to plain recursion.
fn release(mut pending: Vec<Value>) {
    while let Some(value) = pending.pop() {
        if value.depth() <= RECURSION_LIMIT {
            continue;
        }
        // Of all owners of a container exactly one gets its items, even if they drop it at once.
        match value.0 {
            Repr::Array(list) | Repr::Set(list) => {
                pending.extend(
                    Arc::into_inner(list)
                        .into_iter()
                        .flat_map(|mut list| list.take()),
                );
            }
            Repr::Object(members) => {
                let members = Arc::into_inner(members);
                pending.extend(members.into_iter().flat_map(|mut members| members.take()));
            }
            _ => {}
        }
    }
}
