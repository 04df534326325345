//! Where an app's decisions are handed over.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use opa_core::AppId;
use opa_core::plugin::{DecisionSink, Event};
use parking_lot::Mutex;

use super::super::outputs::Policies;
use super::driver::Message;
use super::lane::{Lane, Route};
use super::ledger::Fate;
use super::shared::Shared;

/// An app's configuration, with the events that were decided under it and wait to be encoded.
pub(super) struct Intake {
    pub(super) id: u64,
    pub(super) app: AppId,
    /// The lanes by what is asked before them.
    pub(super) groups: Vec<Group>,
    pub(super) shared: Arc<Shared>,
    queue: Mutex<Queue>,
    warned: AtomicBool,
}

/// The lanes that see the same of an event.
pub(super) struct Group {
    pub(super) policies: Policies,
    pub(super) lanes: Vec<Arc<Lane>>,
}

#[derive(Default)]
struct Queue {
    events: VecDeque<Event>,
    /// The driver knows of them.
    scheduled: bool,
}

/// Where an instance's events go. When it is dropped, they are delivered at once.
pub(super) struct Handover(pub(super) Arc<Intake>);

impl DecisionSink for Handover {
    fn record(&self, event: Event) {
        self.0.record(event);
    }

    fn asks_policy(&self) -> bool {
        true
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        for lane in self.0.lanes() {
            lane.close();
        }
        self.0.shared.send(Message::Closing(Arc::clone(&self.0)));
    }
}

impl Intake {
    pub(super) fn new(shared: &Arc<Shared>, app: &AppId, routes: Vec<Route>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for route in routes {
            let lane = Arc::new(Lane::new(shared, app, route.name, route.transport));
            match groups.iter_mut().find(|it| it.policies == route.policies) {
                Some(group) => group.lanes.push(lane),
                None => groups.push(Group {
                    policies: route.policies,
                    lanes: vec![lane],
                }),
            }
        }
        Self {
            id: shared.next_id(),
            app: app.clone(),
            groups,
            shared: Arc::clone(shared),
            queue: Mutex::default(),
            warned: AtomicBool::new(false),
        }
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.groups.iter().flat_map(|group| &group.lanes)
    }

    fn settle(&self, fate: Fate, events: u64) {
        for lane in self.lanes() {
            lane.ledger.settle(fate, events);
        }
    }

    fn record(self: &Arc<Self>, event: Event) {
        for lane in self.lanes() {
            lane.ledger.take();
        }
        let mut queue = self.queue.lock();
        // Asked under the lock: at the end the queue is emptied for good.
        if self.shared.is_over() {
            drop(queue);
            self.settle(Fate::NotDelivered, 1);
            return;
        }
        if queue.events.len() >= self.shared.queue_limit() {
            drop(queue);
            self.settle(Fate::QueueFull, 1);
            self.warn_once("events come faster than they can be encoded, and are dropped");
            return;
        }
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        queue.events.push_back(event);
        let is_news = !std::mem::replace(&mut queue.scheduled, true);
        drop(queue);
        if is_news {
            self.shared.queues.fetch_add(1, Ordering::Relaxed);
            self.shared.send(Message::Events(Arc::clone(self)));
        }
    }

    /// The oldest event that waits to be encoded.
    pub(super) fn pop(&self) -> Option<Event> {
        let mut queue = self.queue.lock();
        let event = queue.events.pop_front()?;
        if queue.events.is_empty() {
            // An app that rests holds no memory.
            queue.events = VecDeque::new();
        }
        self.shared.queued.fetch_sub(1, Ordering::Relaxed);
        Some(event)
    }

    /// Whether there are more; if not, the next one is told to the driver.
    pub(super) fn has_more(&self) -> bool {
        let mut queue = self.queue.lock();
        let more = !queue.events.is_empty();
        if !more && std::mem::replace(&mut queue.scheduled, false) {
            self.shared.queues.fetch_sub(1, Ordering::Relaxed);
        }
        more
    }

    /// Forgets all events, once everything is over: they hold snapshots, which hold sinks.
    pub(super) fn forget(&self) {
        let events = std::mem::take(&mut self.queue.lock().events);
        self.shared
            .queued
            .fetch_sub(events.len(), Ordering::Relaxed);
    }

    pub(super) fn warn_once(&self, text: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(app = %self.app, "decision log: {text}");
        }
    }
}
