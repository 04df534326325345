use std::io;

use super::names::Names;
use super::window::{Problem, Slice, Stream, Window};
use super::{JsonError, ReadJsonError};
use crate::number::{self, Number};
use crate::value::Value;

/// How deep arrays and objects may be nested: the limit of Go's `encoding/json`.
const MAX_DEPTH: usize = 10_000;

/// How many bytes of a text an error may need to say what it found.
const LOOKAHEAD: usize = 160;

impl Value {
    /// Reads one JSON text (RFC 8259), as OPA does: of members with equal names the last stays, a
    /// lone surrogate escape becomes U+FFFD, and a number keeps its text.
    ///
    /// # Errors
    /// If `json` isn't valid JSON or UTF-8, starts with a byte order mark, has something after the
    /// value, or is nested deeper than 10,000 levels.
    pub fn from_json(json: &[u8]) -> Result<Self, JsonError> {
        read(Slice::new(json)).map_err(|error| match error {
            ReadJsonError::Json(error) => error,
            ReadJsonError::Io(error) => JsonError::new(Default::default(), error.to_string()),
        })
    }

    /// Reads one JSON text to the end of a stream, as [`from_json`](Self::from_json) does. Besides
    /// the value only about 64 KiB of the text are in memory, or one string or number if it is
    /// longer.
    ///
    /// ```
    /// use opa_rego::Value;
    ///
    /// let text = std::io::Cursor::new(r#"{"method": "GET"}"#);
    /// assert_eq!(Value::read_json(text)?.to_json(), r#"{"method":"GET"}"#);
    /// # Ok::<(), opa_rego::ReadJsonError>(())
    /// ```
    ///
    /// # Errors
    /// If the stream fails, or as [`from_json`](Self::from_json). What comes first in the text
    /// counts; the stream isn't read on.
    pub fn read_json(stream: impl io::Read) -> Result<Self, ReadJsonError> {
        read(Stream::new(stream))
    }
}

fn read(window: impl Window) -> Result<Value, ReadJsonError> {
    let mut reader = Reader {
        window,
        dropped: 0,
        at: 0,
        mark: 0,
        names: Names::default(),
    };
    let fault = match reader.read_document() {
        Ok(value) => return Ok(value),
        Err(fault) => fault,
    };
    let place = reader.window.place(fault.at);
    let problem = reader.window.problem().filter(|_| fault.at_end);
    Err(match problem {
        Some(Problem::Io(error)) => ReadJsonError::Io(error),
        Some(Problem::Utf8(byte, place)) => {
            let text = format!("invalid UTF-8 at byte `0x{byte:02x}`");
            ReadJsonError::Json(JsonError::new(place, text))
        }
        None => ReadJsonError::Json(JsonError::new(place, fault.message)),
    })
}

/// An error on its way to where lines are counted.
struct Fault {
    at: usize,
    message: String,
    /// It would not be one, or another one, if the text went on.
    at_end: bool,
}

struct Reader<W> {
    window: W,
    /// How much of the text came before the window.
    dropped: usize,
    /// The position in the window.
    at: usize,
    /// Where in the whole text the string that is being read starts.
    mark: usize,
    names: Names,
}

/// A container whose closing bracket is still to come.
enum Open {
    Array(Vec<Value>),
    /// The members so far, and the name of the one that is being read.
    Object(Vec<(Value, Value)>, Value),
}

/// What starts at the reader's position.
enum Start {
    /// A scalar or an empty container.
    Complete(Value),
    /// A container that has contents.
    Container(Open),
}

impl<W: Window> Reader<W> {
    fn read_document(&mut self) -> Result<Value, Fault> {
        let value = self.read_value()?;
        self.skip_blanks();
        match self.peek() {
            None if !self.window.is_broken() => Ok(value),
            _ => Err(self.unexpected("the end of the text")),
        }
    }

    /// Reads a value with the containers around the position in a list, not on the stack.
    fn read_value(&mut self) -> Result<Value, Fault> {
        let mut open = Vec::new();
        loop {
            self.skip_blanks();
            let mut value = match self.read_start(open.len())? {
                Start::Complete(value) => value,
                Start::Container(container) => {
                    open.push(container);
                    continue;
                }
            };
            loop {
                let Some(container) = open.pop() else {
                    return Ok(value);
                };
                match self.read_after_item(container, value)? {
                    Start::Complete(container) => value = container,
                    Start::Container(container) => {
                        open.push(container);
                        break;
                    }
                }
            }
        }
    }

    fn read_start(&mut self, depth: usize) -> Result<Start, Fault> {
        match self.peek() {
            Some(b'[' | b'{') if depth >= MAX_DEPTH => {
                Err(self.fault(format!("nested deeper than {MAX_DEPTH} levels")))
            }
            Some(b'[') => {
                self.at += 1;
                self.skip_blanks();
                Ok(if self.eat(b']') {
                    Start::Complete(Value::array([]))
                } else {
                    Start::Container(Open::Array(Vec::new()))
                })
            }
            Some(b'{') => {
                self.at += 1;
                self.skip_blanks();
                Ok(if self.eat(b'}') {
                    Start::Complete(Value::empty_object())
                } else {
                    let name = self.read_name("a member's name or `}`")?;
                    Start::Container(Open::Object(Vec::new(), name))
                })
            }
            _ => self.read_scalar().map(Start::Complete),
        }
    }

    /// Reads what follows an item or member: the end of its container, or the start of the next.
    fn read_after_item(&mut self, container: Open, value: Value) -> Result<Start, Fault> {
        self.skip_blanks();
        match container {
            Open::Array(mut items) => {
                items.push(value);
                if self.eat(b']') {
                    return Ok(Start::Complete(Value::array(items)));
                }
                if !self.eat(b',') {
                    return Err(self.unexpected("`,` or `]`"));
                }
                Ok(Start::Container(Open::Array(items)))
            }
            Open::Object(mut members, name) => {
                members.push((name, value));
                if self.eat(b'}') {
                    return Ok(Start::Complete(Value::object(members)));
                }
                if !self.eat(b',') {
                    return Err(self.unexpected("`,` or `}`"));
                }
                self.skip_blanks();
                let name = self.read_name("a member's name")?;
                Ok(Start::Container(Open::Object(members, name)))
            }
        }
    }

    /// Reads a member's name and the colon after it.
    fn read_name(&mut self, expected: &str) -> Result<Value, Fault> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected(expected));
        }
        let name = match short_string(self.window.text(), self.at) {
            Some(text) => {
                self.at += text.len() + 2;
                self.names.value(text)
            }
            None => self.read_long_string().map(Value::from)?,
        };
        self.skip_blanks();
        if !self.eat(b':') {
            return Err(self.unexpected("`:`"));
        }
        Ok(name)
    }

    fn read_scalar(&mut self) -> Result<Value, Fault> {
        match self.peek() {
            Some(b'"') => self.read_string(),
            Some(b'-' | b'0'..=b'9') => self.read_number(),
            Some(b'n') => self.read_word("null", Value::NULL),
            Some(b't') => self.read_word("true", Value::from(true)),
            Some(b'f') => self.read_word("false", Value::from(false)),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn read_word(&mut self, word: &str, value: Value) -> Result<Value, Fault> {
        self.ensure(word.len());
        if !self.rest().starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn read_number(&mut self) -> Result<Value, Fault> {
        let length = loop {
            let rest = self.rest();
            let length = number::scan(rest.as_bytes());
            // A number that reaches to the end of the window may go on behind it.
            let is_cut = length.map_or_else(
                || rest.bytes().all(|byte| is_of_number(&byte)),
                |length| length == rest.len(),
            );
            if !is_cut || !self.more() {
                break length;
            }
        };
        let text = length.and_then(|length| self.rest().get(..length));
        let Some(text) = text else {
            return Err(self.invalid_number());
        };
        let (length, number) = (text.len(), Number::from_scanned(text));
        self.at += length;
        if matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.fault("a number must not start with 0".to_owned()));
        }
        Ok(Value::from(number))
    }

    fn invalid_number(&self) -> Fault {
        let rest = self.rest();
        let length = rest.bytes().take_while(is_of_number).count();
        let text = shorten(rest.get(..length).unwrap_or_default());
        let fault = self.fault(format!("`{text}` isn't a number"));
        Fault {
            at_end: length == rest.len(),
            ..fault
        }
    }

    /// Reads a string, at its opening quote.
    fn read_string(&mut self) -> Result<Value, Fault> {
        match short_string(self.window.text(), self.at) {
            Some(text) => {
                self.at += text.len() + 2;
                Ok(Value::from(text))
            }
            None => self.read_long_string().map(Value::from),
        }
    }

    fn read_long_string(&mut self) -> Result<String, Fault> {
        self.mark = self.position();
        self.at += 1;
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let length = plain_length(rest);
            text.push_str(rest.get(..length).unwrap_or_default());
            self.at += length;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.push(self.read_escape()?),
                Some(0..=0x1f) => {
                    return Err(self.unexpected("an escape for the control character"));
                }
                // The window has moved on.
                Some(_) => {}
                None => {
                    return Err(Fault {
                        at: self.mark,
                        message: "the string has no end".to_owned(),
                        at_end: true,
                    });
                }
            }
        }
    }

    /// Reads an escape, at its backslash.
    fn read_escape(&mut self) -> Result<char, Fault> {
        // Two escapes may be one character.
        self.ensure(12);
        let escape = self.rest().chars().nth(1);
        let character = match escape {
            Some(character @ ('"' | '\\' | '/')) => character,
            Some('b') => '\x08',
            Some('f') => '\x0c',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => return self.read_code_points(),
            Some(other) => {
                return Err(self.fault(format!("`\\{}` isn't an escape", other.escape_debug())));
            }
            None => {
                let fault = self.fault("the string has no end".to_owned());
                return Err(Fault {
                    at_end: true,
                    ..fault
                });
            }
        };
        self.at += 2;
        Ok(character)
    }

    /// Reads `\uXXXX`, or two of them that are a surrogate pair.
    fn read_code_points(&mut self) -> Result<char, Fault> {
        let first = self.peek_code_unit().ok_or_else(|| {
            let text = "`\\u` must be followed by four hexadecimal digits";
            let fault = self.fault(text.to_owned());
            Fault {
                at_end: self.rest().len() < 6,
                ..fault
            }
        })?;
        self.at += 6;
        if let Some(character) = char::from_u32(first.into()) {
            return Ok(character);
        }
        let pair = self
            .peek_code_unit()
            .map(|second| char::decode_utf16([first, second]).next());
        match pair {
            Some(Some(Ok(character))) => {
                self.at += 6;
                Ok(character)
            }
            _ => Ok(char::REPLACEMENT_CHARACTER),
        }
    }

    fn peek_code_unit(&self) -> Option<u16> {
        let digits = self.rest().strip_prefix("\\u")?.get(..4)?;
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        hexadecimal
            .then(|| u16::from_str_radix(digits, 16).ok())
            .flatten()
    }

    fn skip_blanks(&mut self) {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        loop {
            self.at += self.rest().bytes().take_while(blank).count();
            if !self.rest().is_empty() || !self.more() {
                return;
            }
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// The next byte, if the text goes on.
    fn peek(&mut self) -> Option<u8> {
        loop {
            if let Some(byte) = self.window.text().as_bytes().get(self.at) {
                return Some(*byte);
            }
            if !self.more() {
                return None;
            }
        }
    }

    /// Has the next `length` bytes in the window, if the text goes on so far.
    fn ensure(&mut self, length: usize) {
        while self.rest().len() < length && self.more() {}
    }

    /// Moves the window on. What is at the position and after it stays.
    fn more(&mut self) -> bool {
        let Some(dropped) = self.window.more(self.at, self.mark) else {
            return false;
        };
        self.dropped += dropped;
        self.at -= dropped;
        true
    }

    fn rest(&self) -> &str {
        self.window.text().get(self.at..).unwrap_or_default()
    }

    /// The position in the whole text.
    fn position(&self) -> usize {
        self.dropped + self.at
    }

    fn fault(&self, message: String) -> Fault {
        Fault {
            at: self.position(),
            message,
            at_end: false,
        }
    }

    fn unexpected(&mut self, expected: &str) -> Fault {
        self.ensure(LOOKAHEAD);
        let word = |character: &char| character.is_alphanumeric() || *character == '_';
        let rest = self.rest();
        let end = rest.find(|character: char| !word(&character));
        let found = match (end, rest.chars().next()) {
            (_, None) => "the end of the text".to_owned(),
            (_, Some('\u{feff}')) if self.position() == 0 => "a byte order mark".to_owned(),
            (Some(0), Some(other)) => format!("`{}`", other.escape_debug()),
            (end, Some(_)) => {
                let word = rest.get(..end.unwrap_or(rest.len()));
                format!("`{}`", shorten(word.unwrap_or_default()))
            }
        };
        Fault {
            at_end: end.is_none() && rest.len() < LOOKAHEAD,
            ..self.fault(format!("expected {expected}, found {found}"))
        }
    }
}

/// The string whose quote is at `at`, if it is all in the window and has no escapes.
fn short_string(window: &str, at: usize) -> Option<&str> {
    let rest = window.get(at + 1..)?;
    let (text, end) = rest.split_at_checked(plain_length(rest))?;
    end.starts_with('"').then_some(text)
}

fn is_of_number(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')
}

/// How much comes before a quote, a backslash, a control character or the end.
fn plain_length(text: &str) -> usize {
    let special = |byte: u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    text.bytes().position(special).unwrap_or(text.len())
}

/// What an error shows of a text that may be long.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(32) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
