//! Positions in a text, and the way back to them after placeholders became tokens.

use crate::config::error::Position;

/// A position while text passes by.
///
/// Lines end as YAML 1.2 says (§5.4): by LF, CR LF or CR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cursor {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

impl Cursor {
    pub(crate) const START: Self = Self { line: 1, column: 1 };

    pub(crate) fn advance(&mut self, text: &str) {
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let ends_line = c == '\n' || (c == '\r' && chars.peek() != Some(&'\n'));
            if ends_line {
                self.line = self.line.saturating_add(1);
                self.column = 1;
            } else {
                self.column = self.column.saturating_add(1);
            }
        }
    }
}

impl From<Cursor> for Position {
    fn from(cursor: Cursor) -> Self {
        Self {
            line: cursor.line,
            column: cursor.column,
        }
    }
}

/// Maps positions in the text with tokens back to the text with placeholders.
#[derive(Debug, Default)]
pub(crate) struct PositionMap {
    pieces: Vec<Piece>,
}

#[derive(Debug)]
struct Piece {
    derived: Cursor,
    original: Cursor,
    /// All of a token stands for the start of its placeholder.
    is_token: bool,
}

impl PositionMap {
    /// From `derived` on the derived text continues with what stands at `original`.
    pub(crate) fn push(&mut self, derived: Cursor, original: Cursor, is_token: bool) {
        self.pieces.push(Piece {
            derived,
            original,
            is_token,
        });
    }

    pub(crate) fn original(&self, at: Cursor) -> Position {
        let after = self.pieces.partition_point(|piece| piece.derived <= at);
        let Some(piece) = after
            .checked_sub(1)
            .and_then(|index| self.pieces.get(index))
        else {
            return at.into();
        };
        let Cursor { line, column } = piece.original;
        if piece.is_token {
            return Position { line, column };
        }
        let lines = at.line.saturating_sub(piece.derived.line);
        // Only the first line of a piece is shifted sideways.
        let column = if lines == 0 {
            column.saturating_add(at.column.saturating_sub(piece.derived.column))
        } else {
            at.column
        };
        Position {
            line: line.saturating_add(lines),
            column,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(text: &str) -> (u32, u32) {
        let mut cursor = Cursor::START;
        cursor.advance(text);
        (cursor.line, cursor.column)
    }

    #[test]
    fn lines_end_by_lf_crlf_and_cr() {
        assert_eq!(after(""), (1, 1));
        assert_eq!(after("äb"), (1, 3));
        assert_eq!(after("a\nb"), (2, 2));
        assert_eq!(after("a\r\nb\r\n"), (3, 1));
        assert_eq!(after("a\rb"), (2, 2));
    }

    #[test]
    fn an_empty_map_changes_nothing() {
        let at = Cursor { line: 3, column: 7 };
        assert_eq!(
            PositionMap::default().original(at),
            Position { line: 3, column: 7 }
        );
    }
}
