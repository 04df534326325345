//! The order of steps that keeps a bundle through a crash, over whatever keeps files.

use std::io;
use std::sync::Arc;

use serde_json::{Value, json};

use sha2::{Digest, Sha256};

use super::super::ArchiveBytes;
use super::super::digest::{hex, sha256};
use super::{PersistError, Stored};

/// OPA's name of the archive.
pub(super) const ARCHIVE: &str = "bundle.tar.gz";

/// The etag's file. OPA does not look at it.
pub(super) const ETAG: &str = "bundle.etag.json";

/// More than any etag needs.
const MAX_ETAG_FILE: u64 = 64 << 10;

/// A folder of files, with what a crash leaves of each step.
pub(super) trait Files {
    /// All of a file, at most `max` bytes; `None` if there is none.
    fn read(&self, name: &str, max: u64) -> io::Result<Option<Vec<u8>>>;
    /// A new file, which a crash may lose or cut.
    fn write(&self, name: &str, pieces: &mut dyn Iterator<Item = &[u8]>) -> io::Result<()>;
    /// A crash does not touch the file's content any more.
    fn sync_file(&self, name: &str) -> io::Result<()>;
    /// Replaces `to`, at once; a crash may take it back.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// A crash does not take back what files there are.
    fn sync(&self) -> io::Result<()>;
    /// Removes a file that nobody needs.
    fn remove(&self, name: &str);
    /// A name that no other writer has, beginning with `.` and OPA's for such files.
    fn temporary(&self, name: &str) -> String;
}

pub(super) fn save(
    files: &dyn Files,
    origin: &str,
    archive: &ArchiveBytes,
    etag: Option<&str>,
) -> Result<(), PersistError> {
    let mut hash = Sha256::new();
    let pieces = archive.pieces().inspect(|piece| hash.update(piece));
    replace(files, ARCHIVE, pieces)?;
    // Also without an etag: the old one is not to be kept.
    let digest = hex(&hash.finalize());
    let text = json!({"sha256": digest, "origin": origin, "etag": etag}).to_string();
    replace(files, ETAG, [text.as_bytes()].into_iter())?;
    files
        .sync()
        .map_err(|error| PersistError::at("folder", error))
}

fn replace<'a>(
    files: &dyn Files,
    name: &str,
    mut pieces: impl Iterator<Item = &'a [u8]>,
) -> Result<(), PersistError> {
    let temporary = files.temporary(name);
    let written = files
        .write(&temporary, &mut pieces)
        .and_then(|()| files.sync_file(&temporary))
        .and_then(|()| files.rename(&temporary, name));
    written.map_err(|error| {
        files.remove(&temporary);
        PersistError::at(name, error)
    })
}

pub(super) fn load(
    files: &dyn Files,
    origin: &str,
    max: u64,
) -> Result<Option<Stored>, PersistError> {
    let archive = files.read(ARCHIVE, max);
    let Some(archive) = archive.map_err(|error| PersistError::at(ARCHIVE, error))? else {
        return Ok(None);
    };
    let etag = files.read(ETAG, MAX_ETAG_FILE);
    let etag = etag.map_err(|error| PersistError::at(ETAG, error))?;
    let etag = etag.and_then(|text| etag_of(&text, origin, &archive));
    Ok(Some(Stored { archive, etag }))
}

/// The etag of just these bytes from there; nothing if the file tells of others, or is damaged.
fn etag_of(text: &[u8], origin: &str, archive: &[u8]) -> Option<Arc<str>> {
    let read: Value = serde_json::from_slice(text).ok()?;
    let field = |name: &str| read.get(name)?.as_str();
    let fits = field("origin")? == origin && field("sha256")? == hex(&sha256(archive));
    fits.then(|| field("etag").map(Into::into)).flatten()
}
