//! Activated bundles on disk, where the next start finds them: OPA's layout.
//!
//! `<root>/bundles/<name>/bundle.tar.gz` is the archive as it came. Beside it, where OPA does not
//! look, is its etag, with the digests of the archive and of where it came from: an etag is never
//! sent for other bytes, nor to another server, whichever of the two files a crash left behind.

#[cfg(unix)]
mod folder;
#[cfg(not(unix))]
#[path = "folder_elsewhere.rs"]
mod folder;
mod save;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::folder::Folder;
use super::ArchiveBytes;
use super::digest::{hex, sha256};

/// The place of one bundle of one app.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    /// The folders below `root`; none of them is followed if it is a symbolic link.
    levels: Vec<String>,
    origin: String,
}

/// A bundle that was found.
pub(crate) struct Stored {
    pub(crate) archive: Vec<u8>,
    /// What the origin named these very bytes, if that is known.
    pub(crate) etag: Option<Arc<str>>,
}

/// Why a bundle was not written, or not read.
#[derive(Debug)]
pub(crate) struct PersistError(String);

impl Place {
    /// The place of the bundle `name` below `root`, of the app `app` if `root` is not its own.
    /// `origin` tells where the bundle comes from.
    ///
    /// # Errors
    /// The name makes no path below `root`.
    pub(crate) fn new(
        root: &Path,
        app: Option<&str>,
        name: &str,
        origin: &str,
    ) -> Result<Self, PersistError> {
        let levels = app.into_iter().chain(["bundles"]).chain(segments(name)?);
        Ok(Self {
            root: root.to_owned(),
            levels: levels.map(str::to_owned).collect(),
            origin: hex(&sha256(origin.as_bytes())),
        })
    }

    /// What is there, of at most `max` bytes. Blocks.
    ///
    /// # Errors
    /// There is something that can't be read, or is no file.
    pub(crate) fn load(&self, max: u64) -> Result<Option<Stored>, PersistError> {
        let Some(folder) = Folder::open(&self.root, &self.levels)? else {
            return Ok(None);
        };
        folder.remove_leftovers();
        save::load(&folder, &self.origin, max)
    }

    /// Puts `archive` in the place of what was there: after a crash at any moment there is the one
    /// or the other, and this one as soon as the call has returned. Blocks.
    ///
    /// # Errors
    /// It can't be written; what was there still is.
    pub(crate) fn save(
        &self,
        archive: &ArchiveBytes,
        etag: Option<&str>,
    ) -> Result<(), PersistError> {
        let folder = Folder::create(&self.root, &self.levels)?;
        save::save(&folder, &self.origin, archive, etag)
    }
}

/// The folders that OPA makes of a bundle's name: one for each part between slashes.
///
/// # Errors
/// Part of the name would leave the directory, or be the place of another name too.
pub(crate) fn segments(name: &str) -> Result<impl Iterator<Item = &str>, PersistError> {
    let unsafe_part = |part: &str| matches!(part, "" | "." | "..") || part.contains('\0');
    if name.split('/').any(unsafe_part) {
        let text = format!(
            "the name `{}` makes no path of folders",
            name.escape_debug()
        );
        return Err(PersistError(text));
    }
    Ok(name.split('/'))
}

impl PersistError {
    fn at(path: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self(format!("{path}: {problem}"))
    }
}

impl fmt::Display for PersistError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PersistError {}
