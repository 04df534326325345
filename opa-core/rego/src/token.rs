//! The tokens of Rego source text.
//!
//! Comments and blanks lie between tokens and aren't given. Keywords are identifiers: which of them
//! are keywords depends on a module's imports and on where they stand.
//!
//! ```
//! use opa_rego::token::{TokenKind, tokens};
//!
//! let source = "package a # comment\nallow if input.user == \"ann\"";
//! let tokens: Vec<_> = tokens(source).collect::<Result<_, _>>()?;
//! assert_eq!(tokens.len(), 9);
//! assert_eq!((tokens[8].kind, tokens[8].text), (TokenKind::String, "\"ann\""));
//! assert_eq!((tokens[2].line, tokens[2].column), (2, 1));
//! # Ok::<(), opa_rego::token::TokenError>(())
//! ```

use std::error::Error;
use std::fmt;
use std::iter::FusedIterator;

mod scan;

/// Splits `source` into its tokens. After an error there are no more.
///
/// Each piece of `source` is read once, whatever its nesting.
pub fn tokens(source: &str) -> Tokens<'_> {
    // As in OPA, a byte order mark is skipped.
    let rest = source.strip_prefix('\u{feff}').unwrap_or(source);
    Tokens {
        rest,
        line: 1,
        column: 1,
        offset: source.len() - rest.len(),
        open: Vec::new(),
        failed: false,
    }
}

/// One token of Rego source text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token<'a> {
    /// What kind of token this is.
    pub kind: TokenKind,
    /// The text as it stands in the source, with quotes.
    pub text: &'a str,
    /// The line, from 1.
    pub line: usize,
    /// The column in Unicode characters, from 1.
    pub column: usize,
    /// The byte, from 0.
    pub offset: usize,
}

/// The kind of a [`Token`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TokenKind {
    /// A name or keyword.
    Identifier,
    /// A number without sign.
    Number,
    /// A bracket, operator or separator.
    Punctuation,
    /// A string in back quotes, without escapes.
    RawString,
    /// A string in double quotes, with JSON's escapes.
    String,
    /// A template string without expressions: `$"…"` or ``$`…` ``.
    Template,
    /// A template string up to its first expression: `$"…{`.
    TemplateStart,
    /// A template string between two expressions: `}…{`.
    TemplateMiddle,
    /// A template string after its last expression: `}…"`.
    TemplateEnd,
}

impl Token<'_> {
    /// Whether this is the identifier or punctuation `text`.
    pub fn is(&self, text: &str) -> bool {
        matches!(self.kind, TokenKind::Identifier | TokenKind::Punctuation) && self.text == text
    }
}

/// Why a text has no (further) tokens, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenError {
    line: usize,
    column: usize,
    offset: usize,
    message: String,
}

impl TokenError {
    /// The line, from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in Unicode characters, from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// The byte, from 0.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What is wrong, without the place.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for TokenError {
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

impl Error for TokenError {}

/// Iterates over the tokens of a source text, see [`tokens`].
#[derive(Clone, Debug)]
pub struct Tokens<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
    offset: usize,
    /// The template strings around the position, each within an expression.
    open: Vec<OpenTemplate>,
    failed: bool,
}

#[derive(Clone, Copy, Debug)]
struct OpenTemplate {
    quote: u8,
    /// How many braces are open in the expression.
    braces: usize,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<Token<'a>, TokenError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_blanks();
        if self.failed || self.rest.is_empty() {
            return self.check_templates_closed().map(Err);
        }
        let scanned = self.scan().and_then(|(kind, length)| {
            let text = self.rest.get(..length);
            text.map(|text| (kind, text))
                .ok_or_else(|| (0, "the text ends too early".to_owned()))
        });
        match scanned {
            Ok((kind, text)) => {
                let Self {
                    line,
                    column,
                    offset,
                    ..
                } = *self;
                self.advance(text.len());
                Some(Ok(Token {
                    kind,
                    text,
                    line,
                    column,
                    offset,
                }))
            }
            Err((at, message)) => {
                self.advance(at);
                Some(Err(self.fail(message)))
            }
        }
    }
}

impl FusedIterator for Tokens<'_> {}

impl Tokens<'_> {
    fn scan(&mut self) -> scan::Scanned {
        let mut characters = self.rest.chars();
        let first = characters.next().unwrap_or_default();
        let second = characters.next().unwrap_or_default();
        match (first, second) {
            ('"', _) => self.scan_string(),
            ('`', _) => scan::raw_string(self.rest),
            ('$', '"') => self.scan_template(b'"', 2, TokenKind::Template),
            ('$', '`') => self.scan_template(b'`', 2, TokenKind::Template),
            ('a'..='z' | 'A'..='Z' | '_', _) => {
                let end = self
                    .rest
                    .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                Ok((TokenKind::Identifier, end.unwrap_or(self.rest.len())))
            }
            ('0'..='9', _) => scan::number(self.rest),
            ('}', _) => self.scan_closing_brace(),
            (':' | '=' | '!' | '<' | '>', '=') => Ok((TokenKind::Punctuation, 2)),
            ('{', _) => {
                if let Some(template) = self.open.last_mut() {
                    template.braces += 1;
                }
                Ok((TokenKind::Punctuation, 1))
            }
            (
                '[' | ']' | '(' | ')' | '+' | '-' | '*' | '/' | '%' | ',' | ';' | '.' | '&' | '|'
                | ':' | '=' | '<' | '>',
                _,
            ) => Ok((TokenKind::Punctuation, 1)),
            (other, _) => Err((
                0,
                format!("unexpected character `{}`", other.escape_debug()),
            )),
        }
    }

    fn scan_string(&self) -> scan::Scanned {
        let mut at = 1;
        loop {
            at += match self.rest.as_bytes().get(at) {
                Some(b'"') => return Ok((TokenKind::String, at + 1)),
                Some(b'\\') => scan::escape(self.rest, at, None)?,
                other => scan::character(other, at)?,
            };
        }
    }

    /// Reads on in a template string from `at`; `whole` is the kind if it ends without expression.
    fn scan_template(&mut self, quote: u8, from: usize, whole: TokenKind) -> scan::Scanned {
        let raw = quote == b'`';
        let mut at = from;
        loop {
            at += match self.rest.as_bytes().get(at) {
                Some(byte) if *byte == quote => return Ok((whole, at + 1)),
                Some(b'{') => {
                    self.open.push(OpenTemplate { quote, braces: 0 });
                    let start = whole == TokenKind::Template;
                    let kind = if start {
                        TokenKind::TemplateStart
                    } else {
                        TokenKind::TemplateMiddle
                    };
                    return Ok((kind, at + 1));
                }
                Some(b'\\') if !raw => scan::escape(self.rest, at, Some('{'))?,
                Some(b'\\') if self.rest.as_bytes().get(at + 1) == Some(&b'{') => 2,
                Some(_) if raw => 1,
                other => scan::character(other, at)?,
            };
        }
    }

    /// Reads a brace that closes a block, or the expression of a template string and what follows.
    fn scan_closing_brace(&mut self) -> scan::Scanned {
        match self.open.last_mut() {
            Some(OpenTemplate { braces: 0, quote }) => {
                let quote = *quote;
                self.open.pop();
                self.scan_template(quote, 1, TokenKind::TemplateEnd)
            }
            Some(template) => {
                template.braces -= 1;
                Ok((TokenKind::Punctuation, 1))
            }
            None => Ok((TokenKind::Punctuation, 1)),
        }
    }

    fn skip_blanks(&mut self) {
        loop {
            let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
            self.advance(self.rest.bytes().take_while(blank).count());
            if !self.rest.starts_with('#') {
                return;
            }
            // A NUL ends a comment for some readers, so it is never part of one.
            let end = self.rest.find(['\n', '\0']).unwrap_or(self.rest.len());
            self.advance(end);
        }
    }

    fn advance(&mut self, length: usize) {
        let Some((passed, rest)) = self.rest.split_at_checked(length) else {
            return;
        };
        for character in passed.chars() {
            if character == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.rest = rest;
        self.offset += length;
    }

    fn check_templates_closed(&mut self) -> Option<TokenError> {
        let open = !self.failed && !self.open.is_empty();
        open.then(|| self.fail("the template string has no end".to_owned()))
    }

    fn fail(&mut self, message: String) -> TokenError {
        self.failed = true;
        TokenError {
            line: self.line,
            column: self.column,
            offset: self.offset,
            message,
        }
    }
}

#[cfg(test)]
mod tests;
