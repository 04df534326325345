use std::error::Error;
use std::fmt;
use std::io;

/// Why a text isn't the JSON that was expected, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    offset: usize,
    line: usize,
    column: usize,
    message: String,
}

/// A place in a text, from 0.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    offset: usize,
    line: usize,
    column: usize,
}

impl Place {
    /// The place behind `text`, which starts here and is UTF-8.
    pub(super) fn after(self, text: &[u8]) -> Self {
        let newline = text.iter().rposition(|byte| *byte == b'\n');
        let line = text
            .get(newline.map_or(0, |at| at + 1)..)
            .unwrap_or_default();
        // Continuation bytes don't start a character.
        let characters = line.iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        Self {
            offset: self.offset + text.len(),
            line: self.line + text.iter().filter(|byte| **byte == b'\n').count(),
            column: newline.map_or(self.column, |_| 0) + characters,
        }
    }

    pub(super) fn offset(&self) -> usize {
        self.offset
    }
}

impl JsonError {
    pub(super) fn new(place: Place, message: String) -> Self {
        Self {
            offset: place.offset,
            line: place.line + 1,
            column: place.column + 1,
            message,
        }
    }

    /// The byte, from 0.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in Unicode characters, from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            message,
            ..
        } = self;
        write!(f, "line {line}, column {column}: {message}")
    }
}

impl Error for JsonError {}

/// Why no value was read of a stream.
#[derive(Debug)]
pub enum ReadJsonError {
    /// The stream failed.
    Io(io::Error),
    /// Its text isn't JSON.
    Json(JsonError),
}

impl fmt::Display for ReadJsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::Json(error) => error.fmt(f),
        }
    }
}

impl Error for ReadJsonError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            Self::Json(error) => Some(error),
        }
    }
}
