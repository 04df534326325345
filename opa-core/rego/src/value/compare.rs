//! Equality and order, as OPA's `ast.Compare` has them.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Kind, RECURSION_LIMIT, Repr, Value};

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Null, Repr::Null) => true,
            (Repr::Boolean(left), Repr::Boolean(right)) => left == right,
            (Repr::Number(left), Repr::Number(right)) => left == right,
            (Repr::String(left), Repr::String(right)) => left == right,
            // Equal values have equal depths, so the recursion below is as deep as either.
            _ if self.depth() != other.depth() => false,
            (Repr::Array(left), Repr::Array(right)) | (Repr::Set(left), Repr::Set(right)) => {
                Arc::ptr_eq(left, right)
                    || left.items.len() == right.items.len() && self.equal_contents(other)
            }
            (Repr::Object(left), Repr::Object(right)) => {
                Arc::ptr_eq(left, right)
                    || left.entries.len() == right.entries.len() && self.equal_contents(other)
            }
            _ => false,
        }
    }
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Repr::Boolean(left), Repr::Boolean(right)) => left.cmp(right),
            (Repr::Number(left), Repr::Number(right)) => left.cmp(right),
            (Repr::String(left), Repr::String(right)) => left.cmp(right),
            (Repr::Array(left), Repr::Array(right)) | (Repr::Set(left), Repr::Set(right)) => {
                if Arc::ptr_eq(left, right) {
                    Ordering::Equal
                } else if self.depth().min(other.depth()) <= RECURSION_LIMIT {
                    left.items.cmp(&right.items)
                } else {
                    compare_deep(self, other)
                }
            }
            (Repr::Object(left), Repr::Object(right)) => {
                if Arc::ptr_eq(left, right) {
                    Ordering::Equal
                } else if self.depth().min(other.depth()) <= RECURSION_LIMIT {
                    left.entries.cmp(&right.entries)
                } else {
                    compare_deep(self, other)
                }
            }
            _ => self.kind().cmp(&other.kind()),
        }
    }
}

impl Value {
    /// Compares with the string `other` without building a value of it.
    pub(super) fn cmp_str(&self, other: &str) -> Ordering {
        match &self.0 {
            Repr::String(own) => (**own).cmp(other),
            _ => self.kind().cmp(&Kind::String),
        }
    }

    fn equal_contents(&self, other: &Self) -> bool {
        if self.depth() > RECURSION_LIMIT {
            return compare_deep(self, other) == Ordering::Equal;
        }
        match (&self.0, &other.0) {
            (Repr::Array(left), Repr::Array(right)) | (Repr::Set(left), Repr::Set(right)) => {
                left.items == right.items
            }
            (Repr::Object(left), Repr::Object(right)) => left.entries == right.entries,
            _ => false,
        }
    }
}

/// What is left to compare, next on top.
enum Step<'a> {
    Values(&'a Value, &'a Value),
    /// All that two containers have in common is equal, so the shorter one is less.
    Lengths(usize, usize),
}

fn compare_deep(left: &Value, right: &Value) -> Ordering {
    let mut pending = Vec::new();
    push_contents(&mut pending, left, right);
    while let Some(step) = pending.pop() {
        let ordering = match step {
            Step::Lengths(left, right) => left.cmp(&right),
            Step::Values(left, right) if is_deep(left, right) => {
                push_contents(&mut pending, left, right);
                continue;
            }
            Step::Values(left, right) => left.cmp(right),
        };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
    Ordering::Equal
}

/// Whether two containers must not be compared by recursion.
fn is_deep(left: &Value, right: &Value) -> bool {
    left.kind() == right.kind() && left.depth().min(right.depth()) > RECURSION_LIMIT
}

fn push_contents<'a>(pending: &mut Vec<Step<'a>>, left: &'a Value, right: &'a Value) {
    match (&left.0, &right.0) {
        (Repr::Array(left), Repr::Array(right)) | (Repr::Set(left), Repr::Set(right)) => {
            if Arc::ptr_eq(left, right) {
                return;
            }
            pending.push(Step::Lengths(left.items.len(), right.items.len()));
            let pairs = left.items.iter().zip(&right.items);
            pending.extend(pairs.rev().map(|(left, right)| Step::Values(left, right)));
        }
        (Repr::Object(left), Repr::Object(right)) => {
            if Arc::ptr_eq(left, right) {
                return;
            }
            pending.push(Step::Lengths(left.entries.len(), right.entries.len()));
            for ((left_key, left), (right_key, right)) in
                left.entries.iter().zip(&right.entries).rev()
            {
                pending.push(Step::Values(left, right));
                pending.push(Step::Values(left_key, right_key));
            }
        }
        _ => {}
    }
}
