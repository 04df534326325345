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
use super::blueprint::{Blueprint, Plan};
use super::poll::{CompilePool, Poll, backoff};
use super::slots::Room;
use crate::instance::Instance;

/// How many instances start at a time.
const STARTS: usize = 16;

/// The longest wait before a start that failed is tried again.
const MAX_RESTART: Duration = Duration::from_secs(60);

pub(super) struct Scheduler {
    blueprint: Mutex<Blueprint>,
    /// Polls of instances that were configured anew.
    adopted: Mutex<Vec<Poll>>,
    compile: CompilePool,
    /// Instances that must be started, in the order in which they were asked for.
    starts: Mutex<VecDeque<Start>>,
    wake: Notify,
    /// There are polls to be forgotten.
    over: AtomicBool,
}

impl Scheduler {
    pub(super) fn new(blueprint: Blueprint) -> Self {
        Self {
            compile: blueprint.compile.clone(),
            blueprint: Mutex::new(blueprint),
            adopted: Mutex::default(),
            starts: Mutex::default(),
            wake: Notify::new(),
            over: AtomicBool::new(false),
        }
    }

    /// Queues an instance to be started. Returns at once.
    pub(super) fn start(&self, instance: &Arc<Instance>) {
        self.blueprint().downloads().note_app();
        let instance = Arc::downgrade(instance);
        self.starts.lock().push_back(Start {
            instance,
            failures: 0,
        });
        self.wake.notify_one();
    }

    pub(super) fn blueprint(&self) -> Blueprint {
        self.blueprint.lock().clone()
    }

    /// Takes `blueprint` for whatever starts from here on.
    pub(super) fn switch(&self, blueprint: Blueprint) {
        *self.blueprint.lock() = blueprint;
    }

    /// Forgets the polls of instances that are closed by now, and those that a reload has ended.
    pub(super) fn forget_over(&self) {
        self.over.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// How many downloads some poll still wants.
    #[cfg(test)]
    pub(super) fn downloads(&self) -> usize {
        self.blueprint().downloads().wanted()
    }

    /// Polls until it is aborted.
    pub(super) async fn run(self: Arc<Self>) {
        let blueprint = self.blueprint();
        // All blueprints have the same.
        let downloads = blueprint.downloads();
        let mut agenda = Agenda::default();
        let mut running = JoinSet::new();
        let mut waiting = FuturesUnordered::<Waiting>::new();
        let mut starting = JoinSet::new();
        loop {
            let now = Instant::now();
            let adopted = std::mem::take(&mut *self.adopted.lock());
            for poll in adopted {
                agenda.add(Box::new(poll), Duration::ZERO);
            }
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
            if self.over.swap(false, Ordering::AcqRel) {
                agenda.forget_over();
            }
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
        match self.configure(&instance).await {
            Ok(configured) => Ended::Start(configured.polls),
            Err(error) => not_started(&instance, start, &error),
        }
    }

    /// Tells an instance the configuration that is in force now, if it was told one already: it is
    /// told when it starts otherwise.
    pub(super) async fn tell(&self, instance: &Arc<Instance>) -> Outcome {
        if instance.is_closed() || instance.configured().await.is_none() {
            return Outcome::NotStarted;
        }
        match self.configure(instance).await {
            Ok(Configuring {
                changed,
                polls,
                problem,
            }) => {
                self.adopted.lock().extend(polls);
                self.wake.notify_one();
                match problem {
                    Some(problem) => Outcome::Failed(problem),
                    None if changed => Outcome::Changed,
                    None => Outcome::Unchanged,
                }
            }
            Err(error) => {
                let failed = Start {
                    instance: Arc::downgrade(instance),
                    failures: 1,
                };
                note_problem(instance, &error);
                self.starts.lock().push_back(failed);
                self.wake.notify_one();
                Outcome::Failed(error)
            }
        }
    }

    /// Makes an instance what the configuration says now.
    async fn configure(&self, instance: &Arc<Instance>) -> Result<Configuring, String> {
        // Whoever comes last takes the newest blueprint: it is looked at under this lock.
        let configured = instance.configured().await;
        let blueprint = self.blueprint();
        instance
            .shared()
            .hooks
            .reach("configure: the blueprint is taken");
        let planning = Arc::clone(instance);
        let plan = move || {
            let plan = blueprint.plan(&planning, configured.as_ref());
            (configured, plan)
        };
        let panicked = || "a panic ended the start".to_owned();
        let (mut configured, plan) = self.compile.run(plan).await.ok_or_else(panicked)?;
        let Some(plan) = plan.map_err(|error| error.to_string())? else {
            instance.note_configuration(None);
            return Ok(Configuring::default());
        };
        let Plan {
            told,
            profile,
            mut polls,
        } = plan;
        let mut loaded = instance.loaded().await;
        let applying = Arc::clone(instance);
        let apply = move || applying.reconfigure(&mut loaded, &mut configured, told, profile);
        let applied = self.compile.run(apply).await.ok_or_else(panicked)?;
        let problem = applied.err().map(|error| error.to_string());
        match &problem {
            Some(problem) => note_problem(instance, problem),
            None => instance.note_configuration(None),
        }
        // Here and not with the first question: a server that hangs keeps no app from what is on
        // disk, however many wait for it.
        for poll in &mut polls {
            poll.restore(instance).await;
        }
        Ok(Configuring {
            changed: true,
            polls,
            problem,
        })
    }
}

/// What telling an instance its configuration came to.
#[derive(Default)]
struct Configuring {
    changed: bool,
    polls: Vec<Poll>,
    /// What its bundles make no policy for.
    problem: Option<String>,
}

/// What a reload meant for an instance.
pub(super) enum Outcome {
    Changed,
    Unchanged,
    Failed(String),
    /// It is told when it starts.
    NotStarted,
}

fn note_problem(instance: &Instance, problem: &str) {
    tracing::error!(target: "opa::instance", app = %instance.id(), "configuration not in force: {problem}");
    instance.note_configuration(Some(problem.into()));
    instance.fail(problem, None);
}

/// The configuration can't serve this app now. It is tried again: files that it names and what
/// plugins need may come.
fn not_started(instance: &Instance, start: Start, reason: &str) -> Ended {
    if start.failures == 0 {
        tracing::error!(target: "opa::instance", app = %instance.id(), reason, "instance not started");
    }
    instance.note_configuration(Some(reason.into()));
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
    /// The instance was closed, or has no such bundle any more.
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
    let over = instance.over(&poll.ticket);
    drop(instance);
    tokio::select! {
        () = over => Ended::Gone,
        delay = poll.run(room) => Ended::Poll(poll, delay),
    }
}
