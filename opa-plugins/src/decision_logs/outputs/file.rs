//! The output `file`: lines of JSON, appended to a file that is rotated.

mod append;
mod log;
mod rotation;

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use opa_core::config::{ConfigError, Reader, Section};
use opa_core::plugin::Scope;
use parking_lot::Mutex;

use self::log::Log;
use self::rotation::Rotation;
use super::super::output::{Batch, Output, OutputError, OutputFuture, OutputType};
use super::options::{Warned, count};

/// Appends each batch to a file, an event on each line.
///
/// | Option | Default | |
/// | --- | --- | --- |
/// | `path` | required | the file; folders that are missing are made, for their owner only |
/// | `sync` | `false` | whether a batch counts as delivered only when the disk has it, not the operating system alone |
/// | `rotation.max_bytes` | 104857600 | the file is rotated before it grows larger |
/// | `rotation.max_age_seconds` | none | the file is rotated by the first batch that finds it older |
/// | `rotation.max_files` | 10 | how many rotated files are kept |
/// | `rotation.compress` | `false` | whether rotated files are compressed with gzip |
///
/// Without the object `rotation` the file only grows. A rotated file has the time of its rotation
/// at the end of its name. A file that something else rotates, by renaming or by truncating, goes
/// on at the path; no signal is needed.
///
/// The file is made with the mode 0600, and no symbolic link is followed at its place. What is there
/// must be a file of JSON lines or empty. Apps may share a file: batches are written one after the
/// other, each whole. The settings that were read last count then. Other processes must not write
/// it; a lock (`flock`) keeps those out that are of this kind.
///
/// A batch that can't be written whole, such as to a full disk, is taken back and is an error. What a
/// crash left of a line is removed.
#[derive(Debug, Default)]
pub struct File {
    warned: Warned,
    /// Paths elsewhere are errors.
    below: Option<PathBuf>,
    /// By path; one that no app uses any more goes.
    logs: Mutex<HashMap<PathBuf, Weak<Log>>>,
}

/// How a log is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Settings {
    sync: bool,
    rotation: Option<Rotation>,
}

const DEFAULT_MAX_BYTES: u64 = 100 * 1024 * 1024;
const DEFAULT_MAX_FILES: usize = 10;

impl OutputType for File {
    fn open(&self, section: &Section, _: &Scope<'_>) -> Result<Arc<dyn Output>, ConfigError> {
        let mut reader = section.reader()?;
        let path = self.read_path(&mut reader)?;
        let rotation = reader.object("rotation")?;
        let settings = Settings {
            sync: reader.bool("sync")?.unwrap_or_default(),
            rotation: match rotation {
                Some(rotation) => Some(self.read_rotation(rotation)?),
                None => None,
            },
        };
        self.warned.about(reader.finish()?);
        Ok(Arc::new(Appender(self.log(path, settings))))
    }
}

impl File {
    /// Takes only paths below `folder`: what comes from elsewhere, such as discovered configuration,
    /// must not choose any file that the process may write. Default: every path.
    #[must_use]
    pub fn below(mut self, folder: impl Into<PathBuf>) -> Self {
        self.below = Some(folder.into());
        self
    }

    fn read_path(&self, reader: &mut Reader<'_>) -> Result<PathBuf, ConfigError> {
        let Some(field) = reader.field("path") else {
            return Err(reader.missing("path", "the path of a file"));
        };
        let path = PathBuf::from(field.as_str()?);
        if path.file_name().is_none() || field.as_str()?.ends_with('/') {
            return Err(field.error(format!(
                "expected the path of a file, found `{}`",
                path.display()
            )));
        }
        let absolute = std::path::absolute(&path);
        let absolute = absolute.map_err(|error| field.error(error.to_string()))?;
        match &self.below {
            Some(folder) if !is_below(&absolute, folder) => Err(field.error(format!(
                "expected a path below `{}`, found `{}`",
                folder.display(),
                path.display()
            ))),
            _ => Ok(absolute),
        }
    }

    fn read_rotation(&self, mut reader: Reader<'_>) -> Result<Rotation, ConfigError> {
        let max_files = count(&mut reader, "max_files")?;
        let rotation = Rotation {
            max_bytes: count(&mut reader, "max_bytes")?.unwrap_or(DEFAULT_MAX_BYTES),
            max_age: count(&mut reader, "max_age_seconds")?.map(Duration::from_secs),
            max_files: max_files.map_or(DEFAULT_MAX_FILES, |files| {
                usize::try_from(files).unwrap_or(usize::MAX)
            }),
            compress: reader.bool("compress")?.unwrap_or_default(),
        };
        self.warned.about(reader.finish()?);
        Ok(rotation)
    }

    /// The log at a path, as all apps share it.
    fn log(&self, path: PathBuf, settings: Settings) -> Arc<Log> {
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(&path).and_then(Weak::upgrade) {
            log.set(settings);
            return log;
        }
        let log = Arc::new(Log::new(path.clone(), settings));
        if logs.len() == logs.capacity() {
            // It would grow: first what no app uses any more goes, since paths can name apps.
            logs.retain(|_, log| log.strong_count() > 0);
        }
        logs.insert(path, Arc::downgrade(&log));
        log
    }
}

/// Whether a path leads below a folder whatever exists there.
fn is_below(path: &Path, folder: &Path) -> bool {
    let folder = std::path::absolute(folder).ok();
    let rest = folder.and_then(|folder| path.strip_prefix(folder).ok());
    rest.is_some_and(|rest| {
        let mut steps = rest.components();
        steps.all(|step| matches!(step, Component::Normal(_)))
    })
}

/// The output of one app.
#[derive(Debug)]
struct Appender(Arc<Log>);

impl Output for Appender {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
        Box::pin(async {
            let appended = Log::append(&self.0, lines(batch)).await;
            appended.map_err(|error| {
                OutputError::new(format!("`{}`: {error}", self.0.path().display()))
            })
        })
    }
}

fn lines(batch: &Batch) -> Vec<u8> {
    let size = batch.events.iter().map(|event| event.json.len() + 1).sum();
    let mut lines = Vec::with_capacity(size);
    for event in &batch.events {
        lines.extend_from_slice(&event.json);
        lines.push(b'\n');
    }
    lines
}

#[cfg(test)]
mod tests;
