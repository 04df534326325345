use std::error::Error;
use std::fmt;

/// Why a text isn't the JSON that was expected, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonError {
    offset: usize,
    line: usize,
    column: usize,
    message: String,
}

impl JsonError {
    pub(super) fn new(json: &[u8], offset: usize, message: String) -> Self {
        let before = json.get(..offset).unwrap_or(json);
        let line_start = before
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let line = before.get(line_start..).unwrap_or_default();
        Self {
            offset,
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            // Continuation bytes don't start a character.
            column: 1 + line.iter().filter(|byte| **byte & 0xc0 != 0x80).count(),
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
