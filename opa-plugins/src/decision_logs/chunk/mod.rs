//! Events in chunks for uploading: gzip'd JSON arrays of a bounded size.
//!
//! `upload_size_limit_bytes` bounds a chunk's *compressed* size, which is known only when the chunk
//! is made. As in OPA, events are gathered until their text reaches a limit that adapts: it grows
//! when chunks stay under 90% of the bound, and shrinks when one exceeds it. Unlike in OPA, the
//! limit is computed from what earlier texts were compressed to, instead of doubled and halved; a
//! chunk that exceeds the bound is made again from the texts, of fewer events; and no event is given up
//! before it was compressed on its own.
//!
//! An event that is too large even alone loses its `nd_builtin_cache`; if that doesn't help, it is
//! dropped and counted.
//!
//! ```
//! use opa_plugins::decision_logs::chunk::{ChunkEncoder, Compressor, EncodedEvent};
//!
//! let mut compressor = Compressor::default();
//! let mut encoder = ChunkEncoder::new(32_768);
//! let mut chunks = Vec::new();
//! for event in [&br#"{"decision_id":"1"}"#[..], br#"{"decision_id":"2"}"#] {
//!     encoder.push(EncodedEvent::new(event), &mut compressor, &mut chunks);
//! }
//! encoder.flush(&mut compressor, &mut chunks);
//! assert_eq!(chunks[0].events, 2);
//! ```

mod batch;
mod counters;
mod gzip;
mod limit;

use std::ops::Range;

use batch::Batch;
pub use counters::ChunkCounters;
pub use gzip::Compressor;
use limit::AdaptiveLimit;

/// A chunk, ready for uploading.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Chunk {
    /// A gzip'd JSON array of events.
    pub body: Vec<u8>,
    /// How many events it has.
    pub events: usize,
}

/// The text of one event, and where its `nd_builtin_cache` stands, as
/// [`write_event`](super::write_event) tells it.
#[derive(Clone, Debug)]
pub struct EncodedEvent<'a> {
    json: &'a [u8],
    cache: Option<Range<usize>>,
}

impl<'a> EncodedEvent<'a> {
    /// An event without `nd_builtin_cache`.
    #[must_use]
    pub fn new(json: &'a [u8]) -> Self {
        Self { json, cache: None }
    }

    /// With the place of `nd_builtin_cache` in the text. A place outside of it is none.
    #[must_use]
    pub fn with_nd_builtin_cache(mut self, place: Option<Range<usize>>) -> Self {
        self.cache = place.filter(|place| self.json.get(place.clone()).is_some());
        self
    }

    /// The text without `nd_builtin_cache`, if there is one.
    fn without_cache(&self) -> Option<Vec<u8>> {
        let place = self.cache.clone()?;
        let before = self.json.get(..place.start)?;
        Some([before, self.json.get(place.end..)?].concat())
    }
}

/// Gathers the events of one app into chunks. See the [module docs](self).
#[derive(Debug)]
pub struct ChunkEncoder {
    limit: usize,
    adaptive: AdaptiveLimit,
    /// The smallest text that was too large alone. As in OPA, an event of that size loses its
    /// `nd_builtin_cache` without another try.
    too_large: Option<usize>,
    open: Batch,
    counters: ChunkCounters,
}

impl ChunkEncoder {
    /// An encoder of chunks of at most `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            adaptive: AdaptiveLimit::new(limit),
            too_large: None,
            open: Batch::default(),
            counters: ChunkCounters::default(),
        }
    }

    /// Takes an event. Chunks that became ready are appended to `chunks`, in the order of events.
    pub fn push(
        &mut self,
        event: EncodedEvent<'_>,
        compressor: &mut Compressor,
        chunks: &mut Vec<Chunk>,
    ) {
        let known_too_large = self.too_large.is_some_and(|size| event.json.len() >= size);
        match event.without_cache().filter(|_| known_too_large) {
            Some(json) => {
                self.counters.nd_builtin_cache_dropped += 1;
                self.take(EncodedEvent::new(&json), compressor, chunks);
            }
            None => self.take(event, compressor, chunks),
        }
    }

    /// Makes chunks of all that is left.
    pub fn flush(&mut self, compressor: &mut Compressor, chunks: &mut Vec<Chunk>) {
        while !self.open.events.is_empty() {
            // How full the last chunk is tells nothing.
            let last = self.close(compressor, chunks);
            chunks.extend(last);
        }
        // An app that rests holds no memory.
        self.open = Batch::default();
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> ChunkCounters {
        self.counters
    }

    /// What happened since this was last asked.
    pub(super) fn take_counters(&mut self) -> ChunkCounters {
        std::mem::take(&mut self.counters)
    }

    /// How many bytes of text wait for their chunk.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.open.text.len()
    }

    /// How many events wait for their chunk.
    #[must_use]
    pub fn pending_events(&self) -> usize {
        self.open.events.len()
    }

    fn take(
        &mut self,
        event: EncodedEvent<'_>,
        compressor: &mut Compressor,
        chunks: &mut Vec<Chunk>,
    ) {
        while !self.fits(&event) && !self.open.events.is_empty() {
            let text = self.open.text.len();
            if let Some(chunk) = self.close(compressor, chunks) {
                self.adapt(text, chunk.body.len());
                chunks.push(chunk);
            }
        }
        if self.fits(&event) {
            self.open.push(event.json, event.cache);
            return;
        }
        // Larger than the adaptive limit, which is learned from it.
        if let Some(chunk) = self.alone(&event, compressor) {
            self.adapt(event.json.len(), chunk.body.len());
            chunks.push(chunk);
        }
    }

    fn fits(&self, event: &EncodedEvent<'_>) -> bool {
        let size = event.json.len().saturating_add(self.open.text.len());
        size.saturating_add(1) < self.adaptive.get()
    }

    /// Makes a chunk of all that was gathered. `None` when there is nothing, or it was too much:
    /// then chunks of the first events, or of all, are made, and the rest stays.
    fn close(&mut self, compressor: &mut Compressor, chunks: &mut Vec<Chunk>) -> Option<Chunk> {
        let events = self.open.events.len();
        if events == 0 {
            return None;
        }
        if let Some(body) = compressor.gzip(&self.open.parts(0..events), self.limit) {
            self.open.clear();
            return Some(Chunk { body, events });
        }
        self.counters.scale_down += 1;
        // It is seldom much too large.
        let first = self.open.events_within(self.open.text.len() / 16 * 14);
        if first == 0 || !self.make(0..first, compressor, chunks) {
            self.split(compressor, chunks);
        } else {
            self.open.remove_first(first);
        }
        None
    }

    fn adapt(&mut self, text: usize, compressed: usize) {
        if self.adaptive.is_underused(compressed) {
            self.counters.scale_up += 1;
        } else {
            self.counters.stable += 1;
        }
        self.adaptive.learn(text, compressed);
    }

    /// Makes chunks of halves, quarters and so on of what was gathered.
    fn split(&mut self, compressor: &mut Compressor, chunks: &mut Vec<Chunk>) {
        let mut pending = Vec::new();
        pending.push(0..self.open.events.len());
        while let Some(range) = pending.pop() {
            if range.len() > 1 {
                if !self.make(range.clone(), compressor, chunks) {
                    let middle = range.start + range.len() / 2;
                    pending.extend([middle..range.end, range.start..middle]);
                }
                continue;
            }
            let batch = std::mem::take(&mut self.open);
            chunks.extend(self.alone(&batch.event(range.start), compressor));
            self.open = batch;
        }
        self.open.clear();
    }

    /// Whether a chunk of these events is small enough.
    fn make(
        &mut self,
        range: Range<usize>,
        compressor: &mut Compressor,
        chunks: &mut Vec<Chunk>,
    ) -> bool {
        let events = range.len();
        let parts = self.open.parts(range);
        let Some(body) = compressor.gzip(&parts, self.limit) else {
            return false;
        };
        self.adaptive
            .learn(parts.iter().map(|part| part.len()).sum(), body.len());
        chunks.push(Chunk { body, events });
        true
    }

    /// The chunk of one event, without its `nd_builtin_cache` if need be.
    fn alone(&mut self, event: &EncodedEvent<'_>, compressor: &mut Compressor) -> Option<Chunk> {
        let chunk = |body| Chunk { body, events: 1 };
        if let Some(body) = compressor.gzip(&[b"[", event.json, b"]"], self.limit) {
            return Some(chunk(body));
        }
        self.counters.exceeded_upload_size_limit += 1;
        let size = event.json.len();
        self.too_large = Some(self.too_large.map_or(size, |known| known.min(size)));
        let without = event.without_cache();
        let body = without.and_then(|json| compressor.gzip(&[b"[", &json, b"]"], self.limit));
        match body {
            Some(_) => self.counters.nd_builtin_cache_dropped += 1,
            None => self.counters.encoding_failure += 1,
        }
        body.map(chunk)
    }
}

#[cfg(test)]
mod tests;
