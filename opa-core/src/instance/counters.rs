use std::sync::atomic::{AtomicU64, Ordering};

use crate::Reason;

/// How many decisions of one instance ended with which reason.
#[derive(Debug)]
pub(crate) struct Counters([AtomicU64; Reason::ALL.len()]);

impl Default for Counters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; Reason::ALL.len()])
    }
}

impl Counters {
    pub(crate) fn count(&self, reason: Reason) {
        if let Some(counter) = self.0.get(reason.index()) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn read(&self) -> DecisionCounts {
        let mut counts = DecisionCounts::default();
        for (count, counter) in counts.0.iter_mut().zip(&self.0) {
            *count = counter.load(Ordering::Relaxed);
        }
        counts
    }
}

/// A reading of an instance's counters of decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecisionCounts([u64; Reason::ALL.len()]);

impl DecisionCounts {
    /// How many decisions ended with `reason`.
    #[must_use]
    pub fn of(&self, reason: Reason) -> u64 {
        self.0.get(reason.index()).copied().unwrap_or_default()
    }

    /// All decisions that were asked for and have ended.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}
