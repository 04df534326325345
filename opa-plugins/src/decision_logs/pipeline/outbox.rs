//! The encoded events of one app that wait for their upload.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::super::chunk::{Chunk, ChunkEncoder, Compressor, EncodedEvent};
use super::super::{BufferConfig, RateLimiter, ReportingConfig, Trigger};
use super::ledger::{Fate, Ledger};

/// The text of an event, and the place of its `nd_builtin_cache`.
pub(super) struct Text {
    pub(super) json: Vec<u8>,
    pub(super) cache: Option<Range<usize>>,
}

impl Text {
    fn event(&self) -> EncodedEvent<'_> {
        EncodedEvent::new(&self.json).with_nd_builtin_cache(self.cache.clone())
    }
}

/// What waits for its upload, oldest first: chunks, then single events, then those whose chunk is
/// still being gathered.
pub(super) struct Outbox {
    buffer: BufferConfig,
    is_immediate: bool,
    upload_size: usize,
    limiter: Option<RateLimiter>,
    encoder: ChunkEncoder,
    chunks: VecDeque<Chunk>,
    chunk_bytes: usize,
    /// Of buffers of events only.
    texts: VecDeque<Text>,
    text_bytes: usize,
    made: Vec<Chunk>,
}

impl Outbox {
    pub(super) fn new(reporting: &ReportingConfig) -> Self {
        let upload_size = usize::try_from(reporting.upload_size_limit_bytes).unwrap_or(usize::MAX);
        Self {
            buffer: reporting.buffer,
            is_immediate: reporting.trigger == Trigger::Immediate,
            upload_size,
            limiter: reporting.max_decisions_per_second.map(RateLimiter::new),
            encoder: ChunkEncoder::new(upload_size),
            chunks: VecDeque::new(),
            chunk_bytes: 0,
            texts: VecDeque::new(),
            text_bytes: 0,
            made: Vec::new(),
        }
    }

    /// How many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.chunk_bytes + self.text_bytes + self.encoder.pending_bytes()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.texts.is_empty() && self.encoder.pending_events() == 0
    }

    pub(super) fn has_chunk(&self) -> bool {
        !self.chunks.is_empty()
    }

    /// Whether as much waits as makes a chunk.
    pub(super) fn has_backlog(&self) -> bool {
        self.has_chunk() || self.text_bytes >= self.upload_size
    }

    /// Takes an event at `now`, a time of a monotonic clock.
    pub(super) fn push(
        &mut self,
        text: Text,
        now: Duration,
        compressor: &mut Compressor,
        ledger: &Ledger,
    ) {
        if !self.limiter.as_mut().is_none_or(|it| it.allow(now)) {
            ledger.settle(Fate::RateLimited, 1);
            return;
        }
        match self.buffer {
            BufferConfig::Size { .. } => self.encode(&text, compressor, ledger),
            BufferConfig::Event { .. } => {
                self.text_bytes += text.json.len();
                self.texts.push_back(text);
                if self.is_immediate && self.text_bytes >= self.upload_size {
                    while let Some(text) = self.pop_text() {
                        self.encode(&text, compressor, ledger);
                    }
                }
            }
        }
        self.enforce(ledger);
    }

    /// The oldest chunk. `gathers` makes one of events that have none yet.
    pub(super) fn next(
        &mut self,
        gathers: bool,
        compressor: &mut Compressor,
        ledger: &Ledger,
    ) -> Option<Chunk> {
        if gathers && self.chunks.is_empty() {
            while self.chunks.is_empty()
                && let Some(text) = self.pop_text()
            {
                self.encode(&text, compressor, ledger);
            }
            if self.chunks.is_empty() {
                let before = self.encoder.counters().encoding_failure;
                self.encoder.flush(compressor, &mut self.made);
                self.keep_made(before, ledger);
            }
        }
        self.pop_chunk()
    }

    /// A chunk could not be uploaded: it is the oldest again.
    pub(super) fn put_back(&mut self, chunk: Chunk, ledger: &Ledger) {
        self.chunk_bytes += chunk.body.len();
        self.chunks.push_front(chunk);
        self.enforce(ledger);
    }

    /// Gives up the oldest events.
    pub(super) fn drop_oldest(&mut self, fate: Fate, ledger: &Ledger) {
        let events = if let Some(chunk) = self.pop_chunk() {
            chunk.events
        } else if self.pop_text().is_some() {
            1
        } else {
            let events = self.encoder.pending_events();
            self.encoder = ChunkEncoder::new(self.upload_size);
            events
        };
        ledger.settle(fate, events as u64);
    }

    fn enforce(&mut self, ledger: &Ledger) {
        while self.is_above_its_limit() {
            self.drop_oldest(Fate::BufferFull, ledger);
        }
    }

    fn is_above_its_limit(&self) -> bool {
        match self.buffer {
            BufferConfig::Size { limit_bytes } => {
                limit_bytes.is_some_and(|limit| self.chunk_bytes as u64 > limit)
            }
            // As in OPA, a chunk that could not be uploaded counts as one.
            BufferConfig::Event { limit_events } => {
                let gathered = self.encoder.pending_events();
                (self.chunks.len() + self.texts.len() + gathered) as u64 > limit_events
            }
        }
    }

    fn encode(&mut self, text: &Text, compressor: &mut Compressor, ledger: &Ledger) {
        let before = self.encoder.counters().encoding_failure;
        self.encoder.push(text.event(), compressor, &mut self.made);
        self.keep_made(before, ledger);
    }

    fn keep_made(&mut self, failures_before: u64, ledger: &Ledger) {
        let failures = self.encoder.counters().encoding_failure - failures_before;
        if failures > 0 {
            ledger.settle(Fate::EncodingFailed, failures);
        }
        for chunk in self.made.drain(..) {
            self.chunk_bytes += chunk.body.len();
            self.chunks.push_back(chunk);
        }
    }

    fn pop_chunk(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.pop_front()?;
        self.chunk_bytes -= chunk.body.len();
        Some(chunk)
    }

    fn pop_text(&mut self) -> Option<Text> {
        let text = self.texts.pop_front()?;
        self.text_bytes -= text.json.len();
        Some(text)
    }
}
