use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Body, Fetch, Source, SourceAnswer, SourceError, SourceFuture};
use crate::bundle::writer;

/// A local directory or tarball. It is read again at each poll, and counts as new when its content
/// has changed.
#[derive(Clone, Debug)]
pub struct File(PathBuf);

impl File {
    /// A source of what is at `path`: a directory, or an archive.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

impl Source for File {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        let path = self.0.clone();
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || read(&path)).await;
            let bytes = read.map_err(|error| SourceError::new(error.to_string()))??;
            let etag: String = Sha256::digest(&bytes)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            if request.etag.as_deref() == Some(&etag) {
                return Ok(SourceAnswer::not_modified());
            }
            Ok(SourceAnswer::snapshot(Body::from(bytes), Some(etag.into())))
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    let named =
        |problem: String| SourceError::new(format!("bundle `{}`: {problem}", path.display()));
    let kind = std::fs::metadata(path).map_err(|error| named(error.to_string()))?;
    if kind.is_dir() {
        return writer::pack(path).map_err(|error| named(error.to_string()));
    }
    std::fs::read(path).map_err(|error| named(error.to_string()))
}
