//! What is opened up, and how it comes together again.

use std::collections::BTreeMap;

use opa_rego::Value;

/// A container that was opened up.
#[derive(Debug)]
pub(super) enum Node {
    Object {
        base: Value,
        /// What is set, or is gone.
        changes: BTreeMap<Value, Option<Slot>>,
    },
    Array(Vec<Slot>),
}

/// What a member or item is.
#[derive(Debug, Clone)]
pub(super) enum Slot {
    Value(Value),
    Node(usize),
}

impl Node {
    pub(super) fn object(base: Value) -> Self {
        Self::Object {
            base,
            changes: BTreeMap::new(),
        }
    }

    pub(super) fn array(items: &[Value]) -> Self {
        Self::Array(items.iter().cloned().map(Slot::Value).collect())
    }
}

/// Whether an object has a member now.
pub(super) fn has(base: &Value, changes: &BTreeMap<Value, Option<Slot>>, key: &Value) -> bool {
    match changes.get(key) {
        Some(changed) => changed.is_some(),
        None => base.as_object().is_some_and(|base| base.get(key).is_some()),
    }
}

/// The tree of `nodes`, whose root comes first, and each behind the one that it hangs in.
pub(super) fn finish(nodes: Vec<Node>) -> Value {
    let mut finished: Vec<Option<Value>> = vec![None; nodes.len()];
    for (position, node) in nodes.into_iter().enumerate().rev() {
        let mut value_of = |slot| match slot {
            Slot::Value(value) => value,
            Slot::Node(node) => finished
                .get_mut(node)
                .and_then(Option::take)
                .unwrap_or_default(),
        };
        let value = match node {
            Node::Array(items) => Value::array(items.into_iter().map(value_of)),
            Node::Object { base, changes } if changes.is_empty() => base,
            Node::Object { base, changes } => {
                // Of entries with equal keys the last one stays.
                let (set, gone): (Vec<_>, Vec<_>) = changes
                    .into_iter()
                    .map(|(key, slot)| (key, slot.map(&mut value_of)))
                    .partition(|(_, value)| value.is_some());
                merged(&base, set, &gone)
            }
        };
        if let Some(slot) = finished.get_mut(position) {
            *slot = Some(value);
        }
    }
    finished
        .into_iter()
        .next()
        .flatten()
        .unwrap_or_else(Value::empty_object)
}

type Change = (Value, Option<Value>);

/// The members of `base`, without those that are gone, with those that are set. Both lists are
/// sorted.
fn merged(base: &Value, set: Vec<Change>, gone: &[Change]) -> Value {
    let mut gone = gone.iter().peekable();
    let members = base.as_object().into_iter().flatten();
    let kept = members.filter(|(key, _)| {
        while gone.next_if(|(gone, _)| gone < *key).is_some() {}
        gone.peek().is_none_or(|(gone, _)| gone != *key)
    });
    let kept = kept.map(|(key, value)| (key.clone(), value.clone()));
    let set = set
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    Value::object(kept.chain(set))
}

/// About how many bytes of JSON a value is.
pub(in super::super) fn size(value: &Value) -> u64 {
    let mut pending = vec![value];
    let mut size = 0_u64;
    while let Some(value) = pending.pop() {
        let own = match value.as_str() {
            Some(text) => text.len() as u64 + 2,
            None => 4,
        };
        size = size.saturating_add(own);
        pending.extend(value.as_array().into_iter().flatten());
        for (key, value) in value.as_object().into_iter().flatten() {
            pending.extend([key, value]);
        }
    }
    size
}
