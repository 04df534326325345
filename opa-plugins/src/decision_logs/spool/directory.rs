//! The directory of a spool: nobody else's, and one process's at a time.

use std::ffi::OsStr;
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::error::SpoolError;

const LOCK: &str = "lock";
const SUFFIX: &str = ".spool";

/// An open, locked directory.
pub(super) struct Directory {
    path: PathBuf,
    folder: OwnedFd,
    /// Locked as long as it is open, or until it is [let go](Self::unlock).
    lock: File,
    /// How many syncs fail from now on.
    #[cfg(test)]
    pub(super) failing_syncs: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Directory {
    pub(super) fn open(path: &Path) -> Result<Self, SpoolError> {
        create(path).map_err(|error| SpoolError::io(path, error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(folder) => folder,
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(refused(path, "a symbolic link, or no directory"));
            }
            Err(error) => return Err(SpoolError::io(path, error)),
        };
        let file = File::from(folder);
        check(&file, path)?;
        let folder = OwnedFd::from(file);
        let at = path.join(LOCK);
        // Not for writing, so that a spool on a read-only file system can be read.
        let flags = OFlags::RDONLY | OFlags::CREATE;
        let lock = open_file(&folder, OsStr::new(LOCK), flags, &at)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SpoolError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(SpoolError::io(&at, error)),
        }
        Ok(Self {
            path: path.to_owned(),
            folder,
            lock,
            #[cfg(test)]
            failing_syncs: std::sync::Arc::default(),
        })
    }

    /// Lets others open it.
    pub(super) fn unlock(&self) {
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(path = %self.path.display(), %error, "spool not unlocked");
        }
    }

    /// The numbers of the segments, in order.
    pub(super) fn segments(&self) -> Result<Vec<u64>, SpoolError> {
        let failed = |error: Errno| SpoolError::io(&self.path, error);
        let mut numbers = Vec::new();
        for entry in Dir::read_from(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            numbers.extend(entry.file_name().to_str().ok().and_then(number_of));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    pub(super) fn path_of(&self, number: u64) -> PathBuf {
        self.path.join(name_of(number))
    }

    /// Opens a segment for reading, if it is one of ours.
    pub(super) fn open_segment(&self, number: u64) -> Result<File, SpoolError> {
        let name = name_of(number);
        let at = self.path.join(&name);
        open_file(&self.folder, OsStr::new(&name), OFlags::RDONLY, &at)
    }

    /// Makes a segment, for writing, and its name durable.
    pub(super) fn create_segment(&self, number: u64) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&self.folder, name_of(number), flags, mode)?;
        if let Err(error) = rustix::fs::fsync(self.folder.as_fd()) {
            // Should it stay, then it is an empty file.
            let _ = self.remove_segment(number);
            return Err(error.into());
        }
        Ok(file.into())
    }

    /// Removes a segment. It may come back with a crash: what it had is delivered again then.
    pub(super) fn remove_segment(&self, number: u64) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.folder, name_of(number), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn name_of(number: u64) -> String {
    format!("{number:016x}{SUFFIX}")
}

fn number_of(name: &str) -> Option<u64> {
    let number = u64::from_str_radix(name.strip_suffix(SUFFIX)?, 16).ok()?;
    (name_of(number) == name).then_some(number)
}

/// Makes the directory, and those above it that are missing.
fn create(path: &Path) -> io::Result<()> {
    let here = || DirBuilder::new().mode(0o700).create(path);
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let made = match here() {
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent != path => {
            create(parent)?;
            here()
        }
        made => made,
    };
    match made {
        Ok(()) => File::open(parent)?.sync_all(),
        // What it is else is said when it is opened. A read-only file system answers so, too.
        Err(_) if path.symlink_metadata().is_ok() => Ok(()),
        Err(error) => Err(error),
    }
}

fn open_file(folder: &OwnedFd, name: &OsStr, flags: OFlags, at: &Path) -> Result<File, SpoolError> {
    // Without waiting, should it be a pipe.
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, name, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => File::from(file),
        Err(Errno::LOOP) => return Err(refused(at, "a symbolic link")),
        Err(error) => return Err(SpoolError::io(at, error)),
    };
    check(&file, at)?;
    let metadata = file.metadata().map_err(|error| SpoolError::io(at, error))?;
    if metadata.is_file() {
        Ok(file)
    } else {
        Err(refused(at, "no regular file"))
    }
}

fn check(file: &File, at: &Path) -> Result<(), SpoolError> {
    let metadata = file.metadata().map_err(|error| SpoolError::io(at, error))?;
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(refused(at, "another user owns it"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(refused(at, "its group or others may write to it"));
    }
    Ok(())
}

fn refused(path: &Path, problem: &'static str) -> SpoolError {
    SpoolError::Unsafe {
        path: path.to_owned(),
        problem,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn problem(path: &Path) -> String {
        Directory::open(path).map(|_| ()).unwrap_err().to_string()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_made_is_its_owners_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        let directory = Directory::open(&path).unwrap();
        directory.create_segment(1).unwrap();
        assert_eq!(mode(&root.path().join("a")), 0o700);
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(LOCK)), 0o600);
        assert_eq!(mode(&directory.path_of(1)), 0o600);
        assert_eq!(directory.segments().unwrap(), [1]);
    }

    #[test]
    fn one_at_a_time() {
        let root = tempfile::tempdir().unwrap();
        let first = Directory::open(root.path()).unwrap();
        let expected = format!("the spool `{}` is in use", root.path().display());
        assert_eq!(problem(root.path()), expected);
        first.unlock();
        Directory::open(root.path()).unwrap();
    }

    #[test]
    fn links_and_files_that_others_may_write_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("spool");
        fs::create_dir(&path).unwrap();
        symlink(&path, root.path().join("link")).unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        for other in ["link", "file"] {
            let problem = problem(&root.path().join(other));
            assert!(
                problem.ends_with("a symbolic link, or no directory"),
                "{problem}"
            );
        }
        set_mode(&path, 0o770);
        assert!(problem(&path).ends_with("may write to it"));
        set_mode(&path, 0o700);

        symlink(root.path().join("file"), path.join(LOCK)).unwrap();
        assert!(problem(&path).ends_with("a symbolic link"));
        fs::remove_file(path.join(LOCK)).unwrap();
        fs::create_dir(path.join(LOCK)).unwrap();
        assert!(problem(&path).contains("lock"));
        fs::remove_dir(path.join(LOCK)).unwrap();
        fs::write(path.join(LOCK), "").unwrap();
        set_mode(&path.join(LOCK), 0o602);
        assert!(problem(&path).ends_with("may write to it"));
        set_mode(&path.join(LOCK), 0o600);
        Directory::open(&path).unwrap();
    }

    #[test]
    fn what_another_user_owns_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: only root can give a file away");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(root.path(), Some(12_345), None).unwrap();
        assert!(problem(root.path()).ends_with("another user owns it"));
    }
}
