use std::net::SocketAddr;
use std::time::SystemTime;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use opa_core::instance::Prepared;

use super::{Target, Unreadable};
use crate::settings::Settings;

/// More headers than this are refused.
pub(crate) const MAX_HEADERS: usize = 1_000;

/// All of a request that its input document tells.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(super) method: &'a Method,
    pub(super) uri: &'a Uri,
    pub(super) headers: &'a HeaderMap,
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
        Self {
            method: &parts.method,
            uri: settings.shown_uri(parts),
            headers: &parts.headers,
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
        if self.headers.len() > MAX_HEADERS {
            return Err(Unreadable::TooManyHeaders);
        }
        if self.headers.values().any(|value| text(value).is_none()) {
            return Err(Unreadable::Header);
        }
        if !self.names_one_host() {
            return Err(Unreadable::Host);
        }
        Target::read(self.uri.path(), self.uri.query())
    }

    /// Whether `Host` and the target's authority, where both are sent, agree (RFC 9112, 3.2, and
    /// RFC 9113, 8.3.1): else the policy could judge another host than the service serves.
    fn names_one_host(&self) -> bool {
        let authority = self.uri.authority().map(|authority| authority.as_str());
        let mut hosts = self.headers.get_all(HOST).iter();
        match (hosts.next(), hosts.next(), authority) {
            (_, Some(_), _) => false,
            (Some(host), None, Some(authority)) => {
                host.as_bytes().eq_ignore_ascii_case(authority.as_bytes())
            }
            _ => true,
        }
    }

    /// What Envoy calls host and `:authority`.
    pub(super) fn host(&self) -> Option<&'a str> {
        let authority = self.uri.authority().map(|authority| authority.as_str());
        authority.or_else(|| self.headers.get(HOST).and_then(text))
    }

    /// The path with the query, escapes untouched. `None` for the authority form of `CONNECT`.
    pub(super) fn path(&self) -> Option<String> {
        let target = self.uri.path_and_query()?.as_str();
        // `http://host?query` has the path `/`.
        Some(if target.starts_with('?') {
            format!("/{target}")
        } else {
            target.to_owned()
        })
    }
}

/// A header's value as text: all of it or nothing.
pub(super) fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// A request of its own, for a document that is built later.
pub(super) struct OwnedRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    facts: Facts,
}

impl OwnedRequest {
    pub(super) fn of(request: &Request<'_>) -> Self {
        Self {
            method: request.method.clone(),
            uri: request.uri.clone(),
            headers: request.headers.clone(),
            facts: request.facts,
        }
    }

    /// About how many bytes it holds.
    pub(super) fn size(&self) -> usize {
        let uri = self.uri.path().len() + self.uri.query().map_or(0, str::len);
        let headers = self.headers.iter();
        let headers = headers.map(|(name, value)| name.as_str().len() + value.len() + 64);
        512 + uri + headers.sum::<usize>()
    }

    pub(super) fn borrow(&self) -> Request<'_> {
        let Self {
            method,
            uri,
            headers,
            facts,
        } = self;
        Request {
            method,
            uri,
            headers,
            facts: *facts,
        }
    }
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
        assert!(HeaderValue::from_bytes(b"a\0b").is_err());
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
