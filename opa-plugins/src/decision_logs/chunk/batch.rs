//! The texts of the events of a chunk to be.

use std::ops::Range;

use super::EncodedEvent;

/// The events of a chunk to be.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Each event with `[` or `,` before it.
    pub(super) text: Vec<u8>,
    pub(super) events: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// Where its text ends.
    end: usize,
    /// The place of the `nd_builtin_cache`, from the start of its text.
    cache: Option<Range<usize>>,
}

impl Batch {
    pub(super) fn push(&mut self, json: &[u8], cache: Option<Range<usize>>) {
        self.text
            .push(if self.events.is_empty() { b'[' } else { b',' });
        self.text.extend_from_slice(json);
        let end = self.text.len();
        self.events.push(Entry { end, cache });
    }

    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.events.clear();
    }

    /// How many of the first events have no more text than that.
    pub(super) fn events_within(&self, size: usize) -> usize {
        self.events.partition_point(|event| event.end <= size)
    }

    pub(super) fn remove_first(&mut self, events: usize) {
        let removed = self.start(events) - 1;
        self.text.drain(..removed);
        if let Some(first) = self.text.first_mut() {
            *first = b'[';
        }
        self.events.drain(..events);
        for event in &mut self.events {
            event.end -= removed;
        }
    }

    /// Where the text of an event starts, after its separator.
    fn start(&self, event: usize) -> usize {
        let before = event.checked_sub(1).and_then(|it| self.events.get(it));
        before.map_or(0, |before| before.end) + 1
    }

    fn texts(&self, range: &Range<usize>) -> &[u8] {
        let last = range.end.checked_sub(1).and_then(|it| self.events.get(it));
        let end = last.map_or(0, |last| last.end);
        self.text
            .get(self.start(range.start)..end)
            .unwrap_or_default()
    }

    /// An array of some of the events.
    pub(super) fn parts(&self, range: Range<usize>) -> [&[u8]; 3] {
        [b"[", self.texts(&range), b"]"]
    }

    pub(super) fn event(&self, number: usize) -> EncodedEvent<'_> {
        let cache = self.events.get(number).and_then(|it| it.cache.clone());
        EncodedEvent {
            json: self.texts(&(number..number + 1)),
            cache,
        }
    }
}
