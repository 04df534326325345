use std::net::SocketAddr;
use std::time::SystemTime;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, Method, Version};
use opa_core::instance::Prepared;

use super::headers::{Fields, Headers, text};
use super::{Target, Unreadable};
use crate::settings::Settings;

/// More headers than this are refused.
pub(crate) const MAX_HEADERS: usize = 1_000;

/// All of a request that its input document tells.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(super) method: &'a Method,
    authority: Option<&'a str>,
    path_and_query: Option<&'a str>,
    pub(super) headers: Headers<'a>,
    pub(super) facts: Facts,
}

/// What takes no room to speak of.
#[derive(Clone, Copy)]
pub(super) struct Facts {
    pub(super) version: Version,
    pub(super) peer: Option<SocketAddr>,
    pub(super) time: SystemTime,
    /// Whether the document tells of the body at all.
    pub(super) tells_body: bool,
}

impl<'a> Request<'a> {
    /// The request as the settings of its route show it, asked about in `prepared`.
    pub(crate) fn of(parts: &'a Parts, settings: &Settings, prepared: &Prepared) -> Self {
        let time = prepared.question().timestamp();
        Self::new(parts, settings, time, !prepared.skips_request_body_parse())
    }

    pub(super) fn new(
        parts: &'a Parts,
        settings: &Settings,
        time: SystemTime,
        tells_body: bool,
    ) -> Self {
        let (version, peer) = (parts.version, settings.peer(parts));
        let uri = settings.shown_uri(parts);
        Self {
            method: &parts.method,
            authority: uri.authority().map(|it| it.as_str()),
            path_and_query: uri.path_and_query().map(|it| it.as_str()),
            headers: Headers::Own(&parts.headers),
            facts: Facts {
                version,
                peer,
                time,
                tells_body,
            },
        }
    }

    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.facts.peer
    }

    /// Reads what a policy must be shown without loss, whatever it asks for: the verdict on a
    /// request that can't be read must not depend on the policy.
    ///
    /// # Errors
    /// What can't be read.
    pub(crate) fn read(&self) -> Result<Target<'a>, Unreadable> {
        if let Headers::Own(headers) = self.headers {
            if headers.len() > MAX_HEADERS {
                return Err(Unreadable::TooManyHeaders);
            }
            if headers.values().any(|value| text(value).is_none()) {
                return Err(Unreadable::Header);
            }
            if !self.names_one_host(headers) {
                return Err(Unreadable::Host);
            }
        }
        self.target()
    }

    /// Reads the target alone.
    ///
    /// # Errors
    /// Why it can't be read.
    pub(super) fn target(&self) -> Result<Target<'a>, Unreadable> {
        let target = self.path_and_query.unwrap_or_default();
        match target.split_once('?') {
            // `http://host?query` has the path `/`.
            Some(("", query)) => Target::read("/", Some(query)),
            Some((path, query)) => Target::read(path, Some(query)),
            None => Target::read(target, None),
        }
    }

    /// Whether `Host` and the target's authority, where both are sent, agree (RFC 9112, 3.2, and
    /// RFC 9113, 8.3.1): else the policy could judge another host than the service serves.
    fn names_one_host(&self, headers: &HeaderMap) -> bool {
        let mut hosts = headers.get_all(HOST).iter();
        match (hosts.next(), hosts.next(), self.authority) {
            (_, Some(_), _) => false,
            (Some(host), None, Some(authority)) => {
                host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())
            }
            _ => true,
        }
    }

    /// What Envoy calls host and `:authority`.
    pub(super) fn host(&self) -> Option<&'a str> {
        self.authority.or_else(|| self.headers.host())
    }

    /// The path with the query, escapes untouched. `None` for the authority form of `CONNECT`.
    pub(super) fn path(&self) -> Option<String> {
        let target = self.path_and_query?;
        // `http://host?query` has the path `/`.
        Some(if target.starts_with('?') {
            format!("/{target}")
        } else {
            target.to_owned()
        })
    }
}

/// A copy of a request that could be read, for a document that is built later.
pub(super) struct OwnedRequest {
    method: Method,
    /// How long they are in `text`.
    authority: Option<usize>,
    path_and_query: Option<usize>,
    /// The authority, the path with the query, and the headers.
    text: Vec<u8>,
    facts: Facts,
}

impl OwnedRequest {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let (authority, path_and_query) = (request.authority, request.path_and_query);
        let target = [authority, path_and_query].map(Option::unwrap_or_default);
        let length = target.iter().map(|it| it.len()).sum::<usize>() + request.headers.size();
        let mut text = Vec::with_capacity(length);
        for part in target {
            text.extend_from_slice(part.as_bytes());
        }
        request.headers.copy(&mut text);
        Self {
            method: request.method.clone(),
            authority: authority.map(str::len),
            path_and_query: path_and_query.map(str::len),
            text,
            facts: request.facts,
        }
    }

    /// About how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        512 + self.text.len()
    }

    pub(super) fn borrow(&self) -> Request<'_> {
        let (authority, rest) = split(&self.text, self.authority);
        let (path_and_query, rest) = split(rest, self.path_and_query);
        Request {
            method: &self.method,
            authority,
            path_and_query,
            headers: Headers::Copied(Fields(rest)),
            facts: self.facts,
        }
    }
}

/// The text of that length at the start, and the rest.
fn split(text: &[u8], length: Option<usize>) -> (Option<&str>, &[u8]) {
    let parts = length.and_then(|length| text.split_at_checked(length));
    let Some((start, rest)) = parts else {
        return (None, text);
    };
    (std::str::from_utf8(start).ok(), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(request: http::request::Builder) -> Result<(), Unreadable> {
        let parts = request.body(()).unwrap().into_parts().0;
        let time = SystemTime::UNIX_EPOCH;
        Request::new(&parts, &Settings::default(), time, true)
            .read()
            .map(|_| ())
    }

    fn request() -> http::request::Builder {
        http::Request::get("/")
    }

    #[test]
    fn cve_2023_27488_a_header_that_is_not_utf_8_is_refused() {
        assert_eq!(
            read(request().header("x", &b"\xff"[..])),
            Err(Unreadable::Header)
        );
        assert_eq!(
            read(request().header("x", "a").header("x", &b"\xc3"[..])),
            Err(Unreadable::Header)
        );
        assert_eq!(read(request().header("x", "ü")), Ok(()));
    }

    #[test]
    fn cve_2019_9900_a_header_cannot_hold_nul() {
        assert!(http::HeaderValue::from_bytes(b"a\0b").is_err());
        assert!(http::HeaderName::from_bytes(b"a\0b").is_err());
    }

    #[test]
    fn more_headers_than_a_policy_is_shown_are_refused() {
        let many = |n| (0..n).fold(request(), |request, n| request.header("x", n));
        assert_eq!(read(many(MAX_HEADERS)), Ok(()));
        assert_eq!(read(many(MAX_HEADERS + 1)), Err(Unreadable::TooManyHeaders));
    }

    #[test]
    fn two_names_of_the_host_are_refused() {
        let absolute = || http::Request::get("http://example.org/");
        assert_eq!(read(absolute().header("host", "EXAMPLE.org")), Ok(()));
        assert_eq!(
            read(absolute().header("host", "other")),
            Err(Unreadable::Host)
        );
        assert_eq!(
            read(request().header("host", "a").header("host", "a")),
            Err(Unreadable::Host)
        );
    }
}
