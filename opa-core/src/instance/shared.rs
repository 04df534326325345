use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;

use super::activation::Loaded;
use super::{Hooks, PolicyStore, Snapshot, Tracing};
use crate::bundle::store::Store;
use crate::engine::{Budget, Clock, Engine, PrintSink, Runner};
use crate::histogram::Sharded;
use crate::plugin::LoadTimes;

/// What all instances of a manager share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) runner: Arc<Runner>,
    pub(crate) store: PolicyStore,
    pub(crate) bundles: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) budget: Budget,
    pub(crate) prints: Option<Arc<dyn PrintSink>>,
    pub(crate) tracing: Tracing,
    pub(crate) origin: Instant,
    pub(crate) next_key: AtomicU64,
    pub(crate) hooks: Hooks,
    /// How long decisions take, once somebody wants to know.
    pub(crate) decision_times: OnceLock<Sharded>,
    pub(crate) loads: Loads,
    /// What is kept until nobody uses it, so that nothing large is freed on a request's thread.
    retired: parking_lot::Mutex<Retired>,
}

/// How long loading bundles took.
#[derive(Default)]
pub(crate) struct Loads {
    /// Of all apps.
    pub(crate) times: parking_lot::Mutex<LoadTimes>,
    /// Whether each bundle of each app notes it, too.
    pub(crate) by_app: AtomicBool,
}

/// What was served once.
#[derive(Default)]
pub(crate) struct Retired {
    snapshots: Vec<Arc<Snapshot>>,
    /// The bundles of instances that are closed.
    loaded: Vec<Arc<tokio::sync::Mutex<Loaded>>>,
}

/// What nobody uses any more, to be dropped on a thread that may block.
#[derive(Default)]
pub(crate) struct Unused {
    snapshots: Vec<Arc<Snapshot>>,
    loaded: Vec<Loaded>,
}

impl Shared {
    pub(crate) fn new(
        engine: Arc<dyn Engine>,
        runner: Runner,
        clock: Arc<dyn Clock>,
        budget: Budget,
        prints: Option<Arc<dyn PrintSink>>,
    ) -> Self {
        Self {
            engine,
            runner: Arc::new(runner),
            store: PolicyStore::default(),
            bundles: Store::default(),
            clock,
            budget,
            prints,
            tracing: Tracing::default(),
            origin: Instant::now(),
            next_key: AtomicU64::new(0),
            hooks: Hooks::default(),
            decision_times: OnceLock::new(),
            loads: Loads::default(),
            retired: parking_lot::Mutex::default(),
        }
    }

    /// Milliseconds since the manager was built, by Tokio's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        self.ms_at(Instant::now())
    }

    /// Milliseconds from when the manager was built to then.
    pub(crate) fn ms_at(&self, then: Instant) -> u64 {
        let since = then.saturating_duration_since(self.origin);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn retire(&self, snapshot: Option<Arc<Snapshot>>) {
        self.retired.lock().snapshots.extend(snapshot);
    }

    /// Takes the bundles of an instance that is closed.
    pub(crate) fn retire_loaded(&self, loaded: Arc<tokio::sync::Mutex<Loaded>>) {
        self.retired.lock().loaded.push(loaded);
    }

    /// What was retired and nobody uses any more.
    pub(crate) fn unused(&self) -> Unused {
        self.retired.lock().take_unused()
    }

    /// Frees what was retired on a thread of its own.
    pub(crate) fn free_retired(&self) {
        self.unused().free();
    }
}

impl Retired {
    fn take_unused(&mut self) -> Unused {
        let is_unused = |snapshot: &mut Arc<Snapshot>| Arc::strong_count(snapshot) == 1;
        let snapshots = self.snapshots.extract_if(.., is_unused).collect();
        let mut loaded = Vec::new();
        // An activation that is under way has the lock.
        self.loaded.retain(|retired| {
            let free = retired
                .try_lock()
                .map(|mut free| std::mem::take(&mut *free));
            let busy = free.is_err();
            loaded.extend(free);
            busy
        });
        Unused { snapshots, loaded }
    }
}

impl Unused {
    pub(crate) fn is_empty(&self) -> bool {
        self.snapshots.is_empty() && self.loaded.is_empty()
    }

    /// Drops all on a thread of its own, for when there is no runtime any more.
    fn free(self) {
        if self.is_empty() {
            return;
        }
        let builder = std::thread::Builder::new().name("opa-free".into());
        if let Err(error) = builder.spawn(move || drop(self)) {
            tracing::warn!(target: "opa::instance", "no thread to free memory on: {error}");
        }
    }
}

impl Drop for Shared {
    /// The last lease may be a request's.
    fn drop(&mut self) {
        let Retired { snapshots, loaded } = std::mem::take(self.retired.get_mut());
        let loaded = loaded
            .into_iter()
            .filter_map(|loaded| Some(std::mem::take(&mut *loaded.try_lock().ok()?)));
        let loaded = loaded.collect();
        Unused { snapshots, loaded }.free();
    }
}
