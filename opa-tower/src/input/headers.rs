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
                let sizes = fields.map(|(name, value)| name.as_str().len() + value.len());
                sizes.map(|size| size + 2 * LENGTH).sum()
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
                    let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
                    into.extend_from_slice(&name.len().to_ne_bytes());
                    into.extend_from_slice(&value.len().to_ne_bytes());
                    into.extend_from_slice(name);
                    into.extend_from_slice(value);
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

/// How a length is written.
const LENGTH: usize = size_of::<usize>();

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

    fn read(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let (name, rest) = self.0.split_first_chunk::<LENGTH>()?;
        let (value, rest) = rest.split_first_chunk::<LENGTH>()?;
        let (name, rest) = rest.split_at_checked(usize::from_ne_bytes(*name))?;
        let (value, rest) = rest.split_at_checked(usize::from_ne_bytes(*value))?;
        self.0 = rest;
        Some((name, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (name, value) = self.read()?;
            let name = std::str::from_utf8(name);
            if let Some(field) = name.ok().zip(std::str::from_utf8(value).ok()) {
                return Some(field);
            }
        }
    }
}
