//! A reader that gives out a bounded number of bytes.

use std::error::Error;
use std::fmt;
use std::io::{self, Read};

/// Fails with [`Passed`] as soon as more than a number of bytes is read.
#[derive(Debug)]
pub(super) struct Bounded<R> {
    inner: R,
    left: u64,
}

/// More bytes than allowed.
#[derive(Debug)]
pub(super) struct Passed;

/// The reader inside failed.
#[derive(Debug)]
pub(super) struct SourceFailed(io::Error);

impl<R: Read> Bounded<R> {
    pub(super) fn new(inner: R, limit: u64) -> Self {
        Self { inner, left: limit }
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        // With nothing left, one byte more tells the end from too much.
        let most = usize::try_from(self.left.max(1)).unwrap_or(usize::MAX);
        let length = buffer.len().min(most);
        let window = buffer.get_mut(..length).unwrap_or_default();
        let read = self.inner.read(window)?;
        match self.left.checked_sub(read as u64) {
            Some(left) => self.left = left,
            None => return Err(io::Error::other(Passed)),
        }
        Ok(read)
    }
}

/// Marks the errors of a reader with [`SourceFailed`], to tell them from damaged content.
#[derive(Debug)]
pub(super) struct Source<R>(pub(super) R);

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| match error.kind() {
            // Callers retry on it.
            io::ErrorKind::Interrupted => error,
            kind => io::Error::new(kind, SourceFailed(error)),
        })
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("more bytes than allowed")
    }
}

impl fmt::Display for SourceFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for Passed {}

impl Error for SourceFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_limit_is_fine() {
        let mut text = String::new();
        Bounded::new(&b"abc"[..], 3)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "abc");
        let error = Bounded::new(&b"abcd"[..], 3)
            .read_to_string(&mut text)
            .unwrap_err();
        assert!(error.get_ref().unwrap().is::<Passed>());
        let error = Bounded::new(&b"a"[..], 0)
            .read_to_string(&mut text)
            .unwrap_err();
        assert!(error.get_ref().unwrap().is::<Passed>());
    }
}
