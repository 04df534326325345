use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;

use super::poll::Poll;
use super::slots::Room;
use crate::instance::Instance;

/// How far ahead the scheduler looks when nothing is due.
const FAR: Duration = Duration::from_secs(60 * 60 * 24);

/// An instance that must be started, and how often that has failed.
pub(super) struct Start {
    pub(super) instance: Weak<Instance>,
    pub(super) failures: u32,
}

/// What waits for its time.
enum Due {
    Poll(Box<Poll>),
    Start(Start),
}

/// What doesn't run: what waits for its time, and what waits for room.
#[derive(Default)]
pub(super) struct Agenda {
    /// By time, and by number among equal times.
    due: BTreeMap<(Instant, u64), Due>,
    /// Starts whose time has come.
    starts: VecDeque<Start>,
    /// By service, whoever waits longest in front.
    ready: HashMap<usize, VecDeque<Box<Poll>>>,
    next_number: u64,
}

impl Agenda {
    /// Puts `poll` where it is due after `delay`.
    pub(super) fn add(&mut self, poll: Box<Poll>, delay: Duration) {
        self.insert(Due::Poll(poll), delay);
    }

    /// Puts `start` where it is due after `delay`.
    pub(super) fn add_start(&mut self, start: Start, delay: Duration) {
        self.insert(Due::Start(start), delay);
    }

    fn insert(&mut self, due: Due, delay: Duration) {
        self.next_number += 1;
        let at = Instant::now() + delay.min(FAR);
        self.due.insert((at, self.next_number), due);
    }

    /// When the next one is due.
    pub(super) fn next_due(&self) -> Instant {
        self.due
            .first_key_value()
            .map_or_else(|| Instant::now() + FAR, |((at, _), _)| *at)
    }

    /// Moves what is due to the queue of its service.
    pub(super) fn take_due(&mut self, now: Instant) {
        while let Some(first) = self.due.first_entry() {
            if first.key().0 > now {
                break;
            }
            match first.remove() {
                Due::Poll(poll) => {
                    let service = poll.slots.service();
                    self.ready.entry(service).or_default().push_back(poll);
                }
                Due::Start(start) => self.starts.push_back(start),
            }
        }
    }

    /// The next start whose time has come.
    pub(super) fn next_start(&mut self) -> Option<Start> {
        self.starts.pop_front()
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
