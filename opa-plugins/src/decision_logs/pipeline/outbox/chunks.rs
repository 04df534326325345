//! What waits for OPA's own upload: chunks, and the events that chunks are made of.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::super::chunk::{Chunk, ChunkEncoder, Compressor, EncodedEvent};
use super::super::super::{BufferConfig, RateLimiter, ReportingConfig, Trigger};
use super::super::ledger::Fate;
use super::{Encoded, Losses};

/// What waits for its upload, oldest first: chunks, then single events, then those whose chunk is
/// still being gathered.
pub(super) struct Chunks {
    buffer: BufferConfig,
    is_immediate: bool,
    upload_size: usize,
    limiter: Option<RateLimiter>,
    encoder: ChunkEncoder,
    chunks: VecDeque<Chunk>,
    chunk_bytes: usize,
    chunk_events: usize,
    /// Of buffers of events only.
    texts: VecDeque<Encoded>,
    text_bytes: usize,
    made: Vec<Chunk>,
}

impl Chunks {
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
            chunk_events: 0,
            texts: VecDeque::new(),
            text_bytes: 0,
            made: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.chunk_bytes + self.text_bytes + self.encoder.pending_bytes()
    }

    pub(super) fn events(&self) -> usize {
        self.chunk_events + self.texts.len() + self.encoder.pending_events()
    }

    /// Whether something is to be uploaded before its time.
    pub(super) fn is_full(&self) -> bool {
        self.is_immediate && !self.chunks.is_empty()
    }

    /// Whether as much waits as makes a chunk.
    pub(super) fn has_backlog(&self) -> bool {
        !self.chunks.is_empty() || self.text_bytes >= self.upload_size
    }

    pub(super) fn push(
        &mut self,
        event: Encoded,
        now: Duration,
        compressor: &mut Compressor,
        losses: &mut Losses,
    ) {
        if !self.limiter.as_mut().is_none_or(|it| it.allow(now)) {
            losses.add(Fate::RateLimited, 1);
            return;
        }
        match self.buffer {
            BufferConfig::Size { .. } => self.encode(&event, compressor, losses),
            BufferConfig::Event { .. } => {
                self.text_bytes += event.json.len();
                self.texts.push_back(event);
                if self.is_immediate && self.text_bytes >= self.upload_size {
                    while let Some(event) = self.pop_text() {
                        self.encode(&event, compressor, losses);
                    }
                }
            }
        }
    }

    /// The oldest chunk. `gathers` makes one of events that have none yet.
    pub(super) fn next(
        &mut self,
        gathers: bool,
        compressor: &mut Compressor,
        losses: &mut Losses,
    ) -> Option<Chunk> {
        if gathers && self.chunks.is_empty() {
            while self.chunks.is_empty()
                && let Some(event) = self.pop_text()
            {
                self.encode(&event, compressor, losses);
            }
            if self.chunks.is_empty() {
                let before = self.encoder.counters().encoding_failure;
                self.encoder.flush(compressor, &mut self.made);
                self.keep_made(before, losses);
            }
        }
        self.pop_chunk()
    }

    /// A chunk could not be uploaded: it is the oldest again.
    pub(super) fn put_back(&mut self, chunk: Chunk) {
        self.chunk_bytes += chunk.body.len();
        self.chunk_events += chunk.events;
        self.chunks.push_front(chunk);
    }

    /// Gives up the oldest events; how many.
    pub(super) fn drop_oldest(&mut self) -> usize {
        if let Some(chunk) = self.pop_chunk() {
            chunk.events
        } else if self.pop_text().is_some() {
            1
        } else {
            self.drop_pending()
        }
    }

    /// Whether it holds more than it may.
    pub(super) fn is_above_its_limit(&self) -> bool {
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

    fn encode(&mut self, event: &Encoded, compressor: &mut Compressor, losses: &mut Losses) {
        let before = self.encoder.counters().encoding_failure;
        let text = EncodedEvent::new(&event.json).with_nd_builtin_cache(event.cache.clone());
        self.encoder.push(text, compressor, &mut self.made);
        self.keep_made(before, losses);
    }

    fn keep_made(&mut self, failures_before: u64, losses: &mut Losses) {
        let failures = self.encoder.counters().encoding_failure - failures_before;
        losses.add(Fate::EncodingFailed, failures);
        for chunk in self.made.drain(..) {
            self.chunk_bytes += chunk.body.len();
            self.chunk_events += chunk.events;
            self.chunks.push_back(chunk);
        }
    }

    fn drop_pending(&mut self) -> usize {
        let events = self.encoder.pending_events();
        self.encoder = ChunkEncoder::new(self.upload_size);
        events
    }

    fn pop_chunk(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.pop_front()?;
        self.chunk_bytes -= chunk.body.len();
        self.chunk_events -= chunk.events;
        Some(chunk)
    }

    fn pop_text(&mut self) -> Option<Encoded> {
        let event = self.texts.pop_front()?;
        self.text_bytes -= event.json.len();
        Some(event)
    }
}
