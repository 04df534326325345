//! Who decides what is done when: one task for all apps.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::super::Trigger;
use super::Shared;
use super::lane::Lane;
use super::work::{self, Turn};

/// How many apps' events are masked and encoded at a time. Most of them wait for a policy.
const PROCESSES: usize = 64;

/// How many apps upload to one service at a time: one that hangs keeps no other waiting.
const UPLOADS: usize = 16;

/// The first wait after an upload that failed, doubled from then on, and the least (as for
/// bundles).
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LEAST_RETRY: Duration = Duration::from_millis(50);

/// How long is waited between two attempts when the process ends, at most; as in OPA.
const LAST_RETRY: Duration = Duration::from_secs(1);

/// How long the events of an app that is closed are kept when its service takes none.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the driver is told.
pub(super) enum Message {
    /// There are events to be encoded.
    Events(Arc<Lane>),
    /// No more events will come: what is there is delivered now.
    Closing(Arc<Lane>),
    /// The process ends: what is there is delivered now.
    Drain,
}

/// An app that has something to do.
struct Entry {
    lane: Arc<Lane>,
    due: Option<Instant>,
    processing: bool,
    uploading: bool,
    failures: u32,
    closed_at: Option<Instant>,
}

enum Job {
    Process,
    Upload { line: Arc<str> },
}

enum Done {
    Processed,
    Uploaded(Turn),
}

/// The uploads to one service.
#[derive(Default)]
struct Line {
    active: usize,
    /// Whose turn is next, and whether events are gathered.
    waiting: VecDeque<(u64, bool)>,
}

struct Driver {
    shared: Arc<Shared>,
    entries: HashMap<u64, Entry>,
    due: BTreeSet<(Instant, u64)>,
    ready: VecDeque<u64>,
    processing: usize,
    lines: HashMap<Arc<str>, Line>,
    jobs: JoinSet<Done>,
    of_jobs: HashMap<Id, (u64, Job)>,
    draining: bool,
}

pub(super) async fn run(shared: Arc<Shared>, mut messages: UnboundedReceiver<Message>) {
    let mut driver = Driver {
        shared,
        entries: HashMap::new(),
        due: BTreeSet::new(),
        ready: VecDeque::new(),
        processing: 0,
        lines: HashMap::new(),
        jobs: JoinSet::new(),
        of_jobs: HashMap::new(),
        draining: false,
    };
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
        driver.start_processing();
    }
}

impl Driver {
    fn take(&mut self, message: Message) {
        match message {
            Message::Events(lane) => {
                let id = lane.id;
                self.entry(lane);
                self.ready.push_back(id);
            }
            Message::Closing(lane) => {
                let id = lane.id;
                if let Some(entry) = self.entries.get_mut(&id) {
                    entry.closed_at = Some(Instant::now());
                    self.next_of(id);
                }
            }
            Message::Drain => {
                self.draining = true;
                let ids: Vec<_> = self.entries.keys().copied().collect();
                for id in ids {
                    self.set_due(id, None);
                    self.next_of(id);
                }
            }
        }
    }

    fn entry(&mut self, lane: Arc<Lane>) {
        let id = lane.id;
        self.shared.activate(&lane);
        self.entries.entry(id).or_insert_with(|| Entry {
            closed_at: lane.is_closing().then(Instant::now),
            lane,
            due: None,
            processing: false,
            uploading: false,
            failures: 0,
        });
    }

    fn start_processing(&mut self) {
        while self.processing < PROCESSES
            && let Some(id) = self.ready.pop_front()
        {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            entry.processing = true;
            self.processing += 1;
            let lane = Arc::clone(&entry.lane);
            let job = self.jobs.spawn(async move {
                work::process(lane).await;
                Done::Processed
            });
            self.of_jobs.insert(job.id(), (id, Job::Process));
        }
    }

    fn ended(&mut self, ended: Result<(Id, Done), JoinError>) {
        let (job, done) = match ended {
            Ok((job, done)) => (job, Some(done)),
            Err(error) => {
                tracing::error!(%error, "decision log: work was not done");
                (error.id(), None)
            }
        };
        match self.of_jobs.remove(&job) {
            Some((id, Job::Process)) => self.processed(id),
            Some((id, Job::Upload { line })) => {
                let turn = match done {
                    Some(Done::Uploaded(turn)) => turn,
                    _ => Turn::Failed { retry_after: None },
                };
                self.uploaded(id, &line, &turn);
            }
            None => {}
        }
    }

    fn processed(&mut self, id: u64) {
        self.processing -= 1;
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.lane.has_more() {
            self.ready.push_back(id);
        } else {
            entry.processing = false;
        }
        self.next_of(id);
    }

    fn uploaded(&mut self, id: u64, line: &Arc<str>, turn: &Turn) {
        if let Some(line) = self.lines.get_mut(line) {
            line.active -= 1;
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.uploading = false;
            match turn {
                Turn::Done => entry.failures = 0,
                Turn::More => {
                    entry.failures = 0;
                    // Behind those who wait for the same service.
                    self.request_upload(id, true);
                }
                Turn::Failed { retry_after } => {
                    entry.failures = entry.failures.saturating_add(1);
                    let delay = retry_delay(entry, *retry_after, self.draining);
                    let gives_up = entry
                        .closed_at
                        .is_some_and(|at| at.elapsed() >= PATIENCE && !self.draining);
                    if gives_up {
                        entry.lane.abandon();
                    } else {
                        self.set_due(id, Some(Instant::now() + delay));
                    }
                }
            }
            self.next_of(id);
        }
        self.start_uploads(line);
    }

    /// What is next for an app that did something.
    fn next_of(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        if entry.uploading {
            return;
        }
        if entry.lane.client.is_none() || entry.lane.is_delivered() {
            self.set_due(id, None);
            self.forget_idle(id);
            return;
        }
        let reporting = &entry.lane.config.reporting;
        let is_last = self.draining || entry.closed_at.is_some();
        let is_failing = entry.failures > 0 && entry.due.is_some();
        let is_full = reporting.trigger == Trigger::Immediate && entry.lane.has_chunk();
        if is_last && !is_failing {
            self.request_upload(id, true);
        } else if is_full && !is_failing {
            self.request_upload(id, false);
        } else if entry.due.is_none() {
            let spread = reporting.max_delay - reporting.min_delay;
            let delay = reporting.min_delay + spread.mul_f64(rand::random::<f64>());
            self.set_due(id, Some(Instant::now() + delay));
        }
    }

    fn forget_idle(&mut self, id: u64) {
        if let Some(entry) = self.entries.get(&id)
            && !entry.processing
            && !self.ready.contains(&id)
        {
            self.shared.deactivate(id);
            self.entries.remove(&id);
        }
    }

    fn wake(&mut self) {
        let now = Instant::now();
        while let Some((_, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.set_due(id, None);
            self.request_upload(id, true);
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

    fn request_upload(&mut self, id: u64, gathers: bool) {
        let Some(entry) = self.entries.get_mut(&id).filter(|entry| !entry.uploading) else {
            return;
        };
        let Some(client) = &entry.lane.client else {
            return;
        };
        entry.uploading = true;
        let service: Arc<str> = client.url().into();
        let line = self.lines.entry(Arc::clone(&service)).or_default();
        line.waiting.push_back((id, gathers));
        self.start_uploads(&service);
    }

    fn start_uploads(&mut self, service: &Arc<str>) {
        let Some(line) = self.lines.get_mut(service) else {
            return;
        };
        while line.active < UPLOADS
            && let Some((id, gathers)) = line.waiting.pop_front()
        {
            let Some(entry) = self.entries.get(&id) else {
                continue;
            };
            line.active += 1;
            let upload = work::upload(Arc::clone(&entry.lane), gathers);
            let job = self.jobs.spawn(async move { Done::Uploaded(upload.await) });
            let line = Arc::clone(service);
            self.of_jobs.insert(job.id(), (id, Job::Upload { line }));
        }
        if line.active == 0 && line.waiting.is_empty() {
            self.lines.remove(service);
        }
    }
}

/// Exponential, uniform in [50 ms, cap], and not before the service wants it.
fn retry_delay(entry: &Entry, retry_after: Option<Duration>, draining: bool) -> Duration {
    let cap = FIRST_RETRY
        .saturating_mul(1 << entry.failures.min(20))
        .min(entry.lane.config.reporting.max_delay);
    let spread = cap.saturating_sub(LEAST_RETRY);
    let delay = LEAST_RETRY + spread.mul_f64(rand::random::<f64>());
    if draining {
        return delay.min(LAST_RETRY);
    }
    delay.max(retry_after.unwrap_or_default())
}
