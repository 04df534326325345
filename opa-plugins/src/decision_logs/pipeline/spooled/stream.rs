//! What the spool has of one output of an app, and how a lane uses it.

use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use super::super::super::chunk::{ChunkCounters, ChunkEncoder, Compressor, EncodedEvent};
use super::super::super::output::{LoggedEvent, OutputError};
use super::super::super::spool::{AppendError, Record, RecordId, Spool, StreamName};
use super::super::super::{Batching, RateLimiter, WhenFull};
use super::super::lane::Lane;
use super::super::ledger::{Fate, Ledger};
use super::super::outbox::{Encoded, Parcel};
use super::super::queue::SAMPLE;
use super::super::shared::Shared;
use super::super::transport::{Packing, Transport};
use super::{InFlight, Taken};

/// How many records are looked at for a chunk.
const RECORDS: usize = 65_536;

/// How often room is made for one event.
const TRIES: usize = 4;

pub(in super::super) struct Stream {
    name: StreamName,
    spool: Spool,
    ledger: Arc<Ledger>,
    /// Locked before the spool and the ledger.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many of its records the ledger knows.
    count: u64,
    /// The last record that is being delivered.
    flight: Option<RecordId>,
    /// So many of the oldest were a batch that was not delivered.
    returned: Option<usize>,
    lanes: Vec<Weak<Lane>>,
    /// Since when nobody delivers what is there.
    absent_since: Option<Instant>,
    /// How many came while the spool was half full.
    sampled: u64,
}

impl Stream {
    pub(super) fn new(name: StreamName, spool: Spool, ledger: Arc<Ledger>, recovered: u64) -> Self {
        let state = State {
            count: recovered,
            absent_since: Some(Instant::now()),
            ..State::default()
        };
        Self {
            name,
            spool,
            ledger,
            state: Mutex::new(state),
        }
    }

    /// What comes, and what is there, is this lane's from now on.
    pub(super) fn attach(&self, lane: &Arc<Lane>) {
        let mut state = self.state.lock();
        state.lanes.retain(|lane| lane.strong_count() > 0);
        state.lanes.push(Arc::downgrade(lane));
        state.absent_since = None;
        self.ledger.attach(true);
    }

    /// Whose events they are: the newest lane's that is open, else that of the newest one.
    fn owner(&self) -> Option<Arc<Lane>> {
        let state = self.state.lock();
        let lanes: Vec<_> = state.lanes.iter().rev().filter_map(Weak::upgrade).collect();
        drop(state);
        let open = lanes.iter().find(|lane| !lane.is_closing());
        open.or(lanes.first()).cloned()
    }

    pub(super) fn is_unused(&self) -> bool {
        let state = self.state.lock();
        state.count == 0 && state.lanes.iter().all(|lane| lane.strong_count() == 0)
    }

    /// Whether its records may be given up for others. Those of apps that are not there aren't:
    /// nobody knows what their configuration will say.
    pub(super) fn may_give_way(&self) -> bool {
        self.owner().is_some_and(|lane| !lane.when_full.holds())
    }

    /// Since when nobody delivers its records; `None` if somebody does, or there are none.
    pub(super) fn absent_since(&self) -> Option<Instant> {
        let state = self.state.lock();
        state.absent_since.filter(|_| state.count > 0)
    }

    /// Gives up the oldest records of so many bytes; how many bytes they had.
    pub(super) fn drop_oldest(&self, bytes: u64, fate: Fate) -> u64 {
        let mut state = self.state.lock();
        let before = self.spool.size_of(&self.name).1;
        let max = usize::try_from(bytes).unwrap_or(usize::MAX);
        let ids = self.spool.first_of(&self.name, state.flight, RECORDS, max);
        let dropped = self.spool.remove(&ids) as u64;
        state.count = state.count.saturating_sub(dropped);
        self.ledger.unspool(fate, dropped);
        before.saturating_sub(self.spool.size_of(&self.name).1)
    }

    /// Counts what isn't in the spool any more and nobody removed.
    pub(super) fn reconcile(&self, fate: Fate) {
        self.reconcile_in(&mut self.state.lock(), fate);
    }

    fn reconcile_in(&self, state: &mut State, fate: Fate) {
        let there = self.spool.size_of(&self.name).0;
        let gone = state.count.saturating_sub(there);
        if gone > 0 {
            state.count -= gone;
            self.ledger.unspool(fate, gone);
        }
    }

    /// Records were delivered, but for `rejected` ones.
    pub(super) fn delivered(&self, ids: &[RecordId], rejected: u64) {
        let mut state = self.state.lock();
        let there = self.spool.remove(ids) as u64;
        state.count = state.count.saturating_sub(there);
        let rejected = rejected.min(there);
        self.ledger.unspool(Fate::Rejected, rejected);
        self.ledger.unspool(Fate::Delivered, there - rejected);
    }

    /// Nothing is being delivered any more.
    pub(super) fn landed(&self, returned: Option<usize>) {
        let mut state = self.state.lock();
        state.flight = None;
        state.returned = returned;
    }

    fn append(&self, record: Record, insists: bool) -> Result<Taken, AppendError> {
        let mut state = self.state.lock();
        let appending = self.spool.keep(record, insists)?;
        if !self.ledger.spool() {
            // It was counted as given up.
            self.spool.remove(&[appending.id()]);
            return Ok(Taken::Lost);
        }
        state.count += 1;
        drop(state);
        Ok(Taken::Awaited(Box::pin(async { appending.await.is_ok() })))
    }

    /// Whether this one isn't in the sample.
    fn is_sampled_out(&self) -> bool {
        if !self.spool.is_half_full() {
            return false;
        }
        let mut state = self.state.lock();
        state.sampled += 1;
        state.sampled % SAMPLE != 1
    }
}

/// A stream as one lane uses it.
pub(in super::super) struct Spooled {
    stream: Arc<Stream>,
    when_full: WhenFull,
    pack: Pack,
    limiter: Mutex<Option<RateLimiter>>,
}

/// How parcels are made.
enum Pack {
    Chunks {
        encoder: Mutex<ChunkEncoder>,
        is_immediate: bool,
    },
    Batches(Batching),
}

impl Spooled {
    /// `None` for the console.
    pub(super) fn new(
        stream: Arc<Stream>,
        transport: &Transport,
        when_full: WhenFull,
    ) -> Option<Self> {
        let (pack, per_second) = match transport.packing()? {
            Packing::Batches(batching) => (Pack::Batches(batching), None),
            Packing::Chunks {
                upload_size,
                is_immediate,
                max_per_second,
            } => {
                let encoder = Mutex::new(ChunkEncoder::new(upload_size));
                let pack = Pack::Chunks {
                    encoder,
                    is_immediate,
                };
                (pack, max_per_second)
            }
        };
        Some(Self {
            stream,
            when_full,
            pack,
            limiter: Mutex::new(per_second.map(RateLimiter::new)),
        })
    }

    /// Puts an event that is counted as buffered into the spool. Takes its time.
    pub(in super::super) fn take(&self, shared: &Shared, event: Encoded) -> Taken {
        let Self { stream, .. } = self;
        if let Some(limiter) = &mut *self.limiter.lock()
            && !limiter.allow(shared.now())
        {
            stream.ledger.settle(Fate::RateLimited, 1);
            return Taken::Dropped;
        }
        if self.when_full == WhenFull::Sample && stream.is_sampled_out() {
            stream.ledger.settle(Fate::SampledOut, 1);
            return Taken::Lost;
        }
        let name = stream.name.clone();
        let record = Record::new(name, event.decision_id, event.timestamp, event.json);
        let fate = match self.append(shared, &record) {
            Ok(taken) => return taken,
            Err(AppendError::TooLarge) => Fate::EncodingFailed,
            Err(AppendError::Closed) => Fate::NotDelivered,
            Err(_) => Fate::BufferFull,
        };
        stream.ledger.settle(fate, 1);
        Taken::Lost
    }

    fn append(&self, shared: &Shared, record: &Record) -> Result<Taken, AppendError> {
        let Self { stream, .. } = self;
        let keeps_newest = matches!(self.when_full, WhenFull::DropOldest | WhenFull::Sample);
        let insists = self.when_full.holds();
        if !keeps_newest && !insists && stream.spool.has_its_share(&stream.name) {
            return Err(AppendError::Full);
        }
        // Its oldest stay.
        let spared = (!keeps_newest).then_some(&stream.name);
        let bytes = record.json.len() as u64 + 1024;
        let mut tries = 0..TRIES;
        loop {
            let error = match stream.append(record.clone(), insists) {
                Ok(taken) => {
                    if insists && stream.spool.is_above_its_limit() {
                        // What others may lose gives way. If there is none, no more is admitted.
                        if let Some(streams) = shared.streams() {
                            streams.make_room(bytes, None);
                        }
                    }
                    return Ok(taken);
                }
                Err(error) => error,
            };
            if matches!(error, AppendError::Full)
                && shared.streams().is_some_and(|it| it.give_up_absent())
                && tries.next().is_some()
            {
                continue;
            }
            let Some(streams) = shared.streams() else {
                return Err(error);
            };
            match &error {
                AppendError::Full if streams.make_room(bytes, spared) => {}
                AppendError::Disk(error) if keeps_newest => streams.free_disk(error),
                _ => return Err(error),
            }
            if tries.next().is_none() || matches!(error, AppendError::Disk(_)) {
                return Err(error);
            }
        }
    }

    /// The oldest events that are delivered at once. Takes its time.
    ///
    /// # Errors
    /// The spool can't be read now.
    pub(in super::super) fn next(
        &self,
        gathers: bool,
        compressor: &mut Compressor,
    ) -> Result<Option<(Parcel, InFlight)>, OutputError> {
        let Some((ids, mut flight)) = self.start(gathers) else {
            return Ok(None);
        };
        let stream = &self.stream;
        let read = stream.spool.read_now(&ids, usize::MAX);
        let read = read.map_err(|error| OutputError::new(error.to_string()))?;
        if !read.damaged.is_empty() {
            stream.reconcile(Fate::Damaged);
        }
        let mut records = read.records.into_iter();
        let encoder = match &self.pack {
            Pack::Chunks { encoder, .. } => encoder,
            Pack::Batches(_) => {
                let events = records.map(|(id, it)| {
                    flight.ids.push(id);
                    LoggedEvent::new(it.decision_id, it.timestamp, it.json)
                });
                let events: Vec<_> = events.collect();
                flight.stays_together = true;
                let batch = (!events.is_empty()).then(|| Parcel::Batch(events));
                return Ok(batch.map(|batch| (batch, flight)));
            }
        };
        let mut encoder = encoder.lock();
        while !records.as_slice().is_empty() {
            let texts = records.as_slice().iter().map(|(_, record)| {
                let json = &record.json;
                EncodedEvent::new(json).with_nd_builtin_cache(super::cache::place(json))
            });
            let texts: Vec<_> = texts.collect();
            let (chunk, done) = encoder.pack(&texts, compressor);
            let ids: Vec<_> = records.by_ref().take(done).map(|(id, _)| id).collect();
            let counters = encoder.take_counters();
            if counters != ChunkCounters::default() {
                stream.ledger.chunked(&counters);
            }
            if let Some(chunk) = chunk {
                flight.ids = ids;
                return Ok(Some((Parcel::Chunk(chunk), flight)));
            }
            stream.too_large(&ids);
        }
        Ok(None)
    }

    /// The records of the next parcel.
    fn start(&self, gathers: bool) -> Option<(Vec<RecordId>, InFlight)> {
        let stream = &self.stream;
        let mut state = stream.state.lock();
        stream.reconcile_in(&mut state, Fate::Damaged);
        if state.flight.is_some() || !gathers && !self.is_due(&state) {
            return None;
        }
        let (records, bytes) = match (&self.pack, state.returned.take()) {
            (Pack::Batches(_), Some(returned)) => (returned, usize::MAX),
            (Pack::Batches(batching), None) => (batching.at_count, batching.at_bytes),
            // More than a chunk, so that its size is known.
            (Pack::Chunks { encoder, .. }, _) => {
                let limit = encoder.lock().text_limit();
                (RECORDS, limit.saturating_add(limit / 4 + 4096))
            }
        };
        let ids = stream.spool.first_of(&stream.name, None, records, bytes);
        state.flight = Some(*ids.last()?);
        drop(state);
        let flight = InFlight {
            stream: Arc::clone(stream),
            ids: Vec::new(),
            stays_together: false,
        };
        Some((ids, flight))
    }

    /// Whether it takes no more without a loss.
    pub(in super::super) fn is_blocked(&self) -> bool {
        self.stream.spool.is_blocked(&self.stream.name)
    }

    /// As [`is_blocked`](Self::is_blocked), once what nobody comes for has given way.
    pub(in super::super) fn is_full_of(&self, shared: &Shared) -> bool {
        // A disk that fails has no more room for that.
        if self.stream.spool.is_full()
            && let Some(streams) = shared.streams()
        {
            streams.give_up_absent();
        }
        self.is_blocked()
    }

    pub(in super::super) fn is_empty(&self) -> bool {
        self.stream.state.lock().count == 0
    }

    /// Whether something is being delivered.
    pub(in super::super) fn is_busy(&self) -> bool {
        self.stream.state.lock().flight.is_some()
    }

    /// Whether something is to be delivered before its time.
    pub(in super::super) fn is_full(&self) -> bool {
        let state = self.stream.state.lock();
        state.flight.is_none() && self.is_due(&state)
    }

    fn is_due(&self, state: &State) -> bool {
        let is_immediate = match &self.pack {
            Pack::Chunks { is_immediate, .. } => *is_immediate,
            Pack::Batches(_) => true,
        };
        state.count > 0
            && (state.returned.is_some()
                || is_immediate && self.has_a_parcel()
                || self.when_full.holds() && self.is_blocked())
    }

    fn has_a_parcel(&self) -> bool {
        let stream = &self.stream;
        let (events, bytes) = stream.spool.size_of(&stream.name);
        let (at_count, at_bytes) = match &self.pack {
            Pack::Chunks { encoder, .. } => (usize::MAX, encoder.lock().text_limit()),
            Pack::Batches(batching) => (batching.at_count, batching.at_bytes),
        };
        events >= at_count as u64 || bytes >= at_bytes as u64
    }

    /// Whether as much waits as is delivered at once.
    pub(in super::super) fn has_backlog(&self) -> bool {
        self.has_a_parcel()
    }

    pub(in super::super) fn owner(&self) -> Option<Arc<Lane>> {
        self.stream.owner()
    }

    /// Nobody delivers what is there before another lane comes.
    pub(in super::super) fn leave(&self) {
        self.stream.state.lock().absent_since = Some(Instant::now());
        self.stream.ledger.attach(false);
    }
}

impl Stream {
    /// They are too large for an upload.
    fn too_large(&self, ids: &[RecordId]) {
        let mut state = self.state.lock();
        let there = self.spool.remove(ids) as u64;
        state.count = state.count.saturating_sub(there);
        self.ledger.unspool(Fate::EncodingFailed, there);
    }
}
