use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;

use super::poll::Poll;
use super::slots::Room;
use crate::instance::Instance;

/// How far ahead the scheduler looks when nothing is due.
const FAR: Duration = Duration::from_secs(60 * 60 * 24);

/// The polls that don't run: those that wait for their time, and those that wait for room.
#[derive(Default)]
pub(super) struct Agenda {
    /// By time, and by number among equal times.
    due: BTreeMap<(Instant, u64), Box<Poll>>,
    /// By service, whoever waits longest in front.
    ready: HashMap<usize, VecDeque<Box<Poll>>>,
    /// Starts that failed, by the time of the next try.
    restarts: BTreeMap<(Instant, u64), Start>,
    next_number: u64,
}

/// An instance to be started.
pub(super) struct Start {
    pub(super) instance: Weak<Instance>,
    /// How often it failed already.
    pub(super) failures: u32,
}

impl Agenda {
    /// Puts `poll` where it is due after `delay`.
    pub(super) fn add(&mut self, poll: Box<Poll>, delay: Duration) {
        self.next_number += 1;
        self.due
            .insert((Instant::now() + delay.min(FAR), self.next_number), poll);
    }

    /// Tries `start` again after `delay`.
    pub(super) fn add_restart(&mut self, start: Start, delay: Duration) {
        self.next_number += 1;
        let at = Instant::now() + delay.min(FAR);
        self.restarts.insert((at, self.next_number), start);
    }

    /// Forgets the polls that must not change their instance any more.
    pub(super) fn forget_retired(&mut self) {
        self.due.retain(|_, poll| !poll.ticket.is_retired());
        for queue in self.ready.values_mut() {
            queue.retain(|poll| !poll.ticket.is_retired());
        }
    }

    /// When the next poll or start is due.
    pub(super) fn next_due(&self) -> Instant {
        let poll = self.due.first_key_value().map(|((at, _), _)| *at);
        let start = self.restarts.first_key_value().map(|((at, _), _)| *at);
        poll.into_iter()
            .chain(start)
            .min()
            .unwrap_or_else(|| Instant::now() + FAR)
    }

    /// The next start that is due.
    pub(super) fn next_restart(&mut self, now: Instant) -> Option<Start> {
        let first = self.restarts.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Moves what is due to the queue of its service.
    pub(super) fn take_due(&mut self, now: Instant) {
        while let Some(first) = self.due.first_entry() {
            if first.key().0 > now {
                break;
            }
            let poll = first.remove();
            self.ready
                .entry(poll.slots.service())
                .or_default()
                .push_back(poll);
        }
    }

    /// The next poll whose service has room, with the room.
    pub(super) fn next_startable(&mut self) -> Option<(Box<Poll>, Room)> {
        let mut startable = None;
        for queue in self.ready.values_mut() {
            let Some(room) = queue.front().and_then(|poll| poll.room()) else {
                continue;
            };
            startable = queue.pop_front().map(|poll| (poll, room));
            break;
        }
        self.ready.retain(|_, queue| !queue.is_empty());
        startable
    }
}
