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
    if !rest.starts_with('/') && !rest.starts_with("localhost/") {
        return Err("expected `file:///` and an absolute path, without a host");
    }
    let url = Url::parse(text).map_err(|_| "expected a URL")?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("expected `?` and `#` in a path as `%3F` and `%23`");
    }
    let path = url
        .to_file_path()
        .map_err(|()| "expected the path of a local file")?;
    let looks_remote = path.to_str().is_none_or(|path| {
        path.starts_with("//") || path.starts_with(r"\\") || path.starts_with(r"/\")
    });
    if looks_remote {
        Err("expected the path of a local file, not a network share")
    } else {
        Ok(path)
    }
}
