use std::sync::atomic::{AtomicU64, Ordering};

use crate::Reason;

/// How many decisions of one instance were asked for, and how many ended with which reason.
#[derive(Debug)]
pub(crate) struct Counters {
    asked: AtomicU64,
    ended: [AtomicU64; Reason::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            asked: AtomicU64::new(0),
            ended: [const { AtomicU64::new(0) }; Reason::ALL.len()],
        }
    }
}

impl Counters {
    /// Tells the number of the question, from 1.
    pub(crate) fn ask(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    pub(crate) fn count(&self, reason: Reason) {
        if let Some(counter) = self.ended.get(reason.index()) {
            counter.fetch_add(1, Ordering::Release);
        }
    }

    /// The decisions under way. What ended is read first, so that none is missed.
    pub(crate) fn in_flight(&self) -> u64 {
        let ended = self
            .ended
            .iter()
            .map(|counter| counter.load(Ordering::Acquire))
            .sum();
        self.asked.load(Ordering::Relaxed).saturating_sub(ended)
    }

    pub(crate) fn read(&self) -> DecisionCounts {
        let mut counts = DecisionCounts::default();
        for (count, counter) in counts.0.iter_mut().zip(&self.ended) {
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
        Reason::ALL
            .into_iter()
            .zip(self.0)
            .filter(|(_, count)| *count > 0)
    }
}
