//! Who decides which status is sent when: one task for all apps.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use opa_core::AppId;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::StatusTrigger;
use super::lane::Lane;
use super::target::{self, Refused};

/// How many apps post to one service at a time: one that hangs keeps no other waiting.
const POSTS: usize = 16;

/// How long is waited for more news: a bundle that is activated changes several things.
const GATHER: Duration = Duration::from_millis(100);

/// The least time between two statuses of an app.
const INTERVAL: Duration = Duration::from_secs(1);

/// The first wait after a post that failed, doubled from then on, and the least (as for bundles).
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LEAST_RETRY: Duration = Duration::from_millis(50);

/// The longest wait for another attempt, unless the heartbeat is shorter.
const MAX_RETRY: Duration = Duration::from_secs(60);

/// How long is waited between two attempts when the process ends, at most.
const LAST_RETRY: Duration = Duration::from_secs(1);

/// How long it is tried to send the last status of an app that is closed.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the driver is told.
pub(super) enum Message {
    /// There is something new.
    Changed(Arc<Lane>),
    /// The last status is there.
    Closing(Arc<Lane>),
    /// Another configuration has taken over.
    Gone(u64),
    /// The program wants the status to be sent.
    Trigger(AppId),
    /// An upload of decisions was tried.
    Uploaded(AppId),
    /// The process ends. Answered when all is sent.
    Drain(oneshot::Sender<()>),
}

/// An instance.
struct Entry {
    lane: Arc<Lane>,
    /// There is something that was not sent yet.
    pending: bool,
    due: Option<Instant>,
    /// It posts, or waits for its turn to.
    busy: bool,
    job: Option<AbortHandle>,
    failures: u32,
    rests_until: Instant,
    closed_at: Option<Instant>,
}

/// The posts to one service.
#[derive(Default)]
struct Line {
    active: usize,
    waiting: VecDeque<u64>,
}

#[derive(Default)]
struct Driver {
    entries: HashMap<u64, Entry>,
    /// The newest instance of each app.
    by_app: HashMap<AppId, u64>,
    due: BTreeSet<(Instant, u64)>,
    lines: HashMap<Arc<str>, Line>,
    jobs: JoinSet<Result<(), Refused>>,
    of_jobs: HashMap<Id, (u64, Arc<str>)>,
    draining: Option<oneshot::Sender<()>>,
}

pub(super) async fn run(mut messages: UnboundedReceiver<Message>) {
    let mut driver = Driver::default();
    loop {
        let next = driver.due.first().map(|(at, _)| *at);
        let timer = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => driver.take(message),
                None => return,
            },
            Some(ended) = driver.jobs.join_next_with_id() => driver.ended(ended),
            () = timer => driver.wake(),
        }
        if driver.entries.is_empty()
            && let Some(drained) = driver.draining.take()
        {
            // Nobody may wait any more.
            let _ = drained.send(());
        }
    }
}

impl Driver {
    fn take(&mut self, message: Message) {
        match message {
            Message::Changed(lane) => {
                let entry = self.entry(&lane);
                entry.pending |= lane.config.trigger == StatusTrigger::Periodic;
                self.schedule(lane.id);
            }
            Message::Closing(lane) => {
                let entry = self.entry(&lane);
                entry.closed_at = Some(Instant::now());
                entry.pending |= lane.config.trigger == StatusTrigger::Periodic;
                self.schedule(lane.id);
            }
            Message::Gone(id) => self.forget(id),
            Message::Trigger(app) => self.trigger(&app),
            Message::Uploaded(app) => self.uploaded(&app),
            Message::Drain(drained) => {
                self.draining = Some(drained);
                let ids: Vec<_> = self.entries.keys().copied().collect();
                for id in ids {
                    self.set_due(id, None);
                    self.schedule(id);
                }
            }
        }
    }

    fn entry(&mut self, lane: &Arc<Lane>) -> &mut Entry {
        let by_app = &mut self.by_app;
        self.entries.entry(lane.id).or_insert_with(|| {
            by_app.insert(lane.app.clone(), lane.id);
            Entry {
                lane: Arc::clone(lane),
                pending: false,
                due: None,
                busy: false,
                job: None,
                failures: 0,
                rests_until: Instant::now(),
                closed_at: None,
            }
        })
    }

    fn trigger(&mut self, app: &AppId) {
        let Some(id) = self.by_app.get(app).copied() else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.pending = true;
            if !entry.busy && entry.failures == 0 {
                self.request(id);
            }
        }
    }

    fn uploaded(&mut self, app: &AppId) {
        let Some(id) = self.by_app.get(app).copied() else {
            return;
        };
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.lane.config.trigger == StatusTrigger::Periodic
            && entry.lane.note_upload()
        {
            entry.pending = true;
            self.schedule(id);
        }
    }

    /// What is next for an app that something happened to.
    fn schedule(&mut self, id: u64) {
        let is_draining = self.draining.is_some();
        let Some(entry) = self.entries.get(&id).filter(|entry| !entry.busy) else {
            return;
        };
        let is_last = is_draining || entry.closed_at.is_some();
        let now = Instant::now();
        if !entry.pending {
            if is_last {
                self.forget(id);
            } else if entry.due.is_none() && entry.lane.config.trigger == StatusTrigger::Periodic {
                let heartbeat = entry.lane.config.heartbeat;
                let delay = heartbeat.mul_f64(0.5 + 0.5 * rand::random::<f64>());
                self.set_due(id, Some(now + delay));
            }
        } else if entry.failures > 0 && entry.due.is_some() {
            // It waits for its next attempt, which takes the newest.
        } else if is_last {
            self.request(id);
        } else {
            let at = entry.rests_until.max(now + GATHER);
            let at = entry.due.map_or(at, |due| due.min(at));
            self.set_due(id, Some(at));
        }
    }

    fn wake(&mut self) {
        let now = Instant::now();
        while let Some((_, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.request(id);
        }
    }

    fn set_due(&mut self, id: u64, due: Option<Instant>) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut entry.due, due) {
            self.due.remove(&(before, id));
        }
        self.due.extend(due.map(|at| (at, id)));
    }

    fn request(&mut self, id: u64) {
        self.set_due(id, None);
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.busy) else {
            return;
        };
        entry.busy = true;
        let target = entry.lane.target.as_ref();
        let service: Arc<str> = target.map_or("", |target| target.url()).into();
        let line = self.lines.entry(Arc::clone(&service)).or_default();
        line.waiting.push_back(id);
        self.start(&service);
    }

    fn start(&mut self, service: &Arc<str>) {
        let Some(line) = self.lines.get_mut(service) else {
            return;
        };
        while line.active < POSTS
            && let Some(id) = line.waiting.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            line.active += 1;
            entry.pending = false;
            let sending = target::send(Arc::clone(&entry.lane), entry.failures > 0);
            let job = self.jobs.spawn(sending);
            self.of_jobs.insert(job.id(), (id, Arc::clone(service)));
            entry.job = Some(job);
        }
        if line.active == 0 && line.waiting.is_empty() {
            self.lines.remove(service);
        }
    }

    fn ended(&mut self, ended: Result<(Id, Result<(), Refused>), JoinError>) {
        let (job, sent) = match ended {
            Ok((job, sent)) => (job, sent),
            Err(error) => {
                let problem = format!("status update failed: {error}");
                let refused = Refused {
                    problem,
                    retry_after: None,
                };
                (error.id(), Err(refused))
            }
        };
        let Some((id, service)) = self.of_jobs.remove(&job) else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&service) {
            line.active -= 1;
        }
        self.settle(id, sent);
        self.start(&service);
    }

    fn settle(&mut self, id: u64, sent: Result<(), Refused>) {
        let is_draining = self.draining.is_some();
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.busy = false;
        entry.job = None;
        match sent {
            Ok(()) => {
                if std::mem::take(&mut entry.failures) > 0 {
                    tracing::info!(app = %entry.lane.app, "status: it is sent again");
                }
                entry.rests_until = Instant::now() + INTERVAL;
            }
            Err(refused) => {
                entry.failures = entry.failures.saturating_add(1);
                entry.pending = true;
                entry.tell(&refused);
                if entry.closed_at.is_some_and(|at| at.elapsed() >= PATIENCE) {
                    tracing::warn!(app = %entry.lane.app, "status: the last one is given up");
                    self.forget(id);
                    return;
                }
                let delay = entry.retry_delay(refused.retry_after, is_draining);
                self.set_due(id, Some(Instant::now() + delay));
            }
        }
        self.schedule(id);
    }

    fn forget(&mut self, id: u64) {
        self.set_due(id, None);
        let Some(entry) = self.entries.remove(&id) else {
            return;
        };
        if let Some(job) = entry.job {
            job.abort();
        }
        if self.by_app.get(&entry.lane.app) == Some(&id) {
            self.by_app.remove(&entry.lane.app);
        }
    }
}

impl Entry {
    /// One warning for each time that it begins to fail.
    fn tell(&self, refused: &Refused) {
        let (app, failures) = (&self.lane.app, self.failures);
        match failures {
            1 => tracing::warn!(%app, "{}", refused.problem),
            _ => tracing::debug!(%app, failures, "{}", refused.problem),
        }
    }

    /// Exponential, uniform in [50 ms, cap], and not before the service wants it.
    fn retry_delay(&self, retry_after: Option<Duration>, is_draining: bool) -> Duration {
        let cap = FIRST_RETRY
            .saturating_mul(1 << self.failures.min(20))
            .min(self.lane.config.heartbeat)
            .min(MAX_RETRY);
        let spread = cap.saturating_sub(LEAST_RETRY);
        let delay = LEAST_RETRY + spread.mul_f64(rand::random::<f64>());
        if is_draining {
            return delay.min(LAST_RETRY);
        }
        delay.max(retry_after.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
