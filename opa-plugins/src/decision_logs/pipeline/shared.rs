//! What all apps share.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use opa_core::AppId;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use super::super::super::metrics::{AppEvents, LogReport};
use super::super::super::status::{Buffer, DecisionLogsStatus};
use super::super::WhenFull;
use super::super::chunk::Compressor;
use super::super::config::SERVICE;
use super::super::console::Console;
use super::super::outputs::Storage;
use super::driver::Message;
use super::intake::Intake;
use super::lane::Lane;
use super::ledger::{AppCounts, Ledger, Totals};
use super::queue::Limit;
use super::spooled::{Spooled, Streams};
use super::transport::Transport;

/// How many bytes of encoded events all apps may hold, by default.
const BUFFER_BYTES: usize = 256 * 1024 * 1024;

/// How many threads mask and encode at a time.
const ENCODERS: usize = 2;

/// The most that waits of one app to be encoded.
const QUEUE: Limit = Limit {
    events: 8_192,
    bytes: 32 * 1024 * 1024,
};

/// The most that waits of all apps to be encoded, as long as each app has its share.
const QUEUES: Limit = Limit {
    events: 65_536,
    bytes: 128 * 1024 * 1024,
};

/// By app and output.
type Ledgers = HashMap<(AppId, Arc<str>), Arc<Ledger>>;

pub(in super::super) struct Shared {
    pub(super) console: Mutex<Arc<Console>>,
    messages: UnboundedSender<Message>,
    next_id: AtomicU64,
    pub(super) totals: Arc<Totals>,
    ledgers: Mutex<Ledgers>,
    intakes: Mutex<HashMap<u64, Weak<Intake>>>,
    /// The lanes that hold events.
    active: Mutex<HashMap<u64, Arc<Lane>>>,
    compressors: Mutex<Vec<Compressor>>,
    pub(super) encoders: Semaphore,
    /// How many events wait to be encoded, about how many bytes they hold, and in how many queues.
    queued: AtomicUsize,
    queued_bytes: AtomicUsize,
    queues: AtomicUsize,
    sequences: Mutex<HashMap<(AppId, String), Weak<AtomicU64>>>,
    /// How many bytes wait in lanes, and how many may.
    bytes: AtomicUsize,
    pub(super) max_bytes: AtomicUsize,
    origin: Instant,
    started: AtomicBool,
    over: AtomicBool,
    listeners: Mutex<Vec<Listener>>,
    /// The spool, once it is open.
    pub(super) streams: OnceLock<Arc<Streams>>,
}

/// Told of an attempt to upload an app's events.
type Listener = Arc<dyn Fn(&AppId) + Send + Sync>;

impl Shared {
    pub(super) fn new(console: Arc<Console>, messages: UnboundedSender<Message>) -> Self {
        Self {
            console: Mutex::new(console),
            messages,
            next_id: AtomicU64::new(0),
            totals: Arc::default(),
            ledgers: Mutex::default(),
            intakes: Mutex::default(),
            active: Mutex::default(),
            compressors: Mutex::default(),
            encoders: Semaphore::new(ENCODERS),
            queued: AtomicUsize::new(0),
            queued_bytes: AtomicUsize::new(0),
            queues: AtomicUsize::new(0),
            sequences: Mutex::default(),
            bytes: AtomicUsize::new(0),
            max_bytes: AtomicUsize::new(BUFFER_BYTES),
            origin: Instant::now(),
            started: AtomicBool::new(false),
            over: AtomicBool::new(false),
            listeners: Mutex::default(),
            streams: OnceLock::new(),
        }
    }

    pub(super) fn streams(&self) -> Option<&Arc<Streams>> {
        self.streams.get()
    }

    /// How a lane uses the spool.
    pub(super) fn spooled(
        &self,
        app: &AppId,
        output: &Arc<str>,
        transport: &Transport,
        storage: &Storage,
        when_full: WhenFull,
    ) -> Option<Spooled> {
        let streams = self.streams()?;
        let is_wanted = match storage {
            Storage::Default => streams.is_for_all(),
            Storage::Disk(_) => true,
            Storage::Unbuffered => false,
        };
        if !is_wanted {
            return None;
        }
        streams.of_lane(self, app, output, transport, when_full)
    }

    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// A time of a monotonic clock.
    pub(super) fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// The counters of an app's output, which stay as long as something is known of it.
    pub(super) fn ledger(&self, app: &AppId, output: &Arc<str>) -> Arc<Ledger> {
        let mut ledgers = self.ledgers.lock();
        let key = (app.clone(), Arc::clone(output));
        if let Some(ledger) = ledgers.get(&key) {
            return Arc::clone(ledger);
        }
        if ledgers.len() == ledgers.capacity() {
            // It would grow: first the apps that are gone go.
            ledgers.retain(|_, ledger| Arc::strong_count(ledger) > 1);
        }
        let ledger = Arc::new(Ledger::new(&self.totals));
        if self.is_over() {
            ledger.close();
        }
        ledgers.insert(key, Arc::clone(&ledger));
        ledger
    }

    /// What became of the events of each app at each output, sorted by app and output.
    pub(in super::super) fn counts(&self) -> Vec<(AppId, Arc<str>, AppCounts)> {
        let ledgers = self.ledgers.lock();
        let mut counts: Vec<_> = ledgers
            .iter()
            .map(|((app, output), it)| (app.clone(), Arc::clone(output), it.counts()))
            .filter(|(_, _, counts)| counts.decided > 0)
            .collect();
        counts.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        counts
    }

    /// What became of the events of each app at each output, and what is told of all together.
    pub(in super::super) fn report(&self) -> LogReport {
        let mut report = LogReport::default();
        (report.chunks_uploaded, report.chunks_upload_failed) = self.totals.chunks();
        for ((app, output), ledger) in &*self.ledgers.lock() {
            let buffer = ledger.buffer();
            match buffer {
                Buffer::Events(events) => report.buffered_events += events,
                Buffer::Bytes(bytes) => report.buffered_bytes += bytes,
            }
            let counts = ledger.counts();
            if counts.decided > 0 {
                let mut events = AppEvents::new(app.clone(), counts).output(&**output);
                events.chunks = ledger.chunks();
                events.last_upload = ledger.last_upload();
                events.buffer = Some(buffer);
                report.apps.push(events);
            }
        }
        let by = |it: &AppEvents| (it.app.clone(), it.output.clone());
        report.apps.sort_by_cached_key(by);
        report
    }

    /// Not all was delivered.
    pub(super) fn warn_of_rest(&self) {
        let counts = self.counts();
        let spooled: u64 = counts.iter().map(|(_, _, it)| it.spooled).sum();
        if spooled > 0 {
            tracing::warn!(
                spooled,
                "decision log: what was not delivered stays in the spool"
            );
        }
        if counts.iter().any(|(_, _, it)| it.buffered > 0) {
            // OPA's words.
            tracing::error!("Plugin stopped with decisions possibly still in buffer.");
        }
    }

    pub(super) fn register(&self, intake: &Arc<Intake>) {
        let mut intakes = self.intakes.lock();
        if intakes.len() == intakes.capacity() {
            intakes.retain(|_, intake| intake.strong_count() > 0);
        }
        intakes.insert(intake.id, Arc::downgrade(intake));
    }

    /// There is a driver.
    pub(super) fn start(&self) {
        self.started.store(true, Ordering::Release);
    }

    pub(super) fn is_started(&self) -> bool {
        self.started.load(Ordering::Acquire)
    }

    pub(in super::super) fn listen(&self, listener: Listener) {
        self.listeners.lock().push(listener);
    }

    /// An attempt to deliver an app's events has ended.
    pub(super) fn tell(&self, app: &AppId) {
        let listeners = self.listeners.lock().clone();
        for listener in listeners {
            if catch_unwind(AssertUnwindSafe(|| listener(app))).is_err() {
                tracing::error!(%app, "decision log: a listener of uploads panicked");
            }
        }
    }

    /// What became of the last upload of an app: of OPA's own, else of its first output's that had
    /// one.
    pub(in super::super) fn upload_status(&self, app: &AppId) -> Option<DecisionLogsStatus> {
        let of_app: Vec<_> = {
            let ledgers = self.ledgers.lock();
            let of_app = ledgers.iter().filter(|((it, _), _)| it == app);
            of_app
                .map(|((_, output), ledger)| (Arc::clone(output), Arc::clone(ledger)))
                .collect()
        };
        let of_service = of_app.iter().find(|(output, _)| &**output == SERVICE);
        if let Some((_, ledger)) = of_service {
            return Some(ledger.upload_status());
        }
        let first = of_app.into_iter().min_by(|(a, _), (b, _)| a.cmp(b));
        first.map(|(_, ledger)| ledger.upload_status())
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(super) fn send(&self, message: Message) {
        // Without a driver nothing is delivered any more, and all is counted so.
        let _ = self.messages.send(message);
    }

    /// How much an app may have: while one has much, the others have little.
    pub(super) fn queue_limit(&self) -> Limit {
        let has_room = self.queued.load(Ordering::Relaxed) < QUEUES.events
            && self.queued_bytes.load(Ordering::Relaxed) < QUEUES.bytes;
        if has_room {
            return QUEUE;
        }
        let queues = self.queues.load(Ordering::Relaxed).max(1);
        Limit {
            events: (QUEUES.events / queues).clamp(1, QUEUE.events),
            bytes: (QUEUES.bytes / queues).min(QUEUE.bytes),
        }
    }

    /// A queue that held `before` holds `after`.
    pub(super) fn queued(&self, before: (usize, usize), after: (usize, usize)) {
        change(&self.queued, before.0, after.0);
        change(&self.queued_bytes, before.1, after.1);
    }

    /// An app that had no events has some.
    pub(super) fn schedule(&self, intake: &Arc<Intake>) {
        self.queues.fetch_add(1, Ordering::Relaxed);
        self.send(Message::Events(Arc::clone(intake)));
    }

    /// An app has no more events.
    pub(super) fn unschedule(&self) {
        self.queues.fetch_sub(1, Ordering::Relaxed);
    }

    /// The numbers of an instance's events, which go on when its configuration changes.
    pub(super) fn sequence(&self, app: &AppId, instance: &str) -> Arc<AtomicU64> {
        let mut sequences = self.sequences.lock();
        let key = (app.clone(), instance.to_owned());
        if let Some(sequence) = sequences.get(&key).and_then(Weak::upgrade) {
            return sequence;
        }
        sequences.retain(|_, sequence| sequence.strong_count() > 0);
        let sequence = Arc::default();
        sequences.insert(key, Arc::downgrade(&sequence));
        sequence
    }

    /// A lane that held `before` bytes holds `after`.
    pub(super) fn hold(&self, before: usize, after: usize) {
        change(&self.bytes, before, after);
    }

    /// How many bytes a lane may hold that must not lose any: its share.
    pub(super) fn share(&self) -> usize {
        let lanes = self.active.lock().len();
        self.max_bytes.load(Ordering::Relaxed) / (lanes + 1)
    }

    pub(super) fn activate(&self, lane: &Arc<Lane>) {
        let mut active = self.active.lock();
        // Lanes and what they share hold each other while there is something to do.
        if !self.is_over() {
            active.insert(lane.id, Arc::clone(lane));
        }
    }

    pub(super) fn deactivate(&self, lane: u64) {
        self.active.lock().remove(&lane);
    }

    /// Nothing is taken and delivered any more; what waits is lost, and counted so.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
        let intakes = std::mem::take(&mut *self.intakes.lock());
        for intake in intakes.into_values().filter_map(|it| it.upgrade()) {
            intake.forget();
        }
        for ledger in self.ledgers.lock().values() {
            ledger.close();
        }
        let active = std::mem::take(&mut *self.active.lock());
        for lane in active.into_values() {
            lane.abandon();
        }
    }

    pub(super) fn compressor(&self) -> Compressor {
        self.compressors.lock().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, compressor: Compressor) {
        let mut compressors = self.compressors.lock();
        if compressors.len() < ENCODERS {
            compressors.push(compressor);
        }
    }

    /// While all apps together hold too much, whoever holds most gives up some events, but for those
    /// that decisions wait for.
    pub(super) fn relieve(&self) {
        let max = self.max_bytes.load(Ordering::Relaxed);
        while self.bytes.load(Ordering::Relaxed) > max {
            let largest = {
                let active = self.active.lock();
                let lanes = active.values().filter(|lane| !lane.when_full.holds());
                lanes.max_by_key(|lane| lane.bytes()).cloned()
            };
            let Some(lane) = largest.filter(|lane| lane.bytes() > 0) else {
                return;
            };
            lane.give_up();
            lane.warn_once("all apps together hold too many events, some are dropped");
        }
    }
}

fn change(total: &AtomicUsize, before: usize, after: usize) {
    if after > before {
        total.fetch_add(after - before, Ordering::Relaxed);
    } else {
        total.fetch_sub(before - after, Ordering::Relaxed);
    }
}
