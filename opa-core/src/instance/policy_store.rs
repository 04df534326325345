use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::Value;
use crate::bundle::store::{Sha256Digest, Slots};
use crate::engine::{Bound, CompileErrors, CompileOptions, Engine, ModuleSet, Policy};

/// Compiled policies, addressed by their content: equal modules are compiled once for all apps,
/// and joined once with equal data. What no snapshot uses is forgotten.
#[derive(Default)]
pub(crate) struct PolicyStore {
    policies: Slots<Sha256Digest, Arc<dyn Policy>>,
    bounds: Slots<Sha256Digest, Arc<dyn Bound>>,
}

impl PolicyStore {
    /// The policy of `modules`, joined with `data`. Blocks while they are compiled.
    ///
    /// # Errors
    /// What the engine refuses.
    pub(crate) fn bound(
        &self,
        engine: &dyn Engine,
        modules: &ModuleSet,
        (data, data_digest): (&Value, Sha256Digest),
    ) -> Result<Compiled, CompileErrors> {
        let options = CompileOptions::default();
        let mut key = Sha256::new();
        key.update(engine.name());
        key.update([0, u8::from(options.strict_builtin_errors)]);
        key.update(modules.digest());
        let policy_key: Sha256Digest = key.finalize().into();
        let compile = || engine.compile(modules, &options);
        let policy = self.policies.get_or_make(policy_key, compile)?;
        let mut key = Sha256::new();
        key.update(policy_key);
        key.update(data_digest);
        let bind = || policy.bind(data);
        let bound = self.bounds.get_or_make(key.finalize().into(), bind)?;
        Ok(Compiled { policy, bound })
    }

    /// How many policies and how many of them joined with data are in use.
    #[cfg(test)]
    pub(crate) fn len(&self) -> (usize, usize) {
        (self.policies.used(), self.bounds.used())
    }
}

/// A policy, alone and with data. The policy is kept as long as what was made of it.
pub(crate) struct Compiled {
    pub(crate) policy: Arc<dyn Policy>,
    pub(crate) bound: Arc<dyn Bound>,
}
