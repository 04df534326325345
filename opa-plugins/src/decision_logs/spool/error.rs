use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a spool can't be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpoolError {
    /// Another process, or another spool of this one, has it.
    InUse(PathBuf),
    /// The directory or a file in it isn't what it must be: with another owner, writable by others, a
    /// symbolic link, no directory or no file.
    Unsafe {
        /// The directory or the file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It was written by a newer version of this crate. Nothing in it was changed.
    NewerVersion {
        /// The file.
        path: PathBuf,
        /// The version of its format.
        version: u32,
    },
    /// The operating system refused something.
    Io {
        /// The directory or the file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl SpoolError {
    pub(super) fn io(path: &Path, error: impl Into<io::Error>) -> Self {
        Self::Io {
            path: path.to_owned(),
            error: error.into(),
        }
    }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InUse(path) => write!(f, "the spool `{}` is in use", path.display()),
            Self::Unsafe { path, problem } => {
                write!(
                    f,
                    "`{}` can't be used for a spool: {problem}",
                    path.display()
                )
            }
            Self::NewerVersion { path, version } => write!(
                f,
                "`{}` has version {version} of the spool's format, which is newer than this program's",
                path.display()
            ),
            Self::Io { path, error } => write!(f, "the spool's `{}`: {error}", path.display()),
        }
    }
}

impl std::error::Error for SpoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::InUse(_) | Self::Unsafe { .. } | Self::NewerVersion { .. } => None,
        }
    }
}

/// Why a record is not in the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AppendError {
    /// The records have [`max_bytes`](super::SpoolConfig::max_bytes). There is room when some are
    /// removed or dropped.
    Full,
    /// More waits than [`max_pending_bytes`](super::SpoolConfig::max_pending_bytes): the disk is too
    /// slow.
    Overloaded,
    /// The record is larger than 64 MiB, or than the whole spool may be, or its names are longer than
    /// 65,535 bytes.
    TooLarge,
    /// The disk is full, read-only or broken. It is tried again by itself.
    Disk(DiskError),
    /// The spool was closed.
    Closed,
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the spool is full"),
            Self::Overloaded => f.write_str("too much waits to be written to the spool"),
            Self::TooLarge => f.write_str("the record is too large for the spool"),
            Self::Disk(error) => write!(f, "the spool's disk: {error}"),
            Self::Closed => f.write_str("the spool is closed"),
        }
    }
}

impl std::error::Error for AppendError {}

/// What the operating system said of the spool's disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskError {
    kind: io::ErrorKind,
    code: Option<i32>,
}

impl DiskError {
    /// What went wrong, such as [`StorageFull`](io::ErrorKind::StorageFull) or
    /// [`ReadOnlyFilesystem`](io::ErrorKind::ReadOnlyFilesystem).
    #[must_use]
    pub fn kind(&self) -> io::ErrorKind {
        self.kind
    }
}

impl From<&io::Error> for DiskError {
    fn from(error: &io::Error) -> Self {
        Self {
            kind: error.kind(),
            code: error.raw_os_error(),
        }
    }
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => io::Error::from_raw_os_error(code).fmt(f),
            None => self.kind.fmt(f),
        }
    }
}

impl std::error::Error for DiskError {}
