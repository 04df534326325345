//! All that is in the spool of a process.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opa_core::AppId;
use parking_lot::Mutex;

use super::super::super::WhenFull;
use super::super::super::outputs::Disk;
use super::super::super::spool::{DiskError, Spool, SpoolConfig, SpoolError, StreamName};
use super::super::lane::Lane;
use super::super::ledger::Fate;
use super::super::shared::Shared;
use super::super::transport::Transport;
use super::stream::{Spooled, Stream};

/// How often records are given up at most so that the disk has room.
const FREE_DELAY: Duration = Duration::from_millis(500);

/// A spool that is opened for the first app, or for one whose configuration wants it.
pub(in super::super) struct Opening {
    config: SpoolConfig,
    is_for_all: bool,
}

impl Opening {
    /// The program's, for all outputs.
    pub(in super::super) fn new(config: SpoolConfig) -> Self {
        let is_for_all = true;
        Self { config, is_for_all }
    }

    /// For the outputs alone whose configuration wants it.
    pub(in super::super) fn wanted(disk: &Disk) -> Self {
        let mut config = SpoolConfig::new(&disk.path);
        config.max_bytes = disk.max_bytes.unwrap_or(config.max_bytes);
        let is_for_all = false;
        Self { config, is_for_all }
    }

    /// Opens it on a thread of its own, which is waited for.
    ///
    /// # Errors
    /// [`SpoolError`], in words with the place.
    pub(in super::super) fn open(&self, shared: &Shared) -> Result<Streams, String> {
        let path = self.config.path.clone();
        let config = self.config.clone();
        let opening = std::thread::Builder::new()
            .name("opa-spool-open".to_owned())
            .spawn(move || Spool::open(config))
            .map_err(|error| SpoolError::Io { path, error }.to_string())?;
        match opening.join() {
            Ok(Ok(spool)) => Ok(Streams::new(spool, self, shared)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!(
                "a panic ended the opening of `{}`",
                self.config.path.display()
            )),
        }
    }
}

pub(in super::super) struct Streams {
    spool: Spool,
    config: SpoolConfig,
    is_for_all: bool,
    streams: Mutex<HashMap<StreamName, Arc<Stream>>>,
    /// Locked by who gives up records of others; when it was done last for the disk.
    freed_at: Mutex<Option<Instant>>,
}

impl Streams {
    fn new(spool: Spool, opening: &Opening, shared: &Shared) -> Self {
        let recovered = spool.recovered();
        let (mut streams, mut events, mut apps) = (HashMap::new(), 0, HashSet::new());
        for (name, ids) in recovered {
            let count = ids.len() as u64;
            events += count;
            apps.insert(name.app.clone());
            let ledger = shared.ledger(&name.app, &name.output);
            ledger.recover(count);
            let stream = Stream::new(name.clone(), spool.clone(), ledger, count);
            streams.insert(name, Arc::new(stream));
        }
        if events > 0 {
            tracing::warn!(
                events,
                apps = apps.len(),
                "decision log: a process before this one left events in the spool; they are delivered \
                 when their apps and outputs are there again, and stay until then"
            );
        }
        Self {
            spool,
            config: opening.config.clone(),
            is_for_all: opening.is_for_all,
            streams: Mutex::new(streams),
            freed_at: Mutex::new(None),
        }
    }

    /// Whether all outputs use it, not only those whose configuration wants one.
    pub(in super::super) fn is_for_all(&self) -> bool {
        self.is_for_all
    }

    /// Whether it is what a configuration wants. `None` if the program has another one, which wins.
    ///
    /// # Errors
    /// It is another one, and another configuration wanted it.
    pub(in super::super) fn is_wanted(&self, disk: &Disk) -> Result<Option<()>, String> {
        let wanted = Opening::wanted(disk).config;
        let is_same_place =
            std::path::absolute(&wanted.path).ok() == std::path::absolute(&self.config.path).ok();
        let is_same = is_same_place && wanted.max_bytes == self.config.max_bytes;
        if is_same || self.is_for_all {
            return Ok(is_same.then_some(()));
        }
        Err(format!(
            "a process has one spool for all apps, and until it ends: it is at `{}`, of {} bytes",
            self.config.path.display(),
            self.config.max_bytes
        ))
    }

    fn stream(&self, shared: &Shared, app: &AppId, output: &Arc<str>) -> Arc<Stream> {
        let name = StreamName::new(app.clone(), Arc::clone(output));
        let mut streams = self.streams.lock();
        if let Some(stream) = streams.get(&name) {
            return Arc::clone(stream);
        }
        if streams.len() == streams.capacity() {
            // It would grow: first what is of no use goes.
            streams.retain(|_, it| Arc::strong_count(it) > 1 || !it.is_unused());
        }
        let ledger = shared.ledger(app, output);
        let stream = Arc::new(Stream::new(name.clone(), self.spool.clone(), ledger, 0));
        streams.insert(name, Arc::clone(&stream));
        stream
    }

    /// How a lane uses the spool; `None` if it doesn't.
    pub(in super::super) fn of_lane(
        &self,
        shared: &Shared,
        app: &AppId,
        output: &Arc<str>,
        transport: &Transport,
        when_full: WhenFull,
    ) -> Option<Spooled> {
        transport.packing()?;
        let stream = self.stream(shared, app, output);
        Spooled::new(stream, transport, when_full)
    }

    /// What its stream has is this lane's from now on.
    pub(in super::super) fn attach(&self, lane: &Arc<Lane>) {
        let name = StreamName::new(lane.app.clone(), Arc::clone(&lane.name));
        let stream = self.streams.lock().get(&name).cloned();
        if let Some(stream) = stream {
            stream.attach(lane);
        }
    }

    /// Whoever has most gives up its oldest, but for `spared`, until there is room for so many
    /// bytes. Whether there is some.
    pub(super) fn make_room(&self, bytes: u64, spared: Option<&StreamName>) -> bool {
        let _one = self.freed_at.lock();
        self.give_up(bytes.max(self.spool.room_step()), spared) > 0
    }

    /// As [`make_room`](Self::make_room), so that a file can go, if the disk has no room.
    pub(super) fn free_disk(&self, error: &DiskError) {
        let mut freed_at = self.freed_at.lock();
        let is_full = matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded
        );
        let is_early = freed_at.is_some_and(|at| at.elapsed() < FREE_DELAY);
        if is_full && !is_early {
            *freed_at = Some(Instant::now());
            self.give_up(self.spool.segment_bytes(), None);
        }
    }

    /// Whoever is absent longest, and longer than is waited for, gives up its oldest. Whether there was
    /// somebody.
    pub(super) fn give_up_absent(&self) -> bool {
        let Some(patience) = self.config.max_absence else {
            return false;
        };
        let _one = self.freed_at.lock();
        let streams = self.streams.lock();
        let absent = streams.iter().filter_map(|(name, stream)| {
            let since = stream.absent_since()?;
            (since.elapsed() >= patience).then(|| (since, name.clone(), Arc::clone(stream)))
        });
        let longest = absent.min_by_key(|(since, ..)| *since);
        drop(streams);
        let Some((_, name, stream)) = longest else {
            return false;
        };
        let freed = stream.drop_oldest(self.spool.segment_bytes(), Fate::Abandoned);
        tracing::warn!(
            app = %name.app,
            output = %name.output,
            bytes = freed,
            "decision log: the spool is full, and events that nobody came for are given up"
        );
        freed > 0
    }

    fn give_up(&self, bytes: u64, spared: Option<&StreamName>) -> u64 {
        let all = self.streams.lock().clone();
        let mut others: HashMap<_, _> = all
            .into_iter()
            .filter(|(name, stream)| spared != Some(name) && stream.may_give_way())
            .collect();
        let mut freed = 0;
        while freed < bytes
            && let Some(name) = self.spool.largest(|name| others.contains_key(name))
            && let Some(stream) = others.get(&name)
        {
            match stream.drop_oldest(bytes - freed, Fate::BufferFull) {
                0 => drop(others.remove(&name)),
                more => freed += more,
            }
        }
        if freed > 0 {
            tracing::debug!(
                bytes = freed,
                "decision log: the spool is full, events are dropped"
            );
        }
        freed
    }

    /// Writes what waits, and lets go of the directory.
    pub(in super::super) async fn close(&self) {
        self.spool.close().await;
        let streams = self.streams.lock().clone();
        for stream in streams.into_values() {
            stream.reconcile(Fate::NotDelivered);
        }
    }
}
