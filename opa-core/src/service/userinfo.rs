//! `user:password@` of a URL, which Go's client sends as Basic credentials (RFC 7617).

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use reqwest::Url;

/// A URL as it is sent, without userinfo (RFC 9113, 8.3.1), and that as a header.
pub(super) fn split(url: &Url) -> (Url, Option<HeaderValue>) {
    let basic = basic(url);
    let mut url = url.clone();
    // Both are possible for any URL that has them.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    (url, basic)
}

/// Sends it unless another proof is there. As for Go, one that is empty is none.
pub(super) fn apply(userinfo: Option<HeaderValue>, headers: &mut HeaderMap) {
    let has_other = headers.get(AUTHORIZATION).is_some_and(|it| !it.is_empty());
    if let Some(userinfo) = userinfo.filter(|_| !has_other) {
        headers.insert(AUTHORIZATION, userinfo);
    }
}

fn basic(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(url.password().unwrap_or_default()));
    let mut value = HeaderValue::try_from(format!("Basic {}", BASE64.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(url: &str, other: Option<&'static str>) -> Option<String> {
        let (url, userinfo) = split(&Url::parse(url).unwrap());
        assert_eq!(url.as_str(), "http://a.test:81/b?c");
        let mut headers = HeaderMap::new();
        headers.extend(other.map(|it| (AUTHORIZATION, HeaderValue::from_static(it))));
        apply(userinfo, &mut headers);
        let sent = headers.get(AUTHORIZATION)?;
        Some(sent.to_str().unwrap().to_owned())
    }

    /// All of them as real OPA sends them.
    #[test]
    fn it_is_sent_as_go_does() {
        for (userinfo, basic) in [
            ("us%65r:p%40ss:w@", Some("Basic dXNlcjpwQHNzOnc=")),
            ("user@", Some("Basic dXNlcjo=")),
            (":pw@", Some("Basic OnB3")),
            ("", None),
        ] {
            let url = format!("http://{userinfo}a.test:81/b?c");
            assert_eq!(sent(&url, None).as_deref(), basic, "{userinfo}");
            assert_eq!(sent(&url, Some("Own x")).as_deref(), Some("Own x"));
        }
        let url = "http://user:pass@a.test:81/b?c";
        assert_eq!(sent(url, Some("")).as_deref(), Some("Basic dXNlcjpwYXNz"));
    }

    #[test]
    fn it_is_not_told() {
        let (_, userinfo) = split(&Url::parse("http://user:pass@a.test").unwrap());
        assert_eq!(format!("{userinfo:?}"), "Some(Sensitive)");
    }
}
