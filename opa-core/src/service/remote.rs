//! Requests to whole URLs: registries send their clients to other hosts, which must not learn what
//! is meant for the registry alone.

use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};
use reqwest::{Response, Url};

use super::{Service, ServiceError, target, user_agent};

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
    pub(crate) async fn ask(
        &self,
        method: &Method,
        mut url: Url,
        headers: &HeaderMap,
        proof: Proof<'_>,
    ) -> Result<Response, ServiceError> {
        let mut proof = Some(proof);
        for _ in 0..=target::MAX_REDIRECTS {
            let request = self.proven(method, &url, headers, proof).await?;
            let response = self.send_now(request).await?;
            let Some(next) = redirected(&url, &response)? else {
                return Ok(response);
            };
            if !target::is_same_server(&next, &url) {
                proof = None;
            }
            url = next;
        }
        Err(target::too_many())
    }

    async fn proven(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        proof: Option<Proof<'_>>,
    ) -> Result<reqwest::Request, ServiceError> {
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
        let request = http::Request::from_parts(parts, Vec::new());
        let request = reqwest::Request::try_from(request);
        request.map_err(|error| ServiceError::new(error.without_url()))
    }

    fn is_origin_of(&self, url: &Url) -> bool {
        Url::parse(&self.url).is_ok_and(|own| target::is_same_server(&own, url))
    }
}

/// Where a response sends its client.
fn redirected(from: &Url, response: &Response) -> Result<Option<Url>, ServiceError> {
    let Some(mut next) = target::redirect(response, from)? else {
        return Ok(None);
    };
    if from.scheme() == "https" && next.scheme() != "https" {
        return Err(ServiceError::text(
            "a redirect leads from `https` to `http`",
        ));
    }
    // Both are possible for any URL of these schemes.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    Ok(Some(next))
}

#[cfg(test)]
mod tests {
    use http::header::LOCATION;
    use reqwest::ResponseBuilderExt;

    use super::*;

    fn leads(from: &str, location: &str) -> Result<Option<String>, String> {
        let from = Url::parse(from).unwrap();
        let response = http::Response::builder()
            .status(307)
            .url(from.clone())
            .header(LOCATION, location);
        let response = Response::from(response.body("").unwrap());
        let next = redirected(&from, &response).map_err(|error| error.to_string())?;
        Ok(next.map(String::from))
    }

    #[test]
    fn redirects_lead_on_but_never_to_a_weaker_scheme() {
        let from = "https://a.test/v2/x";
        for (location, next) in [
            ("https://b.test/y?z", "https://b.test/y?z"),
            ("/y", "https://a.test/y"),
            ("https://u:p@b.test/y", "https://b.test/y"),
        ] {
            assert_eq!(leads(from, location), Ok(Some(next.into())));
        }
        for location in ["http://a.test/y", "ftp://b.test/y", "file:///y", "http://"] {
            assert!(leads(from, location).is_err(), "{location}");
        }
        let up = leads("http://a.test/x", "https://a.test/x");
        assert_eq!(up, Ok(Some("https://a.test/x".into())));
    }
}
