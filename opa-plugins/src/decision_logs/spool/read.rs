//! Records that are read again, to be delivered.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::directory::Directory;
use super::error::SpoolError;
use super::frame::{self, Frame};
use super::index::Place;
use super::record::{Record, RecordId};
use super::state::Shared;

/// What [`Spool::read`](super::Spool::read) found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ReadRecords {
    /// The records, in the order of the ids.
    pub records: Vec<(RecordId, Record)>,
    /// Those whose checksum was wrong, or whose file is gone. They are not in the spool any more.
    pub damaged: Vec<RecordId>,
    /// How many of the ids were looked at; the others would have been too many bytes.
    pub looked_at: usize,
}

/// A frame that was looked for.
pub(super) enum Found {
    Record(Record, Vec<u8>),
    /// It isn't there or isn't whole.
    Damaged,
    /// The operating system can't tell now.
    Failed(io::Error),
}

/// Reads a frame. `file` is the segment that was opened last.
pub(super) fn read_frame(
    directory: &Directory,
    file: &mut Option<(u64, File)>,
    id: RecordId,
    place: Place,
    bytes: usize,
) -> Found {
    if !matches!(file, Some((number, _)) if *number == place.segment) {
        *file = match directory.open_segment(place.segment) {
            Ok(opened) => Some((place.segment, opened)),
            Err(SpoolError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                return Found::Damaged;
            }
            Err(SpoolError::Io { error, .. }) => return Found::Failed(error),
            Err(error) => return Found::Failed(io::Error::other(error.to_string())),
        };
    }
    let Some((_, file)) = file else {
        return Found::Damaged;
    };
    let mut bytes = vec![0; bytes];
    match file.read_exact_at(&mut bytes, place.offset) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Found::Damaged,
        Err(error) => return Found::Failed(error),
    }
    match frame::read(&bytes) {
        Some((Frame::Record(found, record), len)) if found == id && len == bytes.len() => {
            Found::Record(record, bytes)
        }
        _ => Found::Damaged,
    }
}

/// Reads records until they have `max_bytes` together, at least one.
pub(super) fn read(
    shared: &Shared,
    ids: &[RecordId],
    max_bytes: usize,
) -> Result<ReadRecords, SpoolError> {
    let mut found = ReadRecords::default();
    let mut file = None;
    let mut bytes = 0_usize;
    for id in ids {
        // Otherwise it was removed meanwhile.
        if let Some((known, len)) = look_up(shared, *id) {
            bytes = bytes.saturating_add(len);
            if bytes > max_bytes && !found.records.is_empty() {
                break;
            }
            if let Err(error) = one(shared, &mut found, &mut file, *id, known, len) {
                if found.looked_at > 0 {
                    break;
                }
                return Err(SpoolError::io(&shared.config.path, error));
            }
        }
        found.looked_at += 1;
    }
    Ok(found)
}

/// A record that isn't durable yet, or a place.
enum Known {
    Pending(Record),
    At(Place),
}

fn look_up(shared: &Shared, id: RecordId) -> Option<(Known, usize)> {
    let state = shared.state.lock();
    let (place, bytes) = state.index.get(id)?;
    let known = match place {
        Some(place) => Known::At(place),
        None => Known::Pending(state.pending.get(&id)?.clone()),
    };
    Some((known, bytes))
}

fn one(
    shared: &Shared,
    found: &mut ReadRecords,
    file: &mut Option<(u64, File)>,
    id: RecordId,
    mut known: Known,
    bytes: usize,
) -> io::Result<()> {
    loop {
        let place = match known {
            Known::Pending(record) => {
                found.records.push((id, record));
                return Ok(());
            }
            Known::At(place) => place,
        };
        match read_frame(&shared.directory, file, id, place, bytes) {
            Found::Record(record, _) => found.records.push((id, record)),
            Found::Failed(error) => return Err(error),
            Found::Damaged => {
                let mut state = shared.state.lock();
                match state.index.get(id) {
                    Some((Some(now), _)) if now != place => {
                        // It was moved meanwhile.
                        known = Known::At(now);
                        continue;
                    }
                    Some(_) => {
                        state.remove_damaged(id);
                        found.damaged.push(id);
                    }
                    None => {}
                }
            }
        }
        return Ok(());
    }
}
