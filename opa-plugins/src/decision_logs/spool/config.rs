use std::path::PathBuf;
use std::time::Duration;

/// The largest record: any event, and its names.
pub(super) const MAX_RECORD_BYTES: usize = super::super::MAX_EVENT_BYTES + (256 << 10);

/// How long acknowledgements wait for something that is written anyway.
pub(super) const REMOVE_DELAY: Duration = Duration::from_millis(200);

/// When a disk that failed is tried again.
pub(super) const RETRY_DELAY: Duration = Duration::from_millis(250);

const MIN_SEGMENT_BYTES: u64 = 64 << 10;
const MAX_SEGMENT_BYTES: u64 = 16 << 20;

/// Where a [`Spool`](super::Spool) is and what it may take.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SpoolConfig {
    /// Its directory, of one process alone. It is made with mode 0700 if it isn't there, and the
    /// directories above it, too.
    pub path: PathBuf,
    /// How many bytes the records take that were not removed, with about 60 bytes of their own each.
    /// The files take up to one and a half times as much, and five segments. A segment is a
    /// sixteenth of it, at least 64 KiB and at most 16 MiB. Default: 1 GiB.
    pub max_bytes: u64,
    /// How many bytes may wait to be written, in memory. Default: 16 MiB.
    pub max_pending_bytes: usize,
    /// How long a record waits for others when nobody waits for it. With the time that the disk
    /// takes for it this is what a crash can lose. Default: 5 ms.
    pub max_delay: Duration,
    /// How long events are kept, whatever needs their room, whose app or output is not there: since
    /// the process began or the app was given up. When the spool has no room after that they are given
    /// up, the longest absent first, and counted as `abandoned`. Default: `None`, for ever.
    pub max_absence: Option<Duration>,
}

impl SpoolConfig {
    /// The defaults, in the directory `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_bytes: 1 << 30,
            max_pending_bytes: 16 << 20,
            max_delay: Duration::from_millis(5),
            max_absence: None,
        }
    }

    /// How large a file gets before there is another one.
    pub(super) fn segment_bytes(&self) -> u64 {
        (self.max_bytes / 16).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES)
    }
}
