use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{DecisionCounts, Instance};
use crate::AppId;
use crate::plugin::{InstanceStatus, State};

/// A lease on the virtual OPA of one app: what a route holds.
///
/// Cloning and dropping are atomic writes. When the last lease is dropped the grace period starts;
/// a lease taken within it finds the instance warm. A lease that outlives its manager answers
/// [`Reason::Closed`](crate::Reason::Closed). See the [module docs](crate::instance).
pub struct App {
    pub(crate) instance: Arc<Instance>,
}

impl App {
    /// Takes a lease, unless the instance is closed.
    pub(crate) fn lease(instance: &Arc<Instance>) -> Option<Self> {
        instance.leases.acquire().then(|| Self {
            instance: Arc::clone(instance),
        })
    }

    /// The app's name.
    #[must_use]
    pub fn id(&self) -> &AppId {
        &self.instance.id
    }

    /// Where the instance is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        self.instance.state.borrow().clone()
    }

    /// What an operator wants to know of the instance.
    #[must_use]
    pub fn status(&self) -> InstanceStatus {
        self.instance.status()
    }

    /// How many decisions ended with which reason.
    #[must_use]
    pub fn decision_counts(&self) -> DecisionCounts {
        self.instance.counters.read()
    }

    /// Waits until a policy is active.
    ///
    /// # Errors
    /// [`NotReady`] when the instance closes or `deadline` passes, with the last state.
    pub async fn ready(&self, deadline: Duration) -> Result<(), NotReady> {
        let mut states = self.instance.state.subscribe();
        let settled = async {
            // The sender lives in the instance that `self` holds, so this can't fail.
            let _ = states
                .wait_for(|state| matches!(state, State::Ready | State::Closed))
                .await;
        };
        let _ = tokio::time::timeout(deadline, settled).await;
        match self.state() {
            State::Ready => Ok(()),
            state => Err(NotReady {
                app: self.id().clone(),
                state,
            }),
        }
    }
}

impl Clone for App {
    fn clone(&self) -> Self {
        self.instance.leases.add();
        Self {
            instance: Arc::clone(&self.instance),
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.instance.leases.release(self.instance.shared.now_ms());
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("id", self.id())
            .field("state", &self.state())
            .finish()
    }
}

/// An instance that has no policy in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotReady {
    app: AppId,
    state: State,
}

impl NotReady {
    /// The state when the deadline passed.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "app `{}` is not ready: {}", self.app, self.state)?;
        if let State::Failed { reason, .. } = &self.state {
            write!(f, ": {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NotReady {}

/// The leases of one instance, in one word: a closed bit and the count.
#[derive(Debug, Default)]
pub(super) struct Leases {
    word: AtomicU64,
    last_used_ms: AtomicU64,
    /// How often the first of several leases was taken.
    firsts: AtomicU64,
}

const CLOSED: u64 = 1 << 63;

impl Leases {
    pub(super) fn starting_at(now_ms: u64) -> Self {
        Self {
            word: AtomicU64::new(0),
            last_used_ms: AtomicU64::new(now_ms),
            firsts: AtomicU64::new(0),
        }
    }

    fn acquire(&self) -> bool {
        let before = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                (word & CLOSED == 0).then_some(word + 1)
            });
        if before == Ok(0) {
            self.firsts.fetch_add(1, Ordering::Relaxed);
        }
        before.is_ok()
    }

    /// How often a lease was taken after the last one had been dropped.
    pub(super) fn reuses(&self) -> u64 {
        self.firsts.load(Ordering::Relaxed).saturating_sub(1)
    }

    /// One more of those that exist, so the closed bit need not be looked at.
    fn add(&self) {
        self.word.fetch_add(1, Ordering::AcqRel);
    }

    fn release(&self, now_ms: u64) {
        // Before the count falls: whoever sees no lease must see when the last one went.
        self.last_used_ms.fetch_max(now_ms, Ordering::AcqRel);
        self.word.fetch_sub(1, Ordering::AcqRel);
    }

    /// How long nobody has held a lease, in milliseconds.
    pub(super) fn idle_ms(&self, now_ms: u64) -> Option<u64> {
        let unused = self.word.load(Ordering::Acquire) & !CLOSED == 0;
        unused.then(|| now_ms.saturating_sub(self.last_used_ms.load(Ordering::Acquire)))
    }

    /// Closes if nobody holds a lease; nobody will get one afterwards.
    pub(super) fn close_unused(&self) -> bool {
        self.word
            .compare_exchange(0, CLOSED, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Closes whoever holds a lease.
    pub(super) fn close(&self) {
        self.word.fetch_or(CLOSED, Ordering::AcqRel);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.word.load(Ordering::Acquire) & CLOSED != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_instance_gives_no_lease() {
        let leases = Leases::starting_at(0);
        assert!(leases.acquire());
        assert!(!leases.close_unused(), "somebody holds a lease");
        leases.release(4);
        assert_eq!(leases.reuses(), 0);
        assert!(leases.acquire() && leases.acquire());
        assert_eq!(leases.reuses(), 1, "the second one found it in use");
        leases.release(4);
        leases.release(5);
        assert_eq!(leases.idle_ms(7), Some(2));
        assert!(leases.close_unused());
        assert!(!leases.acquire());
        assert!(leases.is_closed());
    }

    #[test]
    fn leases_that_outlive_the_close_can_be_cloned_and_dropped() {
        let leases = Leases::starting_at(0);
        assert!(leases.acquire());
        leases.close();
        leases.add();
        leases.release(1);
        leases.release(2);
        assert!(leases.is_closed() && !leases.acquire());
        assert_eq!(leases.idle_ms(2), Some(0));
    }
}
