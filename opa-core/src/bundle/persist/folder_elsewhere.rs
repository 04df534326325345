//! Where folders can't be opened relative to others: nothing is kept. Configuration refuses it.

use std::io;
use std::path::Path;

use super::PersistError;
use super::save::Files;

/// There is none.
pub(super) enum Folder {}

impl Folder {
    pub(super) fn open(_: &Path, _: &[String]) -> Result<Option<Self>, PersistError> {
        Ok(None)
    }

    pub(super) fn create(root: &Path, _: &[String]) -> Result<Self, PersistError> {
        Err(PersistError::at(root.display(), "not on this platform"))
    }

    pub(super) fn remove_leftovers(&self) {
        match *self {}
    }
}

impl Files for Folder {
    fn read(&self, _: &str, _: u64) -> io::Result<Option<Vec<u8>>> {
        match *self {}
    }

    fn write(&self, _: &str, _: &mut dyn Iterator<Item = &[u8]>) -> io::Result<()> {
        match *self {}
    }

    fn sync_file(&self, _: &str) -> io::Result<()> {
        match *self {}
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        match *self {}
    }

    fn sync(&self) -> io::Result<()> {
        match *self {}
    }

    fn remove(&self, _: &str) {
        match *self {}
    }

    fn temporary(&self, _: &str) -> String {
        match *self {}
    }
}
