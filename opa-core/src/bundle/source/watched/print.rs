//! What a local path is like, and what it holds.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::bundle::{Limits, writer};

/// What changed more recently than this may have changed once more without a trace, since file
/// systems count time in steps.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// Names, sizes and times of what is at a path.
#[derive(PartialEq, Eq)]
pub(super) struct Print {
    pub(super) digest: [u8; 32],
    /// It changed long enough ago.
    pub(super) is_settled: bool,
}

impl Print {
    /// Names, sizes and times at `path`; nothing is read.
    pub(super) fn of(path: &Path, limits: &Limits) -> std::io::Result<Self> {
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
pub(super) struct Inode(u64, u64);

#[cfg(unix)]
pub(super) fn inode(metadata: &fs::Metadata) -> Inode {
    use std::os::unix::fs::MetadataExt;
    Inode(metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
pub(super) fn inode(_: &fs::Metadata) -> Inode {
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
pub(super) fn read(path: &Path, limits: &Limits) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| error.to_string();
    let metadata = fs::metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        return writer::pack(path, limits).map_err(|error| error.to_string());
    }
    if !metadata.is_file() {
        // What is read from a pipe or device may never come.
        return Err("neither a directory nor a regular file".to_owned());
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
