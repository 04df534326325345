//! What waits for an output that takes batches.

use std::collections::VecDeque;

use super::super::super::Batching;
use super::super::super::output::LoggedEvent;
use super::Encoded;

/// Events, oldest first.
pub(super) struct Batches {
    batching: Batching,
    limit_bytes: Option<usize>,
    /// The batches that could not be delivered, oldest first: they stay as they were.
    returned: VecDeque<Vec<LoggedEvent>>,
    returned_bytes: usize,
    returned_events: usize,
    events: VecDeque<LoggedEvent>,
    event_bytes: usize,
}

impl Batches {
    pub(super) fn new(batching: Batching, limit_bytes: Option<usize>) -> Self {
        Self {
            batching,
            limit_bytes,
            returned: VecDeque::new(),
            returned_bytes: 0,
            returned_events: 0,
            events: VecDeque::new(),
            event_bytes: 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.returned_bytes + self.event_bytes
    }

    pub(super) fn events(&self) -> usize {
        self.returned_events + self.events.len()
    }

    /// Whether something is to be delivered before its time.
    pub(super) fn is_full(&self) -> bool {
        !self.returned.is_empty()
            || self.events.len() >= self.batching.at_count
            || self.event_bytes >= self.batching.at_bytes
    }

    pub(super) fn push(&mut self, event: Encoded) {
        self.event_bytes += event.json.len();
        self.events.push_back(event.into_logged());
    }

    /// The oldest batch. `gathers` makes one of events that are not enough for one.
    pub(super) fn next(&mut self, gathers: bool) -> Option<Vec<LoggedEvent>> {
        if let Some(batch) = self.returned.pop_front() {
            self.returned_bytes -= size(&batch);
            self.returned_events -= batch.len();
            return Some(batch);
        }
        if !gathers && !self.is_full() {
            return None;
        }
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < self.batching.at_count
            && let Some(next) = self.events.front()
            && (batch.is_empty() || bytes + next.json.len() <= self.batching.at_bytes)
            && let Some(event) = self.pop()
        {
            bytes += event.json.len();
            batch.push(event);
        }
        (!batch.is_empty()).then_some(batch)
    }

    /// A batch could not be delivered: it is the oldest again.
    pub(super) fn put_back(&mut self, batch: Vec<LoggedEvent>) {
        self.returned_bytes += size(&batch);
        self.returned_events += batch.len();
        self.returned.push_front(batch);
    }

    /// Gives up the oldest events; how many.
    pub(super) fn drop_oldest(&mut self) -> usize {
        if let Some(batch) = self.returned.pop_front() {
            self.returned_bytes -= size(&batch);
            self.returned_events -= batch.len();
            return batch.len();
        }
        self.pop().map_or(0, |_| 1)
    }

    /// Gives up the newest events; how many.
    pub(super) fn drop_newest(&mut self) -> usize {
        if let Some(event) = self.events.pop_back() {
            self.event_bytes -= event.json.len();
            return 1;
        }
        let Some(batch) = self.returned.pop_back() else {
            return 0;
        };
        self.returned_bytes -= size(&batch);
        self.returned_events -= batch.len();
        batch.len()
    }

    /// How many bytes it holds, and how many it may.
    pub(super) fn room(&self) -> Option<(usize, usize)> {
        Some((self.bytes(), self.limit_bytes?))
    }

    /// Whether it holds more than it may.
    pub(super) fn is_above_its_limit(&self) -> bool {
        self.limit_bytes.is_some_and(|limit| self.bytes() > limit)
    }

    fn pop(&mut self) -> Option<LoggedEvent> {
        let event = self.events.pop_front()?;
        self.event_bytes -= event.json.len();
        if self.events.is_empty() {
            // An app that rests holds no memory.
            self.events = VecDeque::new();
        }
        Some(event)
    }
}

fn size(batch: &[LoggedEvent]) -> usize {
    batch.iter().map(|event| event.json.len()).sum()
}
