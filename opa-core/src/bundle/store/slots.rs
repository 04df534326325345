use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Weak};

use opa_rego::{Value, WeakValue};
use parking_lot::Mutex;

/// How many slots there may be before the unused ones are looked for.
const FIRST_SWEEP: usize = 64;

/// Shared things by their keys. What nobody holds any more is forgotten.
pub(crate) struct Slots<K, T: Held>(pub(super) Mutex<Table<K, T>>);

pub(super) struct Table<K, T: Held> {
    pub(super) slots: HashMap<K, Arc<Slot<T>>>,
    /// At how many slots the unused ones go: their number doubles first, so that looking for them
    /// costs a constant time for each new one.
    sweep_at: usize,
}

/// One entry. Its lock is held while the entry is made, so that equal work waits instead of being
/// done twice.
type Slot<T> = Mutex<Option<<T as Held>::Weak>>;

/// What can be found as long as somebody holds it.
pub(crate) trait Held: Sized {
    type Weak;
    /// `None` for what takes no memory worth sharing.
    fn downgrade(&self) -> Option<Self::Weak>;
    fn upgrade(weak: &Self::Weak) -> Option<Self>;
    fn is_held(weak: &Self::Weak) -> bool;
}

impl<K: Eq + Hash, T: Held> Slots<K, T> {
    /// What there is under `key`, made if nobody holds it. Blocks while another thread makes it.
    pub(crate) fn get_or_make<E>(
        &self,
        key: K,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let slot = self.0.lock().slot(key);
        let mut entry = slot.lock();
        if let Some(made) = entry.as_ref().and_then(T::upgrade) {
            return Ok(made);
        }
        let made = make()?;
        *entry = made.downgrade();
        Ok(made)
    }

    /// How many things are in use.
    #[cfg(test)]
    pub(crate) fn used(&self) -> usize {
        let table = self.0.lock();
        table
            .slots
            .values()
            .filter(|slot| is_held::<T>(slot))
            .count()
    }
}

impl<K: Eq + Hash, T: Held> Table<K, T> {
    fn slot(&mut self, key: K) -> Arc<Slot<T>> {
        if self.slots.len() >= self.sweep_at {
            self.slots.retain(|_, slot| is_held::<T>(slot));
            self.slots.shrink_to(self.slots.len() * 2);
            self.sweep_at = FIRST_SWEEP.max(self.slots.len() * 2);
        }
        Arc::clone(self.slots.entry(key).or_default())
    }
}

/// Also true for a slot that somebody is about to fill.
fn is_held<T: Held>(slot: &Arc<Slot<T>>) -> bool {
    Arc::strong_count(slot) > 1 || slot.lock().as_ref().is_some_and(T::is_held)
}

impl<K, T: Held> fmt::Debug for Slots<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slots")
    }
}

impl<K, T: Held> Default for Slots<K, T> {
    fn default() -> Self {
        Self(Mutex::new(Table {
            slots: HashMap::new(),
            sweep_at: FIRST_SWEEP,
        }))
    }
}

impl<T: ?Sized> Held for Arc<T> {
    type Weak = Weak<T>;

    fn downgrade(&self) -> Option<Weak<T>> {
        Some(Self::downgrade(self))
    }

    fn upgrade(weak: &Weak<T>) -> Option<Self> {
        weak.upgrade()
    }

    fn is_held(weak: &Weak<T>) -> bool {
        weak.strong_count() > 0
    }
}

impl Held for Value {
    type Weak = WeakValue;

    fn downgrade(&self) -> Option<WeakValue> {
        self.downgrade()
    }

    fn upgrade(weak: &WeakValue) -> Option<Self> {
        weak.upgrade()
    }

    fn is_held(weak: &WeakValue) -> bool {
        weak.is_used()
    }
}
