//! What the callers and the writer share.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::config::SpoolConfig;
use super::directory::Directory;
use super::error::{AppendError, DiskError};
use super::frame;
use super::index::Index;
use super::record::{Record, RecordId, StreamName};
use super::recovery::Recovered;

pub(super) type Answer = Result<(), AppendError>;

pub(super) struct Shared {
    pub(super) config: SpoolConfig,
    pub(super) directory: Directory,
    /// Never locked while the disk is at work.
    pub(super) state: Mutex<State>,
    /// The writer has something to do.
    pub(super) wake: Condvar,
    /// The first id that wasn't there when the spool was opened.
    pub(super) first_new_id: RecordId,
}

/// A record that waits to be written, or is being written.
pub(super) struct Waiting {
    pub(super) id: RecordId,
    /// `None` once it is told that the record isn't durable yet.
    pub(super) answer: Option<oneshot::Sender<Answer>>,
    pub(super) keeping: Keeping,
}

impl Waiting {
    pub(super) fn answer(self, answer: Answer) {
        if let Some(waits) = self.answer {
            // Who doesn't wait any more has given up its receiver.
            let _ = waits.send(answer);
        }
    }
}

/// What becomes of a record when there is no room for it, or the disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    /// It isn't taken, and given up.
    No,
    /// It isn't taken; once taken, it stays in memory until it can be written.
    Taken,
    /// As `Taken`, and it is taken beyond the limits.
    Always,
}

/// What the writer takes at once.
#[derive(Default)]
pub(super) struct Work {
    pub(super) appends: Vec<(Waiting, Record)>,
    pub(super) removes: Vec<RecordId>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) index: Index,
    pub(super) next_id: u64,
    queue: VecDeque<Waiting>,
    /// Since when the first of the queue waits.
    pub(super) queue_since: Option<Instant>,
    /// Somebody waits for one of the queue.
    pub(super) urgent: bool,
    /// The records that aren't durable yet.
    pub(super) pending: HashMap<RecordId, Record>,
    pub(super) pending_bytes: usize,
    pub(super) removes: Vec<RecordId>,
    pub(super) removes_since: Option<Instant>,
    /// Why the disk can't be written to.
    pub(super) disk: Option<DiskError>,
    pub(super) damaged: u64,
    pub(super) damaged_bytes: u64,
    pub(super) torn_bytes: u64,
    pub(super) closing: bool,
}

impl State {
    pub(super) fn new(recovered: Recovered) -> Self {
        Self {
            index: recovered.index,
            next_id: recovered.next_id,
            damaged: recovered.damaged,
            damaged_bytes: recovered.damaged_bytes,
            torn_bytes: recovered.torn_bytes,
            ..Self::default()
        }
    }

    /// Takes a record in, or says at once why not.
    pub(super) fn append(
        &mut self,
        record: Record,
        keeping: Keeping,
        config: &SpoolConfig,
    ) -> Result<(RecordId, oneshot::Receiver<Answer>), AppendError> {
        if self.closing {
            return Err(AppendError::Closed);
        }
        let must = keeping == Keeping::Always;
        if let Some(error) = self.disk.as_ref().filter(|_| keeping == Keeping::No) {
            return Err(AppendError::Disk(error.clone()));
        }
        let bytes = frame::record_bytes(&record).ok_or(AppendError::TooLarge)?;
        if bytes as u64 > config.max_bytes {
            return Err(AppendError::TooLarge);
        }
        if !must && self.index.bytes().saturating_add(bytes as u64) > config.max_bytes {
            return Err(AppendError::Full);
        }
        let pending_bytes = self.pending_bytes.saturating_add(bytes);
        if !must && self.pending_bytes > 0 && pending_bytes > config.max_pending_bytes {
            let disk = self.disk.clone();
            return Err(disk.map_or(AppendError::Overloaded, AppendError::Disk));
        }
        let id = RecordId(self.next_id);
        self.next_id += 1;
        self.index.insert(id, &record.stream, bytes);
        self.pending.insert(id, record);
        self.pending_bytes = pending_bytes;
        let (answer, receiver) = oneshot::channel();
        self.queue.push_back(Waiting {
            id,
            answer: Some(answer),
            keeping,
        });
        self.queue_since.get_or_insert_with(Instant::now);
        Ok((id, receiver))
    }

    pub(super) fn has_its_share(&self, stream: &StreamName, config: &SpoolConfig) -> bool {
        let index = &self.index;
        let others = index.streams_len() as u64;
        index.bytes() > config.max_bytes / 4 * 3
            && index.size_of(stream).1 > config.max_bytes / others.saturating_add(1)
    }

    pub(super) fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Somebody waits for a record. `true` if the writer must know.
    pub(super) fn hurry(&mut self, id: RecordId) -> bool {
        let is_queued = self.queue.front().is_some_and(|first| first.id <= id);
        is_queued && !std::mem::replace(&mut self.urgent, true)
    }

    /// Takes a record out. `false` if there is none.
    pub(super) fn remove(&mut self, id: RecordId) -> bool {
        if !self.index.remove(id) {
            return false;
        }
        self.settle(id);
        // Also of one that is being written now: what is written next says that it is gone.
        self.removes.push(id);
        self.removes_since.get_or_insert_with(Instant::now);
        true
    }

    /// A record that can't be read is gone.
    pub(super) fn remove_damaged(&mut self, id: RecordId) {
        if let Some((_, bytes)) = self.index.get(id)
            && self.remove(id)
        {
            self.damaged += 1;
            self.damaged_bytes += bytes as u64;
        }
    }

    /// A record isn't pending any more.
    pub(super) fn settle(&mut self, id: RecordId) {
        if let Some(record) = self.pending.remove(&id) {
            let bytes = frame::record_bytes(&record).unwrap_or(0);
            self.pending_bytes = self.pending_bytes.saturating_sub(bytes);
        }
    }

    /// What the writer does next: the oldest records of `max` bytes together, at least one, and all
    /// that was removed.
    pub(super) fn take_work(&mut self, max: usize) -> Work {
        let mut work = Work {
            removes: std::mem::take(&mut self.removes),
            ..Work::default()
        };
        self.removes_since = None;
        let mut bytes = 0;
        while bytes < max
            && let Some(waiting) = self.queue.pop_front()
        {
            match self.pending.get(&waiting.id) {
                Some(record) => {
                    bytes += frame::record_bytes(record).unwrap_or(0);
                    work.appends.push((waiting, record.clone()));
                }
                // It was removed before it was written.
                None => waiting.answer(Ok(())),
            }
        }
        if self.queue.is_empty() {
            self.urgent = false;
            self.queue_since = None;
        }
        work
    }

    /// Gives up all that waits, and what is in `work`, but for what is kept; what was removed stays
    /// to be written.
    pub(super) fn fail(&mut self, work: Work, error: DiskError) -> Vec<oneshot::Sender<Answer>> {
        let taken = work.appends.into_iter().map(|(waiting, _)| waiting);
        let all: Vec<Waiting> = taken.chain(self.queue.drain(..)).collect();
        let mut failed = Vec::new();
        for mut waiting in all {
            failed.extend(waiting.answer.take());
            if waiting.keeping == Keeping::No {
                self.index.remove(waiting.id);
                self.settle(waiting.id);
            } else {
                self.queue.push_back(waiting);
            }
        }
        self.urgent = false;
        self.queue_since = (!self.queue.is_empty()).then(Instant::now);
        let later = std::mem::replace(&mut self.removes, work.removes);
        self.removes.extend(later);
        self.disk = Some(error);
        failed
    }

    /// Nothing is written any more.
    pub(super) fn end(&mut self) {
        self.closing = true;
        for waiting in std::mem::take(&mut self.queue) {
            self.index.remove(waiting.id);
        }
        self.pending.clear();
        self.pending_bytes = 0;
    }
}
