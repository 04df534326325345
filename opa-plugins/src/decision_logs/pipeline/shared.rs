//! What all apps share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use opa_core::AppId;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use super::super::chunk::Compressor;
use super::super::console::Console;
use super::driver::Message;
use super::intake::Intake;
use super::lane::Lane;
use super::ledger::{AppCounts, Ledger, Totals};

/// How many bytes of encoded events all apps may hold, by default.
const BUFFER_BYTES: usize = 256 * 1024 * 1024;

/// How many threads mask and encode at a time.
const ENCODERS: usize = 2;

/// The most events of one app that wait to be encoded.
const QUEUE: usize = 8_192;

/// The most events of all apps that wait to be encoded, as long as each app has its share.
const QUEUES: usize = 65_536;

/// By app and output.
type Ledgers = HashMap<(AppId, Arc<str>), Arc<Ledger>>;

pub(in super::super) struct Shared {
    pub(super) console: Arc<Console>,
    messages: UnboundedSender<Message>,
    next_id: AtomicU64,
    pub(super) totals: Arc<Totals>,
    ledgers: Mutex<Ledgers>,
    intakes: Mutex<HashMap<u64, Weak<Intake>>>,
    /// The lanes that hold events.
    active: Mutex<HashMap<u64, Arc<Lane>>>,
    compressors: Mutex<Vec<Compressor>>,
    pub(super) encoders: Semaphore,
    /// How many events wait to be encoded, and in how many queues.
    pub(super) queued: AtomicUsize,
    pub(super) queues: AtomicUsize,
    /// How many bytes wait in lanes, and how many may.
    bytes: AtomicUsize,
    pub(super) max_bytes: AtomicUsize,
    origin: Instant,
    over: AtomicBool,
}

impl Shared {
    pub(super) fn new(console: Arc<Console>, messages: UnboundedSender<Message>) -> Self {
        Self {
            console,
            messages,
            next_id: AtomicU64::new(0),
            totals: Arc::default(),
            ledgers: Mutex::default(),
            intakes: Mutex::default(),
            active: Mutex::default(),
            compressors: Mutex::default(),
            encoders: Semaphore::new(ENCODERS),
            queued: AtomicUsize::new(0),
            queues: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_bytes: AtomicUsize::new(BUFFER_BYTES),
            origin: Instant::now(),
            over: AtomicBool::new(false),
        }
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

    pub(super) fn register(&self, intake: &Arc<Intake>) {
        let mut intakes = self.intakes.lock();
        if intakes.len() == intakes.capacity() {
            intakes.retain(|_, intake| intake.strong_count() > 0);
        }
        intakes.insert(intake.id, Arc::downgrade(intake));
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(super) fn send(&self, message: Message) {
        // Without a driver nothing is delivered any more, and all is counted so.
        let _ = self.messages.send(message);
    }

    /// While one app has much, the others have little.
    pub(super) fn queue_limit(&self) -> usize {
        if self.queued.load(Ordering::Relaxed) < QUEUES {
            return QUEUE;
        }
        let queues = self.queues.load(Ordering::Relaxed).max(1);
        (QUEUES / queues).clamp(1, QUEUE)
    }

    /// A lane that held `before` bytes holds `after`.
    pub(super) fn hold(&self, before: usize, after: usize) {
        if after > before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
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

    /// While all apps together hold too much, whoever holds most gives up its oldest events.
    pub(super) fn relieve(&self) {
        let max = self.max_bytes.load(Ordering::Relaxed);
        while self.bytes.load(Ordering::Relaxed) > max {
            let largest = {
                let active = self.active.lock();
                active.values().max_by_key(|lane| lane.bytes()).cloned()
            };
            let Some(lane) = largest.filter(|lane| lane.bytes() > 0) else {
                return;
            };
            lane.drop_oldest();
            lane.warn_once("all apps together hold too many events, the oldest are dropped");
        }
    }
}
