//! The content of one file, while it is decompressed.

use std::io::{self, Read};

use opa_rego::{ReadJsonError, Value};
use sha2::{Digest, Sha256};

use super::Limits;
use super::error::BundleError;
use super::path::EntryPath;
use super::refusals::{damaged, failed, malformed};
use super::store::Sha256Digest;

/// No buffer is made larger than this on the word of a header alone.
const FIRST_BUFFER: usize = 64 << 10;

/// How Windows begins a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The bytes of a file, which can be read once and need not be in memory as a whole.
pub(super) struct Content<'a> {
    from: &'a mut dyn Read,
    size: u64,
    limits: Limits,
}

impl<'a> Content<'a> {
    /// A file of `size` bytes, read `from` an archive within `limits`.
    pub(super) fn new(from: &'a mut dyn Read, size: u64, limits: Limits) -> Self {
        Self { from, size, limits }
    }

    /// How many bytes the archive says that there are.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// All bytes at once.
    pub(super) fn bytes(self) -> Result<Vec<u8>, BundleError> {
        let expected = usize::try_from(self.size).unwrap_or(usize::MAX);
        let mut content = Vec::with_capacity(expected.min(FIRST_BUFFER));
        let read = self.from.read_to_end(&mut content);
        read.map_err(|error| failed(error, &self.limits))?;
        self.check_size(content.len() as u64)?;
        Ok(content)
    }

    /// All bytes, piece by piece.
    pub(super) fn pieces(self, mut take: impl FnMut(&[u8])) -> Result<(), BundleError> {
        let mut passing = Passing::new(&mut *self.from, &mut take);
        let read = passing.rest();
        let size = passing.size;
        read.map_err(|error| failed(error, &self.limits))?;
        self.check_size(size)
    }

    /// The hash of the bytes.
    pub(super) fn sha256(self) -> Result<Sha256Digest, BundleError> {
        let mut hash = Sha256::new();
        self.pieces(|piece| hash.update(piece))?;
        Ok(hash.finalize().into())
    }

    /// The value of a JSON file, and the hash of its bytes.
    pub(super) fn json(self, path: &EntryPath) -> Result<(Value, Sha256Digest), BundleError> {
        let mut hash = Sha256::new();
        let mut take = |piece: &[u8]| hash.update(piece);
        let mut passing = Passing::new(&mut *self.from, &mut take);
        let value = read_json(&mut passing);
        // An archive that breaks off is told from a file that is wrong, and the rest is hashed.
        let rest = match &value {
            Err(ReadJsonError::Io(_)) => Ok(()),
            _ => passing.rest(),
        };
        let size = passing.size;
        rest.map_err(|error| failed(error, &self.limits))?;
        let value = match value {
            Err(ReadJsonError::Io(error)) => return Err(failed(error, &self.limits)),
            other => other,
        };
        self.check_size(size)?;
        match value {
            Ok(value) => Ok((value, hash.finalize().into())),
            Err(ReadJsonError::Json(error)) => Err(malformed(path, error)),
            Err(ReadJsonError::Io(error)) => Err(failed(error, &self.limits)),
        }
    }

    fn check_size(&self, read: u64) -> Result<(), BundleError> {
        if read == self.size {
            Ok(())
        } else {
            Err(damaged("the end of the bytes in the middle of a file"))
        }
    }
}

/// Reads a JSON text that may begin with a byte order mark.
fn read_json(from: &mut dyn Read) -> Result<Value, ReadJsonError> {
    let mut start = Vec::with_capacity(BYTE_ORDER_MARK.len());
    let marked = from.take(BYTE_ORDER_MARK.len() as u64);
    { marked }
        .read_to_end(&mut start)
        .map_err(ReadJsonError::Io)?;
    let start = start.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&start);
    Value::read_json(start.chain(from))
}

/// Shows what is read to somebody else.
struct Passing<'a> {
    from: &'a mut dyn Read,
    take: &'a mut dyn FnMut(&[u8]),
    size: u64,
}

impl<'a> Passing<'a> {
    fn new(from: &'a mut dyn Read, take: &'a mut dyn FnMut(&[u8])) -> Self {
        Self {
            from,
            take,
            size: 0,
        }
    }

    /// Reads to the end.
    fn rest(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; FIRST_BUFFER];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Read for Passing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        (self.take)(buffer.get(..read).unwrap_or_default());
        self.size += read as u64;
        Ok(read)
    }
}
