//! One scheduler for the polls of all apps: no task, client or timer per app.
//!
//! What is due moves to the queue of its service and starts when the service has room. Only what
//! runs is a task, and how much runs is bounded.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::agenda::{Agenda, Start};
use super::blueprint::Blueprint;
use super::poll::{Poll, between};
use super::slots::Room;
use crate::instance::Instance;

/// How many instances start at a time.
const STARTS: usize = 16;

/// How long a start that failed waits at least before it is tried again.
const FIRST_RESTART: Duration = Duration::from_secs(1);

/// How long it waits at most.
const LAST_RESTART: Duration = Duration::from_secs(60);

pub(super) struct Scheduler {
    blueprint: Blueprint,
    /// Instances that must be started, in the order in which they were asked for.
    starts: Mutex<VecDeque<Weak<Instance>>>,
    wake: Notify,
}

impl Scheduler {
    pub(super) fn new(blueprint: Blueprint) -> Self {
        Self {
            blueprint,
            starts: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// Queues an instance to be started. Returns at once.
    pub(super) fn start(&self, instance: &Arc<Instance>) {
        self.starts.lock().push_back(Arc::downgrade(instance));
        self.wake.notify_one();
    }

    /// Polls until it is aborted.
    pub(super) async fn run(self: Arc<Self>) {
        let mut agenda = Agenda::default();
        let mut running = JoinSet::new();
        let mut starting = 0;
        loop {
            agenda.take_due(Instant::now());
            while starting < STARTS {
                let Some(start) = agenda.next_start().or_else(|| self.next_start()) else {
                    break;
                };
                let scheduler = Arc::clone(&self);
                running.spawn(async move { scheduler.started(start).await });
                starting += 1;
            }
            while let Some((poll, room)) = agenda.next_startable() {
                running.spawn(run_poll(poll, room));
            }
            let ended = tokio::select! {
                () = self.wake.notified() => None,
                () = tokio::time::sleep_until(agenda.next_due()) => None,
                Some(ended) = running.join_next() => Some(ended),
            };
            match ended {
                None => {}
                Some(Ok(Ended::Start(polls))) => {
                    starting -= 1;
                    polls
                        .into_iter()
                        .for_each(|poll| agenda.add(Box::new(poll), Duration::ZERO));
                }
                Some(Ok(Ended::NotStarted(start, delay))) => {
                    starting -= 1;
                    if let Some(start) = start {
                        agenda.add_start(start, delay);
                    }
                }
                Some(Ok(Ended::Poll(poll, delay))) => agenda.add(poll, delay),
                Some(Ok(Ended::Gone)) => {}
                Some(Err(error)) => tracing::error!(%error, "a poll ended unexpectedly"),
            }
        }
    }

    fn next_start(&self) -> Option<Start> {
        let instance = self.starts.lock().pop_front()?;
        Some(Start {
            instance,
            failures: 0,
        })
    }

    async fn started(&self, start: Start) -> Ended {
        let Some(instance) = start.instance.upgrade().filter(|it| !it.is_closed()) else {
            return Ended::NotStarted(None, Duration::ZERO);
        };
        let blueprint = self.blueprint.clone();
        let starting = Arc::clone(&instance);
        let polls = self
            .blueprint
            .compile
            .run(move || blueprint.start(&starting))
            .await;
        match polls {
            Some(Ok(polls)) => Ended::Start(polls),
            Some(Err(error)) => not_started(&instance, start, &error.to_string()),
            None => not_started(&instance, start, "a panic ended the start"),
        }
    }
}

/// The configuration can't serve this app now: a file that it names may come later.
fn not_started(instance: &Instance, mut start: Start, reason: &str) -> Ended {
    if start.failures == 0 {
        tracing::error!(target: "opa::instance", app = %instance.id(), reason, "instance not started");
    }
    let longest = FIRST_RESTART.saturating_mul(1 << start.failures.min(20));
    let delay = between(FIRST_RESTART, longest.min(LAST_RESTART));
    start.failures = start.failures.saturating_add(1);
    instance.fail(reason, instance.now().checked_add(delay));
    Ended::NotStarted(Some(start), delay)
}

/// What a task of the scheduler did.
enum Ended {
    Start(Vec<Poll>),
    /// To be tried again, unless the instance was closed.
    NotStarted(Option<Start>, Duration),
    Poll(Box<Poll>, Duration),
    /// The instance was closed.
    Gone,
}

async fn run_poll(mut poll: Box<Poll>, room: Room) -> Ended {
    let Some(instance) = poll.instance.upgrade() else {
        return Ended::Gone;
    };
    let closed = instance.closed();
    drop(instance);
    tokio::select! {
        () = closed => Ended::Gone,
        delay = poll.run(room) => Ended::Poll(poll, delay),
    }
}
