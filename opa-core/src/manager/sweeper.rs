//! Closes what stayed unused for the grace period, and frees what nobody uses any more.

use std::sync::Arc;
use std::time::Duration;

use super::Instances;
use super::scheduler::Scheduler;
use crate::instance::Instance;

/// How often the sweeper looks: a quarter of the grace period, within these bounds.
const EVERY: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(5));

pub(super) async fn run(instances: Arc<Instances>, scheduler: Arc<Scheduler>) {
    let every = (instances.grace / 4).clamp(EVERY.0, EVERY.1);
    loop {
        tokio::time::sleep(every).await;
        if instances.sweep() > 0 {
            scheduler.forget_over();
        }
        let unused = instances.shared.unused();
        if !unused.is_empty() {
            // Large data takes long to free, so that is left to a thread that may block.
            drop(tokio::task::spawn_blocking(move || drop(unused)));
        }
    }
}

impl Instances {
    /// Takes the instances out that nobody has used for the grace period, and closes them.
    /// Answers how many.
    pub(super) fn sweep(&self) -> usize {
        let idle: Vec<String> = {
            let by_app = self.by_app.read();
            let idle = by_app
                .iter()
                .filter(|(_, instance)| self.is_expired(instance));
            idle.map(|(key, _)| key.clone()).collect()
        };
        if idle.is_empty() {
            return 0;
        }
        self.shared.hooks.reach("sweep: before the lock");
        let closed: Vec<_> = {
            let mut by_app = self.by_app.write();
            idle.iter()
                .filter_map(|key| self.take_expired(&mut by_app, key))
                .collect()
        };
        self.shared.hooks.reach("sweep: after the lock");
        // Not under the lock: closing tells plugins, which may take their time.
        for instance in &closed {
            instance.close();
        }
        closed.len()
    }

    /// Looks again under the lock: a lease may have been taken, or taken and dropped, meanwhile.
    fn take_expired(
        &self,
        by_app: &mut std::collections::HashMap<String, Arc<Instance>>,
        key: &str,
    ) -> Option<Arc<Instance>> {
        let instance = by_app.get(key)?;
        if !self.is_expired(instance) || !instance.close_unused() {
            return None;
        }
        by_app.remove(key)
    }

    fn is_expired(&self, instance: &Instance) -> bool {
        let grace = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
        instance
            .idle_ms(self.shared.now_ms())
            .is_some_and(|idle| idle >= grace)
    }
}
