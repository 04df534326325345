//! The events of one app that wait to be encoded.

use opa_core::Value;
use opa_core::plugin::Event;

use super::super::WhenFull;
use super::estimate;
use super::segments::Segments;
use super::ticket::Handed;

/// Of how many events that come to what is half full one is kept.
pub(super) const SAMPLE: u64 = 10;

/// Events, oldest first.
#[derive(Default)]
pub(super) struct Queue {
    events: Segments<(Handed, usize)>,
    bytes: usize,
    /// How many came while it was half full.
    sampled: u64,
    /// How many decisions wait for room.
    pub(super) waiting: usize,
    /// The driver knows of the events.
    pub(super) scheduled: bool,
    /// How many were taken out of it so far.
    pub(super) popped: u64,
}

/// How much a queue may hold. One event always has room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

/// What became of an event that was pushed.
pub(super) enum Pushed {
    /// It waits, and so many older ones gave way.
    Taken { dropped: Vec<Handed> },
    /// There is no room.
    Full(Box<Handed>),
    /// It is not in the sample.
    Sampled,
}

impl Queue {
    pub(super) fn push(&mut self, handed: Handed, limit: Limit, when_full: WhenFull) -> Pushed {
        let size = estimate::bytes(&handed.event);
        let mut dropped = Vec::new();
        if when_full == WhenFull::Sample && self.is_half_full(limit) {
            self.sampled += 1;
            if self.sampled % SAMPLE != 1 {
                return Pushed::Sampled;
            }
        }
        while !self.has_room(size, limit) {
            match when_full {
                WhenFull::DropOldest | WhenFull::Sample => dropped.extend(self.pop()),
                WhenFull::DropNewest | WhenFull::Hold { .. } | WhenFull::Deny => {
                    return Pushed::Full(Box::new(handed));
                }
            }
        }
        self.bytes = self.bytes.saturating_add(size);
        self.events.push((handed, size));
        Pushed::Taken { dropped }
    }

    /// Changes the newest event.
    pub(super) fn change_last(&mut self, change: impl FnOnce(&mut Event)) {
        if let Some((handed, _)) = self.events.last_mut() {
            change(&mut handed.event);
        }
    }

    pub(super) fn pop(&mut self) -> Option<Handed> {
        let (handed, size) = self.events.pop()?;
        self.bytes = self.bytes.saturating_sub(size);
        self.popped += 1;
        Some(handed)
    }

    /// The app rests: it holds no memory then.
    pub(super) fn rest(&mut self) {
        self.events.shrink();
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// How many events it holds, and about how many bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.events.len(), self.bytes)
    }

    fn has_room(&self, size: usize, limit: Limit) -> bool {
        let bytes = self.bytes.saturating_add(size);
        self.events.is_empty() || (self.events.len() < limit.events && bytes <= limit.bytes)
    }

    fn is_half_full(&self, limit: Limit) -> bool {
        self.events.len() >= limit.events.div_ceil(2) || self.bytes > limit.bytes / 2
    }
}

/// Numbers an event.
pub(super) fn number(event: &mut Event, sequence: u64) {
    let audit = Value::object([(Value::from("sequence"), Value::from(sequence))]);
    event.custom.push(("audit", audit));
}
