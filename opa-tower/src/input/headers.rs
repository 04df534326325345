use http::header::{COOKIE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::PARTIAL_BODY;

/// The headers of a request: its own, or a copy.
#[derive(Clone, Copy)]
pub(super) enum Headers<'a> {
    Own(&'a HeaderMap),
    Copied(Fields<'a>),
}

impl<'a> Headers<'a> {
    /// The value of `Host`, if there is one.
    pub(super) fn host(self) -> Option<&'a str> {
        match self {
            Self::Own(headers) => headers.get(HOST).and_then(text),
            Self::Copied(mut fields) => fields
                .find(|(name, _)| *name == HOST.as_str())
                .map(|(_, value)| value),
        }
    }

    /// How many bytes a copy has.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Own(headers) => {
                let fields = headers.iter();
                let sizes = fields.map(|(name, value)| {
                    written(name.as_str().as_bytes()) + written(value.as_bytes())
                });
                sizes.sum()
            }
            Self::Copied(fields) => fields.0.len(),
        }
    }

    /// Appends a copy, to be read as [`Fields`].
    ///
    /// They are copied, since cloning them takes more allocations: an index, and one for each name
    /// that `http` doesn't know. Clones would also hold the buffer that the server reads into.
    pub(super) fn copy(self, into: &mut Vec<u8>) {
        match self {
            Self::Own(headers) => {
                for (name, value) in headers {
                    for text in [name.as_str().as_bytes(), value.as_bytes()] {
                        write_length(text, into);
                        into.extend_from_slice(text);
                    }
                }
            }
            Self::Copied(fields) => into.extend_from_slice(fields.0),
        }
    }
}

/// A header's value as text: all of it or nothing.
pub(super) fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// Whether the document has that header: its host is the authority.
pub(super) fn is_shown(name: &HeaderName) -> bool {
    *name != HOST && *name != PARTIAL_BODY
}

/// [`is_shown`] of the text of a name.
pub(super) fn is_name_shown(name: &str) -> bool {
    name != HOST.as_str() && name != PARTIAL_BODY.as_str()
}

pub(super) fn is_cookie(name: &str) -> bool {
    name == COOKIE.as_str()
}

/// A length is written as one byte, or as this one and all of it. What is small is allocated faster.
const LONG: u8 = u8::MAX;

/// How many bytes a text takes with its length.
fn written(text: &[u8]) -> usize {
    let length = match u8::try_from(text.len()) {
        Ok(length) if length != LONG => 1,
        _ => 1 + size_of::<usize>(),
    };
    length + text.len()
}

fn write_length(text: &[u8], into: &mut Vec<u8>) {
    match u8::try_from(text.len()) {
        Ok(length) if length != LONG => into.push(length),
        _ => {
            into.push(LONG);
            into.extend_from_slice(&text.len().to_ne_bytes());
        }
    }
}

fn read<'a>(from: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, mut rest) = from.split_first()?;
    let mut length = usize::from(*length);
    if length == usize::from(LONG) {
        let (whole, after) = rest.split_first_chunk()?;
        (length, rest) = (usize::from_ne_bytes(*whole), after);
    }
    let (text, rest) = rest.split_at_checked(length)?;
    *from = rest;
    Some(text)
}

/// The names and values of a [copy](Headers::copy); what is no text is left out.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// By name, each with its values in their order.
    pub(super) fn by_name(self) -> Vec<(&'a str, &'a str)> {
        let mut fields: Vec<_> = self.collect();
        fields.sort_by_key(|(name, _)| *name);
        fields
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (name, value) = (read(&mut self.0)?, read(&mut self.0)?);
            let name = std::str::from_utf8(name);
            if let Some(field) = name.ok().zip(std::str::from_utf8(value).ok()) {
                return Some(field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_every_header_however_long() {
        let mut headers = HeaderMap::new();
        let lengths = [0, 1, 127, 128, 254, 255, 256, 257, 65_535, 70_000];
        for length in lengths {
            let value = HeaderValue::from_str(&"v".repeat(length)).unwrap();
            headers.append("x", value.clone());
            let name = HeaderName::from_bytes("n".repeat(length.clamp(1, 60_000)).as_bytes());
            headers.append(name.unwrap(), value);
        }
        let mut copy = Vec::new();
        let own = Headers::Own(&headers);
        own.copy(&mut copy);
        assert_eq!(copy.len(), own.size());
        let own = headers.iter().map(|(name, value)| (name.as_str(), value));
        let own: Vec<_> = own
            .map(|(name, value)| (name, text(value).unwrap()))
            .collect();
        assert_eq!(own.len(), 2 * lengths.len());
        assert_eq!(Fields(&copy).collect::<Vec<_>>(), own);
        // What is cut off ends, and is no other header.
        for end in 0..2_000 {
            let cut: Vec<_> = Fields(&copy[..end]).collect();
            assert!(own.starts_with(&cut));
        }
    }
}
