//! The names of members, which repeat in most documents, held once.

use std::fmt;

use crate::value::Value;

/// How many names are remembered.
const SLOTS: usize = 256;

/// Longer names are unlikely to repeat.
const LONGEST: usize = 64;

/// The names that were read last. Two names of one slot displace each other, so that looking one
/// up costs next to nothing whatever the names are.
pub(super) struct Names(Box<[Value]>);

impl Names {
    /// The string `name`.
    pub(super) fn value(&mut self, name: &str) -> Value {
        if name.len() > LONGEST {
            return Value::from(name);
        }
        let Some(slot) = self.0.get_mut(slot_of(name)) else {
            return Value::from(name);
        };
        if slot.as_str() != Some(name) {
            *slot = Value::from(name);
        }
        slot.clone()
    }
}

/// FNV-1a.
fn slot_of(name: &str) -> usize {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    usize::try_from(hash >> 32).unwrap_or_default() % SLOTS
}

impl Default for Names {
    fn default() -> Self {
        Self(std::iter::repeat_n(Value::NULL, SLOTS).collect())
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}
