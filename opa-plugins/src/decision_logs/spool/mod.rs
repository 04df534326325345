//! The spool: masked, encoded events on the disk until their receiver has them.
//!
//! A record that [`append`](Spool::append) says is durable survives the process, and the machine as
//! far as its disk does what `fdatasync` promises. It is there until it is [removed](Spool::remove) or
//! [dropped](Spool::drop_oldest); after a restart [`recovered`](Spool::recovered) has its id, in order. A
//! removal may be forgotten by a crash: a receiver may see a record twice, with the same decision id.
//!
//! **What a crash can lose**: records that nobody was told to be durable. Whoever waits for a record
//! has it written at once; what nobody waits for is written within
//! [`max_delay`](SpoolConfig::max_delay), 5 ms, and the time of one sync: about 10 ms on a disk that
//! keeps up, never more than [`max_pending_bytes`](SpoolConfig::max_pending_bytes).
//!
//! **A full or broken disk**: `append` answers [`AppendError::Disk`] at once, and what waited fails,
//! too. What is durable can be read and removed. A write is tried four times a second; with the first
//! that succeeds records are taken again. The file that failed isn't written to any more. Removing
//! needs no room, but gives some back only when all of the oldest segment is gone.
//!
//! **Damage**: each record has a checksum, looked at whenever it is read. What is damaged is counted
//! ([`SpoolStats::damaged`]) and passed over, the records before and after it are kept. Damage to
//! what says that records were removed brings these back. A format that is newer is refused.
//!
//! On the disk are files of records in the order in which they came ("segments"), each at most a
//! sixteenth of the spool and one batch. A segment whose records are all gone is removed, the oldest
//! first; what is left in an old one is written again at the end when the files are half as large
//! again as what is in them, and four segments. In memory there are about 100 bytes for each record,
//! and what isn't written yet.
//!
//! Needs Unix; the feature is called `spool`.
//!
//! ```
//! use opa_core::AppId;
//! use opa_plugins::decision_logs::spool::{Record, Spool, SpoolConfig, StreamName};
//! use std::time::SystemTime;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let directory = std::env::temp_dir().join(format!("spool-{}", std::process::id()));
//! let spool = Spool::open(SpoolConfig::new(&directory))?;
//! let stream = StreamName::new(AppId::new("shop")?, "default");
//! let json = r#"{"decision_id": "4ca6"}"#;
//! let record = Record::new(stream.clone(), "4ca6".into(), SystemTime::now(), json.into());
//! let id = spool.append(record)?.await?; // durable
//! spool.close().await;
//!
//! // Another process, later.
//! let spool = Spool::open(SpoolConfig::new(&directory))?;
//! assert_eq!(spool.recovered(), [(stream, vec![id])]);
//! let read = spool.read(vec![id], 1 << 20).await?;
//! assert_eq!(&*read.records[0].1.decision_id, "4ca6");
//! spool.remove(&[id]);
//! # spool.close().await;
//! # std::fs::remove_dir_all(&directory)?;
//! # Ok(())
//! # }
//! ```

mod appending;
mod config;
mod directory;
mod error;
mod frame;
mod index;
mod moves;
mod read;
mod record;
mod recovery;
mod segment;
mod state;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tokio::sync::watch;

pub use appending::Appending;
pub use config::SpoolConfig;
use directory::Directory;
pub use error::{AppendError, DiskError, SpoolError};
pub use read::ReadRecords;
pub use record::{Record, RecordId, StreamName};
use state::{Keeping, Shared, State};

/// Records on the disk. See the [module docs](self).
///
/// Clones are the same spool. With the last one dropped it writes what waits, and closes.
#[derive(Clone)]
pub struct Spool(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    ended: watch::Receiver<()>,
}

impl Spool {
    /// Opens the spool, or makes one. Reads all that is in it, on this thread: 1 GiB
    /// takes about a second.
    ///
    /// # Errors
    /// [`SpoolError`]: why it can't be used. Nothing was changed then.
    pub fn open(config: SpoolConfig) -> Result<Self, SpoolError> {
        let directory = Directory::open(&config.path)?;
        let recovered = recovery::recover(&directory)?;
        if recovered.damaged > 0 {
            tracing::warn!(
                path = %config.path.display(),
                places = recovered.damaged,
                bytes = recovered.damaged_bytes,
                "the spool is damaged; what can be read is kept"
            );
        }
        let next_segment = recovered.next_segment;
        let first_new_id = RecordId(recovered.next_id);
        let shared = Arc::new(Shared {
            config,
            directory,
            state: Mutex::new(State::new(recovered)),
            wake: Condvar::new(),
            first_new_id,
        });
        let ended = writer::spawn(Arc::clone(&shared), next_segment)?;
        Ok(Self(Arc::new(Handle { shared, ended })))
    }

    /// Takes a record, to be written with others. Doesn't wait for the disk: await the answer to know
    /// that it is durable, or drop it. Records of a stream keep the order of these calls.
    ///
    /// # Errors
    /// [`AppendError`]: the record was not taken.
    pub fn append(&self, record: Record) -> Result<Appending, AppendError> {
        self.append_keeping(record, Keeping::No)
    }

    /// As [`append`](Self::append), but once it is taken the record isn't given up when the disk
    /// fails: it can be read, and is written when that succeeds. What awaits it is told of the error.
    /// It is taken while the disk fails, within the bound of what waits; one that `insists` beyond all
    /// bounds.
    pub(super) fn keep(&self, record: Record, insists: bool) -> Result<Appending, AppendError> {
        let keeping = match insists {
            true => Keeping::Always,
            false => Keeping::Taken,
        };
        self.append_keeping(record, keeping)
    }

    fn append_keeping(&self, record: Record, keeping: Keeping) -> Result<Appending, AppendError> {
        let shared = &self.0.shared;
        let mut state = shared.state.lock();
        let was_empty = state.is_queue_empty();
        let (id, answer) = state.append(record, keeping, &shared.config)?;
        if was_empty || state.pending_bytes >= writer::BATCH_BYTES {
            shared.wake.notify_one();
        }
        drop(state);
        Ok(Appending::new(id, answer, Arc::clone(shared)))
    }

    /// Reads records of at most `max_bytes` together, but at least one. Ids that were removed are
    /// passed over. Must be called inside a Tokio runtime, whose blocking threads read.
    ///
    /// # Errors
    /// [`SpoolError::Io`] if the disk fails before anything was read; the records are still there.
    pub async fn read(
        &self,
        ids: Vec<RecordId>,
        max_bytes: usize,
    ) -> Result<ReadRecords, SpoolError> {
        let shared = Arc::clone(&self.0.shared);
        let reading = move || read::read(&shared, &ids, max_bytes);
        match tokio::task::spawn_blocking(reading).await {
            Ok(read) => read,
            Err(error) => Err(SpoolError::io(
                &self.0.shared.config.path,
                std::io::Error::other(error.to_string()),
            )),
        }
    }

    /// As [`read`](Self::read), on this thread.
    pub(super) fn read_now(
        &self,
        ids: &[RecordId],
        max_bytes: usize,
    ) -> Result<ReadRecords, SpoolError> {
        read::read(&self.0.shared, ids, max_bytes)
    }

    /// The oldest records of a stream after `after`, at least one, and no more than so many and so
    /// many bytes.
    pub(super) fn first_of(
        &self,
        stream: &StreamName,
        after: Option<RecordId>,
        max_records: usize,
        max_bytes: usize,
    ) -> Vec<RecordId> {
        let state = self.0.shared.state.lock();
        let index = &state.index;
        index.first_of(stream, after, max_records, max_bytes)
    }

    /// How many records a stream has, and their bytes.
    pub(super) fn size_of(&self, stream: &StreamName) -> (u64, u64) {
        self.0.shared.state.lock().index.size_of(stream)
    }

    /// The stream with the most bytes of those that `may` be asked for.
    pub(super) fn largest(&self, may: impl Fn(&StreamName) -> bool) -> Option<StreamName> {
        let state = self.0.shared.state.lock();
        let streams = state.index.sizes().filter(|(name, _)| may(name));
        let largest = streams.max_by_key(|(_, bytes)| *bytes);
        largest.map(|(name, _)| name.clone())
    }

    /// Whether it takes no more of a stream without a loss: it is full, too much waits, the disk
    /// fails, or the stream has its [share](Self::has_its_share).
    pub(super) fn is_blocked(&self, stream: &StreamName) -> bool {
        let config = &self.0.shared.config;
        let state = self.0.shared.state.lock();
        state.disk.is_some()
            || state.index.bytes() >= config.max_bytes
            || state.pending_bytes >= config.max_pending_bytes
            || state.has_its_share(stream, config)
    }

    /// Whether a stream that gives nothing up leaves what is free to others: from three quarters full
    /// on, those do that have more than an equal share, with one for who comes next.
    pub(super) fn has_its_share(&self, stream: &StreamName) -> bool {
        let shared = &self.0.shared;
        shared.state.lock().has_its_share(stream, &shared.config)
    }

    /// Whether it has more than it may have.
    pub(super) fn is_above_its_limit(&self) -> bool {
        let max = self.0.shared.config.max_bytes;
        self.0.shared.state.lock().index.bytes() >= max
    }

    /// Whether it has as much as it may have.
    pub(super) fn is_full(&self) -> bool {
        let limit = self.0.shared.config.max_bytes;
        self.0.shared.state.lock().index.bytes() >= limit
    }

    /// Whether it has more than half of what it may have.
    pub(super) fn is_half_full(&self) -> bool {
        let half = self.0.shared.config.max_bytes / 2;
        self.0.shared.state.lock().index.bytes() > half
    }

    /// How many bytes are given up at once when there is no room: at least so many.
    pub(super) fn room_step(&self) -> u64 {
        self.0.shared.config.max_bytes / 1024
    }

    /// How large a file gets.
    pub(super) fn segment_bytes(&self) -> u64 {
        self.0.shared.config.segment_bytes()
    }

    /// Removes what was delivered, and says how many of them were still there. Never waits; on the
    /// disk they are gone within 200 ms, or with the next record.
    pub fn remove(&self, ids: &[RecordId]) -> usize {
        self.removing(|state| ids.iter().filter(|id| state.remove(**id)).count())
    }

    /// Removes the oldest record of a stream, to make room.
    pub fn drop_oldest(&self, stream: &StreamName) -> Option<RecordId> {
        self.removing(|state| {
            let id = state.index.oldest_of(stream)?;
            state.remove(id).then_some(id)
        })
    }

    /// Removes the oldest records of all streams until `bytes` more fit in, and says how many of each
    /// stream.
    pub fn make_room(&self, bytes: u64) -> BTreeMap<StreamName, u64> {
        let limit = self.0.shared.config.max_bytes.saturating_sub(bytes);
        let mut dropped = BTreeMap::new();
        self.removing(|state| {
            while state.index.bytes() > limit
                && let Some(id) = state.index.oldest()
            {
                if let Some(stream) = state.index.stream_of(id) {
                    *dropped.entry(stream).or_default() += 1;
                }
                state.remove(id);
            }
        });
        dropped
    }

    /// Removes something, and tells the writer unless it knows of removals already.
    fn removing<T>(&self, remove: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.shared.state.lock();
        let is_known = state.removes_since.is_some();
        let removed = remove(&mut state);
        if !is_known && state.removes_since.is_some() {
            self.0.shared.wake.notify_one();
        }
        removed
    }

    /// What a process before this one left and that is still here: the ids of each stream, in order.
    #[must_use]
    pub fn recovered(&self) -> Vec<(StreamName, Vec<RecordId>)> {
        let end = self.0.shared.first_new_id;
        self.0.shared.state.lock().index.ids_below(end)
    }

    /// What is in it.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        let state = self.0.shared.state.lock();
        SpoolStats {
            records: state.index.len(),
            bytes: state.index.bytes(),
            pending_bytes: state.pending_bytes,
            file_bytes: state.index.segments_bytes(),
            damaged: state.damaged,
            damaged_bytes: state.damaged_bytes,
            torn_bytes: state.torn_bytes,
            disk: state.disk.clone(),
        }
    }

    /// Takes no more records, writes what waits, and lets go of the directory. What is read afterwards
    /// may be another process's.
    pub async fn close(&self) {
        self.0.shared.close();
        let mut ended = self.0.ended.clone();
        while ended.changed().await.is_ok() {}
    }
}

impl fmt::Debug for Spool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool")
            .field("path", &self.0.shared.config.path)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn close(&self) {
        self.state.lock().closing = true;
        self.wake.notify_one();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// What is in a spool.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpoolStats {
    /// Records that were not removed.
    pub records: usize,
    /// Their bytes on the disk.
    pub bytes: u64,
    /// Bytes of those that aren't durable yet.
    pub pending_bytes: usize,
    /// Bytes of all files.
    pub file_bytes: u64,
    /// Records that were read and whose checksum was wrong, and places that were no record when the
    /// spool was opened.
    pub damaged: u64,
    /// Their bytes.
    pub damaged_bytes: u64,
    /// What a crash cut off at the end, before it was durable.
    pub torn_bytes: u64,
    /// Why the disk can't be written to.
    pub disk: Option<DiskError>,
}
