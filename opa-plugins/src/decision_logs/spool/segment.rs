//! The file that is written to.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};

use super::directory::Directory;
use super::frame::{Header, VERSION};

/// What a disk that failed must take before it is used again.
const PROBE_BYTES: usize = 64 << 10;

pub(super) struct Segment {
    pub(super) number: u64,
    file: File,
    /// Of what was written without an error.
    pub(super) bytes: u64,
    /// Its file system knows how many names a file has.
    counts_names: bool,
    #[cfg(test)]
    failing_syncs: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Segment {
    /// A new one, with its header.
    pub(super) fn create(directory: &Directory, number: u64, next_id: u64) -> io::Result<Self> {
        let file = directory.create_segment(number)?;
        let mut segment = Self {
            number,
            bytes: 0,
            counts_names: file.metadata()?.nlink() > 0,
            file,
            #[cfg(test)]
            failing_syncs: std::sync::Arc::clone(&directory.failing_syncs),
        };
        let header = Header {
            version: VERSION,
            number,
            next_id,
        };
        match segment.write(&header.to_bytes()) {
            Ok(()) => Ok(segment),
            Err(error) => {
                drop(segment);
                // Should it stay, then it is an empty file.
                let _ = directory.remove_segment(number);
                Err(error)
            }
        }
    }

    /// Makes sure that there is room for more than a header, so that a disk that is full isn't taken
    /// for one that isn't.
    pub(super) fn probe(&self) -> io::Result<()> {
        self.file.write_all_at(&[0; PROBE_BYTES], self.bytes)?;
        self.sync()?;
        self.file.set_len(self.bytes)
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        #[cfg(test)]
        {
            use std::sync::atomic::Ordering::SeqCst;
            let fewer = |left: usize| left.checked_sub(1);
            if self
                .failing_syncs
                .fetch_update(SeqCst, SeqCst, fewer)
                .is_ok()
            {
                return Err(rustix::io::Errno::IO.into());
            }
        }
        self.file.sync_data()?;
        // What somebody has removed is written and synced as well, but nobody will find it.
        match self.counts_names && self.file.metadata()?.nlink() == 0 {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(()),
        }
    }

    /// Cuts off what may not be whole. After an error nobody knows what of it is on the disk, so
    /// nothing is written to this file any more.
    pub(super) fn abandon(self, good_bytes: u64) {
        if let Err(error) = self.file.set_len(good_bytes) {
            tracing::warn!(%error, "end of a spool's file not cut off");
        }
    }
}
