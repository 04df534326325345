//! What a registry answers to whom it doesn't know (RFC 9110, 11.6.1; distribution specification,
//! "Token Authentication").

use std::net::IpAddr;

use http::HeaderMap;
use http::header::WWW_AUTHENTICATE;
use http_auth::ChallengeRef;
use reqwest::Url;

/// A wish for a token, and where there is one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TokenChallenge {
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl TokenChallenge {
    /// The first one among all challenges of a response.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let values = headers.get_all(WWW_AUTHENTICATE);
        values
            .iter()
            .filter_map(|value| http_auth::parse_challenges(value.to_str().ok()?).ok())
            .flatten()
            .find_map(|challenge| Self::read(&challenge))
    }

    fn read(challenge: &ChallengeRef<'_>) -> Option<Self> {
        let parameter = |wanted: &str| {
            let mut all = challenge.params.iter();
            let (_, value) = all.find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
            Some(value.to_unescaped())
        };
        if !challenge.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        Some(Self {
            realm: parameter("realm")?,
            service: parameter("service"),
            scope: parameter("scope"),
        })
    }

    /// Where the token is asked for, with the service's credentials.
    ///
    /// # Errors
    /// When the registry names a place that must not see them.
    pub(super) fn url(&self, registry: &Url, repository: &str) -> Result<Url, String> {
        let refused = |why: &str| format!("the registry's token realm {why}");
        let mut url = Url::parse(&self.realm).map_err(|_| refused("is no URL"))?;
        match url.scheme() {
            "https" => {}
            "http" if registry.scheme() == "http" => {}
            "http" => return Err(refused("is `http`, but the registry is `https`")),
            _ => return Err(refused("is neither `http` nor `https`")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused("has credentials of its own"));
        }
        if is_of_this_network(&url) && url.host() != registry.host() {
            return Err(refused(
                "is a loopback, link-local, private, or unspecified address",
            ));
        }
        let own = format!("repository:{repository}:pull");
        let scope = self.scope.as_deref().unwrap_or(&own);
        url.query_pairs_mut()
            .extend_pairs(self.service.iter().map(|service| ("service", service)))
            .extend_pairs(scope.split_whitespace().map(|scope| ("scope", scope)));
        Ok(url)
    }
}

/// Addresses that a registry elsewhere has no business to send anybody to, such as the metadata
/// service of a cloud. The same are refused by OPA, but for names of this host.
fn is_of_this_network(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let name = host.trim_end_matches('.');
    if name == "localhost" || name.ends_with(".localhost") {
        return true;
    }
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    match address.map(|address: IpAddr| address.to_canonical()) {
        Ok(IpAddr::V4(ip)) => {
            ip.is_loopback()
                || ip.is_link_local()
                || ip.is_private()
                || ip.is_unspecified()
                || ip.is_multicast()
        }
        Ok(IpAddr::V6(ip)) => {
            ip.is_loopback()
                || ip.is_unicast_link_local()
                || ip.is_unique_local()
                || ip.is_unspecified()
                || ip.is_multicast()
        }
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(values: &[&'static str]) -> Option<TokenChallenge> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
        }
        TokenChallenge::of(&headers)
    }

    fn url(realm: &str, registry: &str) -> Result<String, String> {
        let challenge = TokenChallenge {
            realm: realm.to_owned(),
            service: None,
            scope: None,
        };
        let url = challenge.url(&Url::parse(registry).unwrap(), "a/b");
        url.map(String::from)
    }

    #[test]
    fn the_bearer_challenge_is_found_among_others() {
        let challenge = of(&[
            "Negotiate",
            "Basic realm=\"x\", bearer Realm=\"https://auth.test/token?a=b\", \
             service=\"reg \\\"1\\\"\", scope=\"repository:a/b:pull repository:c:pull\"",
        ]);
        let url = challenge
            .unwrap()
            .url(&Url::parse("https://reg.test").unwrap(), "x");
        assert_eq!(
            url.unwrap().as_str(),
            "https://auth.test/token?a=b&service=reg+%221%22&scope=repository%3Aa%2Fb%3Apull\
             &scope=repository%3Ac%3Apull"
        );
        for none in [
            &[][..],
            &["Basic realm=\"x\""],
            &["Bearer"],
            &["Bearer realm=\"x"],
        ] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }

    #[test]
    fn without_a_scope_it_is_that_of_the_repository() {
        let url = url("https://auth.test/t", "https://reg.test").unwrap();
        assert_eq!(url, "https://auth.test/t?scope=repository%3Aa%2Fb%3Apull");
    }

    #[test]
    fn credentials_go_to_no_weaker_place_than_the_registry() {
        for (realm, registry) in [
            ("http://auth.test/t", "https://reg.test"),
            ("http://reg.test/t", "https://reg.test"),
            ("ftp://reg.test/t", "http://reg.test"),
            ("file:///etc/passwd", "http://reg.test"),
            ("/token", "http://reg.test"),
            ("https://u:p@auth.test/t", "https://reg.test"),
            ("https://169.254.169.254/latest", "https://reg.test"),
            ("http://127.0.0.1/t", "http://reg.test"),
            ("http://[::1]/t", "http://127.0.0.1"),
            ("http://[::ffff:10.0.0.1]/t", "http://reg.test"),
            ("http://2130706433/t", "http://reg.test"),
            ("http://[fd00::1]/t", "http://reg.test"),
            ("http://0.0.0.0/t", "http://reg.test"),
            ("http://LOCALHOST/t", "http://reg.test"),
            ("https://a.localhost./t", "https://reg.test"),
        ] {
            assert!(url(realm, registry).is_err(), "{realm}");
        }
        for (realm, registry) in [
            ("https://auth.test/t", "http://reg.test"),
            ("http://auth.test/t", "http://reg.test"),
            ("http://127.0.0.1:2/t", "http://127.0.0.1:1"),
            ("http://localhost:2/t", "http://localhost:1"),
        ] {
            assert!(url(realm, registry).is_ok(), "{realm}");
        }
    }
}
