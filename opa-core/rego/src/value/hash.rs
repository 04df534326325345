use std::hash::{Hash, Hasher};

use super::{RECURSION_LIMIT, Repr, Value};

/// Equal values have equal hashes: numbers by value, sets and objects by their sorted contents.
impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash_node(state);
        if self.depth() <= RECURSION_LIMIT {
            match &self.0 {
                Repr::Array(list) | Repr::Set(list) => {
                    list.items.iter().for_each(|item| item.hash(state));
                }
                Repr::Object(members) => {
                    for (key, value) in &members.entries {
                        key.hash(state);
                        value.hash(state);
                    }
                }
                _ => {}
            }
            return;
        }
        // The same values in the same order as above.
        let mut pending = Vec::new();
        push_contents(&mut pending, self);
        while let Some(value) = pending.pop() {
            if value.depth() <= RECURSION_LIMIT {
                value.hash(state);
            } else {
                value.hash_node(state);
                push_contents(&mut pending, value);
            }
        }
    }
}

impl Value {
    /// Hashes all but the contents of a container.
    fn hash_node<H: Hasher>(&self, state: &mut H) {
        self.kind().hash(state);
        match &self.0 {
            Repr::Null => {}
            Repr::Boolean(value) => value.hash(state),
            Repr::Number(value) => value.hash(state),
            Repr::String(value) => value.hash(state),
            Repr::Array(list) | Repr::Set(list) => list.items.len().hash(state),
            Repr::Object(members) => members.entries.len().hash(state),
        }
    }
}

fn push_contents<'a>(pending: &mut Vec<&'a Value>, value: &'a Value) {
    match &value.0 {
        Repr::Array(list) | Repr::Set(list) => pending.extend(list.items.iter().rev()),
        Repr::Object(members) => {
            pending.extend(
                members
                    .entries
                    .iter()
                    .rev()
                    .flat_map(|(key, value)| [value, key]),
            );
        }
        _ => {}
    }
}
