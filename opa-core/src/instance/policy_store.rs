use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::Value;
use crate::engine::{Bound, CompileErrors, CompileOptions, Engine, ModuleSet, Policy};

type Digest256 = [u8; 32];

/// Compiled policies, addressed by their content: equal modules are compiled once for all apps,
/// and joined once with equal data. What no snapshot uses is forgotten.
#[derive(Default)]
pub(crate) struct PolicyStore {
    policies: Mutex<HashMap<Digest256, Arc<Slot<dyn Policy>>>>,
    bounds: Mutex<HashMap<Digest256, Arc<Slot<dyn Bound>>>>,
}

/// One entry. Its lock is held while the entry is made, so that equal work waits instead of being
/// done twice.
type Slot<T> = Mutex<Option<Weak<T>>>;

impl PolicyStore {
    /// The policy of `modules`, joined with `data`. Blocks while they are compiled.
    ///
    /// # Errors
    /// What the engine refuses.
    pub(crate) fn bound(
        &self,
        engine: &dyn Engine,
        modules: &ModuleSet,
        (data, data_digest): (&Value, Digest256),
    ) -> Result<Compiled, CompileErrors> {
        let options = CompileOptions::default();
        let mut key = Sha256::new();
        key.update(engine.name());
        key.update([0, u8::from(options.strict_builtin_errors)]);
        key.update(modules.digest());
        let policy_key: Digest256 = key.finalize().into();
        let policy = get_or_make(&self.policies, policy_key, || {
            engine.compile(modules, &options)
        })?;
        let mut key = Sha256::new();
        key.update(policy_key);
        key.update(data_digest);
        let bound = get_or_make(&self.bounds, key.finalize().into(), || policy.bind(data))?;
        Ok(Compiled { policy, bound })
    }

    /// How many policies and how many of them joined with data are in use.
    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        fn used<T: ?Sized>(slots: &Mutex<HashMap<Digest256, Arc<Slot<T>>>>) -> usize {
            let is_used = |slot: &&Arc<Slot<T>>| {
                slot.lock()
                    .as_ref()
                    .is_some_and(|entry| entry.strong_count() > 0)
            };
            slots.lock().values().filter(is_used).count()
        }
        (used(&self.policies), used(&self.bounds))
    }
}

/// A policy, alone and with data. The policy is kept as long as what was made of it.
pub(crate) struct Compiled {
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) bound: Arc<dyn Bound>,
}

fn get_or_make<T: ?Sized>(
    slots: &Mutex<HashMap<Digest256, Arc<Slot<T>>>>,
    key: Digest256,
    make: impl FnOnce() -> Result<Arc<T>, CompileErrors>,
) -> Result<Arc<T>, CompileErrors> {
    let slot = {
        let mut slots = slots.lock();
        // Forgets what is unused: not the slots that somebody is about to fill.
        slots.retain(|_, slot| {
            Arc::strong_count(slot) > 1
                || slot
                    .lock()
                    .as_ref()
                    .is_some_and(|entry| entry.strong_count() > 0)
        });
        Arc::clone(slots.entry(key).or_default())
    };
    let mut entry = slot.lock();
    if let Some(made) = entry.as_ref().and_then(Weak::upgrade) {
        return Ok(made);
    }
    let made = make()?;
    *entry = Some(Arc::downgrade(&made));
    Ok(made)
}
