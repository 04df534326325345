//! What became of every event, for each app and output.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::StatusCode;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::super::metrics::LastUpload;
use super::super::super::status::{Buffer, DecisionLogsStatus};
use super::super::chunk::ChunkCounters;
use super::super::output::OutputError;

/// What became of an app's decisions at one output: `decided` is always the sum of all the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppCounts {
    /// Events that were handed over: by this process, and, as far as they were still in the spool
    /// when it was opened, by one before it.
    pub decided: u64,
    /// How many of `decided` were in the spool when it was opened.
    pub recovered: u64,
    /// Events that the service or another output took, or the console's writer.
    pub delivered: u64,
    /// Events that the drop policy dropped.
    pub dropped_by_policy: u64,
    /// Events dropped because too many waited to be encoded or written.
    pub queue_full: u64,
    /// Events above `max_decisions_per_second`.
    pub rate_limited: u64,
    /// Events dropped because the buffer, of the app or of the process, or the spool was full, or
    /// the spool's disk could not be written to.
    pub buffer_full: u64,
    /// Events that were not in the sample (`when_full: sample`).
    pub sampled_out: u64,
    /// Events whose decision was refused, since there was no room for them in time
    /// (`when_full: hold`), or at once (`when_full: deny`).
    pub refused: u64,
    /// Events that could not be encoded, or are too large for an upload.
    pub encoding_failed: u64,
    /// Events that the output refused for good.
    pub rejected: u64,
    /// Events that could not be delivered before the end: of the process, or of a closed app's
    /// patience.
    pub not_delivered: u64,
    /// Events whose record in the spool was damaged.
    pub damaged: u64,
    /// Events in the spool whose app or output was not there for so long that they gave way to others
    /// (`SpoolConfig::max_absence`).
    pub abandoned: u64,
    /// Events that wait in the spool, also those of apps that are not there, and those that aren't
    /// durable yet.
    pub spooled: u64,
    /// Events that wait in memory alone.
    pub buffered: u64,
}

impl AppCounts {
    /// Events that are missing at the output, for whatever reason but the drop policy.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.queue_full
            + self.rate_limited
            + self.buffer_full
            + self.sampled_out
            + self.refused
            + self.encoding_failed
            + self.rejected
            + self.not_delivered
            + self.damaged
            + self.abandoned
    }

    /// Events that found no room.
    pub(crate) fn not_buffered(&self) -> u64 {
        self.buffer_full + self.queue_full + self.sampled_out + self.refused
    }
}

/// What becomes of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    DroppedByPolicy,
    QueueFull,
    RateLimited,
    BufferFull,
    SampledOut,
    Refused,
    EncodingFailed,
    Rejected,
    NotDelivered,
    #[cfg_attr(
        not(all(feature = "spool", unix)),
        expect(dead_code, reason = "only a spool knows of it")
    )]
    Damaged,
    #[cfg_attr(
        not(all(feature = "spool", unix)),
        expect(dead_code, reason = "only a spool knows of it")
    )]
    Abandoned,
}

/// What waits in the whole process.
#[derive(Default)]
pub(super) struct Totals {
    /// In memory, and in the spool for an output that is there.
    waiting: AtomicU64,
    /// Told when nothing waits any more.
    pub(super) empty: Notify,
    chunks_uploaded: AtomicU64,
    chunks_upload_failed: AtomicU64,
}

impl Totals {
    /// How many chunks services took, and how often they did not take one: of all apps, also of
    /// those that are gone.
    pub(super) fn chunks(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (
            read(&self.chunks_uploaded),
            read(&self.chunks_upload_failed),
        )
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    fn add(&self, events: u64) {
        self.waiting.fetch_add(events, Ordering::AcqRel);
    }

    fn remove(&self, events: u64) {
        if events > 0 && self.waiting.fetch_sub(events, Ordering::AcqRel) == events {
            self.empty.notify_one();
        }
    }
}

/// How the last attempt to deliver something ended.
#[derive(Clone)]
struct Attempt {
    failure: Option<(String, Option<u16>)>,
}

/// The counters of one app and output.
pub(super) struct Ledger {
    state: Mutex<State>,
    /// What its lanes hold, in bytes.
    held: AtomicUsize,
    totals: Arc<Totals>,
}

#[derive(Default)]
struct State {
    counts: AppCounts,
    chunks: ChunkCounters,
    /// The buffer's limit is one of bytes.
    limits_bytes: bool,
    last: Option<Attempt>,
    /// Nothing is delivered any more: all was settled, and what comes is.
    closed: bool,
    /// What is spooled waits for an output that is there.
    attached: bool,
}

impl Ledger {
    pub(super) fn new(totals: &Arc<Totals>) -> Self {
        Self {
            state: Mutex::default(),
            held: AtomicUsize::new(0),
            totals: Arc::clone(totals),
        }
    }

    pub(super) fn counts(&self) -> AppCounts {
        self.state.lock().counts
    }

    /// Whether events that the buffer has no room for count as above a limit of bytes.
    pub(super) fn limits_bytes(&self, limits_bytes: bool) {
        self.state.lock().limits_bytes = limits_bytes;
    }

    /// A lane that held `before` bytes holds `after`.
    pub(super) fn held(&self, before: usize, after: usize) {
        // Wraps around when it is less, and so comes out right.
        let change = after.wrapping_sub(before);
        self.held.fetch_add(change, Ordering::Relaxed);
    }

    /// What waits in memory, as OPA measures its buffers.
    pub(super) fn buffer(&self) -> Buffer {
        let state = self.state.lock();
        match state.limits_bytes {
            true => Buffer::Bytes(self.held.load(Ordering::Relaxed) as u64),
            false => Buffer::Events(state.counts.buffered),
        }
    }

    pub(super) fn chunks(&self) -> ChunkCounters {
        self.state.lock().chunks
    }

    /// Chunks were made.
    pub(super) fn chunked(&self, counters: &ChunkCounters) {
        self.state.lock().chunks.add(counters);
    }

    /// An attempt to deliver something has ended, maybe a chunk.
    pub(super) fn attempted(&self, failure: Option<&OutputError>, is_chunk: bool) {
        let has_failed = failure.is_some();
        let failure = failure.map(|error| (error.message.clone(), error.http_code));
        let mut state = self.state.lock();
        state.last = Some(Attempt { failure });
        let (count, total) = match has_failed {
            true => (
                &mut state.chunks.upload_failed,
                &self.totals.chunks_upload_failed,
            ),
            false => (&mut state.chunks.uploaded, &self.totals.chunks_uploaded),
        };
        if is_chunk {
            *count += 1;
            total.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How the last attempt ended: with nothing but success, or a failure and the server's answer.
    pub(super) fn last_upload(&self) -> Option<LastUpload> {
        let last = &self.state.lock().last;
        last.as_ref().map(|it| match &it.failure {
            None => LastUpload::Success,
            Some((_, http_code)) => {
                let http_code = http_code.map(StatusCode::from_u16);
                LastUpload::Failure(http_code.and_then(Result::ok))
            }
        })
    }

    /// The last attempt and the counters, by OPA's names. Before the first attempt nothing has
    /// failed: OPA, which attempts to upload nothing when it starts, says so too.
    pub(super) fn upload_status(&self) -> DecisionLogsStatus {
        let buffer = self.buffer();
        let state = self.state.lock();
        let last = state.last.clone().and_then(|it| it.failure);
        let (message, http_code) = last.unzip();
        let counts = &state.counts;
        let bytes_full = match state.limits_bytes {
            true => counts.buffer_full,
            false => 0,
        };
        let mut counters: BTreeMap<_, _> = state.chunks.iter().collect();
        counters.extend([
            (
                "decision_logs_dropped_rate_limit_exceeded",
                counts.rate_limited,
            ),
            // As OPA, also of those above a limit of bytes.
            (
                "decision_logs_dropped_buffer_size_limit_exceeded",
                counts.not_buffered(),
            ),
            (
                "decision_logs_dropped_buffer_size_limit_bytes_exceeded",
                bytes_full,
            ),
            // Also of other reasons than their size.
            ("decision_logs_encoding_failure", counts.encoding_failed),
        ]);
        counters.retain(|_, count| *count > 0);
        DecisionLogsStatus {
            message,
            http_code: http_code.flatten(),
            counters,
            buffer: Some(buffer),
        }
    }

    /// An event was handed over.
    pub(super) fn take(&self) {
        let mut state = self.state.lock();
        state.counts.decided += 1;
        if state.closed {
            state.counts.not_delivered += 1;
            return;
        }
        state.counts.buffered += 1;
        self.totals.add(1);
    }

    /// So many events don't wait any more.
    pub(super) fn settle(&self, fate: Fate, events: u64) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        self.settle_in(&mut state, fate, events);
    }

    /// Nothing is delivered any more.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        let waiting = state.counts.buffered;
        self.settle_in(&mut state, Fate::NotDelivered, waiting);
        state.closed = true;
        self.attach_in(&mut state, false);
    }

    /// So many events are in the spool, of a process before.
    #[cfg(all(feature = "spool", unix))]
    pub(super) fn recover(&self, events: u64) {
        let counts = &mut self.state.lock().counts;
        counts.decided += events;
        counts.recovered += events;
        counts.spooled += events;
    }

    /// Whether what is spooled is to be delivered.
    #[cfg(all(feature = "spool", unix))]
    pub(super) fn attach(&self, attached: bool) {
        let mut state = self.state.lock();
        let attached = attached && !state.closed;
        self.attach_in(&mut state, attached);
    }

    fn attach_in(&self, state: &mut State, attached: bool) {
        match (std::mem::replace(&mut state.attached, attached), attached) {
            (false, true) => self.totals.add(state.counts.spooled),
            (true, false) => self.totals.remove(state.counts.spooled),
            _ => {}
        }
    }

    /// An event that waited in memory is in the spool. `false` if it was given up meanwhile.
    #[cfg(all(feature = "spool", unix))]
    pub(super) fn spool(&self) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        state.counts.buffered -= 1;
        state.counts.spooled += 1;
        if !state.attached {
            self.totals.remove(1);
        }
        true
    }

    /// So many events aren't in the spool any more.
    #[cfg(all(feature = "spool", unix))]
    pub(super) fn unspool(&self, fate: Fate, events: u64) {
        let mut state = self.state.lock();
        debug_assert!(events <= state.counts.spooled, "{events} as {fate:?}");
        let events = events.min(state.counts.spooled);
        state.counts.spooled -= events;
        *counter(&mut state.counts, fate) += events;
        if state.attached {
            self.totals.remove(events);
        }
    }

    fn settle_in(&self, state: &mut State, fate: Fate, events: u64) {
        let counts = &mut state.counts;
        debug_assert!(
            events <= counts.buffered,
            "{events} of {counts:?} as {fate:?}"
        );
        let events = events.min(counts.buffered);
        counts.buffered -= events;
        *counter(counts, fate) += events;
        self.totals.remove(events);
    }
}

fn counter(counts: &mut AppCounts, fate: Fate) -> &mut u64 {
    match fate {
        Fate::Delivered => &mut counts.delivered,
        Fate::DroppedByPolicy => &mut counts.dropped_by_policy,
        Fate::QueueFull => &mut counts.queue_full,
        Fate::RateLimited => &mut counts.rate_limited,
        Fate::BufferFull => &mut counts.buffer_full,
        Fate::SampledOut => &mut counts.sampled_out,
        Fate::Refused => &mut counts.refused,
        Fate::EncodingFailed => &mut counts.encoding_failed,
        Fate::Rejected => &mut counts.rejected,
        Fate::NotDelivered => &mut counts.not_delivered,
        Fate::Damaged => &mut counts.damaged,
        Fate::Abandoned => &mut counts.abandoned,
    }
}

/// Events on their way through code that might not come to its end.
pub(super) struct Unsettled {
    ledger: Arc<Ledger>,
    events: u64,
    otherwise: Fate,
}

impl Unsettled {
    pub(super) fn new(ledger: &Arc<Ledger>, events: u64, otherwise: Fate) -> Self {
        Self {
            ledger: Arc::clone(ledger),
            events,
            otherwise,
        }
    }

    /// So many more.
    pub(super) fn add(&mut self, events: u64) {
        self.events += events;
    }

    pub(super) fn settle(&mut self, fate: Fate, events: u64) {
        self.hand_on(events);
        self.ledger.settle(fate, events);
    }

    /// So many events wait elsewhere.
    pub(super) fn hand_on(&mut self, events: u64) {
        debug_assert!(events <= self.events, "{events} of {}", self.events);
        self.events = self.events.saturating_sub(events);
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        self.ledger.settle(self.otherwise, self.events);
    }
}
