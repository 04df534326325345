//! The shape of a module: how deep, high and wide its expressions are, and what parsing them costs.
//!
//! A token's place is told by the brackets around it and by the token before it, which isn't always
//! enough to know what a parser takes it for. Where there is doubt, more is counted.

use std::str::Split;

use frame::{Frame, Part};

use super::{Limits, Measure, ScreenError};
use crate::token::{Token, TokenKind};

mod class;
mod frame;

/// From how many statements in a body on the ordering of them is charged.
const FREE_STATEMENTS: usize = 32;

/// How many bytes of a line are copied into an error in the time that a token takes.
const BYTES_PER_REPETITION: usize = 400;

pub(super) fn check(
    tokens: &[Token<'_>],
    source: &str,
    limits: &Limits,
) -> Result<(), ScreenError> {
    let mut shape = Shape {
        limits,
        inside: vec![],
        current: Frame::module(),
        previous: None,
        repetitions: 0,
        repetition_limit: repetition_limit(tokens.len(), limits),
        imports: 0,
        iterations: 0,
        lines: LineLengths {
            rest: source.split('\n'),
            line: 0,
            length: 0,
        },
    };
    let following = tokens.iter().skip(1).map(Some).chain([None]);
    for (token, next) in tokens.iter().zip(following) {
        shape.read(token, next)?;
    }
    shape.check_closed()
}

/// Large modules may nest as others do, so the limit grows with what reading them once takes.
fn repetition_limit(tokens: usize, limits: &Limits) -> u64 {
    let twice = u64::try_from(tokens).unwrap_or(u64::MAX).saturating_mul(2);
    limits.repetitions.saturating_add(twice)
}

struct Shape<'a> {
    limits: &'a Limits,
    /// What `current` stands in, the module itself first.
    inside: Vec<Frame<'a>>,
    current: Frame<'a>,
    previous: Option<Previous<'a>>,
    repetitions: u64,
    repetition_limit: u64,
    imports: usize,
    iterations: usize,
    lines: LineLengths<'a>,
}

/// The token before the position.
#[derive(Clone, Copy)]
struct Previous<'a> {
    token: &'a Token<'a>,
    /// Whether it is a name after a dot, which is never a keyword.
    field: bool,
}

impl<'a> Shape<'a> {
    fn read(&mut self, token: &'a Token<'a>, next: Option<&Token<'_>>) -> Result<(), ScreenError> {
        let field = class::is_field(token, self.previous);
        self.separate(token, field)?;
        self.charge(token, field)?;
        match token.kind {
            TokenKind::Identifier if !field => self.read_identifier(token)?,
            TokenKind::Punctuation => self.read_punctuation(token, next)?,
            TokenKind::TemplateStart => self.open(token, Part::Once)?,
            TokenKind::TemplateMiddle => {
                self.close(token)?;
                self.open(token, Part::Once)?;
            }
            TokenKind::TemplateEnd => self.close(token)?,
            _ => {}
        }
        self.previous = Some(Previous { token, field });
        Ok(())
    }

    /// Ends the expression or statement that `token` doesn't belong to any more.
    fn separate(&mut self, token: &Token<'_>, field: bool) -> Result<(), ScreenError> {
        let new_line = class::begins_line(token, self.previous);
        if token.is(";") || new_line && !field && class::begins_statement(token) {
            self.count_statement(token)?;
        }
        if class::separates(token, field) || new_line && !field && class::begins_expression(token) {
            self.current.end_expression();
        }
        Ok(())
    }

    fn count_statement(&mut self, token: &Token<'_>) -> Result<(), ScreenError> {
        if self.inside.is_empty() {
            // A rule of the module, of which there may be many.
            self.iterations = 0;
            return Ok(());
        }
        self.current.statements += 1;
        let count = self.current.statements + 1;
        if count > self.limits.statements {
            return Err(ScreenError::at(
                token,
                Measure::Statements,
                count,
                self.limits.statements,
            ));
        }
        if count > FREE_STATEMENTS {
            self.repeat(token, u64::try_from(count).unwrap_or(u64::MAX))?;
        }
        Ok(())
    }

    /// Adds up how often the parser comes back to `token`.
    fn charge(&mut self, token: &Token<'_>, field: bool) -> Result<(), ScreenError> {
        let times = self.current.repetitions();
        let line = self.lines.length_of(token.line) / BYTES_PER_REPETITION;
        // Where an attempt may fail, an error with a copy of the line is made.
        let name = token.kind == TokenKind::Identifier && !field && self.inside.is_empty();
        let copies = if name || token.is("[") || token.is("{") || token.is("|") {
            line
        } else {
            0
        };
        let copies = u64::try_from(copies).unwrap_or(u64::MAX);
        self.repeat(token, times.saturating_mul(copies.saturating_add(1)) - 1)
    }

    fn repeat(&mut self, token: &Token<'_>, times: u64) -> Result<(), ScreenError> {
        self.repetitions = self.repetitions.saturating_add(times);
        if self.repetitions > self.repetition_limit {
            return Err(ScreenError::repetitions(
                token,
                self.repetitions,
                self.repetition_limit,
            ));
        }
        Ok(())
    }

    fn read_identifier(&mut self, token: &Token<'_>) -> Result<(), ScreenError> {
        match token.text {
            "import" if self.inside.is_empty() => {
                self.imports += 1;
                if self.imports > self.limits.imports {
                    let limit = self.limits.imports;
                    return Err(ScreenError::at(
                        token,
                        Measure::Imports,
                        self.imports,
                        limit,
                    ));
                }
                Ok(())
            }
            "every" | "some" | "walk" => self.count_iteration(token),
            "in" => self.count_operator(token),
            _ => Ok(()),
        }
    }

    fn read_punctuation(
        &mut self,
        token: &'a Token<'a>,
        next: Option<&Token<'_>>,
    ) -> Result<(), ScreenError> {
        match token.text {
            "(" => {
                if class::ends_term(self.previous) {
                    self.count_operator(token)?;
                }
                self.open(token, Part::Once)
            }
            "[" if class::is_index(token, self.previous) => {
                self.count_operator(token)?;
                if !next.is_some_and(class::is_literal) {
                    self.count_iteration(token)?;
                }
                self.open(token, Part::Once)
            }
            "[" => self.open(token, Part::First),
            "{" if class::opens_body(token, self.previous, self.inside.is_empty()) => {
                let of_rule = self.inside.is_empty();
                self.open(token, if of_rule { Part::Once } else { Part::InnerBody })
            }
            "{" => self.open(token, Part::First),
            "]" | "}" | ")" => self.close(token),
            "," | ":" | ";" => {
                self.current.pass(token.text);
                Ok(())
            }
            operator => {
                self.count_operator(token)?;
                self.current.pass(operator);
                Ok(())
            }
        }
    }

    fn count_operator(&mut self, token: &Token<'_>) -> Result<(), ScreenError> {
        self.current.operators += 1;
        self.check_height(token)
    }

    fn check_height(&self, token: &Token<'_>) -> Result<(), ScreenError> {
        let (height, limit) = (self.current.expression_height(), self.limits.height);
        if height > limit {
            return Err(ScreenError::at(token, Measure::Height, height, limit));
        }
        Ok(())
    }

    fn count_iteration(&mut self, token: &Token<'_>) -> Result<(), ScreenError> {
        self.iterations += 1;
        let (found, limit) = (self.iterations, self.limits.iterations);
        if found > limit {
            return Err(ScreenError::at(token, Measure::Iterations, found, limit));
        }
        Ok(())
    }

    fn open(&mut self, token: &'a Token<'a>, part: Part) -> Result<(), ScreenError> {
        let frame = self.current.open(token, part);
        self.inside
            .push(std::mem::replace(&mut self.current, frame));
        let (depth, limit) = (self.inside.len(), self.limits.nesting);
        if depth > limit {
            return Err(ScreenError::at(token, Measure::Nesting, depth, limit));
        }
        Ok(())
    }

    fn close(&mut self, token: &Token<'_>) -> Result<(), ScreenError> {
        let Some(opening) = self.current.opening else {
            let message = format!("`{}` has no opening bracket", class::bracket(token));
            return Err(ScreenError::syntax(token.line, token.column, message));
        };
        if !class::are_partners(opening, token) {
            let (bracket, opening_bracket) = (class::bracket(token), class::bracket(opening));
            let (line, column) = (opening.line, opening.column);
            let message = format!(
                "`{bracket}` doesn't close `{opening_bracket}` of line {line}, column {column}"
            );
            return Err(ScreenError::syntax(token.line, token.column, message));
        }
        let height = self.current.height() + 1;
        self.current = self.inside.pop().unwrap_or_else(Frame::module);
        self.current.enclose(height);
        self.check_height(token)
    }

    fn check_closed(&self) -> Result<(), ScreenError> {
        match self.current.opening {
            Some(opening) => {
                let message = format!("`{}` has no closing bracket", class::bracket(opening));
                Err(ScreenError::syntax(opening.line, opening.column, message))
            }
            None => Ok(()),
        }
    }
}

/// The lengths of lines, asked for in ascending order.
struct LineLengths<'a> {
    rest: Split<'a, char>,
    line: usize,
    length: usize,
}

impl LineLengths<'_> {
    fn length_of(&mut self, line: usize) -> usize {
        while self.line < line {
            self.line += 1;
            self.length = self.rest.next().map_or(0, str::len);
        }
        self.length
    }
}
