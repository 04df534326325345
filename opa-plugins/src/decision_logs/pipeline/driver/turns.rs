//! Whose events are masked and encoded next.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::super::intake::Intake;

/// How many apps' events are masked and encoded at a time. Most of them wait for a policy.
const PLACES: usize = 64;

/// The apps that have events to be masked and encoded.
#[derive(Default)]
pub(super) struct Turns {
    intakes: HashMap<u64, Arc<Intake>>,
    waiting: VecDeque<u64>,
    taken: usize,
}

impl Turns {
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
