use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::time::Instant;

use super::{Hooks, PolicyStore, Snapshot};
use crate::bundle::store::Store;
use crate::engine::{Budget, Clock, Engine, PrintSink, Runner};

/// What all instances of a manager share.
pub(crate) struct Shared {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) runner: Arc<Runner>,
    pub(crate) store: PolicyStore,
    pub(crate) bundles: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) budget: Budget,
    pub(crate) prints: Option<Arc<dyn PrintSink>>,
    pub(crate) origin: Instant,
    pub(crate) next_key: AtomicU64,
    pub(crate) hooks: Hooks,
    /// Snapshots that were swapped out. They are kept until no decision uses them, so that none is
    /// freed on a request's thread.
    retired: parking_lot::Mutex<Vec<Arc<Snapshot>>>,
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
            origin: Instant::now(),
            next_key: AtomicU64::new(0),
            hooks: Hooks::default(),
            retired: parking_lot::Mutex::default(),
        }
    }

    /// Milliseconds since the manager was built, by Tokio's clock.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn retire(&self, snapshot: Option<Arc<Snapshot>>) {
        self.retired.lock().extend(snapshot);
    }

    /// The retired snapshots that nobody uses any more, to be dropped on a thread that may block.
    pub(crate) fn unused_snapshots(&self) -> Vec<Arc<Snapshot>> {
        let mut retired = self.retired.lock();
        let (unused, used) = retired
            .drain(..)
            .partition(|snapshot| Arc::strong_count(snapshot) == 1);
        *retired = used;
        unused
    }
}
