//! Whose events are masked and encoded next.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::super::intake::Intake;

/// How many apps' events are masked and encoded at a time. Most of them wait for a policy.
const PLACES: usize = 64;

/// The apps that have events to be masked and encoded.
#[derive(Default)]
pub(super) struct Turns {
    intakes: HashMap<u64, Arc<Intake>>,
    waiting: VecDeque<u64>,
    /// Those whose outputs have no room.
    parked: HashSet<u64>,
    taken: usize,
}

impl Turns {
    /// All that have events.
    pub(super) fn intakes(&self) -> impl Iterator<Item = &Arc<Intake>> {
        self.intakes.values()
    }

    /// An app that had no events has some.
    pub(super) fn add(&mut self, intake: Arc<Intake>) {
        self.waiting.push_back(intake.id);
        self.intakes.insert(intake.id, intake);
    }

    /// Who is next, if there is a place.
    pub(super) fn next(&mut self) -> Option<Arc<Intake>> {
        if self.taken >= PLACES {
            return None;
        }
        let id = self.waiting.pop_front()?;
        self.taken += 1;
        self.intakes.get(&id).cloned()
    }

    /// It can't use its turn before it is unparked.
    pub(super) fn park(&mut self, intake: &Intake) {
        self.taken = self.taken.saturating_sub(1);
        self.parked.insert(intake.id);
    }

    /// An output may have room again.
    pub(super) fn unpark(&mut self, intake: u64) {
        if self.parked.remove(&intake) {
            self.waiting.push_back(intake);
        }
    }

    /// A turn has ended.
    pub(super) fn ended(&mut self, intake: &Intake) {
        self.taken = self.taken.saturating_sub(1);
        if intake.has_more() {
            self.waiting.push_back(intake.id);
        } else {
            self.intakes.remove(&intake.id);
        }
    }
}
