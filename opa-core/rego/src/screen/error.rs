use std::error::Error;
use std::fmt;

use crate::token::{Token, TokenError};

/// Why a module was refused, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScreenError {
    line: usize,
    column: usize,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Syntax(String),
    Exceeded {
        measure: Measure,
        found: u64,
        limit: u64,
    },
}

/// What is bounded by [`Limits`](super::Limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Measure {
    /// [`Limits::height`](super::Limits::height)
    Height,
    /// [`Limits::imports`](super::Limits::imports)
    Imports,
    /// [`Limits::iterations`](super::Limits::iterations)
    Iterations,
    /// [`Limits::line_bytes`](super::Limits::line_bytes)
    LineBytes,
    /// [`Limits::nesting`](super::Limits::nesting)
    Nesting,
    /// [`Limits::repetitions`](super::Limits::repetitions)
    Repetitions,
    /// [`Limits::source_bytes`](super::Limits::source_bytes)
    SourceBytes,
    /// [`Limits::statements`](super::Limits::statements)
    Statements,
    /// [`Limits::tokens`](super::Limits::tokens)
    Tokens,
}

impl ScreenError {
    pub(super) fn exceeded(
        line: usize,
        column: usize,
        measure: Measure,
        found: usize,
        limit: usize,
    ) -> Self {
        let wide = |value| u64::try_from(value).unwrap_or(u64::MAX);
        Self {
            line,
            column,
            kind: Kind::Exceeded {
                measure,
                found: wide(found),
                limit: wide(limit),
            },
        }
    }

    pub(super) fn at(token: &Token<'_>, measure: Measure, found: usize, limit: usize) -> Self {
        Self::exceeded(token.line, token.column, measure, found, limit)
    }

    pub(super) fn repetitions(token: &Token<'_>, found: u64, limit: u64) -> Self {
        let kind = Kind::Exceeded {
            measure: Measure::Repetitions,
            found,
            limit,
        };
        Self {
            line: token.line,
            column: token.column,
            kind,
        }
    }

    pub(super) fn syntax(line: usize, column: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            column,
            kind: Kind::Syntax(message.into()),
        }
    }

    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in Unicode characters, from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// Which limit is exceeded; `None` if the text isn't Rego.
    pub fn measure(&self) -> Option<Measure> {
        match self.kind {
            Kind::Exceeded { measure, .. } => Some(measure),
            Kind::Syntax(_) => None,
        }
    }
}

impl From<TokenError> for ScreenError {
    fn from(error: TokenError) -> Self {
        Self::syntax(error.line(), error.column(), error.message())
    }
}

impl fmt::Display for ScreenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        let (measure, found, limit) = match &self.kind {
            Kind::Syntax(message) => return f.write_str(message),
            Kind::Exceeded {
                measure,
                found,
                limit,
            } => (measure, found, limit),
        };
        match measure {
            Measure::Height => write!(f, "an expression {found} operators and brackets high")?,
            Measure::Imports => write!(f, "{found} imports")?,
            Measure::Iterations => write!(f, "{found} references with variables in one rule")?,
            Measure::LineBytes => write!(f, "a line of {found} bytes")?,
            Measure::Nesting => write!(f, "brackets nested {found} deep")?,
            Measure::Repetitions => {
                write!(f, "nested brackets that take {found} repetitions to parse")?
            }
            Measure::SourceBytes => write!(f, "a module of {found} bytes")?,
            Measure::Statements => write!(f, "{found} statements in one body")?,
            Measure::Tokens => write!(f, "{found} tokens")?,
        }
        write!(f, ", at most {limit} are allowed")
    }
}

impl Error for ScreenError {}
