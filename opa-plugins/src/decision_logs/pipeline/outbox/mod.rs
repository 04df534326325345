//! The encoded events of one app that wait for one output.

mod batches;
mod chunks;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use self::batches::Batches;
use self::chunks::Chunks;
use super::super::chunk::{Chunk, ChunkCounters, Compressor};
use super::super::output::LoggedEvent;
use super::super::{Batching, ReportingConfig, WhenFull};
use super::ledger::Fate;
use super::queue::SAMPLE;
use super::ticket::Receipt;

/// An event as it may be shown: masked and encoded. Clones share the text.
#[derive(Clone)]
pub(super) struct Encoded {
    pub(super) decision_id: Arc<str>,
    pub(super) timestamp: SystemTime,
    pub(super) json: Bytes,
    /// The place of its `nd_builtin_cache` in the text.
    pub(super) cache: Option<Range<usize>>,
    /// Who waits until this output has it.
    pub(super) receipt: Option<Receipt>,
}

impl Encoded {
    fn into_logged(self) -> LoggedEvent {
        let mut event = LoggedEvent::new(self.decision_id, self.timestamp, self.json);
        event.receipt = self.receipt;
        event
    }
}

/// What is delivered at once.
pub(super) enum Parcel {
    Chunk(Chunk),
    Batch(Vec<LoggedEvent>),
}

impl Parcel {
    pub(super) fn events(&self) -> u64 {
        match self {
            Self::Chunk(chunk) => chunk.events as u64,
            Self::Batch(events) => events.len() as u64,
        }
    }

    /// The output has all of it.
    pub(super) fn give_receipts(&self) {
        if let Self::Batch(events) = self {
            for receipt in events.iter().filter_map(|event| event.receipt.as_ref()) {
                receipt.give();
            }
        }
    }
}

/// Events that a change of an outbox lost. To be settled by whoever changed it.
#[derive(Default)]
pub(super) struct Losses(Vec<(Fate, u64)>);

impl Losses {
    pub(super) fn of(fate: Fate, events: u64) -> Self {
        Self(vec![(fate, events)])
    }

    fn add(&mut self, fate: Fate, events: u64) {
        if events > 0 {
            self.0.push((fate, events));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Fate, u64)> {
        self.0.iter().copied()
    }
}

/// What waits for one output, oldest first.
pub(super) struct Outbox {
    kind: Kind,
    when_full: WhenFull,
    /// How many events came while it was half full.
    sampled: u64,
}

enum Kind {
    Chunks(Box<Chunks>),
    Batches(Batches),
}

impl Outbox {
    /// Of OPA's own upload.
    pub(super) fn chunks(reporting: &ReportingConfig, when_full: WhenFull) -> Self {
        let chunks = Chunks::new(reporting);
        Self::new(Kind::Chunks(Box::new(chunks)), when_full)
    }

    pub(super) fn batches(
        batching: Batching,
        limit_bytes: Option<usize>,
        when_full: WhenFull,
    ) -> Self {
        let batches = Batches::new(batching, limit_bytes);
        Self::new(Kind::Batches(batches), when_full)
    }

    fn new(kind: Kind, when_full: WhenFull) -> Self {
        Self {
            kind,
            when_full,
            sampled: 0,
        }
    }

    /// How many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        match &self.kind {
            Kind::Chunks(chunks) => chunks.bytes(),
            Kind::Batches(batches) => batches.bytes(),
        }
    }

    /// How many events it holds.
    pub(super) fn events(&self) -> usize {
        match &self.kind {
            Kind::Chunks(chunks) => chunks.events(),
            Kind::Batches(batches) => batches.events(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events() == 0
    }

    /// Whether something is to be delivered before its time.
    pub(super) fn is_full(&self) -> bool {
        match &self.kind {
            Kind::Chunks(chunks) => chunks.is_full(),
            Kind::Batches(batches) => batches.is_full(),
        }
    }

    /// Whether as much waits as is delivered at once.
    pub(super) fn has_backlog(&self) -> bool {
        match &self.kind {
            Kind::Chunks(chunks) => chunks.has_backlog(),
            Kind::Batches(batches) => batches.is_full(),
        }
    }

    /// Takes an event at `now`, a time of a monotonic clock.
    pub(super) fn push(
        &mut self,
        event: Encoded,
        now: Duration,
        compressor: &mut Compressor,
        losses: &mut Losses,
    ) {
        if let Some(fate) = self.refusal(event.json.len()) {
            losses.add(fate, 1);
            return;
        }
        match &mut self.kind {
            Kind::Chunks(chunks) => chunks.push(event, now, compressor, losses),
            Kind::Batches(batches) => batches.push(event),
        }
        self.enforce(losses);
    }

    /// The oldest events that are delivered at once. `gathers` takes also those that wait for more.
    pub(super) fn next(
        &mut self,
        gathers: bool,
        compressor: &mut Compressor,
        losses: &mut Losses,
    ) -> Option<Parcel> {
        match &mut self.kind {
            Kind::Chunks(chunks) => {
                let chunk = chunks.next(gathers, compressor, losses);
                chunk.map(Parcel::Chunk)
            }
            Kind::Batches(batches) => batches.next(gathers).map(Parcel::Batch),
        }
    }

    /// A parcel could not be delivered: it is the oldest again.
    pub(super) fn put_back(&mut self, parcel: Parcel, losses: &mut Losses) {
        match (&mut self.kind, parcel) {
            (Kind::Chunks(chunks), Parcel::Chunk(chunk)) => chunks.put_back(chunk),
            (Kind::Batches(batches), Parcel::Batch(batch)) => batches.put_back(batch),
            // An outbox makes parcels of its own kind only.
            (_, parcel) => losses.add(Fate::NotDelivered, parcel.events()),
        }
        self.enforce(losses);
    }

    /// What making chunks did since this was last asked.
    pub(super) fn take_counters(&mut self) -> ChunkCounters {
        match &mut self.kind {
            Kind::Chunks(chunks) => chunks.take_counters(),
            Kind::Batches(_) => ChunkCounters::default(),
        }
    }

    /// Whether its limit is one of bytes.
    pub(super) fn limits_bytes(&self) -> bool {
        match &self.kind {
            Kind::Chunks(chunks) => !chunks.counts_events(),
            Kind::Batches(_) => true,
        }
    }

    /// Why an event of so many bytes is not taken.
    fn refusal(&mut self, size: usize) -> Option<Fate> {
        let (held, limit) = self.room()?;
        match self.when_full {
            WhenFull::DropNewest if held.saturating_add(self.cost(size)) > limit => {
                Some(Fate::BufferFull)
            }
            WhenFull::Sample if held > limit / 2 => {
                self.sampled += 1;
                (self.sampled % SAMPLE != 1).then_some(Fate::SampledOut)
            }
            _ => None,
        }
    }

    /// Gives up all that waits.
    pub(super) fn give_up_all(&mut self, losses: &mut Losses) {
        losses.add(Fate::NotDelivered, self.events() as u64);
        match &mut self.kind {
            Kind::Chunks(chunks) => while chunks.drop_oldest() > 0 {},
            Kind::Batches(batches) => while batches.drop_oldest() > 0 {},
        }
    }

    /// Gives up some events, since there is no room for them.
    pub(super) fn give_up(&mut self, losses: &mut Losses) {
        let newest = self.when_full == WhenFull::DropNewest;
        let events = match &mut self.kind {
            Kind::Chunks(chunks) if newest => chunks.drop_newest(),
            Kind::Chunks(chunks) => chunks.drop_oldest(),
            Kind::Batches(batches) if newest => batches.drop_newest(),
            Kind::Batches(batches) => batches.drop_oldest(),
        };
        losses.add(Fate::BufferFull, events as u64);
    }

    fn enforce(&mut self, losses: &mut Losses) {
        // What decisions wait for is never lost: no more is put in instead.
        while !self.when_full.holds() && self.is_above_its_limit() {
            self.give_up(losses);
        }
    }

    fn is_above_its_limit(&self) -> bool {
        match &self.kind {
            Kind::Chunks(chunks) => chunks.is_above_its_limit(),
            Kind::Batches(batches) => batches.is_above_its_limit(),
        }
    }

    /// Whether it has no room for more.
    pub(super) fn is_at_its_limit(&self) -> bool {
        self.room().is_some_and(|(held, limit)| held >= limit)
    }

    /// How much it holds, and how much it may, in what its limit counts.
    fn room(&self) -> Option<(usize, usize)> {
        match &self.kind {
            Kind::Chunks(chunks) => chunks.room(),
            Kind::Batches(batches) => batches.room(),
        }
    }

    /// What an event of so many bytes counts.
    fn cost(&self, size: usize) -> usize {
        match &self.kind {
            Kind::Chunks(chunks) if chunks.counts_events() => 1,
            Kind::Chunks(_) | Kind::Batches(_) => size,
        }
    }
}

#[cfg(test)]
mod tests;
