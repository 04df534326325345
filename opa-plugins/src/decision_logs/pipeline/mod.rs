//! The one way of all apps' events: from the hand-over to the service and the console.
//!
//! An instance hands its events over to its [lane](lane), without blocking. One [driver] decides
//! whose events are masked and encoded next, and who uploads; there is no task or timer for an app
//! that has nothing to do.

mod driver;
mod lane;
mod ledger;
mod outbox;
mod policy;
mod work;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use opa_core::AppId;
use opa_core::plugin::DecisionSink;
use opa_core::service::ServiceClient;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use self::driver::Message;
use self::lane::{Lane, LaneSink};
pub use self::ledger::AppCounts;
use self::ledger::{Fate, Ledger, Totals};
use super::DecisionLogsConfig;
use super::chunk::Compressor;
use super::console::Console;

/// How many bytes of encoded events all apps may hold, by default.
pub(super) const BUFFER_BYTES: usize = 256 * 1024 * 1024;

/// How many threads mask and encode at a time.
const ENCODERS: usize = 2;

/// How many uploads are under way at a time.
const UPLOADS: usize = 256;

/// What all lanes share.
pub(super) struct Shared {
    console: Arc<Console>,
    messages: UnboundedSender<Message>,
    totals: Arc<Totals>,
    ledgers: Mutex<HashMap<AppId, Arc<Ledger>>>,
    /// The lanes that have something to do.
    active: Mutex<HashMap<u64, Arc<Lane>>>,
    compressors: Mutex<Vec<Compressor>>,
    encoders: Semaphore,
    uploads: Semaphore,
    /// How many events wait to be encoded, and in how many lanes.
    queued: AtomicUsize,
    lanes: AtomicUsize,
    /// How many bytes wait for their upload, and how many may.
    bytes: AtomicUsize,
    max_bytes: AtomicUsize,
    origin: Instant,
    over: AtomicBool,
}

/// The pipeline of a process.
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    next_lane: AtomicU64,
    unstarted: Mutex<Option<UnboundedReceiver<Message>>>,
    driver: OnceLock<AbortHandle>,
}

impl Pipeline {
    pub(super) fn new(console: Arc<Console>) -> Self {
        let (messages, receiver) = unbounded_channel();
        let shared = Shared {
            console,
            messages,
            totals: Arc::default(),
            ledgers: Mutex::default(),
            active: Mutex::default(),
            compressors: Mutex::default(),
            encoders: Semaphore::new(ENCODERS),
            uploads: Semaphore::new(UPLOADS),
            queued: AtomicUsize::new(0),
            lanes: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            max_bytes: AtomicUsize::new(BUFFER_BYTES),
            origin: Instant::now(),
            over: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
            next_lane: AtomicU64::new(0),
            unstarted: Mutex::new(Some(receiver)),
            driver: OnceLock::new(),
        }
    }

    pub(super) fn set_console(&mut self, console: Arc<Console>) {
        let max_bytes = self.shared.max_bytes.load(Ordering::Relaxed);
        *self = Self::new(console);
        self.set_max_bytes(max_bytes);
    }

    pub(super) fn set_max_bytes(&self, bytes: usize) {
        self.shared.max_bytes.store(bytes, Ordering::Relaxed);
    }

    /// The sink of an app. `None` outside of a Tokio runtime.
    pub(super) fn sink(
        &self,
        app: &AppId,
        config: DecisionLogsConfig,
        client: Option<ServiceClient>,
    ) -> Option<impl DecisionSink + use<>> {
        self.start()?;
        let id = self.next_lane.fetch_add(1, Ordering::Relaxed);
        let lane = Lane::new(&self.shared, id, app, config, client);
        Some(LaneSink(Arc::new(lane)))
    }

    fn start(&self) -> Option<()> {
        let Some(receiver) = self.unstarted.lock().take() else {
            return Some(());
        };
        let Ok(runtime) = Handle::try_current() else {
            *self.unstarted.lock() = Some(receiver);
            return None;
        };
        let driver = runtime.spawn(driver::run(Arc::clone(&self.shared), receiver));
        let _ = self.driver.set(driver.abort_handle());
        Some(())
    }

    /// What became of the events of each app, sorted by app.
    pub(super) fn counts(shared: &Shared) -> Vec<(AppId, AppCounts)> {
        let ledgers = shared.ledgers.lock();
        let mut counts: Vec<_> = ledgers
            .iter()
            .map(|(app, ledger)| (app.clone(), ledger.counts()))
            .filter(|(_, counts)| counts.decided > 0)
            .collect();
        counts.sort_by(|(a, _), (b, _)| a.cmp(b));
        counts
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Delivers all that waits, as far as `deadline` permits. Nothing is taken any more then.
    pub(super) async fn shutdown(&self, deadline: Duration) {
        let shared = &self.shared;
        shared.send(Message::Drain);
        let delivered = async {
            while !shared.totals.is_empty() {
                shared.totals.empty.notified().await;
            }
        };
        // The rest of the time is for counting what is lost.
        let time = deadline - (deadline / 10).min(Duration::from_millis(100));
        if tokio::time::timeout(time, delivered).await.is_err() {
            // OPA's words.
            tracing::error!("Plugin stopped with decisions possibly still in buffer.");
        }
        shared.over.store(true, Ordering::Release);
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
        for ledger in shared.ledgers.lock().values() {
            ledger.abandon();
        }
        shared.forget_all();
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
        self.shared.forget_all();
    }
}

impl Shared {
    /// The counters of an app, which stay as long as something is known of it.
    fn ledger(&self, app: &AppId) -> Arc<Ledger> {
        let mut ledgers = self.ledgers.lock();
        if let Some(ledger) = ledgers.get(app) {
            return Arc::clone(ledger);
        }
        if ledgers.len() == ledgers.capacity() {
            // It would grow: first the apps that are gone go.
            ledgers.retain(|_, ledger| Arc::strong_count(ledger) > 1);
        }
        let ledger = Arc::new(Ledger::new(&self.totals));
        ledgers.insert(app.clone(), Arc::clone(&ledger));
        ledger
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn send(&self, message: Message) {
        // Without a driver nothing is delivered any more, and all is counted so.
        let _ = self.messages.send(message);
    }

    fn activate(&self, lane: &Arc<Lane>) {
        self.active.lock().insert(lane.id, Arc::clone(lane));
    }

    fn deactivate(&self, lane: u64) {
        self.active.lock().remove(&lane);
    }

    /// Lanes and what they share hold each other while there is something to do.
    fn forget_all(&self) {
        let active = std::mem::take(&mut *self.active.lock());
        drop(active);
    }

    fn compressor(&self) -> Compressor {
        self.compressors.lock().pop().unwrap_or_default()
    }

    fn give_back(&self, compressor: Compressor) {
        let mut compressors = self.compressors.lock();
        if compressors.len() < ENCODERS {
            compressors.push(compressor);
        }
    }

    /// While all apps together hold too much, whoever holds most gives up its oldest events.
    fn relieve(&self) {
        let max = self.max_bytes.load(Ordering::Relaxed);
        while self.bytes.load(Ordering::Relaxed) > max {
            let largest = {
                let active = self.active.lock();
                active.values().max_by_key(|lane| lane.bytes()).cloned()
            };
            let Some(lane) = largest.filter(|lane| lane.bytes() > 0) else {
                return;
            };
            lane.change(|outbox| outbox.drop_oldest(Fate::BufferFull, &lane.ledger));
            lane.warn_once("all apps together hold too many events, the oldest are dropped");
        }
    }
}
