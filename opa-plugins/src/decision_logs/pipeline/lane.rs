//! One app's way through the pipeline.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use opa_core::AppId;
use opa_core::plugin::{DecisionSink, Event};
use opa_core::service::ServiceClient;
use parking_lot::Mutex;

use super::super::chunk::Compressor;
use super::super::{DecisionLogsConfig, write_event};
use super::Shared;
use super::driver::Message;
use super::ledger::{Fate, Ledger, Unsettled};
use super::outbox::{Outbox, Text};
use super::policy::Kept;

/// The most events of one app that wait to be encoded.
const QUEUE: usize = 8_192;

/// The most events of all apps that wait to be encoded, as long as each app has its share.
const QUEUES: usize = 65_536;

/// An app's configuration with the events that were decided under it.
pub(super) struct Lane {
    pub(super) id: u64,
    pub(super) app: AppId,
    pub(super) config: DecisionLogsConfig,
    pub(super) client: Option<ServiceClient>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) shared: Arc<Shared>,
    queue: Mutex<Queue>,
    outbox: Mutex<Outbox>,
    /// What the outbox holds, for others to see.
    bytes: AtomicUsize,
    closing: AtomicBool,
    warned: AtomicBool,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// The driver knows of them.
    scheduled: bool,
}

/// Where an instance's events go. When it is dropped, they are delivered at once.
pub(super) struct LaneSink(pub(super) Arc<Lane>);

impl DecisionSink for LaneSink {
    fn record(&self, event: Event) {
        self.0.record(event);
    }

    fn asks_policy(&self) -> bool {
        true
    }
}

impl Drop for LaneSink {
    fn drop(&mut self) {
        self.0.closing.store(true, Ordering::Release);
        self.0.shared.send(Message::Closing(Arc::clone(&self.0)));
    }
}

impl Lane {
    pub(super) fn new(
        shared: &Arc<Shared>,
        id: u64,
        app: &AppId,
        config: DecisionLogsConfig,
        client: Option<ServiceClient>,
    ) -> Self {
        Self {
            id,
            app: app.clone(),
            outbox: Mutex::new(Outbox::new(&config.reporting)),
            config,
            client,
            ledger: shared.ledger(app),
            shared: Arc::clone(shared),
            queue: Mutex::default(),
            bytes: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        }
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn record(self: &Arc<Self>, event: Event) {
        self.ledger.take();
        if self.shared.is_over() {
            self.ledger.settle(Fate::NotDelivered, 1);
            return;
        }
        let mut queue = self.queue.lock();
        if queue.events.len() >= self.queue_limit() {
            drop(queue);
            self.ledger.settle(Fate::QueueFull, 1);
            self.warn_once("events come faster than they can be encoded, and are dropped");
            return;
        }
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        queue.events.push_back(event);
        let is_news = !std::mem::replace(&mut queue.scheduled, true);
        drop(queue);
        if is_news {
            self.shared.lanes.fetch_add(1, Ordering::Relaxed);
            self.shared.send(Message::Events(Arc::clone(self)));
        }
    }

    /// While all apps together have little, one may have much.
    fn queue_limit(&self) -> usize {
        if self.shared.queued.load(Ordering::Relaxed) < QUEUES {
            return QUEUE;
        }
        let lanes = self.shared.lanes.load(Ordering::Relaxed).max(1);
        (QUEUES / lanes).clamp(1, QUEUE)
    }

    /// The oldest events that wait to be encoded.
    pub(super) fn dequeue(&self, max: usize) -> Vec<Event> {
        let mut queue = self.queue.lock();
        let events: Vec<_> = {
            let events = &mut queue.events;
            let count = events.len().min(max);
            events.drain(..count).collect()
        };
        if queue.events.is_empty() && queue.events.capacity() > max {
            queue.events = VecDeque::new();
        }
        self.shared
            .queued
            .fetch_sub(events.len(), Ordering::Relaxed);
        events
    }

    /// Whether there are more; if not, the next one is told to the driver.
    pub(super) fn has_more(&self) -> bool {
        let mut queue = self.queue.lock();
        let more = !queue.events.is_empty();
        if !more && std::mem::replace(&mut queue.scheduled, false) {
            self.shared.lanes.fetch_sub(1, Ordering::Relaxed);
        }
        more
    }

    /// Masks and encodes events, and puts them where they go. Takes its time.
    pub(super) fn store(&self, kept: Vec<Kept>, unsettled: &mut Unsettled) {
        let mut compressor = self.shared.compressor();
        for one in kept {
            let masked = catch_unwind(AssertUnwindSafe(|| one.masked()));
            let stored = masked.is_ok_and(|event| {
                let stored = || self.store_one(event, unsettled, &mut compressor);
                catch_unwind(AssertUnwindSafe(stored)).is_ok()
            });
            if !stored {
                tracing::error!(app = %self.app, "decision log: a panic lost an event");
            }
        }
        self.shared.give_back(compressor);
        self.shared.relieve();
    }

    fn store_one(&self, event: Event, unsettled: &mut Unsettled, compressor: &mut Compressor) {
        if self.client.is_none() {
            let fate = match self.shared.console.record(event) {
                true => Fate::Delivered,
                false => Fate::QueueFull,
            };
            unsettled.settle(fate, 1);
            return;
        }
        let mut json = Vec::new();
        let Some(written) = write_event(&event, &mut json) else {
            tracing::error!(app = %self.app, "decision log: an event is too large");
            unsettled.settle(Fate::EncodingFailed, 1);
            return;
        };
        let cache = written.nd_builtin_cache;
        if self.config.console {
            // It counts for itself.
            self.shared.console.record(event);
        }
        let now = self.shared.origin.elapsed();
        unsettled.hand_on(1);
        self.change(|outbox| outbox.push(Text { json, cache }, now, compressor, &self.ledger));
    }

    /// Changes what waits for its upload.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Outbox) -> T) -> T {
        let mut outbox = self.outbox.lock();
        let before = outbox.bytes();
        let changed = change(&mut outbox);
        let after = outbox.bytes();
        self.bytes.store(after, Ordering::Relaxed);
        let total = &self.shared.bytes;
        if after > before {
            total.fetch_add(after - before, Ordering::Relaxed);
        } else {
            total.fetch_sub(before - after, Ordering::Relaxed);
        }
        changed
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether nothing waits for an upload.
    pub(super) fn is_delivered(&self) -> bool {
        self.outbox.lock().is_empty()
    }

    /// Whether a chunk is ready.
    pub(super) fn has_chunk(&self) -> bool {
        self.outbox.lock().has_chunk()
    }

    /// Whether as much waits as makes a chunk.
    pub(super) fn has_backlog(&self) -> bool {
        self.outbox.lock().has_backlog()
    }

    /// Gives up all that waits for an upload.
    pub(super) fn abandon(&self) {
        self.change(|outbox| {
            while !outbox.is_empty() {
                outbox.drop_oldest(Fate::NotDelivered, &self.ledger);
            }
        });
        self.warn_once("the app is closed and its service does not answer: events are given up");
    }

    pub(super) fn warn_once(&self, text: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(app = %self.app, "decision log: {text}");
        }
    }
}
