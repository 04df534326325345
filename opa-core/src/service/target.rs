//! Where a request goes: below a service's URL, and on to where a redirect points.

use http::header::LOCATION;
use http::{HeaderName, StatusCode};
use reqwest::Url;

use super::ServiceError;

/// How many redirects are followed, as in Go's client.
pub(super) const MAX_REDIRECTS: usize = 10;

/// Headers that no other server than the service's sees, whoever set them; those of Go's client.
pub(super) const OWN_HEADERS: [&str; 5] = [
    "authorization",
    "www-authenticate",
    "cookie",
    "cookie2",
    "proxy-authorization",
];

/// The URL of `path` below the service's, as it is sent.
///
/// # Errors
/// When another resource would be asked for than the path names: a URL has no `..`, and what Go
/// refuses is refused.
pub(super) fn below(base: &str, path: &str) -> Result<Url, ServiceError> {
    let path = path.trim_matches('/');
    if path.chars().any(char::is_control) {
        return Err(ServiceError::text("invalid control character in URL"));
    }
    // For a URL's parser it separates, for Go and in a key it is a character.
    let path = path.replace('\\', "%5C");
    let end = path.find(['?', '#']).unwrap_or(path.len());
    let resource = path.get(..end).unwrap_or(&path);
    check_escapes(resource)?;
    if resource.split('/').any(is_dots) {
        let text = format!("`{resource}` can't be asked for: a URL has no `.` and `..`");
        return Err(ServiceError::text(text));
    }
    Url::parse(&format!("{base}/{path}")).map_err(ServiceError::new)
}

fn check_escapes(path: &str) -> Result<(), ServiceError> {
    for after in path.split('%').skip(1) {
        let digits = after.bytes().take(2).filter(u8::is_ascii_hexdigit).count();
        if digits < 2 {
            let escape: String = after.chars().take(2).collect();
            // Go's words.
            return Err(ServiceError::text(format!(
                "invalid URL escape \"%{escape}\""
            )));
        }
    }
    Ok(())
}

fn is_dots(segment: &str) -> bool {
    matches!(
        &*segment.to_ascii_lowercase().replace("%2e", "."),
        "." | ".."
    )
}

/// Where a response sends its client, if it does, which asked for `from`.
///
/// # Errors
/// When that is no `http` or `https` URL.
pub(super) fn redirect(
    response: &reqwest::Response,
    from: &Url,
) -> Result<Option<Url>, ServiceError> {
    let redirects = matches!(
        response.status(),
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    );
    let location = response.headers().get(LOCATION).filter(|_| redirects);
    let Some(location) = location else {
        return Ok(None);
    };
    let url = location
        .to_str()
        .ok()
        .and_then(|location| from.join(location).ok());
    match url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
        Some(url) => Ok(Some(url)),
        None => Err(ServiceError::text(
            "the server redirects to no URL that can be asked",
        )),
    }
}

/// More redirects than are followed, in Go's words.
pub(super) fn too_many() -> ServiceError {
    ServiceError::text(format!("stopped after {MAX_REDIRECTS} redirects"))
        .of(crate::FailureClass::Network)
}

/// Whether two URLs lead to the same server in the same way.
pub(super) fn is_same_server(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// Whether only the service itself may see a header.
pub(super) fn is_own(name: &HeaderName) -> bool {
    OWN_HEADERS.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_sent_as_it_is_named() {
        for (path, wanted) in [
            ("/b/k.tar.gz/", "/b/k.tar.gz"),
            ("a b+c", "/a%20b+c"),
            ("ü%25", "/%C3%BC%25"),
            ("a\\b", "/a%5Cb"),
            ("..a/.b/c..", "/..a/.b/c.."),
            ("a//b", "/a//b"),
            ("k?x=../%zz", "/k?x=../%zz"),
        ] {
            let url = below("https://b.test:8443/base", path).unwrap();
            assert_eq!(url.as_str(), format!("https://b.test:8443/base{wanted}"));
        }
    }

    #[test]
    fn what_would_be_another_resource_is_refused() {
        for path in ["../k", "a/./k", "a/%2E%2e/k", "a/.%2E", "..?x"] {
            let error = below("https://b.test", path).unwrap_err().to_string();
            assert!(
                error.ends_with("can't be asked for: a URL has no `.` and `..`"),
                "{error}"
            );
        }
        for (path, escape) in [("a%", "%"), ("a%2", "%2"), ("a%zzb", "%zz"), ("%%41", "%")] {
            let error = below("https://b.test", path).unwrap_err().to_string();
            assert_eq!(error, format!("invalid URL escape \"{escape}\""));
        }
        let error = below("https://b.test", "a\tb").unwrap_err().to_string();
        assert_eq!(error, "invalid control character in URL");
    }

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        let url = |text| Url::parse(text).unwrap();
        let service = url("https://b.test/a");
        assert!(is_same_server(&service, &url("https://b.test:443/b?c")));
        for other in [
            "http://b.test/a",
            "https://b.test:444/a",
            "https://a.b.test/a",
        ] {
            assert!(!is_same_server(&service, &url(other)), "{other}");
        }
    }
}
