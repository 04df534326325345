//! The way of one app's events to one output.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use opa_core::AppId;
use parking_lot::Mutex;

use super::super::chunk::{ChunkCounters, Compressor};
use super::super::output::OutputError;
use super::super::outputs::{Policies, Storage};
use super::super::{Durability, WhenFull};
use super::intake::Terms;
use super::ledger::{Fate, Ledger, Unsettled};
use super::outbox::{Encoded, Losses, Outbox, Parcel};
use super::shared::Shared;
use super::spooled::{InFlight, Spooled, Taken};
use super::ticket::Receipt;
use super::transport::Transport;

/// How many bytes every lane may hold.
const LEAST_SHARE: usize = 64 * 1024;

/// What a lane is made from.
pub(in super::super) struct Route {
    /// The output's name.
    pub(in super::super) name: Arc<str>,
    pub(in super::super) policies: Policies,
    pub(in super::super) transport: Transport,
    pub(in super::super) storage: Storage,
}

/// Who accounts for a parcel.
pub(super) enum Account {
    Memory(Unsettled),
    Spool(InFlight),
}

impl Account {
    /// The output has the events of the parcel but for `rejected` ones, which it never takes.
    pub(super) fn settle(self, events: u64, rejected: u64) {
        match self {
            Self::Memory(mut unsettled) => {
                unsettled.settle(Fate::Rejected, rejected);
                unsettled.settle(Fate::Delivered, events - rejected);
            }
            Self::Spool(flight) => flight.settle(rejected),
        }
    }
}

/// An output of an app, with the events that wait for it.
pub(super) struct Lane {
    pub(super) id: u64,
    /// Where its events come from.
    pub(super) intake: u64,
    pub(super) when_full: WhenFull,
    pub(super) app: AppId,
    pub(super) name: Arc<str>,
    pub(super) transport: Transport,
    pub(super) ledger: Arc<Ledger>,
    pub(super) shared: Arc<Shared>,
    /// Decisions wait until the output has their events.
    is_awaited: bool,
    /// Nothing is in it when there is a spool.
    outbox: Mutex<Outbox>,
    spooled: Option<Spooled>,
    /// What the outbox holds, for others to see.
    bytes: AtomicUsize,
    closing: AtomicBool,
    /// What is in the spool stays there.
    left: AtomicBool,
    warned: AtomicBool,
}

impl Lane {
    pub(super) fn new(
        shared: &Arc<Shared>,
        intake: u64,
        app: &AppId,
        route: Route,
        terms: &Terms,
    ) -> Self {
        let when_full = terms.when_full;
        let Route {
            name,
            transport,
            storage,
            ..
        } = route;
        let spooled = shared.spooled(app, &name, &transport, &storage, when_full);
        let is_waited_for = terms.durability == Durability::BeforeResponse;
        let outbox = transport.outbox(when_full);
        let ledger = shared.ledger(app, &name);
        ledger.limits_bytes(outbox.limits_bytes());
        Self {
            id: shared.next_id(),
            intake,
            when_full,
            app: app.clone(),
            is_awaited: is_waited_for && spooled.is_none() && storage != Storage::Default,
            outbox: Mutex::new(outbox),
            spooled,
            transport,
            ledger,
            name,
            shared: Arc::clone(shared),
            bytes: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            left: AtomicBool::new(false),
            warned: AtomicBool::new(false),
        }
    }

    /// No more events are decided for it.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether its events wait in the spool.
    pub(super) fn is_spooled(&self) -> bool {
        self.spooled.is_some()
    }

    /// Whether decisions wait until the output has their events.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// Who delivers what it has: another one if it has a spool and its configuration is not the
    /// present one.
    pub(super) fn present(self: &Arc<Self>) -> Arc<Self> {
        let owner = self.spooled.as_ref().and_then(Spooled::owner);
        owner.unwrap_or_else(|| Arc::clone(self))
    }

    /// Takes an event that is counted as buffered, and says what became of it if that is waited for.
    /// Takes its time.
    pub(super) fn take(
        self: &Arc<Self>,
        mut event: Encoded,
        compressor: &mut Compressor,
    ) -> Option<Taken> {
        if let Some(spooled) = &self.spooled {
            let taken = spooled.take(&self.shared, event);
            if matches!(taken, Taken::Lost) {
                self.warn_once("the spool takes no more, events are dropped");
            }
            return Some(taken);
        }
        let awaited = self.is_awaited.then(|| {
            let (receipt, delivered) = Receipt::new();
            event.receipt = Some(receipt);
            Taken::Awaited(delivered)
        });
        let now = self.shared.now();
        self.change(1, |outbox, losses| {
            outbox.push(event, now, compressor, losses)
        });
        awaited
    }

    /// The oldest events that are delivered at once, which are not delivered otherwise. Takes its
    /// time.
    ///
    /// # Errors
    /// The spool can't be read now.
    pub(super) fn next(
        self: &Arc<Self>,
        gathers: bool,
    ) -> Result<Option<(Parcel, Account)>, OutputError> {
        let mut compressor = self.shared.compressor();
        let parcel = match &self.spooled {
            Some(_) if !self.is_present() => Ok(None),
            Some(spooled) => {
                let next = spooled.next(gathers, &mut compressor);
                next.map(|next| next.map(|(parcel, flight)| (parcel, Account::Spool(flight))))
            }
            None => Ok(self.change(0, |outbox, losses| {
                let parcel = outbox.next(gathers, &mut compressor, losses)?;
                let unsettled = Unsettled::new(&self.ledger, parcel.events(), Fate::NotDelivered);
                Some((parcel, Account::Memory(unsettled)))
            })),
        };
        self.shared.give_back(compressor);
        parcel
    }

    /// Whether another lane delivers what it has, of a configuration before.
    pub(super) fn is_busy(&self) -> bool {
        self.spooled.as_ref().is_some_and(Spooled::is_busy)
    }

    /// Not of a configuration that is only tried: nothing in the spool is its own.
    fn is_present(self: &Arc<Self>) -> bool {
        let owner = self.spooled.as_ref().and_then(Spooled::owner);
        owner.is_some_and(|owner| Arc::ptr_eq(&owner, self)) && !self.left.load(Ordering::Acquire)
    }

    /// A parcel could not be delivered: it is the oldest again.
    pub(super) fn put_back(self: &Arc<Self>, parcel: Parcel, account: Account) {
        let mut unsettled = match account {
            Account::Memory(unsettled) => unsettled,
            Account::Spool(flight) => return flight.put_back(),
        };
        let events = parcel.events();
        unsettled.hand_on(events);
        self.change(events, |outbox, losses| outbox.put_back(parcel, losses));
    }

    /// Gives up some events.
    pub(super) fn give_up(self: &Arc<Self>) {
        self.change(0, |outbox, losses| outbox.give_up(losses));
    }

    /// Whether it has no room for more, if none of what it holds may be lost.
    pub(super) fn is_blocked(&self) -> bool {
        if let Some(spooled) = &self.spooled {
            return spooled.is_blocked();
        }
        let outbox = self.outbox.lock();
        let held = outbox.bytes();
        let is_full = outbox.is_at_its_limit();
        drop(outbox);
        is_full || held > LEAST_SHARE.max(self.shared.share())
    }

    /// As [`is_blocked`](Self::is_blocked), once what nobody comes for has given way in the spool.
    pub(super) fn has_no_room(&self) -> bool {
        match &self.spooled {
            Some(spooled) => spooled.is_full_of(&self.shared),
            None => self.is_blocked(),
        }
    }

    /// Gives up all that waits, but for what is in the spool.
    pub(super) fn abandon(self: &Arc<Self>) {
        if let Some(spooled) = &self.spooled {
            let was_present = self.is_present();
            self.left.store(true, Ordering::Release);
            if was_present {
                spooled.leave();
            }
            return;
        }
        self.change(0, |outbox, losses| outbox.give_up_all(losses));
    }

    /// Changes what waits, and accounts for what is lost. `incoming` events are added by the
    /// change. After a panic the outbox is a new one: nobody knows what the old one has.
    fn change<T: Default>(
        self: &Arc<Self>,
        incoming: u64,
        change: impl FnOnce(&mut Outbox, &mut Losses) -> T,
    ) -> T {
        let mut outbox = self.outbox.lock();
        let held = outbox.events() as u64 + incoming;
        let mut losses = Losses::default();
        let changing = AssertUnwindSafe(|| change(&mut outbox, &mut losses));
        let changed = catch_unwind(changing).unwrap_or_else(|_| {
            *outbox = self.transport.outbox(self.when_full);
            losses = Losses::of(Fate::EncodingFailed, held);
            tracing::error!(app = %self.app, output = %self.name, "decision log: a panic lost events");
            T::default()
        });
        self.hold(outbox.bytes());
        let counters = outbox.take_counters();
        drop(outbox);
        if counters != ChunkCounters::default() {
            self.ledger.chunked(&counters);
        }
        for (fate, events) in losses.iter() {
            self.ledger.settle(fate, events);
        }
        changed
    }

    /// Called with the outbox locked.
    fn hold(self: &Arc<Self>, bytes: usize) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        self.shared.hold(before, bytes);
        self.ledger.held(before, bytes);
        if before == 0 && bytes > 0 {
            self.shared.activate(self);
        } else if before > 0 && bytes == 0 {
            self.shared.deactivate(self.id);
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether nothing waits.
    pub(super) fn is_delivered(self: &Arc<Self>) -> bool {
        if let Some(spooled) = &self.spooled {
            return spooled.is_empty() || !self.is_present();
        }
        self.outbox.lock().is_empty()
    }

    /// Whether something is to be delivered before its time.
    pub(super) fn is_full(&self) -> bool {
        if let Some(spooled) = &self.spooled {
            return spooled.is_full();
        }
        self.outbox.lock().is_full()
    }

    /// Whether as much waits as is delivered at once.
    pub(super) fn has_backlog(&self) -> bool {
        if let Some(spooled) = &self.spooled {
            return spooled.has_backlog();
        }
        self.outbox.lock().has_backlog()
    }

    pub(super) fn warn_once(&self, text: &str) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(app = %self.app, output = %self.name, "decision log: {text}");
        }
    }
}
