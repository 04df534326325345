//! A file of lines, shared by all that write it.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::Settings;
use super::append::{Appends, repair};
use super::rotation;

/// One file. Whoever writes has [`open`](Self::open).
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    settings: parking_lot::Mutex<Settings>,
    open: Arc<Mutex<Option<Open>>>,
    /// Held by whoever compresses and removes rotated files.
    tidying: Arc<Mutex<()>>,
}

/// The file as it was opened.
#[derive(Debug)]
struct Open {
    file: File,
    appends: Appends,
    since: SystemTime,
}

impl Log {
    pub(super) fn new(path: PathBuf, settings: Settings) -> Self {
        Self {
            path,
            settings: parking_lot::Mutex::new(settings),
            open: Arc::default(),
            tidying: Arc::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn set(&self, settings: Settings) {
        *self.settings.lock() = settings;
    }

    /// Appends lines, all or none.
    pub(super) async fn append(log: &Arc<Self>, lines: Vec<u8>) -> io::Result<()> {
        Self::append_at(log, lines, SystemTime::now()).await
    }

    pub(super) async fn append_at(
        log: &Arc<Self>,
        lines: Vec<u8>,
        now: SystemTime,
    ) -> io::Result<()> {
        let mut open = Arc::clone(&log.open).lock_owned().await;
        let this = Arc::clone(log);
        // The guard goes along: also when nobody waits any more, the batch is written whole.
        let written = spawn_blocking(move || this.write(&mut open, &lines, now)).await;
        let has_rotated = written.map_err(io::Error::other).flatten()?;
        if has_rotated {
            Self::tidy(log);
        }
        Ok(())
    }

    /// Whether there may be a rotated file that wasn't there before.
    fn write(&self, open: &mut Option<Open>, lines: &[u8], now: SystemTime) -> io::Result<bool> {
        let settings = self.settings.lock().clone();
        let mut has_rotated = open.is_none() && settings.rotation.is_some();
        let current = self.current(open, now)?;
        let len = current.file.metadata()?.len();
        let age = now.duration_since(current.since).unwrap_or_default();
        let size = len.saturating_add(lines.len() as u64);
        let rotation = settings.rotation.as_ref();
        if len > 0 && rotation.is_some_and(|rotation| rotation.is_due(size, age)) {
            // If it can't be, it doesn't grow either: the batch waits.
            rotation::move_away(&self.path, now)?;
            *open = None;
            has_rotated = true;
        }
        let current = self.current(open, now)?;
        current.appends.append(&mut current.file, lines)?;
        if settings.sync {
            current.file.sync_data()?;
        }
        Ok(has_rotated)
    }

    /// The file that is at the path now.
    fn current<'a>(&self, open: &'a mut Option<Open>, now: SystemTime) -> io::Result<&'a mut Open> {
        let is_there = |open: &Open| {
            let there = fs::symlink_metadata(&self.path);
            matches!((there, open.file.metadata()), (Ok(there), Ok(mine)) if is_same(&there, &mine))
        };
        match open.take().filter(is_there) {
            Some(current) => Ok(open.insert(current)),
            // Closed before it is opened again: nobody holds two locks.
            None => Ok(open.insert(self.open(now)?)),
        }
    }

    fn open(&self, now: SystemTime) -> io::Result<Open> {
        let mut file = match options().open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_folders(&self.path)?;
                options().open(&self.path)?
            }
            opened => opened?,
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::other("somebody else writes it"));
            }
            // Some file systems have no locks.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        repair(&mut file)?;
        Ok(Open {
            file,
            appends: Appends::default(),
            // Not every file system knows.
            since: metadata.created().unwrap_or(now),
        })
    }

    #[cfg(test)]
    pub(super) async fn tidying(&self) -> impl Sized {
        Arc::clone(&self.tidying).lock_owned().await
    }

    /// Compresses and removes rotated files, beside the way of batches.
    fn tidy(log: &Arc<Self>) {
        let this = Arc::clone(log);
        drop(tokio::spawn(async move {
            let turn = Arc::clone(&this.tidying).lock_owned().await;
            let Some(rotation) = this.settings.lock().rotation.clone() else {
                return;
            };
            let path = this.path.clone();
            let tidied = spawn_blocking(move || {
                let _turn = turn;
                rotation::tidy(&path, &rotation)
            });
            if let Err(error) = tidied.await.map_err(io::Error::other).flatten() {
                let path = this.path.display();
                tracing::warn!(target: "opa::decision_logs", "rotated files of `{path}`: {error}");
            }
        }));
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;

        use rustix::fs::OFlags;

        // A pipe would wait for its reader.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.mode(0o600).custom_flags(flags.bits().cast_signed());
    }
    options
}

fn create_folders(path: &Path) -> io::Result<()> {
    let Some(folder) = path.parent() else {
        return Ok(());
    };
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

#[cfg(unix)]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;

    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// Without a file's identity one that was replaced is seen if it is another kind of file.
#[cfg(not(unix))]
fn is_same(a: &Metadata, b: &Metadata) -> bool {
    a.file_type() == b.file_type()
}
