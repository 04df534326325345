use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Weak;
use std::time::Duration;

use tokio::time::Instant;

use super::poll::Poll;
use super::slots::Room;
use super::turns::Turns;
use crate::instance::Instance;

/// How far ahead the scheduler looks when nothing is due.
pub(super) const FAR: Duration = Duration::from_secs(60 * 60 * 24);

/// The polls that don't run: those that wait for their time, and those that wait for room.
#[derive(Default)]
pub(super) struct Agenda {
    /// By time, and by number among equal times.
    due: BTreeMap<(Instant, u64), Box<Poll>>,
    /// What waits for news and needs no room for a download until then.
    startable: VecDeque<(Box<Poll>, Room)>,
    /// By service and whether it is a retry, which has bounds of its own, and by app within that.
    ready: Turns<(usize, bool), OfApps>,
    /// Starts that failed, by the time of the next try.
    restarts: BTreeMap<(Instant, u64), Start>,
    /// The instances of `restarts`, each of which is there once.
    restarting: HashSet<usize>,
    next_number: u64,
}

/// By app.
type OfApps = Turns<usize, VecDeque<Box<Poll>>>;

/// An instance to be started.
pub(super) struct Start {
    pub(super) instance: Weak<Instance>,
    /// How often it failed already.
    pub(super) failures: u32,
}

impl Start {
    /// Tells one app from another.
    fn app(&self) -> usize {
        self.instance.as_ptr().addr()
    }
}

impl Agenda {
    /// Puts `poll` where it is due after `delay`.
    pub(super) fn add(&mut self, poll: Box<Poll>, delay: Duration) {
        self.next_number += 1;
        self.due
            .insert((Instant::now() + delay.min(FAR), self.next_number), poll);
    }

    /// Tries `start` again after `delay`, if its instance isn't to be started again anyway: each
    /// reload that fails for an app asks for that.
    pub(super) fn add_restart(&mut self, start: Start, delay: Duration) {
        if !self.restarting.insert(start.app()) {
            return;
        }
        self.next_number += 1;
        let at = Instant::now() + delay.min(FAR);
        self.restarts.insert((at, self.next_number), start);
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
        let start = (first.key().0 <= now).then(|| first.remove())?;
        self.restarting.remove(&start.app());
        Some(start)
    }

    /// Moves what is due to the queue of its service, or to where it starts if it needs no room
    /// for a download.
    pub(super) fn take_due(&mut self, now: Instant) {
        while let Some(first) = self.due.first_entry() {
            if first.key().0 > now {
                break;
            }
            let poll = first.remove();
            self.make_ready(poll);
        }
    }

    fn make_ready(&mut self, poll: Box<Poll>) {
        match poll.room_to_wait() {
            Some(room) => self.startable.push_back((poll, room)),
            None => {
                let alike = self.ready.queue((poll.slots.service(), poll.is_retry()));
                alike.queue(poll.app()).push_back(poll);
            }
        }
    }

    /// The next poll whose service has room, with the room. Services take turns, and so do the
    /// apps of a service.
    pub(super) fn next_startable(&mut self) -> Option<(Box<Poll>, Room)> {
        let waiting = self.startable.pop_front();
        waiting.or_else(|| {
            self.ready.next(|of_service| {
                let room = of_service.front()?.front()?.room()?;
                let poll = of_service.next(VecDeque::pop_front)?;
                Some((poll, room))
            })
        })
    }

    /// Makes those due at once whose download is one of `downloads`: there is news for them.
    pub(super) fn hurry(&mut self, downloads: &HashSet<usize>) {
        let hurried = |poll: &Poll| poll.download().is_some_and(|it| downloads.contains(&it));
        let times: Vec<_> = self
            .due
            .iter()
            .filter(|(_, poll)| hurried(poll))
            .map(|(time, _)| *time)
            .collect();
        for time in times {
            if let Some(poll) = self.due.remove(&time) {
                self.make_ready(poll);
            }
        }
    }

    /// Forgets the polls of instances that are closed or don't have their bundles any more.
    pub(super) fn forget_over(&mut self) {
        self.due.retain(|_, poll| !poll.is_over());
        self.startable.retain(|(poll, _)| !poll.is_over());
        self.ready.clean(|of_service| {
            of_service.clean(|of_app| of_app.retain(|poll| !poll.is_over()));
        });
        self.restarts
            .retain(|_, start| start.instance.strong_count() > 0);
        self.restarting = self.restarts.values().map(Start::app).collect();
    }
}
