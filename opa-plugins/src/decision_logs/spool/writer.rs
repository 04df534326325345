//! The one thread that writes: what waits goes to the disk together, with one sync for all.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::config::{REMOVE_DELAY, RETRY_DELAY};
use super::error::{DiskError, SpoolError};
use super::frame;
use super::index::Place;
use super::moves::Moves;
use super::record::RecordId;
use super::segment::Segment;
use super::state::{Shared, State, Work};

/// How much is written, and how much is moved, with one sync.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// How long nothing is moved after that failed.
const MOVE_DELAY: Duration = Duration::from_secs(10);

/// Ids in one frame, so that a frame isn't larger than a record.
const IDS_PER_FRAME: usize = 100_000;

pub(super) struct Writer {
    shared: Arc<Shared>,
    active: Option<Segment>,
    next_segment: u64,
    retry_at: Option<Instant>,
    /// Not before this, since what is to be moved couldn't be read.
    move_at: Option<Instant>,
    buffer: Vec<u8>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, next_segment: u64) -> Self {
        Self {
            shared,
            active: None,
            next_segment,
            retry_at: None,
            move_at: None,
            buffer: Vec::new(),
        }
    }

    pub(super) fn run(mut self) {
        let _ending = Ending(Arc::clone(&self.shared));
        while let Some(work) = self.next() {
            self.remove_unused();
            let moves = self.moves();
            match self.write(&work, &moves) {
                Ok(places) => self.written(work, &places),
                Err(error) => self.failed(work, &moves, &error),
            }
            self.remove_unused();
        }
    }

    /// Waits for something to do; `None` at the end.
    fn next(&self) -> Option<Work> {
        let mut state = self.shared.state.lock();
        loop {
            let due = self.due(&state)?;
            if due.is_some_and(|due| due <= Instant::now()) {
                return Some(state.take_work(BATCH_BYTES));
            }
            match due {
                Some(due) => {
                    self.shared.wake.wait_until(&mut state, due);
                }
                None => self.shared.wake.wait(&mut state),
            }
        }
    }

    /// When there is something to do; `None` when there never will be.
    #[expect(
        clippy::option_option,
        reason = "the end isn't the same as nothing to do"
    )]
    fn due(&self, state: &State) -> Option<Option<Instant>> {
        let idle = state.is_queue_empty() && state.removes.is_empty();
        if state.closing && (idle || state.disk.is_some()) {
            return None;
        }
        if state.disk.is_some() {
            return Some(self.retry_at);
        }
        let config = &self.shared.config;
        let at_once = state.closing
            || state.urgent
            || state.pending_bytes >= BATCH_BYTES.min(config.max_pending_bytes / 2)
                && !state.is_queue_empty();
        if at_once {
            return Some(Some(Instant::now()));
        }
        let after = |since: Option<Instant>, delay: Duration| since.map(|since| since + delay);
        let queue = after(state.queue_since, config.max_delay);
        let removes = after(state.removes_since, REMOVE_DELAY);
        let moves = self.can_move(state);
        let moves = moves.then(|| self.move_at.unwrap_or_else(Instant::now));
        Some([queue, removes, moves].into_iter().flatten().min())
    }

    fn is_active(&self, number: u64) -> bool {
        let active = self.active.as_ref();
        active.is_some_and(|active| active.number == number)
    }

    /// Whether the files are much larger than what is in them, or too many.
    fn can_move(&self, state: &State) -> bool {
        let index = &state.index;
        let segment = self.shared.config.segment_bytes();
        let is_large = index.segments_bytes() > index.bytes() / 2 * 3 + 4 * segment;
        let is_many = index.segments_len() as u64 > 16 + 3 * (index.bytes() / segment);
        let oldest = index.oldest_segment();
        (is_large || is_many) && oldest.is_some_and(|oldest| !self.is_active(oldest))
    }

    /// Removes the oldest segments that nothing is in any more.
    ///
    /// Only the oldest: what a segment says to be removed is in itself or an older one, so it isn't
    /// missed when it goes.
    fn remove_unused(&self) {
        loop {
            let oldest = {
                let state = self.shared.state.lock();
                let oldest = state.index.oldest_segment();
                oldest.filter(|oldest| !self.is_active(*oldest) && state.index.is_unused(*oldest))
            };
            let Some(oldest) = oldest else { return };
            if let Err(error) = self.shared.directory.remove_segment(oldest) {
                // It is tried again with whatever is done next.
                tracing::debug!(%error, "a spool's file not removed");
                return;
            }
            self.shared.state.lock().index.remove_segment(oldest);
        }
    }

    /// Reads what is moved now.
    fn moves(&mut self) -> Moves {
        let from = {
            let state = self.shared.state.lock();
            let is_time = self.move_at.is_none_or(|at| at <= Instant::now());
            if state.disk.is_some() || !is_time || !self.can_move(&state) {
                return Moves::default();
            }
            state.index.oldest_segment()
        };
        self.move_at = None;
        let Some(from) = from else {
            return Moves::default();
        };
        Moves::read(&self.shared, from, BATCH_BYTES).unwrap_or_else(|error| {
            tracing::debug!(%error, "a spool's file not read");
            self.move_at = Some(Instant::now() + MOVE_DELAY);
            Moves::default()
        })
    }

    /// Writes it all, and waits for the disk if there is a record.
    fn write(&mut self, work: &Work, moves: &Moves) -> io::Result<Vec<(RecordId, Place)>> {
        let is_retry = self.retry_at.take().is_some();
        self.roll()?;
        let Some(active) = &mut self.active else {
            return Err(io::ErrorKind::NotFound.into());
        };
        self.buffer.clear();
        self.buffer.shrink_to(4 * BATCH_BYTES);
        for ids in work.removes.chunks(IDS_PER_FRAME) {
            frame::write_removed(&mut self.buffer, ids.iter().copied());
        }
        let mut places = Vec::with_capacity(work.appends.len() + moves.frames.len());
        let mut place = |id: RecordId, at: usize| {
            let offset = active.bytes + at as u64;
            let segment = active.number;
            places.push((id, Place { segment, offset }));
        };
        for (id, frame) in &moves.frames {
            place(*id, self.buffer.len());
            self.buffer.extend_from_slice(frame);
        }
        for (waiting, record) in &work.appends {
            place(waiting.id, self.buffer.len());
            frame::write_record(&mut self.buffer, waiting.id, record);
        }
        let good_bytes = active.bytes;
        let mut written = if is_retry { active.probe() } else { Ok(()) };
        written = written.and_then(|()| active.write(&self.buffer));
        if is_retry || !places.is_empty() {
            written = written.and_then(|()| active.sync());
        }
        if let Err(error) = written {
            self.abandon(good_bytes);
            return Err(error);
        }
        Ok(places)
    }

    /// Writes no more to the active segment, of which so much is good.
    fn abandon(&mut self, good_bytes: u64) {
        let Some(active) = self.active.take() else {
            return;
        };
        let number = active.number;
        active.abandon(good_bytes);
        // So that a disk that stays full isn't filled with empty files.
        if good_bytes <= frame::HEADER_BYTES as u64
            && self.shared.directory.remove_segment(number).is_ok()
        {
            self.shared.state.lock().index.remove_segment(number);
        }
    }

    /// Makes sure that there is a segment with room.
    fn roll(&mut self) -> io::Result<()> {
        let segment_bytes = self.shared.config.segment_bytes();
        if matches!(&self.active, Some(active) if active.bytes < segment_bytes) {
            return Ok(());
        }
        let number = self.next_segment;
        self.next_segment += 1;
        let next_id = self.shared.state.lock().next_id;
        let segment = Segment::create(&self.shared.directory, number, next_id)?;
        let mut state = self.shared.state.lock();
        state.index.set_segment_bytes(number, segment.bytes);
        self.active = Some(segment);
        Ok(())
    }

    fn written(&mut self, work: Work, places: &[(RecordId, Place)]) {
        {
            let mut state = self.shared.state.lock();
            for (id, place) in places {
                state.index.place(*id, *place);
                state.settle(*id);
            }
            if let Some(active) = &self.active {
                state.index.set_segment_bytes(active.number, active.bytes);
            }
            if state.disk.take().is_some() {
                tracing::info!("the spool's disk can be written to again");
            }
        }
        for (waiting, _) in work.appends {
            // Who doesn't wait any more has given up its receiver.
            let _ = waiting.answer.send(Ok(()));
        }
    }

    fn failed(&mut self, work: Work, moves: &Moves, error: &io::Error) {
        let error = DiskError::from(error);
        self.retry_at = Some(Instant::now() + RETRY_DELAY);
        if !moves.taken.is_empty() {
            // It may be what there was no room for.
            self.move_at = Some(Instant::now() + MOVE_DELAY);
        }
        let answers = {
            let mut state = self.shared.state.lock();
            if state.disk.is_none() {
                tracing::warn!(%error, "the spool's disk can't be written to");
            }
            state.index.put_back(moves.from, &moves.taken);
            state.fail(work, error.clone())
        };
        for answer in answers {
            let _ = answer.send(Err(super::AppendError::Disk(error.clone())));
        }
    }
}

/// Ends the spool with its thread, however that ends.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.state.lock().end();
        self.0.directory.unlock();
    }
}

/// Starts the thread. What it returns is closed when the thread has ended.
pub(super) fn spawn(
    shared: Arc<Shared>,
    next_segment: u64,
) -> Result<tokio::sync::watch::Receiver<()>, SpoolError> {
    let path = shared.config.path.clone();
    let (ended, receiver) = tokio::sync::watch::channel(());
    let writer = Writer::new(shared, next_segment);
    std::thread::Builder::new()
        .name("opa-spool".to_owned())
        .spawn(move || {
            // Dropped last.
            let _ended = ended;
            writer.run();
        })
        .map_err(|error| SpoolError::io(&path, error))?;
    Ok(receiver)
}
