//! All that is in the spool of a process.

use std::collections::{HashMap, HashSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opa_core::AppId;
use parking_lot::Mutex;

use super::super::super::WhenFull;
use super::super::super::spool::{DiskError, Spool, SpoolConfig, SpoolError, StreamName};
use super::super::lane::Lane;
use super::super::ledger::Fate;
use super::super::shared::Shared;
use super::super::transport::Transport;
use super::stream::{Spooled, Stream};

/// How often records are given up at most so that the disk has room.
const FREE_DELAY: Duration = Duration::from_millis(500);

/// A spool that is opened for the first app.
pub(in super::super) struct Opening(SpoolConfig);

impl Opening {
    pub(in super::super) fn new(config: SpoolConfig) -> Self {
        Self(config)
    }

    /// Opens it on a thread of its own, which is waited for.
    ///
    /// # Errors
    /// [`SpoolError`], in words with the place.
    pub(in super::super) fn open(&self, shared: &Shared) -> Result<Streams, String> {
        let path = self.0.path.clone();
        let config = self.0.clone();
        let opening = std::thread::Builder::new()
            .name("opa-spool-open".to_owned())
            .spawn(move || Spool::open(config))
            .map_err(|error| SpoolError::Io { path, error }.to_string())?;
        match opening.join() {
            Ok(Ok(spool)) => Ok(Streams::new(spool, shared)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!(
                "a panic ended the opening of `{}`",
                self.0.path.display()
            )),
        }
    }
}

pub(in super::super) struct Streams {
    spool: Spool,
    streams: Mutex<HashMap<StreamName, Arc<Stream>>>,
    /// Locked by who gives up records of others; when it was done last for the disk.
    freed_at: Mutex<Option<Instant>>,
}

impl Streams {
    fn new(spool: Spool, shared: &Shared) -> Self {
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
            streams: Mutex::new(streams),
            freed_at: Mutex::new(None),
        }
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
            match stream.drop_oldest(bytes - freed) {
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
