//! What is in a file: a header, then frames. A frame is a record, or a list of ids whose records were
//! removed. Numbers are little-endian.
//!
//! ```text
//! header  magic (8), version u32, zero u32, number of the file u64, next id u64, CRC-32 of all that u32
//! frame   marker (4), kind u8, length of the body u32, CRC-32 of kind, length and body u32, body
//! record  id u64, seconds i64, nanoseconds u32, three lengths u16 (app, output, decision id), those, JSON
//! removed ids u64, one after the other
//! ```
//!
//! The bytes of the marker occur in no UTF-8. So nobody who writes what is logged can write what
//! looks like a frame.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opa_core::AppId;

use super::config::MAX_RECORD_BYTES;
use super::record::{Record, RecordId, StreamName};

const MAGIC: [u8; 8] = *b"OPASPOOL";
const MARKER: [u8; 4] = [0xff, 0xfe, 0xff, 0xfd];
const RECORD: u8 = 1;
const REMOVED: u8 = 2;

/// The version of the format that is written.
pub(super) const VERSION: u32 = 1;

pub(super) const HEADER_BYTES: usize = 36;

/// Marker, kind, length, checksum.
const FRAME_BYTES: usize = 13;

/// Id, time and lengths.
const RECORD_HEAD_BYTES: usize = 26;

/// The header of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) number: u64,
    pub(super) next_id: u64,
}

impl Header {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(self.number.to_le_bytes());
        bytes.extend(self.next_id.to_le_bytes());
        let sum = crc32fast::hash(&bytes);
        bytes.extend(sum.to_le_bytes());
        bytes
    }

    /// `None` if that isn't one.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (bytes, sum) = bytes.get(..HEADER_BYTES)?.split_last_chunk::<4>()?;
        if crc32fast::hash(bytes) != u32::from_le_bytes(*sum) {
            return None;
        }
        let mut rest = bytes.strip_prefix(&MAGIC)?;
        let version = u32::from_le_bytes(take(&mut rest)?);
        take::<4>(&mut rest)?;
        Some(Self {
            version,
            number: u64::from_le_bytes(take(&mut rest)?),
            next_id: u64::from_le_bytes(take(&mut rest)?),
        })
    }
}

/// What a frame says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Record(RecordId, Record),
    Removed(Vec<RecordId>),
}

/// How many bytes the frame of `record` has; `None` if it can't have one.
pub(super) fn record_bytes(record: &Record) -> Option<usize> {
    let names = [
        record.stream.app.as_str(),
        &record.stream.output,
        &record.decision_id,
    ];
    if names.iter().any(|name| u16::try_from(name.len()).is_err()) {
        return None;
    }
    let names: usize = names.iter().map(|name| name.len()).sum();
    let bytes = FRAME_BYTES + RECORD_HEAD_BYTES + names + record.json.len();
    (bytes <= MAX_RECORD_BYTES).then_some(bytes)
}

/// Appends the frame of a record that [has one](record_bytes).
pub(super) fn write_record(into: &mut Vec<u8>, id: RecordId, record: &Record) {
    write_frame(into, RECORD, |into| {
        let (seconds, nanoseconds) = since_epoch(record.timestamp);
        into.extend(id.0.to_le_bytes());
        into.extend(seconds.to_le_bytes());
        into.extend(nanoseconds.to_le_bytes());
        let names = [
            record.stream.app.as_str(),
            &record.stream.output,
            &record.decision_id,
        ];
        for name in names {
            let len = u16::try_from(name.len()).unwrap_or(u16::MAX);
            into.extend(len.to_le_bytes());
        }
        for name in names {
            into.extend(name.as_bytes());
        }
        into.extend_from_slice(&record.json);
    });
}

/// Appends a frame that says that the records are gone.
pub(super) fn write_removed(into: &mut Vec<u8>, ids: impl Iterator<Item = RecordId>) {
    write_frame(into, REMOVED, |into| {
        for id in ids {
            into.extend(id.0.to_le_bytes());
        }
    });
}

fn write_frame(into: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = into.len();
    into.extend(MARKER);
    into.push(kind);
    into.extend([0; 8]);
    let body_start = into.len();
    body(into);
    let len = u32::try_from(into.len() - body_start).unwrap_or(u32::MAX);
    let (_, frame) = into.split_at_mut(start);
    let Some((head, body)) = frame.split_first_chunk_mut::<FRAME_BYTES>() else {
        return;
    };
    let sum = checksum(kind, len, body).to_le_bytes();
    let places = head.iter_mut().skip(MARKER.len() + 1);
    for (place, byte) in places.zip(len.to_le_bytes().into_iter().chain(sum)) {
        *place = byte;
    }
}

/// The frame at the start of `bytes`, and its length; `None` if there is none that is whole.
pub(super) fn read(bytes: &[u8]) -> Option<(Frame, usize)> {
    let mut rest = bytes.strip_prefix(&MARKER)?;
    let [kind] = take(&mut rest)?;
    let len = u32::from_le_bytes(take(&mut rest)?);
    let sum = u32::from_le_bytes(take(&mut rest)?);
    let body_bytes = usize::try_from(len).ok()?;
    let body = rest.get(..body_bytes)?;
    if checksum(kind, len, body) != sum {
        return None;
    }
    let frame = match kind {
        RECORD => read_record(body)?,
        REMOVED => Frame::Removed(read_ids(body)?),
        _ => return None,
    };
    Some((frame, FRAME_BYTES + body_bytes))
}

/// Where the next frame could be, at the start or later.
pub(super) fn next_marker(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(MARKER.len())
        .position(|found| found == MARKER)
}

fn read_record(body: &[u8]) -> Option<Frame> {
    let mut rest = body;
    let id = RecordId(u64::from_le_bytes(take(&mut rest)?));
    let seconds = i64::from_le_bytes(take(&mut rest)?);
    let nanoseconds = u32::from_le_bytes(take(&mut rest)?);
    let [app, output, decision_id] = [
        u16::from_le_bytes(take(&mut rest)?),
        u16::from_le_bytes(take(&mut rest)?),
        u16::from_le_bytes(take(&mut rest)?),
    ];
    let app = take_text(&mut rest, app)?;
    let output = take_text(&mut rest, output)?;
    let decision_id = take_text(&mut rest, decision_id)?;
    let record = Record {
        stream: StreamName::new(AppId::new(app).ok()?, output),
        decision_id: decision_id.into(),
        timestamp: at(seconds, nanoseconds)?,
        json: Bytes::copy_from_slice(rest),
    };
    Some(Frame::Record(id, record))
}

fn read_ids(body: &[u8]) -> Option<Vec<RecordId>> {
    let (ids, rest) = body.as_chunks::<8>();
    let ids = ids.iter().map(|id| RecordId(u64::from_le_bytes(*id)));
    rest.is_empty().then(|| ids.collect())
}

fn checksum(kind: u8, len: u32, body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&[kind]);
    hasher.update(&len.to_le_bytes());
    hasher.update(body);
    hasher.finalize()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}

fn take_text<'a>(rest: &mut &'a [u8], len: u16) -> Option<&'a str> {
    let (taken, after) = rest.split_at_checked(len.into())?;
    *rest = after;
    std::str::from_utf8(taken).ok()
}

/// Seconds since 1970, rounded down, and the nanoseconds after them.
fn since_epoch(time: SystemTime) -> (i64, u32) {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => (to_i64(after.as_secs()), after.subsec_nanos()),
        Err(error) => {
            let before = error.duration();
            match before.subsec_nanos() {
                0 => (-to_i64(before.as_secs()), 0),
                nanoseconds => (-to_i64(before.as_secs()) - 1, 1_000_000_000 - nanoseconds),
            }
        }
    }
}

fn to_i64(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX - 1)
}

fn at(seconds: i64, nanoseconds: u32) -> Option<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)?
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)?
    };
    second.checked_add(Duration::from_nanos(nanoseconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &'static str, timestamp: SystemTime) -> Record {
        let stream = StreamName::new(AppId::new("shop").unwrap(), "default");
        Record::new(stream, "an-id".into(), timestamp, json.into())
    }

    #[test]
    fn what_is_written_is_read() {
        let nanosecond = Duration::new(1_700_000_000, 1);
        for timestamp in [
            SystemTime::UNIX_EPOCH,
            SystemTime::UNIX_EPOCH + nanosecond,
            SystemTime::UNIX_EPOCH - nanosecond,
        ] {
            let record = record(r#"{"a": "ä"}"#, timestamp);
            let mut bytes = Vec::new();
            write_record(&mut bytes, RecordId(7), &record);
            assert_eq!(record_bytes(&record), Some(bytes.len()));
            let len = bytes.len();
            write_removed(&mut bytes, [RecordId(1), RecordId(u64::MAX)].into_iter());
            assert_eq!(
                read(&bytes),
                Some((Frame::Record(RecordId(7), record), len))
            );
            let removed = Frame::Removed(vec![RecordId(1), RecordId(u64::MAX)]);
            assert_eq!(read(&bytes[len..]), Some((removed, bytes.len() - len)));
        }
    }

    #[test]
    fn no_changed_bit_and_no_missing_byte_is_a_frame() {
        let mut bytes = Vec::new();
        write_record(&mut bytes, RecordId(7), &record("{}", SystemTime::now()));
        for byte in 0..bytes.len() {
            assert_eq!(read(&bytes[..byte]), None);
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[byte] ^= 1 << bit;
                assert_eq!(read(&changed), None, "bit {bit} of byte {byte}");
            }
        }
    }

    #[test]
    fn no_changed_bit_is_a_header() {
        let header = Header {
            version: VERSION,
            number: 3,
            next_id: 9,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes.len(), HEADER_BYTES);
        assert_eq!(Header::read(&bytes), Some(header));
        for byte in 0..bytes.len() {
            assert_eq!(Header::read(&bytes[..byte]), None);
            let mut changed = bytes.clone();
            changed[byte] ^= 1;
            assert_eq!(Header::read(&changed), None);
        }
    }

    #[test]
    fn what_is_too_long_has_no_frame() {
        let mut long = record("{}", SystemTime::now());
        long.json = vec![b' '; MAX_RECORD_BYTES].into();
        assert_eq!(record_bytes(&long), None);
        let mut long = record("{}", SystemTime::now());
        long.decision_id = "x".repeat(65_536).into();
        assert_eq!(record_bytes(&long), None);
    }
}
