//! A folder whose way there has no symbolic link, opened level by level.
//!
//! Each step is relative to the folder that is open already, so that nobody who can write between
//! two steps leads a later one elsewhere.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::PersistError;
use super::save::Files;

const FOLDER_MODE: u32 = 0o700;

/// An open folder.
pub(super) struct Folder(OwnedFd);

impl Folder {
    /// The folder `levels` below `root`; `None` if there is none.
    pub(super) fn open(root: &Path, levels: &[String]) -> Result<Option<Self>, PersistError> {
        let Some(mut folder) = Self::root(root)? else {
            return Ok(None);
        };
        for level in levels {
            match folder.level(level) {
                Ok(next) => folder = next,
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(refused(root, level, error)),
            }
        }
        Ok(Some(folder))
    }

    /// The folder `levels` below `root`, made where it isn't there, for its owner only.
    pub(super) fn create(root: &Path, levels: &[String]) -> Result<Self, PersistError> {
        create_root(root).map_err(|error| PersistError::at(root.display(), error))?;
        let gone = || PersistError::at(root.display(), "the directory is gone");
        let mut folder = Self::root(root)?.ok_or_else(gone)?;
        for level in levels {
            let next = folder.level_or_new(level);
            folder = next.map_err(|error| refused(root, level, error))?;
        }
        Ok(folder)
    }

    /// The configured directory is the operator's: it may be a link.
    fn root(root: &Path) -> Result<Option<Self>, PersistError> {
        let flags = OFlags::DIRECTORY.bits().cast_signed();
        match OpenOptions::new().read(true).custom_flags(flags).open(root) {
            Ok(file) => Ok(Some(Self(file.into()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PersistError::at(root.display(), error)),
        }
    }

    fn level(&self, name: &str) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.0, name, flags, Mode::empty()).map(Self)
    }

    fn level_or_new(&self, name: &str) -> Result<Self, Errno> {
        match rustix::fs::mkdirat(&self.0, name, Mode::RWXU) {
            Ok(()) => rustix::fs::fsync(&self.0)?,
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        self.level(name)
    }

    /// Removes what writers left that did not come to their end, OPA's too.
    pub(super) fn remove_leftovers(&self) {
        let Ok(entries) = Dir::read_from(&self.0) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_bytes();
            if name.starts_with(b".bundle.") && name.ends_with(b".tmp") {
                // It is tried again with the next start.
                let _ = rustix::fs::unlinkat(&self.0, entry.file_name(), AtFlags::empty());
            }
        }
    }

    /// A regular file, or `None` if there is nothing. Whatever else is there is refused.
    fn file(&self, name: &str) -> io::Result<Option<File>> {
        // Without waiting for a writer, should it be a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.0, name, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(no_file()),
            Err(error) => return Err(error.into()),
        };
        if file.metadata()?.is_file() {
            Ok(Some(file))
        } else {
            Err(no_file())
        }
    }
}

impl Files for Folder {
    fn read(&self, name: &str, max: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.file(name)? else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        file.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max {
            let text = format!("the file is larger than {max} bytes");
            return Err(io::Error::other(text));
        }
        Ok(Some(bytes))
    }

    fn write(&self, name: &str, pieces: &mut dyn Iterator<Item = &[u8]>) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&self.0, name, flags | OFlags::NOFOLLOW, mode)?;
        let mut file = File::from(file);
        for piece in pieces {
            file.write_all(piece)?;
        }
        Ok(())
    }

    fn sync_file(&self, name: &str) -> io::Result<()> {
        match self.file(name)? {
            Some(file) => file.sync_all(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match rustix::fs::statat(&self.0, to, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {}
            Ok(_) => return Err(no_file()),
        }
        Ok(rustix::fs::renameat(&self.0, from, &self.0, to)?)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.0.as_fd())?)
    }

    fn remove(&self, name: &str) {
        // What remains is removed with the next start.
        let _ = rustix::fs::unlinkat(&self.0, name, AtFlags::empty());
    }

    fn temporary(&self, name: &str) -> String {
        format!(".{name}.{:016x}.tmp", rand::random::<u64>())
    }
}

/// Makes the configured directory, and those above it that are missing.
fn create_root(path: &Path) -> io::Result<()> {
    let here = || DirBuilder::new().mode(FOLDER_MODE).create(path);
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    let made = match here() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent != Path::new(".") => {
            create_root(parent)?;
            here()
        }
        made => made,
    };
    match made {
        Ok(()) => File::open(parent)?.sync_all(),
        // It is opened as a directory next; what it is otherwise is reported there. A read-only
        // file system says so of a directory that exists, too.
        Err(_) if path.exists() => Ok(()),
        Err(error) => Err(error),
    }
}

fn no_file() -> io::Error {
    io::Error::other("a symbolic link, or no regular file")
}

fn refused(root: &Path, level: &str, error: Errno) -> PersistError {
    let path = format!("`{level}` in {}", root.display());
    match error {
        Errno::LOOP | Errno::NOTDIR => PersistError::at(path, "a symbolic link, or no directory"),
        error => PersistError::at(path, io::Error::from(error)),
    }
}
