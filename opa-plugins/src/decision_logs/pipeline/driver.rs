//! Who decides what is done when: one task for all apps.

mod retry;
mod slots;
mod turns;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use opa_core::AppId;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use self::slots::{Slot, Slots};
use self::turns::Turns;
use super::super::output::OutputError;
use super::deliver::{self, Turn};
use super::intake::Intake;
use super::lane::Lane;
use super::process;
use super::shared::Shared;
use super::trigger::Call;

/// How long is waited between two attempts when the process ends, at most; as in OPA.
const LAST_RETRY: Duration = Duration::from_secs(1);

/// How long the events of an app that is closed are kept when its output takes none.
const PATIENCE: Duration = Duration::from_secs(600);

/// What the driver is told.
pub(super) enum Message {
    /// There are events to be encoded.
    Events(Arc<Intake>),
    /// No more events will come: what is there is delivered now.
    Closing(Arc<Intake>),
    /// What was decided by now is delivered now, of one app or of all.
    Trigger(Option<AppId>, Arc<Call>),
    /// There may be events from before for a lane.
    Stored(Arc<Lane>),
    /// The process ends: what is there is delivered now.
    Drain,
}

/// A lane that has something to deliver.
struct Entry {
    lane: Arc<Lane>,
    due: Option<Instant>,
    /// It waits for a slot or has one; events that wait for more are taken, too.
    delivering: Option<bool>,
    /// It became due meanwhile.
    again: bool,
    failures: u32,
    closed_at: Option<Instant>,
    /// Who waits for what it delivers.
    calls: Vec<Arc<Call>>,
}

enum Job {
    Process(Arc<Intake>),
    Deliver { lane: u64, slot: Slot },
}

enum Done {
    Processed { was_slow: bool },
    Delivered(Turn),
}

/// Whoever waits until an app's events up to a number are encoded.
struct Awaited {
    intake: Arc<Intake>,
    events: u64,
    call: Arc<Call>,
}

struct Driver {
    /// It goes first: when it is gone, nothing succeeds any more.
    _alive: Alive,
    awaited: Vec<Awaited>,
    turns: Turns,
    entries: HashMap<u64, Entry>,
    due: BTreeSet<(Instant, u64)>,
    slots: Slots,
    jobs: JoinSet<Done>,
    of_jobs: HashMap<Id, Job>,
    draining: bool,
}

/// When the driver is gone, nothing is delivered any more.
struct Alive(Arc<Shared>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The driver. The pipeline is over when the future is dropped, or ends.
pub(super) fn run(
    shared: Arc<Shared>,
    messages: UnboundedReceiver<Message>,
) -> impl Future<Output = ()> + Send + 'static {
    let driver = Driver {
        _alive: Alive(shared),
        awaited: Vec::new(),
        turns: Turns::default(),
        entries: HashMap::new(),
        due: BTreeSet::new(),
        slots: Slots::default(),
        jobs: JoinSet::new(),
        of_jobs: HashMap::new(),
        draining: false,
    };
    drive(driver, messages)
}

async fn drive(mut driver: Driver, mut messages: UnboundedReceiver<Message>) {
    loop {
        let due = driver.due.first().map(|(at, _)| *at);
        let next = due.into_iter().chain(driver.turns.due()).min();
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
        driver.start_jobs();
    }
}

impl Driver {
    fn take(&mut self, message: Message) {
        match message {
            Message::Events(intake) => self.turns.add(intake),
            Message::Closing(intake) => {
                for lane in intake.lanes() {
                    if lane.is_spooled() {
                        self.stored(lane);
                    }
                    if let Some(entry) = self.entries.get_mut(&lane.id) {
                        let now = Instant::now();
                        entry.closed_at = Some(now);
                        // Its receiver may want it to wait longer than it is kept.
                        let due = entry.due.map(|due| due.min(now + PATIENCE));
                        self.set_due(lane.id, due);
                        self.next_of(lane.id);
                    }
                }
            }
            Message::Stored(lane) => self.stored(&lane),
            Message::Trigger(app, call) => self.trigger(app.as_ref(), &call),
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

    fn trigger(&mut self, app: Option<&AppId>, call: &Arc<Call>) {
        let is_meant = |it: &AppId| app.is_none_or(|app| app == it);
        let entries = self.entries.iter();
        let lanes = entries.filter(|(_, entry)| is_meant(&entry.lane.app));
        let lanes: Vec<_> = lanes.map(|(id, _)| *id).collect();
        for id in lanes {
            self.call(id, call);
        }
        for intake in self.turns.intakes().filter(|it| is_meant(&it.app)) {
            self.awaited.push(Awaited {
                intake: Arc::clone(intake),
                events: intake.handed_over(),
                call: Arc::clone(call),
            });
        }
    }

    /// Delivers what a lane has, for whoever waits for it.
    fn call(&mut self, id: u64, call: &Arc<Call>) {
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.calls.push(Arc::clone(call));
            self.set_due(id, None);
            self.request(id, true);
        }
    }

    /// Some of an app's events were encoded.
    fn encoded(&mut self, intake: &Intake) {
        let taken = intake.taken();
        let is_due = |it: &mut Awaited| it.intake.id == intake.id && it.events <= taken;
        let due: Vec<_> = self.awaited.extract_if(.., is_due).collect();
        for Awaited { call, .. } in due {
            for lane in intake.lanes() {
                self.call(lane.present().id, &call);
            }
        }
    }

    fn start_jobs(&mut self) {
        while let Some(intake) = self.turns.next() {
            if intake.is_blocked() {
                for lane in intake.lanes() {
                    self.stored(lane);
                }
                self.turns.park(&intake);
                continue;
            }
            let processing = process::process(Arc::clone(&intake));
            let job = self.jobs.spawn(async move {
                let was_slow = processing.await;
                Done::Processed { was_slow }
            });
            self.of_jobs.insert(job.id(), Job::Process(intake));
        }
        while let Some((id, slot)) = self.slots.next() {
            let Some(entry) = self.entries.get(&id) else {
                self.slots.ended(&slot);
                continue;
            };
            let gathers = entry.delivering.unwrap_or_default();
            let delivery = deliver::deliver(Arc::clone(&entry.lane), gathers);
            let job = self
                .jobs
                .spawn(async move { Done::Delivered(delivery.await) });
            let job = job.id();
            self.of_jobs.insert(job, Job::Deliver { lane: id, slot });
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
            Some(Job::Process(intake)) => {
                let was_slow = matches!(done, Some(Done::Processed { was_slow: true }));
                self.turns.ended(&intake, was_slow);
                for lane in intake.lanes() {
                    self.stored(lane);
                }
                self.encoded(&intake);
            }
            Some(Job::Deliver { lane, slot }) => {
                self.slots.ended(&slot);
                let turn = match done {
                    Some(Done::Delivered(turn)) => turn,
                    _ => Turn::Failed(OutputError::new("a panic ended the delivery")),
                };
                self.delivered(lane, &turn);
            }
            None => {}
        }
    }

    /// Events were put into a lane, perhaps.
    fn stored(&mut self, lane: &Arc<Lane>) {
        let lane = &lane.present();
        if !lane.is_delivered() {
            self.entries.entry(lane.id).or_insert_with(|| Entry {
                lane: Arc::clone(lane),
                due: None,
                delivering: None,
                again: false,
                failures: 0,
                closed_at: lane.is_closing().then(Instant::now),
                calls: Vec::new(),
            });
        }
        self.next_of(lane.id);
    }

    fn delivered(&mut self, id: u64, turn: &Turn) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.delivering = None;
        self.turns.unpark(entry.lane.intake);
        let present = entry.lane.present();
        let is_present = present.id == id;
        let again = std::mem::take(&mut entry.again);
        match turn {
            Turn::Done => entry.failures = 0,
            Turn::More => entry.failures = 0,
            Turn::Failed(error) => {
                entry.failures = entry.failures.saturating_add(1);
                for call in entry.calls.drain(..) {
                    call.fail(&entry.lane.app, &entry.lane.name, &error.message);
                }
                self.failed(id, error.retry_after);
                if !is_present {
                    self.stored(&present);
                }
                return;
            }
        }
        if !again && matches!(turn, Turn::Done) {
            entry.calls.clear();
        }
        if again || matches!(turn, Turn::More) {
            // Behind those who wait for the same service.
            self.request(id, true);
        }
        self.next_of(id);
        if !is_present {
            self.stored(&present);
        }
    }

    fn failed(&mut self, id: u64, retry_after: Option<Duration>) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        let max = entry.lane.transport.max_retry();
        let now = Instant::now();
        let mut at = now + retry::delay(entry.failures, max, retry_after);
        if self.draining {
            at = at.min(now + LAST_RETRY);
        } else if let Some(end) = entry.closed_at.map(|at| at + PATIENCE) {
            if now >= end {
                entry.lane.abandon();
                entry
                    .lane
                    .warn_once("the app is closed and its events are not taken: they are given up");
            }
            at = at.min(end);
        }
        let is_left_alone =
            entry.lane.transport.is_manual() && entry.closed_at.is_none() && !self.draining;
        self.set_due(id, Some(at).filter(|_| !is_left_alone));
        self.next_of(id);
    }

    /// What is next for a lane that did something.
    fn next_of(&mut self, id: u64) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        if entry.delivering.is_some() {
            return;
        }
        if entry.lane.is_delivered() {
            self.set_due(id, None);
            self.entries.remove(&id);
            return;
        }
        if entry.lane.is_busy() {
            // It is told when that has ended.
            return;
        }
        let is_last = self.draining || entry.closed_at.is_some();
        let is_failing = entry.failures > 0 && entry.due.is_some();
        if is_last && !is_failing {
            self.request(id, true);
        } else if entry.lane.transport.is_manual() {
            // The program says when.
        } else if entry.lane.is_full() && !is_failing {
            self.request(id, false);
        } else if entry.lane.when_full.holds() && entry.lane.is_blocked() && !is_failing {
            self.request(id, true);
        } else if entry.due.is_none() {
            let delay = entry.lane.transport.delay();
            self.set_due(id, Some(Instant::now() + delay));
        }
    }

    fn wake(&mut self) {
        let now = Instant::now();
        self.turns.gathered(now);
        while let Some((_, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.set_due(id, None);
            self.request(id, true);
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

    fn request(&mut self, id: u64, gathers: bool) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        if entry.delivering.is_some() {
            entry.again |= gathers;
            return;
        }
        entry.delivering = Some(gathers);
        let (line, bound) = entry.lane.transport.line(&entry.lane.name);
        let is_retry = entry.failures > 0;
        self.slots.request(line, bound, id, is_retry);
    }
}
