//! What waits for OPA's own upload: chunks, and the events that chunks are made of.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::super::chunk::{Chunk, ChunkCounters, ChunkEncoder, Compressor, EncodedEvent};
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
    /// What happened since this was last asked.
    counters: ChunkCounters,
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
            counters: ChunkCounters::default(),
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
                self.encoder.flush(compressor, &mut self.made);
                self.keep_made(losses);
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

    /// Gives up the newest events; how many.
    pub(super) fn drop_newest(&mut self) -> usize {
        if self.encoder.pending_events() > 0 {
            return self.drop_pending();
        }
        if let Some(event) = self.texts.pop_back() {
            self.text_bytes -= event.json.len();
            return 1;
        }
        let Some(chunk) = self.chunks.pop_back() else {
            return 0;
        };
        self.chunk_bytes -= chunk.body.len();
        self.chunk_events -= chunk.events;
        chunk.events
    }

    pub(super) fn take_counters(&mut self) -> ChunkCounters {
        std::mem::take(&mut self.counters)
    }

    /// Whether its limit counts events, not bytes.
    pub(super) fn counts_events(&self) -> bool {
        matches!(self.buffer, BufferConfig::Event { .. })
    }

    /// How much it holds, and how much it may: events, or bytes of which those that aren't
    /// compressed yet count whole.
    pub(super) fn room(&self) -> Option<(usize, usize)> {
        let limit = |limit| usize::try_from(limit).unwrap_or(usize::MAX);
        match self.buffer {
            BufferConfig::Size { limit_bytes } => Some((self.bytes(), limit(limit_bytes?))),
            BufferConfig::Event { limit_events } => Some((self.units(), limit(limit_events))),
        }
    }

    /// As in OPA, a chunk that could not be uploaded counts as one event.
    fn units(&self) -> usize {
        self.chunks.len() + self.texts.len() + self.encoder.pending_events()
    }

    /// Whether it holds more than it may.
    pub(super) fn is_above_its_limit(&self) -> bool {
        match self.buffer {
            BufferConfig::Size { limit_bytes } => {
                limit_bytes.is_some_and(|limit| self.chunk_bytes as u64 > limit)
            }
            BufferConfig::Event { limit_events } => self.units() as u64 > limit_events,
        }
    }

    fn encode(&mut self, event: &Encoded, compressor: &mut Compressor, losses: &mut Losses) {
        let text = EncodedEvent::new(&event.json).with_nd_builtin_cache(event.cache.clone());
        self.encoder.push(text, compressor, &mut self.made);
        self.keep_made(losses);
    }

    fn keep_made(&mut self, losses: &mut Losses) {
        let counters = self.encoder.take_counters();
        losses.add(Fate::EncodingFailed, counters.encoding_failure);
        self.counters.add(&counters);
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
