//! What a reader sees of a text: all of a slice, or a part of a stream that moves along.

use std::io::{self, Read};

use super::error::Place;

/// How much of a stream is asked for at a time, in bytes.
const PIECE: usize = 64 << 10;

/// The text at hand, in UTF-8, and what ends it.
pub(super) trait Window {
    fn text(&self) -> &str;

    /// Brings more text behind the one at hand, whose first `used` bytes are not needed any more.
    /// Answers how many bytes were dropped, or `None` if there is no more text. `mark` is where in
    /// the whole text an error may still point to.
    fn more(&mut self, used: usize, mark: usize) -> Option<usize>;

    /// The place at `offset` of the whole text: in the text at hand, or the mark.
    fn place(&self, offset: usize) -> Place;

    /// Whether the text at hand is the last because of a [`problem`](Self::problem).
    fn is_broken(&self) -> bool;

    /// Why the text at hand is the last, if it isn't because the whole text ends there.
    fn problem(self) -> Option<Problem>;
}

/// What keeps a text from being read on.
pub(super) enum Problem {
    /// A byte that is no UTF-8, and its place.
    Utf8(u8, Place),
    Io(io::Error),
}

/// A text that is there as a whole.
pub(super) struct Slice<'a> {
    text: &'a str,
    invalid: Option<u8>,
}

impl<'a> Slice<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self {
                text,
                invalid: None,
            },
            Err(error) => {
                let (valid, rest) = bytes
                    .split_at_checked(error.valid_up_to())
                    .unwrap_or_default();
                Self {
                    text: std::str::from_utf8(valid).unwrap_or_default(),
                    invalid: rest.first().copied(),
                }
            }
        }
    }
}

impl Window for Slice<'_> {
    fn text(&self) -> &str {
        self.text
    }

    fn more(&mut self, _: usize, _: usize) -> Option<usize> {
        None
    }

    fn place(&self, offset: usize) -> Place {
        let before = self.text.as_bytes().get(..offset);
        Place::default().after(before.unwrap_or(self.text.as_bytes()))
    }

    fn is_broken(&self) -> bool {
        self.invalid.is_some()
    }

    fn problem(self) -> Option<Problem> {
        let end = self.place(self.text.len());
        self.invalid.map(|byte| Problem::Utf8(byte, end))
    }
}

/// A text that comes piece by piece.
pub(super) struct Stream<R> {
    source: R,
    text: String,
    /// Where the text at hand starts.
    start: Place,
    marked: Place,
    /// What was read, in its first bytes the part of a character that is still to come.
    bytes: Vec<u8>,
    pending: usize,
    /// What ended the stream.
    end: Option<End>,
}

enum End {
    Whole,
    Utf8(u8),
    Io(io::Error),
}

impl<R: Read> Stream<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            text: String::new(),
            start: Place::default(),
            marked: Place::default(),
            bytes: Vec::new(),
            pending: 0,
            end: None,
        }
    }

    /// Reads until there is one more character.
    fn fill(&mut self) -> bool {
        // What is kept may be a long number: it is read again and again, so by ever larger pieces.
        let size = PIECE.max(self.text.len());
        let before = self.text.len();
        while self.end.is_none() && self.text.len() == before {
            self.bytes.resize(size, 0);
            let free = self.bytes.get_mut(self.pending..).unwrap_or_default();
            match self.source.read(free) {
                Ok(0) => {
                    let cut = self.bytes.first().copied();
                    self.end = Some(match cut.filter(|_| self.pending > 0) {
                        Some(byte) => End::Utf8(byte),
                        None => End::Whole,
                    });
                }
                Ok(read) => self.take(self.pending + read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.end = Some(End::Io(error)),
            }
        }
        self.text.len() > before
    }

    /// Moves the whole characters among the first `length` bytes to the text.
    fn take(&mut self, length: usize) {
        let bytes = self.bytes.get(..length).unwrap_or(&self.bytes);
        let valid = match std::str::from_utf8(bytes) {
            Ok(text) => {
                self.text.push_str(text);
                length
            }
            Err(error) => {
                let (valid, rest) = bytes
                    .split_at_checked(error.valid_up_to())
                    .unwrap_or_default();
                self.text
                    .push_str(std::str::from_utf8(valid).unwrap_or_default());
                if error.error_len().is_some() {
                    self.end = rest.first().copied().map(End::Utf8);
                }
                valid.len()
            }
        };
        self.bytes.copy_within(valid..length, 0);
        self.pending = length - valid;
    }
}

impl<R: Read> Window for Stream<R> {
    fn text(&self) -> &str {
        &self.text
    }

    fn more(&mut self, used: usize, mark: usize) -> Option<usize> {
        if self.end.is_some() {
            return None;
        }
        let marked = mark.checked_sub(self.start.offset());
        if let Some(at) = marked.filter(|at| *at < used) {
            self.marked = self
                .start
                .after(self.text.as_bytes().get(..at).unwrap_or_default());
        }
        let dropped = self.text.get(..used).unwrap_or_default();
        self.start = self.start.after(dropped.as_bytes());
        self.text.drain(..used);
        self.fill();
        Some(used)
    }

    fn place(&self, offset: usize) -> Place {
        match offset.checked_sub(self.start.offset()) {
            Some(at) => self
                .start
                .after(self.text.as_bytes().get(..at).unwrap_or_default()),
            None => self.marked,
        }
    }

    fn is_broken(&self) -> bool {
        matches!(self.end, Some(End::Utf8(_) | End::Io(_)))
    }

    fn problem(self) -> Option<Problem> {
        let end = self.start.after(self.text.as_bytes());
        match self.end? {
            End::Whole => None,
            End::Utf8(byte) => Some(Problem::Utf8(byte, end)),
            End::Io(error) => Some(Problem::Io(error)),
        }
    }
}
