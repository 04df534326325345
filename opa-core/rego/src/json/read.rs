use super::JsonError;
use crate::number::{self, Number};
use crate::value::Value;

/// How deep arrays and objects may be nested: the limit of Go's `encoding/json`.
const MAX_DEPTH: usize = 10_000;

impl Value {
    /// Reads one JSON text (RFC 8259), as OPA does: of members with equal names the last stays, a
    /// lone surrogate escape becomes U+FFFD, and a number keeps its text.
    ///
    /// # Errors
    /// If `json` isn't valid JSON or UTF-8, starts with a byte order mark, has something after the
    /// value, or is nested deeper than 10,000 levels.
    pub fn from_json(json: &[u8]) -> Result<Self, JsonError> {
        let text = std::str::from_utf8(json).map_err(|error| {
            let offset = error.valid_up_to();
            let byte = json.get(offset).copied().unwrap_or_default();
            JsonError::new(
                json,
                offset,
                format!("invalid UTF-8 at byte `0x{byte:02x}`"),
            )
        })?;
        let mut reader = Reader { text, at: 0 };
        reader
            .read_document()
            .map_err(|fault| JsonError::new(json, fault.at, fault.message))
    }
}

/// An error on its way to where lines are counted.
struct Fault {
    at: usize,
    message: String,
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
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

impl<'a> Reader<'a> {
    fn read_document(&mut self) -> Result<Value, Fault> {
        let value = self.read_value()?;
        self.skip_blanks();
        match self.peek() {
            None => Ok(value),
            Some(_) => Err(self.unexpected("the end of the text")),
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
        let name = self.read_string()?;
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
        if !self.rest().starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn read_number(&mut self) -> Result<Value, Fault> {
        let text = number::scan(self.rest().as_bytes())
            .and_then(|length| self.rest().get(..length))
            .ok_or_else(|| self.invalid_number())?;
        self.at += text.len();
        if matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.fault("a number must not start with 0".to_owned()));
        }
        Ok(Value::from(Number::from_scanned(text)))
    }

    fn invalid_number(&self) -> Fault {
        let inside = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let length = self.rest().bytes().take_while(inside).count();
        let text = shorten(self.rest().get(..length).unwrap_or_default());
        self.fault(format!("`{text}` isn't a number"))
    }

    /// Reads a string, at its opening quote.
    fn read_string(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        self.at += 1;
        let plain = self.read_plain();
        if self.eat(b'"') {
            return Ok(Value::from(plain));
        }
        let mut text = plain.to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Value::from(text));
                }
                Some(b'\\') => text.push(self.read_escape()?),
                Some(_) => return Err(self.unexpected("an escape for the control character")),
                None => {
                    return Err(Fault {
                        at: start,
                        message: "the string has no end".to_owned(),
                    });
                }
            }
            text.push_str(self.read_plain());
        }
    }

    /// Reads up to a quote, a backslash, a control character or the end.
    fn read_plain(&mut self) -> &'a str {
        let special = |byte: u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
        let rest = self.rest();
        let length = rest.bytes().position(special).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    /// Reads an escape, at its backslash.
    fn read_escape(&mut self) -> Result<char, Fault> {
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
            None => return Err(self.fault("the string has no end".to_owned())),
        };
        self.at += 2;
        Ok(character)
    }

    /// Reads `\uXXXX`, or two of them that are a surrogate pair.
    fn read_code_points(&mut self) -> Result<char, Fault> {
        let first = self.peek_code_unit().ok_or_else(|| {
            self.fault("`\\u` must be followed by four hexadecimal digits".to_owned())
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
        self.at += self.rest().bytes().take_while(blank).count();
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn fault(&self, message: String) -> Fault {
        Fault {
            at: self.at,
            message,
        }
    }

    fn unexpected(&self, expected: &str) -> Fault {
        let word = |character: &char| character.is_alphanumeric() || *character == '_';
        let rest = self.rest();
        let found = match (rest.chars().take_while(word).count(), rest.chars().next()) {
            (_, None) => "the end of the text".to_owned(),
            (_, Some('\u{feff}')) if self.at == 0 => "a byte order mark".to_owned(),
            (0, Some(other)) => format!("`{}`", other.escape_debug()),
            (_, Some(_)) => {
                let end = rest
                    .find(|character: char| !word(&character))
                    .unwrap_or(rest.len());
                format!("`{}`", shorten(rest.get(..end).unwrap_or_default()))
            }
        };
        self.fault(format!("expected {expected}, found {found}"))
    }
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
