//! How far one token reaches.

use super::TokenKind;
use crate::number;

/// The kind of the next token and its length in bytes.
pub(super) type Scanned = Result<(TokenKind, usize), Fault>;

/// How many bytes from here something is wrong, and what.
pub(super) type Fault = (usize, String);

pub(super) fn number(text: &str) -> Scanned {
    let length = number::scan(text.as_bytes()).unwrap_or(0);
    let following = text
        .get(length..)
        .and_then(|rest| rest.chars().next())
        .unwrap_or(' ');
    if length == 0 || following.is_ascii_alphanumeric() || following == '_' || following == '.' {
        return Err((0, "invalid number".to_owned()));
    }
    Ok((TokenKind::Number, length))
}

pub(super) fn raw_string(text: &str) -> Scanned {
    match text.bytes().skip(1).position(|byte| byte == b'`') {
        Some(length) => Ok((TokenKind::RawString, length + 2)),
        None => Err((0, NO_END.to_owned())),
    }
}

/// The length of the escape at `at` in `text`; `extra` may be escaped besides what JSON escapes.
pub(super) fn escape(text: &str, at: usize, extra: Option<char>) -> Result<usize, Fault> {
    let escape = text.get(at..).unwrap_or_default();
    match escape.chars().nth(1) {
        Some('"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => Ok(2),
        Some('u') => {
            let digits = escape.get(2..6).unwrap_or_default();
            let hexadecimal = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            let message = "`\\u` must be followed by four hexadecimal digits";
            hexadecimal
                .then_some(6)
                .ok_or_else(|| (at, message.to_owned()))
        }
        Some(other) if Some(other) == extra => Ok(2),
        Some(other) => Err((at, format!("`\\{}` isn't an escape", other.escape_debug()))),
        None => Err((0, NO_END.to_owned())),
    }
}

/// The length of a byte of a string that isn't special.
pub(super) fn character(byte: Option<&u8>, at: usize) -> Result<usize, Fault> {
    match byte {
        Some(0x20..) => Ok(1),
        Some(b'\n') | None => Err((0, NO_END.to_owned())),
        Some(byte) => Err((at, format!("control character `0x{byte:02x}` in a string"))),
    }
}

const NO_END: &str = "the string has no end";
