//! Whose events are masked and encoded next.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use opa_core::AppId;

use super::super::intake::Intake;

/// How many apps' events are masked and encoded at a time. Most of them wait for a policy.
const PLACES: usize = 64;

/// How many of these are for apps whose policies on logs are slow: the others don't wait for them.
const SLOW_PLACES: usize = PLACES / 2;

/// The apps that have events to be masked and encoded.
#[derive(Default)]
pub(super) struct Turns {
    intakes: HashMap<u64, Arc<Intake>>,
    queue: TurnQueue,
    /// Those whose outputs have no room.
    parked: HashSet<u64>,
    apps: HashMap<AppId, Order>,
}

/// The configurations of one app: what was decided under an earlier one goes first, so that it is
/// first in the spool. One that can't use its turns, or is slow, keeps no later one waiting.
#[derive(Default)]
struct Order {
    first: BTreeSet<u64>,
    behind: BTreeSet<u64>,
}

impl Order {
    /// Whether it has turns now.
    fn add(&mut self, id: u64) -> bool {
        let waits = self.first.range(..id).next().is_some();
        match waits {
            true => self.behind.insert(id),
            false => self.first.insert(id),
        };
        !waits
    }

    /// It keeps nobody waiting any more; who has turns now.
    fn leave(&mut self, id: u64) -> Option<u64> {
        self.first.remove(&id);
        let next = *self.behind.first()?;
        if self.first.range(..next).next().is_some() {
            return None;
        }
        self.behind.remove(&next);
        self.first.insert(next);
        Some(next)
    }
}

/// In the order of their turns, those apart that took long the last time.
#[derive(Default)]
struct TurnQueue {
    waiting: VecDeque<u64>,
    slow: VecDeque<u64>,
    taken: usize,
    slow_taken: usize,
    are_slow: HashSet<u64>,
}

impl TurnQueue {
    fn push(&mut self, id: u64) {
        match self.are_slow.contains(&id) {
            true => self.slow.push_back(id),
            false => self.waiting.push_back(id),
        }
    }

    fn next(&mut self) -> Option<u64> {
        if self.taken >= PLACES {
            return None;
        }
        let id = match self.slow.front() {
            Some(_) if self.slow_taken < SLOW_PLACES => {
                self.slow_taken += 1;
                self.slow.pop_front()
            }
            _ => self.waiting.pop_front(),
        }?;
        self.taken += 1;
        Some(id)
    }

    /// A turn has ended, and whether it was slow. `None` when it wasn't used.
    fn ended(&mut self, id: u64, was_slow: Option<bool>) {
        self.taken = self.taken.saturating_sub(1);
        if self.are_slow.contains(&id) {
            self.slow_taken = self.slow_taken.saturating_sub(1);
        }
        match was_slow {
            Some(true) => drop(self.are_slow.insert(id)),
            Some(false) => drop(self.are_slow.remove(&id)),
            None => {}
        }
    }
}

impl Turns {
    /// All that have events.
    pub(super) fn intakes(&self) -> impl Iterator<Item = &Arc<Intake>> {
        self.intakes.values()
    }

    /// An app that had no events has some.
    pub(super) fn add(&mut self, intake: Arc<Intake>) {
        let order = self.apps.entry(intake.app.clone()).or_default();
        if order.add(intake.id) {
            self.queue.push(intake.id);
        }
        self.intakes.insert(intake.id, intake);
    }

    /// It keeps no other one of its app waiting.
    fn leave(&mut self, intake: &Intake) {
        let Some(order) = self.apps.get_mut(&intake.app) else {
            return;
        };
        if let Some(next) = order.leave(intake.id) {
            self.queue.push(next);
        } else if order.first.is_empty() {
            self.apps.remove(&intake.app);
        }
    }

    /// Who is next, if there is a place.
    pub(super) fn next(&mut self) -> Option<Arc<Intake>> {
        let id = self.queue.next()?;
        self.intakes.get(&id).cloned()
    }

    /// It can't use its turn before it is unparked.
    pub(super) fn park(&mut self, intake: &Intake) {
        self.queue.ended(intake.id, None);
        self.parked.insert(intake.id);
        self.leave(intake);
    }

    /// An output may have room again.
    pub(super) fn unpark(&mut self, intake: u64) {
        if self.parked.remove(&intake) {
            self.queue.push(intake);
        }
    }

    /// A turn has ended, and whether it was slow.
    pub(super) fn ended(&mut self, intake: &Intake, was_slow: bool) {
        let has_more = intake.has_more();
        // Who comes back after a rest is judged anew.
        self.queue.ended(intake.id, Some(was_slow && has_more));
        if has_more {
            self.queue.push(intake.id);
        } else {
            self.intakes.remove(&intake.id);
        }
        if was_slow || !has_more {
            self.leave(intake);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_configurations_of_an_app_go_first() {
        let mut order = Order::default();
        assert!(order.add(3));
        assert!(!order.add(5) && !order.add(4));
        // It had nothing before.
        assert!(order.add(2));
        assert_eq!(order.leave(2), None);
        assert_eq!(order.leave(3), Some(4));
        assert_eq!(order.leave(4), Some(5));
        assert_eq!(order.leave(5), None);
        assert!(order.first.is_empty() && order.behind.is_empty());
    }

    #[test]
    fn who_is_slow_leaves_places_to_the_others() {
        let mut queue = TurnQueue::default();
        (0..100).for_each(|id| queue.push(id));
        let first: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(first, (0..64).collect::<Vec<_>>());
        for id in first {
            queue.ended(id, Some(true));
            queue.push(id);
        }
        (64..200).for_each(|id| queue.push(id));
        let second: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        let slow = second.iter().filter(|id| **id < 64).count();
        assert_eq!((second.len(), slow), (PLACES, SLOW_PLACES));
        for id in second {
            queue.ended(id, Some(false));
        }
        assert_eq!((queue.taken, queue.slow_taken), (0, 0));
        assert_eq!(queue.are_slow.len(), 64 - SLOW_PLACES);
    }
}
