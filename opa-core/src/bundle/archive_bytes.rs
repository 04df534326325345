use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Pieces that are smaller than this are put together, so that none keeps much more memory than
/// its own bytes.
const PIECE: usize = 64 << 10;

/// The bytes of an archive as they came: in pieces, shared by all clones.
///
/// Nothing is moved to make one buffer of them, and they can be read any number of times.
///
/// ```
/// use std::io::Read;
///
/// use opa_core::bundle::ArchiveBytes;
///
/// let archive = ArchiveBytes::from_iter([&b"one, "[..], b"two"]);
/// let mut text = String::new();
/// archive.reader().read_to_string(&mut text)?;
/// assert_eq!((text.as_str(), archive.len()), ("one, two", 8));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Default)]
pub struct ArchiveBytes {
    pieces: Arc<[Bytes]>,
    len: u64,
}

impl ArchiveBytes {
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes, in order, in pieces of any size.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| &**piece)
    }

    /// The bytes in one piece.
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.pieces().collect::<Vec<_>>().concat()
    }

    /// Reads the bytes from their start.
    #[must_use]
    pub fn reader(&self) -> impl Read + Send + '_ {
        Reader {
            piece: &[],
            others: self.pieces.iter(),
        }
    }
}

struct Reader<'a> {
    piece: &'a [u8],
    others: std::slice::Iter<'a, Bytes>,
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.others.next() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        self.piece.read(buffer)
    }
}

/// Collects the bytes of an archive while they come.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    pieces: Vec<Bytes>,
    len: u64,
    /// Small pieces, put together.
    open: BytesMut,
}

impl Collector {
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Takes the next piece, which is copied if it is small.
    pub(crate) fn push(&mut self, piece: Bytes) {
        self.len += piece.len() as u64;
        if piece.len() >= PIECE {
            self.close();
            self.pieces.push(piece);
            return;
        }
        if self.open.len() + piece.len() > PIECE {
            self.close();
        }
        // The first one alone needs no room for others: most bundles are small.
        if !self.open.is_empty() && self.open.capacity() < PIECE {
            self.open.reserve(PIECE - self.open.len());
        }
        self.open.extend_from_slice(&piece);
    }

    pub(crate) fn finish(mut self) -> ArchiveBytes {
        self.close();
        ArchiveBytes {
            pieces: self.pieces.into(),
            len: self.len,
        }
    }

    fn close(&mut self) {
        let open = std::mem::take(&mut self.open);
        if !open.is_empty() {
            self.pieces.push(open.freeze());
        }
    }
}

impl From<Bytes> for ArchiveBytes {
    fn from(bytes: Bytes) -> Self {
        Self {
            len: bytes.len() as u64,
            pieces: [bytes].into(),
        }
    }
}

impl From<Vec<u8>> for ArchiveBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl<'a> FromIterator<&'a [u8]> for ArchiveBytes {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(pieces: I) -> Self {
        let mut collector = Collector::default();
        for piece in pieces {
            collector.push(Bytes::copy_from_slice(piece));
        }
        collector.finish()
    }
}

impl fmt::Debug for ArchiveBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ArchiveBytes({} bytes)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(sizes: &[usize]) -> ArchiveBytes {
        let mut collector = Collector::default();
        for (number, size) in sizes.iter().enumerate() {
            let byte = u8::try_from(number % 251).unwrap();
            collector.push(vec![byte; *size].into());
        }
        collector.finish()
    }

    #[test]
    fn all_bytes_come_back_in_order() {
        let sizes = [1, 0, PIECE - 1, 1, PIECE, 3, 200_000, PIECE + 1, 5, 0];
        let archive = collected(&sizes);
        let mut read = Vec::new();
        archive.reader().read_to_end(&mut read).unwrap();
        let expected: Vec<u8> = (0..)
            .zip(sizes)
            .flat_map(|(byte, size)| vec![byte; size])
            .collect();
        assert_eq!(read, expected);
        assert_eq!(archive.pieces().collect::<Vec<_>>().concat(), expected);
        assert_eq!(archive.len(), expected.len() as u64);
        assert!(collected(&[]).is_empty() && !archive.is_empty());
    }

    #[test]
    fn large_pieces_stay_where_they_are_and_small_ones_are_put_together() {
        let large = Bytes::from(vec![7; PIECE]);
        let mut collector = Collector::default();
        collector.push(large.clone());
        let archive = collector.finish();
        assert_eq!(archive.pieces().next().unwrap().as_ptr(), large.as_ptr());
        assert_eq!(collected(&[1; 100_000]).pieces().count(), 2);
    }
}
