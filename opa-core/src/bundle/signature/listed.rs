//! The files that a signature lists, compared with those that are there.

use std::collections::BTreeMap;

use super::super::digest::hex;
use super::super::error::BundleError;
use super::super::path::EntryPath;
use super::digest::{canonical, digest, from_hex};
use super::fault;
use super::pattern::Pattern;
use super::token::{Claims, File};

/// The files of a verified signature that were not found yet.
#[derive(Debug)]
pub(in super::super) struct Listed<'a> {
    files: BTreeMap<String, File>,
    exclude: &'a [Pattern],
    issued_at: Option<i64>,
}

impl<'a> Listed<'a> {
    pub(super) fn new(claims: Claims, exclude: &'a [Pattern]) -> Self {
        Self {
            files: claims.files,
            exclude,
            issued_at: claims.issued_at,
        }
    }

    /// When the signature was made, in seconds since 1970.
    pub(in super::super) fn issued_at(&self) -> Option<i64> {
        self.issued_at
    }

    /// What a file has to be. `None` if it may be anything. Each is there once.
    pub(in super::super) fn expected(
        &mut self,
        path: &EntryPath,
    ) -> Result<Option<Expected>, BundleError> {
        let name = path.relative();
        let listed = self.files.remove(name);
        if self.exclude.iter().any(|pattern| pattern.matches(name)) {
            return Ok(None);
        }
        let Some(File { hash, algorithm }) = listed else {
            return Err(fault(format!(
                "file {name} not included in bundle signature"
            )));
        };
        if algorithm.is_empty() {
            return Err(fault(format!(
                "no hashing algorithm provided for file {name}"
            )));
        }
        Ok(Some(Expected {
            name: name.to_owned(),
            hash,
            algorithm,
        }))
    }

    /// Checks that no file is missing.
    pub(in super::super) fn finish(self) -> Result<(), BundleError> {
        if self.files.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = self.files.into_keys().collect();
        Err(fault(format!(
            "file(s) [{}] specified in bundle signatures but not found in the target bundle",
            names.join(" ")
        )))
    }
}

/// What a signature says of a file that must be just that.
pub(in super::super) struct Expected {
    name: String,
    hash: String,
    algorithm: String,
}

impl Expected {
    /// Checks a file that is no data by its bytes.
    pub(in super::super) fn check_bytes(
        self,
        path: &EntryPath,
        bytes: &[u8],
    ) -> Result<(), BundleError> {
        let canonical = canonical(path, bytes)?;
        self.check(|take| {
            take(canonical.as_deref().unwrap_or(bytes));
            Ok(())
        })
    }

    /// Checks a file by what its digest is over, which `content` hands over piece by piece.
    pub(in super::super) fn check(
        self,
        content: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), BundleError>,
    ) -> Result<(), BundleError> {
        let Self {
            name,
            hash,
            algorithm,
        } = self;
        let found = digest(&algorithm, content)?;
        let Some(wanted) = from_hex(&hash) else {
            return Err(fault(format!("{name}: expected a digest in hexadecimal")));
        };
        if wanted != found {
            return Err(fault(format!(
                "{name}: digest mismatch (want: {}, got: {})",
                hex(&wanted),
                hex(&found)
            )));
        }
        Ok(())
    }
}
