//! One scheduler for the polls of all apps: no task, client or timer per app.
//!
//! What is due moves to the queue of its service and starts when the service has room. Only a
//! download is a task, and how many run is bounded; long polls that wait are futures of the
//! scheduler's own task.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::agenda::{Agenda, FAR, Start};
use super::blueprint::Blueprint;
use super::poll::{Poll, backoff};
use super::slots::Room;
use crate::instance::Instance;

/// How many instances start at a time.
const STARTS: usize = 16;

/// The longest wait before a start that failed is tried again.
const MAX_RESTART: Duration = Duration::from_secs(60);

pub(super) struct Scheduler {
    blueprint: Blueprint,
    /// Instances that must be started, in the order in which they were asked for.
    starts: Mutex<VecDeque<Start>>,
    wake: Notify,
    /// Instances were closed, whose polls are to be forgotten.
    closed: AtomicBool,
}

impl Scheduler {
    pub(super) fn new(blueprint: Blueprint) -> Self {
        Self {
            blueprint,
            starts: Mutex::default(),
            wake: Notify::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Queues an instance to be started. Returns at once.
    pub(super) fn start(&self, instance: &Arc<Instance>) {
        self.blueprint.downloads().note_app();
        let instance = Arc::downgrade(instance);
        self.starts.lock().push_back(Start {
            instance,
            failures: 0,
        });
        self.wake.notify_one();
    }

    /// Forgets the polls of instances that are closed by now.
    pub(super) fn forget_closed(&self) {
        self.closed.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// How many downloads some poll still wants.
    #[cfg(test)]
    pub(super) fn downloads(&self) -> usize {
        self.blueprint.downloads().wanted()
    }

    /// Polls until it is aborted.
    pub(super) async fn run(self: Arc<Self>) {
        let mut agenda = Agenda::default();
        let mut running = JoinSet::new();
        let mut waiting = FuturesUnordered::<Waiting>::new();
        let mut starting = JoinSet::new();
        loop {
            let now = Instant::now();
            while let Some(start) = agenda.next_restart(now) {
                self.starts.lock().push_back(start);
            }
            while starting.len() < STARTS {
                let Some(start) = self.starts.lock().pop_front() else {
                    break;
                };
                let instance = start.instance.upgrade();
                let Some(instance) = instance.filter(|instance| !instance.is_closed()) else {
                    continue;
                };
                let scheduler = Arc::clone(&self);
                starting.spawn(async move { scheduler.started(instance, start).await });
            }
            if self.closed.swap(false, Ordering::AcqRel) {
                agenda.forget_closed();
            }
            let downloads = self.blueprint.downloads();
            downloads.purge(now);
            let hurried = downloads.take_hurried();
            if !hurried.is_empty() {
                agenda.hurry(&hurried);
            }
            agenda.take_due(now);
            while let Some((poll, room)) = agenda.next_startable() {
                match room {
                    Room::Download(_) => drop(running.spawn(run_poll(poll, room))),
                    Room::LongPoll(_) => waiting.push(wait(poll, room)),
                }
            }
            let purge = downloads.next_purge().unwrap_or_else(|| now + FAR);
            let ended = tokio::select! {
                () = self.wake.notified() => None,
                () = downloads.changed() => None,
                () = tokio::time::sleep_until(agenda.next_due().min(purge)) => None,
                Some(ended) = running.join_next() => Some(ended.map_err(|e| e.to_string())),
                Some(ended) = starting.join_next() => Some(ended.map_err(|e| e.to_string())),
                Some(ended) = waiting.next() => Some(ended),
            };
            match ended {
                None => {}
                Some(Ok(Ended::Start(polls))) => {
                    polls
                        .into_iter()
                        .for_each(|poll| agenda.add(Box::new(poll), Duration::ZERO));
                }
                Some(Ok(Ended::NotStarted(start, delay))) => agenda.add_restart(start, delay),
                Some(Ok(Ended::Poll(poll, delay))) => agenda.add(poll, delay),
                Some(Ok(Ended::Gone)) => {}
                Some(Err(error)) => tracing::error!(error, "a poll ended unexpectedly"),
            }
        }
    }

    async fn started(&self, instance: Arc<Instance>, start: Start) -> Ended {
        let blueprint = self.blueprint.clone();
        let starting = Arc::clone(&instance);
        let polls = self
            .blueprint
            .compile
            .run(move || blueprint.start(&starting))
            .await;
        match polls {
            Some(Ok(mut polls)) => {
                // Here and not with the first question: a server that hangs keeps no app from
                // what is on disk, however many wait for it.
                for poll in &mut polls {
                    poll.restore(&instance).await;
                }
                Ended::Start(polls)
            }
            Some(Err(error)) => not_started(&instance, start, &error.to_string()),
            None => not_started(&instance, start, "a panic ended the start"),
        }
    }
}

/// The configuration can't serve this app now. It is tried again: files that it names and what
/// plugins need may come.
fn not_started(instance: &Instance, start: Start, reason: &str) -> Ended {
    if start.failures == 0 {
        tracing::error!(target: "opa::instance", app = %instance.id(), reason, "instance not started");
    }
    let delay = backoff(start.failures, MAX_RESTART);
    instance.fail(reason, instance.now().checked_add(delay));
    let failures = start.failures.saturating_add(1);
    Ended::NotStarted(Start { failures, ..start }, delay)
}

/// What a task of the scheduler did.
enum Ended {
    Start(Vec<Poll>),
    NotStarted(Start, Duration),
    Poll(Box<Poll>, Duration),
    /// The instance was closed.
    Gone,
}

/// A long poll under way.
type Waiting = Pin<Box<dyn Future<Output = Result<Ended, String>> + Send>>;

fn wait(poll: Box<Poll>, room: Room) -> Waiting {
    let polling = AssertUnwindSafe(run_poll(poll, room)).catch_unwind();
    Box::pin(polling.map(|ended| ended.map_err(|_| "a panic".to_owned())))
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
