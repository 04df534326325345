//! Records of the oldest segment that are written again, so that it can go.

use std::io;

use super::index::Place;
use super::read::{Found, read_frame};
use super::record::RecordId;
use super::state::Shared;

#[derive(Default)]
pub(super) struct Moves {
    pub(super) from: u64,
    /// All that was looked at.
    pub(super) taken: Vec<(RecordId, Place, usize)>,
    /// Those that are whole.
    pub(super) frames: Vec<(RecordId, Vec<u8>)>,
}

impl Moves {
    /// The next records of a segment, of `max` bytes together, at least one. What is damaged is
    /// removed.
    pub(super) fn read(shared: &Shared, from: u64, max: usize) -> io::Result<Self> {
        let taken = shared.state.lock().index.take_from(from, max);
        let mut frames = Vec::with_capacity(taken.len());
        let mut file = None;
        for (id, place, bytes) in &taken {
            match read_frame(&shared.directory, &mut file, *id, *place, *bytes) {
                Found::Record(_, frame) => frames.push((*id, frame)),
                Found::Damaged => shared.state.lock().remove_damaged(*id),
                Found::Failed(error) => {
                    shared.state.lock().index.put_back(from, &taken);
                    return Err(error);
                }
            }
        }
        Ok(Self {
            from,
            taken,
            frames,
        })
    }
}
