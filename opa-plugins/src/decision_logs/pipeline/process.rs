//! From a decision to the text of its event: masking and encoding.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use opa_core::plugin::Event;
use tokio::time::Instant;

use super::super::chunk::Compressor;
use super::super::write_event;
use super::intake::{Group, Intake};
use super::lane::Lane;
use super::ledger::{Fate, Unsettled};
use super::outbox::Encoded;
use super::policy::{self, Kept};
use super::spooled::Taken;
use super::ticket::{Handed, Stored, Ticket};

/// How many events of an app are taken at a time, and how many at the most when more wait: a turn
/// costs several changes of the thread, each of which takes its time on a busy machine.
pub(super) const BATCH: usize = 64;
const MAX_BATCH: usize = 512;

/// How long policies on logs are asked before it is another app's turn. The last one asked may take
/// its own time.
const TIME: Duration = Duration::from_millis(100);

/// The same of an app whose events go into a spool: what isn't there yet is lost with the process.
const SPOOL_TIME: Duration = Duration::from_millis(4);

/// After how long other tasks of the thread have their turn. Policies that answer at once, or are
/// not there, yield to nobody.
const UNINTERRUPTED: Duration = Duration::from_micros(500);

/// An event as the lanes of each group are to see it; `None` for those that it is dropped for.
type Shown = (Vec<Option<Kept>>, Option<Ticket>);

/// Masks and encodes some of an app's events. Whether it took long.
pub(super) async fn process(intake: Arc<Intake>) -> bool {
    let start = Instant::now();
    let time = match intake.lanes().any(|lane| lane.is_spooled()) {
        true => SPOOL_TIME,
        false => TIME,
    };
    let mut unsettled = OnTheirWay::of(&intake);
    let batch = (intake.backlog() / 4).clamp(BATCH, MAX_BATCH);
    let mut shown = Vec::with_capacity(batch);
    let mut yielded = start;
    while shown.len() < batch
        && start.elapsed() < time
        && let Some(Handed { event, ticket }) = intake.pop()
    {
        unsettled.add_one();
        let kept = policy::ask(event, &intake.groups).await;
        unsettled.settle_dropped(&kept);
        shown.push((kept, ticket));
        if yielded.elapsed() >= UNINTERRUPTED {
            tokio::task::yield_now().await;
            yielded = Instant::now();
        }
    }
    let was_slow = start.elapsed() >= TIME;
    // The semaphore is never closed.
    let _permit = intake.shared.encoders.acquire().await;
    let encoding = Arc::clone(&intake);
    let encoded = tokio::task::spawn_blocking(move || store(&encoding, shown, &mut unsettled));
    if let Err(error) = encoded.await {
        tracing::error!(app = %intake.app, %error, "decision log: events are lost");
    }
    was_slow
}

/// What is taken and not stored yet: an account for each lane of each group.
struct OnTheirWay(Vec<Vec<Unsettled>>);

impl OnTheirWay {
    fn of(intake: &Intake) -> Self {
        let none = |group: &Group| {
            let lanes = group.lanes.iter();
            lanes
                .map(|lane| Unsettled::new(&lane.ledger, 0, Fate::EncodingFailed))
                .collect()
        };
        Self(intake.groups.iter().map(none).collect())
    }

    fn add_one(&mut self) {
        for account in self.0.iter_mut().flatten() {
            account.add(1);
        }
    }

    fn settle_dropped(&mut self, kept: &[Option<Kept>]) {
        for (accounts, kept) in self.0.iter_mut().zip(kept) {
            if kept.is_none() {
                for account in accounts {
                    account.settle(Fate::DroppedByPolicy, 1);
                }
            }
        }
    }
}

/// Masks and encodes events, and puts them where they go. Takes its time.
fn store(intake: &Intake, shown: Vec<Shown>, unsettled: &mut OnTheirWay) {
    let mut compressor = intake.shared.compressor();
    for (kept, ticket) in shown {
        let mut stored = Stored::default();
        for ((group, accounts), kept) in intake.groups.iter().zip(&mut unsettled.0).zip(kept) {
            if let Some(kept) = kept {
                store_one(group, accounts, kept, &mut compressor, &mut stored);
            }
        }
        if let Some(ticket) = ticket {
            ticket.tell(stored);
        }
    }
    intake.shared.give_back(compressor);
    intake.shared.relieve();
}

fn store_one(
    group: &Group,
    accounts: &mut [Unsettled],
    kept: Kept,
    compressor: &mut Compressor,
    stored: &mut Stored,
) {
    let wants_text = group.lanes.iter().any(|lane| !lane.transport.is_console());
    let made = catch_unwind(AssertUnwindSafe(|| {
        let event = kept.masked();
        let text = if wants_text { encode(&event) } else { None };
        (event, text)
    }));
    let (event, text) = match made {
        Ok((event, text)) => (Some(event), text),
        Err(_) => {
            tracing::error!("decision log: a panic lost an event");
            (None, None)
        }
    };
    for (lane, account) in group.lanes.iter().zip(accounts) {
        if lane.transport.is_console() {
            let fate = match event.clone().map(|event| record(lane, event, stored)) {
                Some(true) => Fate::Delivered,
                Some(false) => Fate::QueueFull,
                None => Fate::EncodingFailed,
            };
            stored.lost |= lane.is_awaited() && fate != Fate::Delivered;
            account.settle(fate, 1);
        } else if let Some(text) = text.clone() {
            account.hand_on(1);
            match lane.take(text, compressor) {
                Some(Taken::Awaited(done)) => stored.writes.push(done),
                Some(Taken::Lost) => stored.lost = true,
                Some(Taken::Dropped) | None => {}
            }
        } else {
            account.settle(Fate::EncodingFailed, 1);
            stored.lost |= lane.is_spooled() || lane.is_awaited();
        }
    }
}

fn record(lane: &Lane, event: Event, stored: &mut Stored) -> bool {
    let console = Arc::clone(&lane.shared.console.lock());
    if !lane.is_awaited() {
        return console.record(event);
    }
    let written = console.record_awaited(event);
    let is_taken = written.is_some();
    stored.writes.extend(written);
    is_taken
}

fn encode(event: &Event) -> Option<Encoded> {
    let mut json = Vec::with_capacity(1024);
    let Some(written) = write_event(event, &mut json) else {
        tracing::error!(app = %event.app, "decision log: an event is too large");
        return None;
    };
    Some(Encoded {
        decision_id: Arc::clone(&event.decision_id),
        timestamp: event.timestamp,
        json: json.into(),
        cache: written.nd_builtin_cache,
        receipt: None,
    })
}
