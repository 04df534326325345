//! `file://` URLs.

use std::path::PathBuf;

use reqwest::Url;

/// The local file of a `file://` URL.
///
/// Network shares are refused in every spelling: reading one can hand the machine's credentials
/// to a stranger (CVE-2024-8260 in OPA on Windows). OPA drops the host of other URLs without a
/// word, so `file://bundle.tar.gz` would name an empty path; here that is an error.
pub(crate) fn local_path(text: &str) -> Result<PathBuf, &'static str> {
    let Some(rest) = text.get(7..).filter(|_| text.get(5..7) == Some("//")) else {
        return Err("expected `file://` and an absolute path");
    };
    let host = rest.find('/').map(|end| rest.split_at(end));
    let Some((_, path)) = host.filter(|(host, _)| matches!(*host, "" | "localhost")) else {
        return Err("expected `file:///` and an absolute path, without a host");
    };
    // The parser would make one slash of many and of backslashes.
    if path.starts_with("//") || path.contains('\\') {
        return Err(SHARE);
    }
    let url = Url::parse(text).map_err(|_| "expected a URL")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("expected `?` and `#` in a path as `%3F` and `%23`");
    }
    let path = url
        .to_file_path()
        .map_err(|()| "expected the path of a local file")?;
    let Some(decoded) = path.to_str().filter(|path| !path.contains('\0')) else {
        return Err("expected the path of a local file");
    };
    // Once more, now that percent-encoded slashes are decoded.
    if ["//", r"\\", r"/\"]
        .iter()
        .any(|start| decoded.starts_with(start))
    {
        return Err(SHARE);
    }
    Ok(path)
}

const SHARE: &str = "expected the path of a local file, not a network share";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_local() {
        for (url, path) in [
            ("file:///srv/bundle.tar.gz", "/srv/bundle.tar.gz"),
            ("FILE:///srv/b%20c", "/srv/b c"),
            ("file://localhost/srv", "/srv"),
            ("file:///srv/../etc/x", "/etc/x"),
        ] {
            assert_eq!(local_path(url), Ok(PathBuf::from(path)), "{url}");
        }
    }

    #[test]
    fn hosts_shares_and_relative_paths_are_refused() {
        for url in [
            "file://bundle.tar.gz",
            "file://host/share",
            "file://127.0.0.1/x",
            "file:////host/share",
            "file://///host/share",
            r"file://\\host\share",
            r"file:///\host\share",
            r"file:///\\host\share",
            "file:///%5C%5Chost/share",
            "file:///%2Fhost/share",
            "file://LOCALHOST//host/share",
            "file://localhost//host/share",
            "file:/x",
            "file:x",
            "file://",
            "file:",
            "file:///x?y",
            "file:///x#y",
            "file:///%00",
            "file:///%FF",
            "file://./x",
            "file://user@/x",
        ] {
            assert!(local_path(url).is_err(), "{url}: {:?}", local_path(url));
        }
    }
}
