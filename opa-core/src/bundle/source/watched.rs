//! Local paths that are watched: one watch for each, however many apps have it.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::SourceError;
use crate::bundle::{Limits, writer};

/// What changed more recently than this may have changed once more without a trace, since file
/// systems count time in steps.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// How often what changes while it is read is read again.
const READS: u32 = 5;

/// The watched paths of a manager. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Watches(Arc<Hub>);

#[derive(Default)]
struct Hub {
    paths: Mutex<HashMap<PathBuf, Weak<Watched>>>,
    system: Mutex<System>,
    /// Whom changes are told to. Locked by the thread that tells, so never while it is asked.
    signals: Signals,
}

type Signals = Arc<Mutex<Vec<Weak<Signal>>>>;

/// Tells of changes at or below some places.
struct Signal {
    places: Mutex<Vec<Place>>,
    changes: watch::Sender<()>,
}

/// What the operating system was asked to tell of.
#[derive(Default)]
struct System {
    watcher: Option<RecommendedWatcher>,
    /// How many paths need each place.
    places: HashMap<Place, usize>,
}

/// A directory or file, and whether all below it counts.
type Place = (PathBuf, bool);

/// One path.
pub(crate) struct Watched {
    path: PathBuf,
    hub: Arc<Hub>,
    signal: Arc<Signal>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What the path was like when it was read last, and the digest of its content.
    read: Option<(Print, Arc<str>)>,
    /// The content, as long as somebody needs it.
    archive: Weak<Vec<u8>>,
    places: Vec<Place>,
    /// Which directory or file the path leads to.
    inode: Option<Inode>,
    is_watched: bool,
}

/// What a look at a path came to.
pub(crate) enum Look {
    News(Arc<Vec<u8>>, Arc<str>),
    Same {
        is_watched: bool,
    },
    /// The same, but it changed a moment ago.
    Unsettled,
}

/// Names, sizes and times of what is at a path.
#[derive(PartialEq, Eq)]
struct Print {
    digest: [u8; 32],
    is_settled: bool,
}

impl Watches {
    pub(crate) fn watched(&self, path: &Path) -> Arc<Watched> {
        let mut paths = self.0.paths.lock();
        if let Some(watched) = paths.get(path).and_then(Weak::upgrade) {
            return watched;
        }
        if paths.len() == paths.capacity() {
            paths.retain(|_, watched| watched.strong_count() > 0);
        }
        let signal = Arc::new(Signal {
            places: Mutex::default(),
            changes: watch::Sender::new(()),
        });
        let mut signals = self.0.signals.lock();
        signals.retain(|signal| signal.strong_count() > 0);
        signals.push(Arc::downgrade(&signal));
        drop(signals);
        let watched = Arc::new(Watched {
            path: path.to_owned(),
            hub: Arc::clone(&self.0),
            signal,
            state: Mutex::default(),
        });
        paths.insert(path.to_owned(), Arc::downgrade(&watched));
        watched
    }
}

impl Watched {
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.signal.changes.subscribe()
    }

    /// Looks whether the content is another one than that of `etag`. It is read only if something
    /// shows that it may be. Blocks.
    pub(crate) fn look(&self, limits: &Limits, etag: Option<&str>) -> Result<Look, SourceError> {
        let mut state = self.state.lock();
        self.watch(&mut state);
        let mut print = Print::of(&self.path, limits).map_err(|error| self.named(&error))?;
        let mut archive = state.archive.upgrade();
        let is_known = |(read, _): &&(Print, _)| *read == print && print.is_settled;
        let known = state.read.as_ref().filter(is_known);
        let mut digest = known.map(|(_, digest)| Arc::clone(digest));
        let is_new = |digest: &Arc<str>| etag != Some(&**digest);
        if digest
            .as_ref()
            .is_none_or(|digest| is_new(digest) && archive.is_none())
        {
            let (read, bytes) = self.read(print, limits)?;
            print = read;
            digest = Some(hex(&Sha256::digest(&bytes)).into());
            archive = Some(Arc::new(bytes));
        }
        let is_settled = print.is_settled;
        state.archive = archive.as_ref().map_or_else(Weak::new, Arc::downgrade);
        state.read = digest.clone().map(|digest| (print, digest));
        Ok(match digest.filter(is_new).zip(archive) {
            Some((digest, archive)) => Look::News(archive, digest),
            None if is_settled => Look::Same {
                is_watched: state.is_watched,
            },
            None => Look::Unsettled,
        })
    }

    /// Reads what looks like `print`, and the same afterwards.
    fn read(&self, mut print: Print, limits: &Limits) -> Result<(Print, Vec<u8>), SourceError> {
        for _ in 0..READS {
            let read = read(&self.path, limits);
            let after = Print::of(&self.path, limits).map_err(|error| self.named(&error))?;
            if after.digest == print.digest {
                return Ok((after, read.map_err(|error| self.named(&error))?));
            }
            print = after;
        }
        Err(self.named("it changes while it is read"))
    }

    /// Asks the operating system to tell of changes, of what the path leads to now: links may have
    /// been swapped.
    fn watch(&self, state: &mut State) {
        let target = fs::canonicalize(&self.path).ok();
        let parent = |path: &Path| path.parent().map(|parent| (parent.to_owned(), false));
        let path = std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone());
        let mut places: Vec<Place> = parent(&path).into_iter().collect();
        if let Some(target) = &target {
            places.extend(parent(target));
            if target.is_dir() {
                places.push((target.clone(), true));
            }
        }
        places.dedup();
        let inode = target
            .and_then(|target| fs::metadata(target).ok())
            .map(|it| inode(&it));
        if state.is_watched && state.places == places && state.inode == inode {
            return;
        }
        let mut system = self.hub.system.lock();
        system.forget(&state.places);
        let watched = system.watch(&self.hub.signals, &places);
        drop(system);
        if let Err(error) = &watched {
            tracing::debug!(
                target: "opa::bundle",
                path = %self.path.display(),
                "not watched, it is looked at instead: {error}",
            );
        }
        state.is_watched = watched.is_ok();
        state.places = if watched.is_ok() { places } else { Vec::new() };
        self.signal.places.lock().clone_from(&state.places);
        state.inode = inode;
    }

    fn named(&self, problem: &(impl std::fmt::Display + ?Sized)) -> SourceError {
        SourceError::new(format!("bundle `{}`: {problem}", self.path.display()))
    }
}

impl System {
    /// All of `places`, or none.
    fn watch(&mut self, signals: &Signals, places: &[Place]) -> notify::Result<()> {
        let watcher = match &mut self.watcher {
            Some(watcher) => watcher,
            None => {
                let signals = Arc::clone(signals);
                let tell = move |event: notify::Result<notify::Event>| tell(&signals, event.ok());
                let config = notify::Config::default().with_follow_symlinks(false);
                self.watcher.insert(RecommendedWatcher::new(tell, config)?)
            }
        };
        for (at, place) in places.iter().enumerate() {
            let users = self.places.entry(place.clone()).or_insert(0);
            let mode = match place.1 {
                true => RecursiveMode::Recursive,
                false => RecursiveMode::NonRecursive,
            };
            // A directory of the same name may be another one now.
            if place.1 && *users > 0 {
                let _ = watcher.unwatch(&place.0);
            }
            let watched = match *users == 0 || place.1 {
                true => watcher.watch(&place.0, mode),
                false => Ok(()),
            };
            *users += 1;
            if let Err(error) = watched {
                self.forget(places.get(..=at).unwrap_or_default());
                return Err(error);
            }
        }
        Ok(())
    }

    fn forget(&mut self, places: &[Place]) {
        for place in places {
            let Some(users) = self.places.get_mut(place) else {
                continue;
            };
            *users -= 1;
            if *users > 0 {
                continue;
            }
            self.places.remove(place);
            let other = (place.0.clone(), !place.1);
            if self.places.contains_key(&other) {
                continue;
            }
            if let Some(watcher) = &mut self.watcher {
                // It may be gone, and its watch with it.
                let _ = watcher.unwatch(&place.0);
            }
        }
    }
}

/// Tells those whom a change concerns; all when it isn't known what changed.
fn tell(signals: &Signals, event: Option<notify::Event>) {
    let event = event.filter(|event| !event.need_rescan());
    if event
        .as_ref()
        .is_some_and(|event| matches!(event.kind, EventKind::Access(_)))
    {
        return;
    }
    for signal in signals.lock().iter().filter_map(Weak::upgrade) {
        let concerns = |path: &PathBuf| {
            let places = signal.places.lock();
            places.iter().any(|(place, _)| path.starts_with(place))
        };
        if event
            .as_ref()
            .is_none_or(|event| event.paths.iter().any(concerns))
        {
            signal.changes.send_replace(());
        }
    }
}

impl Print {
    /// Names, sizes and times at `path`; nothing is read.
    fn of(path: &Path, limits: &Limits) -> std::io::Result<Self> {
        let mut digest = Sha256::new();
        let mut newest = SystemTime::UNIX_EPOCH;
        let mut entries = 0;
        let mut pending = vec![path.to_owned()];
        let mut metadata = fs::metadata(path)?;
        while let Some(path) = pending.pop() {
            if entries > 0 {
                metadata = fs::symlink_metadata(&path)?;
            }
            entries += 1;
            if entries > limits.entries().saturating_add(1) {
                // Reading it says what is wrong.
                break;
            }
            let name = path.as_os_str().as_encoded_bytes();
            digest.update(name.len().to_be_bytes());
            digest.update(name);
            digest.update([u8::from(metadata.is_dir()), u8::from(metadata.is_file())]);
            digest.update(metadata.len().to_be_bytes());
            let changed = [metadata.modified().ok(), changed(&metadata)];
            for time in changed.into_iter().flatten() {
                newest = newest.max(time);
                let since = time
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .unwrap_or_default();
                digest.update(since.as_nanos().to_be_bytes());
            }
            let Inode(device, number) = inode(&metadata);
            digest.update(device.to_be_bytes());
            digest.update(number.to_be_bytes());
            if metadata.is_dir() {
                let mut below: Vec<_> = fs::read_dir(&path)?
                    .map(|entry| entry.map(|entry| entry.path()))
                    .collect::<Result<_, _>>()?;
                below.sort();
                pending.append(&mut below);
            }
        }
        let age = SystemTime::now().duration_since(newest);
        Ok(Self {
            digest: digest.finalize().into(),
            is_settled: age.is_ok_and(|age| age > SETTLED_AFTER),
        })
    }
}

/// Tells one directory or file from another.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Inode(u64, u64);

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> Inode {
    use std::os::unix::fs::MetadataExt;
    Inode(metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> Inode {
    Inode(0, 0)
}

/// When anything about it changed, which nobody can set back.
#[cfg(unix)]
fn changed(metadata: &fs::Metadata) -> Option<SystemTime> {
    use std::os::unix::fs::MetadataExt;
    let seconds = u64::try_from(metadata.ctime()).ok()?;
    let nanos = u64::try_from(metadata.ctime_nsec()).ok()?;
    let since = Duration::from_secs(seconds) + Duration::from_nanos(nanos);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(not(unix))]
fn changed(_: &fs::Metadata) -> Option<SystemTime> {
    None
}

/// The archive at `path`, or one of the directory there, within the limits.
fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| error.to_string();
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return writer::pack(path, limits).map_err(|error| error.to_string());
    }
    let limit = limits.total_bytes();
    let too_large = || format!("larger than {limit} bytes");
    if metadata.len() > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(too_large());
    }
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Watched").field(&self.path).finish()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.hub.system.lock().forget(&self.state.get_mut().places);
    }
}
