//! Local paths that are watched: one watch for each, however many apps have it.

mod print;
mod system;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use self::print::{Inode, Print, inode, read};
use self::system::{Place, Signal, Signals, System};
use super::SourceError;
use crate::FailureClass;
use crate::bundle::Limits;

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
        let text = format!("bundle `{}`: {problem}", self.path.display());
        SourceError::new(text).with_class(FailureClass::Io)
    }
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
