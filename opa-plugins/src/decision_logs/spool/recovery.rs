//! What a process before this one left.
//!
//! Each frame whose checksum is right counts, wherever it is. What lies between is counted and
//! passed over; at the end of the last file it is what a crash cut off before anybody was told that
//! it is durable.

use std::fs::File;
use std::io::{self, Read};

use super::directory::Directory;
use super::error::SpoolError;
use super::frame::{self, Frame, HEADER_BYTES, Header, VERSION};
use super::index::{Index, Place};

#[derive(Default)]
pub(super) struct Recovered {
    pub(super) index: Index,
    pub(super) next_id: u64,
    pub(super) next_segment: u64,
    /// Stretches of bytes that are no frame.
    pub(super) damaged: u64,
    pub(super) damaged_bytes: u64,
    pub(super) torn_bytes: u64,
}

/// Reads all segments, one after the other. Changes nothing.
pub(super) fn recover(directory: &Directory) -> Result<Recovered, SpoolError> {
    let numbers = directory.segments()?;
    for number in &numbers {
        check_version(directory, *number)?;
    }
    let mut recovered = Recovered::default();
    for number in &numbers {
        let path = directory.path_of(*number);
        let mut bytes = Vec::new();
        directory
            .open_segment(*number)?
            .read_to_end(&mut bytes)
            .map_err(|error| SpoolError::io(&path, error))?;
        recovered.segment(*number, &bytes, numbers.last() == Some(number));
    }
    recovered.index.sort();
    recovered.next_id = recovered.next_id.max(1);
    recovered.next_segment = numbers.last().map_or(1, |last| last.saturating_add(1));
    Ok(recovered)
}

fn check_version(directory: &Directory, number: u64) -> Result<(), SpoolError> {
    let path = directory.path_of(number);
    let file = directory.open_segment(number)?;
    match header(&file).map_err(|error| SpoolError::io(&path, error))? {
        Some(Header { version, .. }) if version > VERSION => {
            Err(SpoolError::NewerVersion { path, version })
        }
        _ => Ok(()),
    }
}

fn header(file: &File) -> io::Result<Option<Header>> {
    let mut bytes = Vec::new();
    file.take(HEADER_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(Header::read(&bytes))
}

impl Recovered {
    fn segment(&mut self, number: u64, bytes: &[u8], is_last: bool) {
        self.index.set_segment_bytes(number, bytes.len() as u64);
        let mut at = 0;
        if let Some(header) = Header::read(bytes).filter(|header| header.number == number) {
            self.next_id = self.next_id.max(header.next_id);
            at = HEADER_BYTES;
        }
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let place = Place {
                segment: number,
                offset: at as u64,
            };
            at += match frame::read(rest) {
                Some((frame, len)) => {
                    self.apply(frame, len, place);
                    len
                }
                None => self.pass_over(rest, is_last),
            };
        }
    }

    fn apply(&mut self, frame: Frame, len: usize, place: Place) {
        match frame {
            Frame::Record(id, record) => {
                self.next_id = self.next_id.max(id.0.saturating_add(1));
                // It is there twice when it was moved and the crash came before the first was gone.
                if self.index.get(id).is_none() {
                    self.index.insert(id, &record.stream, len);
                }
                self.index.place(id, place);
            }
            Frame::Removed(ids) => {
                for id in ids {
                    self.index.remove(id);
                    self.next_id = self.next_id.max(id.0.saturating_add(1));
                }
            }
        }
    }

    /// How far the next frame is, or the end.
    fn pass_over(&mut self, rest: &[u8], is_last: bool) -> usize {
        let mut at = 1;
        while let Some(after) = rest.get(at..)
            && let Some(marker) = frame::next_marker(after)
        {
            at += marker;
            if rest.get(at..).and_then(frame::read).is_some() {
                self.damaged += 1;
                self.damaged_bytes += at as u64;
                return at;
            }
            at += 1;
        }
        if is_last {
            self.torn_bytes += rest.len() as u64;
        } else {
            self.damaged += 1;
            self.damaged_bytes += rest.len() as u64;
        }
        rest.len()
    }
}
