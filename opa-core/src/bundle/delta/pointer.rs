//! The paths of patch operations: JSON pointers (RFC 6901) whose segments may also be escaped as in
//! URLs, as OPA reads them.

use std::fmt::Write;

/// The segments of a path without "/" at its ends. `None` if a segment is escaped wrongly.
pub(super) fn segments(trimmed: &str) -> Option<Vec<String>> {
    if trimmed.is_empty() {
        return Some(Vec::new());
    }
    trimmed.split('/').map(segment).collect()
}

fn segment(text: &str) -> Option<String> {
    Some(unescape(text)?.replace("~1", "/").replace("~0", "~"))
}

/// Go's `url.PathUnescape`, but text only.
fn unescape(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let value = digit()? * 16 + digit()?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A path as OPA's storage prints it.
pub(super) fn shown<S: AsRef<str>>(path: &[S]) -> String {
    if path.is_empty() {
        return "/".to_owned();
    }
    let mut text = String::new();
    for segment in path {
        text.push('/');
        for byte in segment.as_ref().bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~$&+=:@".contains(&byte) {
                text.push(char::from(byte));
            } else {
                // Writing to a string does not fail.
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_of_both_kinds() {
        let read = |text| segments(text).map(|path| path.join("|"));
        assert_eq!(read("").as_deref(), Some(""));
        assert_eq!(read("a/b").as_deref(), Some("a|b"));
        assert_eq!(read("a//b").as_deref(), Some("a||b"));
        assert_eq!(read("a~1b/c~0d/~01").as_deref(), Some("a/b|c~d|~1"));
        assert_eq!(read("a%2Fb/%c3%A9/+").as_deref(), Some("a/b|é|+"));
        for wrong in ["%", "a%2", "%zz", "%ff", "%+1"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn shown_as_opa_shows_it() {
        assert_eq!(shown::<&str>(&[]), "/");
        assert_eq!(shown(&["a", "b c", "d/é"]), "/a/b%20c/d%2F%C3%A9");
    }
}
