//! Requests to whole URLs: registries send their clients to other hosts, which must not learn what
//! is meant for the registry alone.

use http::header::{AUTHORIZATION, LOCATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::{Response, Url};

use super::{Service, ServiceError, user_agent};

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 10;

/// What a request says about who sends it.
#[derive(Clone, Copy)]
pub(crate) enum Proof<'a> {
    /// The service's credentials.
    Credentials,
    /// This `Authorization` instead.
    Header(&'a HeaderValue),
}

impl Service {
    /// Asks for `url` with this service's client, follows redirects, and waits for the headers of
    /// the response.
    ///
    /// The proof is for the origin of `url` alone: it is not sent to where a redirect leads, nor
    /// on a way back from there. The service's own headers are for the service's origin alone. As
    /// with any request to the service, all connections of its client show its certificate.
    ///
    /// # Errors
    /// When a request can't be made, no response comes, it comes too late, or redirects lead from
    /// `https` to `http` or on and on.
    pub(crate) async fn send(
        &self,
        method: &Method,
        mut url: Url,
        headers: &HeaderMap,
        proof: Proof<'_>,
    ) -> Result<Response, ServiceError> {
        let mut proof = Some(proof);
        for _ in 0..=MAX_REDIRECTS {
            let response = self.send_once(method, &url, headers, proof).await?;
            let Some(next) = redirected(&url, &response)? else {
                return Ok(response);
            };
            if next.origin() != url.origin() {
                proof = None;
            }
            url = next;
        }
        Err(ServiceError::text("too many redirects"))
    }

    async fn send_once(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        proof: Option<Proof<'_>>,
    ) -> Result<Response, ServiceError> {
        let mut request = http::Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(USER_AGENT, user_agent());
        if let Some(all) = request.headers_mut() {
            if proof.is_some() && self.is_origin_of(url) {
                for (name, value) in &self.headers {
                    all.insert(name, value.clone());
                }
            }
            all.extend(headers.clone());
            if let Some(Proof::Header(value)) = proof {
                all.insert(AUTHORIZATION, value.clone());
            }
        }
        let (mut parts, ()) = request.body(()).map_err(ServiceError::new)?.into_parts();
        if let Some(Proof::Credentials) = proof {
            self.authorize(&mut parts).await?;
        }
        self.execute(parts, std::time::Duration::ZERO).await
    }

    fn is_origin_of(&self, url: &Url) -> bool {
        Url::parse(&self.url).is_ok_and(|own| own.origin() == url.origin())
    }
}

/// Where a response sends its client.
fn redirected(from: &Url, response: &Response) -> Result<Option<Url>, ServiceError> {
    let location = response.headers().get(LOCATION);
    let (Some(location), 301 | 302 | 303 | 307 | 308) = (location, response.status().as_u16())
    else {
        return Ok(None);
    };
    let next = location.to_str().ok().and_then(|text| from.join(text).ok());
    let Some(mut next) = next.filter(|next| matches!(next.scheme(), "http" | "https")) else {
        return Err(ServiceError::text("a redirect leads to no HTTP URL"));
    };
    if from.scheme() == "https" && next.scheme() != "https" {
        return Err(ServiceError::text(
            "a redirect leads from `https` to `http`",
        ));
    }
    // Both are possible for any URL of these schemes.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    next.set_fragment(None);
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(from: &str, status: u16, location: Option<&str>) -> Result<Option<String>, String> {
        let mut response = http::Response::builder().status(status);
        if let Some(location) = location {
            response = response.header(LOCATION, location);
        }
        let response = Response::from(response.body("").unwrap());
        let next = redirected(&Url::parse(from).unwrap(), &response);
        let next = next.map_err(|error| error.to_string())?;
        Ok(next.map(String::from))
    }

    #[test]
    fn redirects_lead_on_but_never_to_a_weaker_scheme() {
        let from = "https://a.test/v2/x";
        for (status, location, next) in [
            (307, "https://b.test/y?z", "https://b.test/y?z"),
            (302, "/y", "https://a.test/y"),
            (308, "https://u:p@b.test/y#z", "https://b.test/y"),
        ] {
            assert_eq!(leads(from, status, Some(location)), Ok(Some(next.into())));
        }
        assert_eq!(leads(from, 200, Some("/y")), Ok(None));
        assert_eq!(leads(from, 300, Some("/y")), Ok(None));
        assert_eq!(leads(from, 302, None), Ok(None));
        for location in ["http://a.test/y", "ftp://b.test/y", "file:///y", "http://"] {
            assert!(leads(from, 302, Some(location)).is_err(), "{location}");
        }
        let up = leads("http://a.test/x", 302, Some("https://a.test/x"));
        assert_eq!(up, Ok(Some("https://a.test/x".into())));
    }
}
