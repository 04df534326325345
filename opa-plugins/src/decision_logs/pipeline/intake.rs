//! Where an app's decisions are handed over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use opa_core::AppId;
use opa_core::plugin::{Admission, DecisionSink, Event};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::outputs::Policies;
use super::super::{Audit, Durability, WhenFull};
use super::driver::Message;
use super::held::{self, Held};
use super::lane::{Lane, Route};
use super::ledger::Fate;
use super::queue::{Pushed, Queue, number};
use super::shared::Shared;
use super::ticket::Handed;

/// What is the same for all outputs of an app.
pub(in super::super) struct Terms {
    pub(in super::super) when_full: WhenFull,
    pub(in super::super) durability: Durability,
    pub(in super::super) audit: Audit,
    /// Events show the answers of non-deterministic built-ins.
    pub(in super::super) nd_builtin_cache: bool,
    /// The instance's `id`, whose events are numbered as one stream.
    pub(in super::super) instance: String,
}

/// An app's configuration, with the events that were decided under it and wait to be encoded.
pub(super) struct Intake {
    pub(super) id: u64,
    pub(super) app: AppId,
    /// The lanes by what is asked before them.
    pub(super) groups: Vec<Group>,
    pub(super) terms: Terms,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Mutex<Queue>,
    /// Told for each place that becomes free.
    pub(super) room: Notify,
    sequence: Option<Arc<AtomicU64>>,
    warned: AtomicBool,
}

/// The lanes that see the same of an event.
pub(super) struct Group {
    pub(super) policies: Policies,
    pub(super) lanes: Vec<Arc<Lane>>,
}

/// Where an instance's events go. When it is dropped, they are delivered at once.
pub(super) struct Handover(pub(super) Arc<Intake>);

impl DecisionSink for Handover {
    fn record(&self, event: Event) {
        self.0.decided();
        if let Offer::Full(handed) = self.0.offer(Handed::alone(event), true) {
            self.0.lose(*handed, Fate::QueueFull);
        }
    }

    fn asks_policy(&self) -> bool {
        true
    }

    fn is_available(&self) -> bool {
        self.0.terms.audit != Audit::Required || !self.0.shared.is_over()
    }

    fn admit(&self, event: Event) -> Admission {
        let intake = &self.0;
        intake.decided();
        let when_full = intake.terms.when_full;
        let must_be_taken = when_full.holds() || intake.terms.audit == Audit::Required;
        let (handed, awaiting) = match intake.terms.durability {
            Durability::Async => (Handed::alone(event), None),
            Durability::BeforeResponse => {
                let (handed, awaiting) = Handed::awaited(event);
                (handed, Some(awaiting))
            }
        };
        match (intake.offer(handed, true), when_full) {
            (Offer::Over, _) if must_be_taken => Admission::Refused,
            (Offer::Full(handed), WhenFull::Hold { deadline }) => {
                let held = Held::new(Arc::clone(intake), *handed);
                Admission::Waits(Box::pin(held::taken(held, awaiting, deadline)))
            }
            (Offer::Full(handed), WhenFull::Deny) => {
                intake.lose(*handed, Fate::Refused);
                Admission::Refused
            }
            (Offer::Full(handed), _) => {
                intake.lose(*handed, Fate::QueueFull);
                Admission::Admitted
            }
            (Offer::Taken | Offer::Over, _) => match awaiting {
                None => Admission::Admitted,
                Some(awaiting) => Admission::Waits(Box::pin(held::durable(awaiting, when_full))),
            },
        }
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

/// What became of an event that was offered.
pub(super) enum Offer {
    /// It is accounted for.
    Taken,
    /// There is no room for it.
    Full(Box<Handed>),
    /// It is accounted for: nothing is taken any more.
    Over,
}

impl Intake {
    pub(super) fn new(shared: &Arc<Shared>, app: &AppId, routes: Vec<Route>, terms: Terms) -> Self {
        let id = shared.next_id();
        let mut groups: Vec<Group> = Vec::new();
        for route in routes {
            let policies = route.policies.clone();
            let lane = Arc::new(Lane::new(shared, id, app, route, &terms));
            match groups.iter_mut().find(|it| it.policies == policies) {
                Some(group) => group.lanes.push(lane),
                None => groups.push(Group {
                    policies,
                    lanes: vec![lane],
                }),
            }
        }
        let is_numbered = terms.audit != Audit::Off;
        Self {
            id,
            app: app.clone(),
            groups,
            sequence: is_numbered.then(|| shared.sequence(app, &terms.instance)),
            terms,
            shared: Arc::clone(shared),
            queue: Mutex::default(),
            room: Notify::new(),
            warned: AtomicBool::new(false),
        }
    }

    pub(super) fn lanes(&self) -> impl Iterator<Item = &Arc<Lane>> {
        self.groups.iter().flat_map(|group| &group.lanes)
    }

    /// Whether its events must wait, since one of its outputs has no room for more.
    pub(super) fn is_blocked(&self) -> bool {
        let waits = |lane: &Arc<Lane>| !lane.is_spooled() && lane.is_blocked();
        self.terms.when_full.holds() && self.lanes().any(waits)
    }

    /// Whether decisions must wait or be refused, since the spool takes no more: it must have what
    /// is admitted.
    fn is_spool_blocked(&self) -> bool {
        let blocked = |lane: &Arc<Lane>| lane.is_spooled() && lane.has_no_room();
        self.terms.when_full.holds() && self.lanes().any(blocked)
    }

    /// Whether nobody waits for an event: neither a decision nor a reader of the console, who wants
    /// to see the events of all apps in their order.
    pub(super) fn can_wait(&self) -> bool {
        self.terms.durability == Durability::Async
            && !self.lanes().any(|lane| lane.transport.is_console())
    }

    fn decided(&self) {
        for lane in self.lanes() {
            lane.ledger.take();
        }
    }

    fn settle(&self, fate: Fate, events: u64) {
        for lane in self.lanes() {
            lane.ledger.settle(fate, events);
        }
    }

    /// Takes an event that was decided. One that `is_new` waits behind those that wait already.
    pub(super) fn offer(self: &Arc<Self>, mut handed: Handed, is_new: bool) -> Offer {
        let is_spool_blocked = self.is_spool_blocked();
        let mut queue = self.queue.lock();
        // Asked under the lock: at the end the queue is emptied for good.
        if self.shared.is_over() {
            self.count_up();
            drop(queue);
            self.settle(Fate::NotDelivered, 1);
            return Offer::Over;
        }
        if is_spool_blocked || is_new && queue.waiting > 0 {
            return Offer::Full(Box::new(handed));
        }
        let before = queue.size();
        let limit = self.shared.queue_limit();
        let has_number =
            self.terms.when_full != WhenFull::DropNewest && !self.terms.when_full.holds();
        if has_number {
            self.number(&mut handed.event);
        }
        let pushed = queue.push(handed, limit, self.terms.when_full);
        if !has_number && matches!(pushed, Pushed::Taken { .. }) {
            queue.change_last(|event| self.number(event));
        }
        self.shared.queued(before, queue.size());
        let is_news = queue.len() > 0 && !std::mem::replace(&mut queue.scheduled, true);
        drop(queue);
        if is_news {
            self.shared.schedule(self);
        }
        match pushed {
            Pushed::Full(handed) => return Offer::Full(handed),
            Pushed::Sampled => self.settle(Fate::SampledOut, 1),
            Pushed::Taken { dropped } if !dropped.is_empty() => {
                self.settle(Fate::QueueFull, dropped.len() as u64);
                self.warn_once("events come faster than they can be encoded, and are dropped");
            }
            Pushed::Taken { .. } => {}
        }
        Offer::Taken
    }

    /// An event that was offered is lost.
    pub(super) fn lose(&self, handed: Handed, fate: Fate) {
        let queue = self.queue.lock();
        self.count_up();
        drop(queue);
        drop(handed);
        self.settle(fate, 1);
        self.warn_once("events come faster than they can be encoded, and are dropped");
    }

    /// The next number, for an event that nobody will see. Called with the queue locked, so that
    /// the order of events is that of their numbers.
    fn count_up(&self) -> Option<u64> {
        let sequence = self.sequence.as_ref()?;
        Some(sequence.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn number(&self, event: &mut Event) {
        if let Some(next) = self.count_up() {
            number(event, next);
        }
    }

    /// The oldest event that waits to be encoded.
    pub(super) fn pop(&self) -> Option<Handed> {
        let mut queue = self.queue.lock();
        let before = queue.size();
        let mut handed = queue.pop()?;
        self.shared.queued(before, queue.size());
        let is_waited_for = queue.waiting > 0;
        drop(queue);
        if is_waited_for {
            self.room.notify_one();
        }
        if !self.terms.nd_builtin_cache {
            handed.event.nd_builtin_cache = None;
        }
        Some(handed)
    }

    /// How many events were taken out of the queue.
    pub(super) fn taken(&self) -> u64 {
        self.queue.lock().popped
    }

    /// How many events were put into the queue.
    pub(super) fn handed_over(&self) -> u64 {
        let queue = self.queue.lock();
        queue.popped + queue.len() as u64
    }

    /// How many events are in the queue.
    pub(super) fn backlog(&self) -> usize {
        self.queue.lock().len()
    }

    /// Whether there are more; if not, the next one is told to the driver.
    pub(super) fn has_more(&self) -> bool {
        let mut queue = self.queue.lock();
        let more = queue.len() > 0;
        if !more && std::mem::replace(&mut queue.scheduled, false) {
            queue.rest();
            self.shared.unschedule();
        }
        more
    }

    /// Forgets all events, once everything is over: they hold snapshots, which hold sinks. Nobody
    /// waits any more either.
    pub(super) fn forget(&self) {
        let mut queue = self.queue.lock();
        let before = queue.size();
        let mut forgotten = Vec::with_capacity(before.0);
        while let Some(handed) = queue.pop() {
            forgotten.push(handed);
        }
        queue.rest();
        self.shared.queued(before, (0, 0));
        drop(queue);
        self.room.notify_waiters();
    }

    pub(super) fn warn_once(&self, text: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(app = %self.app, "decision log: {text}");
        }
    }
}
