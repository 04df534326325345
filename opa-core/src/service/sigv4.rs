use std::sync::Arc;

use aws_credential_types::Credentials as Identity;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningInstructions,
    SigningParams, SigningSettings, UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use http::header::HOST;
use http::request::Parts;
use http::uri::{PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, Uri};
use opa_rego::eval::Clock;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use tracing::subscriber::{NoSubscriber, with_default};

use super::credentials::{Credentials, CredentialsError, CredentialsFuture};
use crate::config::{EnvPolicy, Lookedup, S3SigningConfig};

/// `credentials.s3_signing`: requests and their bodies are signed with AWS Signature Version 4.
///
/// All headers are signed but those that AWS's own clients leave out (`user-agent` and others that
/// proxies change), and those that the HTTP client adds later.
pub(super) struct Signer {
    config: S3SigningConfig,
    env: EnvPolicy,
    clock: Arc<dyn Clock>,
}

/// What the environment gives.
struct Keys {
    identity: Identity,
    region: String,
}

impl Signer {
    pub(super) fn new(config: &S3SigningConfig, env: EnvPolicy, clock: Arc<dyn Clock>) -> Self {
        Self {
            config: config.clone(),
            env,
            clock,
        }
    }

    fn sign(&self, request: &mut Parts) -> Result<(), CredentialsError> {
        let keys = Keys::new(&self.config, &self.env)?;
        if self.is_s3() {
            request.uri = s3_uri(&request.uri)?;
        }
        // The signer's trace would show the values of all headers.
        let instructions = with_default(NoSubscriber::new(), || self.instructions(request, keys))?;
        for header in instructions.into_parts().0 {
            let mut value = HeaderValue::try_from(header.value()).map_err(unsignable)?;
            value.set_sensitive(header.sensitive() || header.name() == "authorization");
            let name = HeaderName::from_static(header.name());
            request.headers.insert(name, value);
        }
        Ok(())
    }

    fn instructions(
        &self,
        request: &Parts,
        keys: Keys,
    ) -> Result<SigningInstructions, CredentialsError> {
        let identity = keys.identity.into();
        let parameters: SigningParams<'_> = v4::SigningParams::builder()
            .identity(&identity)
            .region(&keys.region)
            .name(&self.config.service)
            .time(self.clock.wall())
            .settings(self.settings())
            .build()
            .map_err(unsignable)?
            .into();
        let (uri, host) = (request.uri.to_string(), host(request)?);
        let mut headers = vec![(HOST.as_str(), &*host)];
        for (name, value) in request.headers.iter().filter(|(name, _)| *name != HOST) {
            let value = std::str::from_utf8(value.as_bytes()).map_err(unsignable)?;
            headers.push((name.as_str(), value));
        }
        let body = request.extensions.get::<super::Body>();
        let body = body.map_or(SignableBody::empty(), |body| SignableBody::Bytes(&body.0));
        let method = request.method.as_str();
        let signable = SignableRequest::new(method, uri, headers.into_iter(), body);
        let signed = sign(signable.map_err(unsignable)?, &parameters).map_err(unsignable)?;
        Ok(signed.into_parts().0)
    }

    /// S3 reads a path as it is; for other services it is normalised and encoded once more (IAM
    /// User Guide, "Create a signed AWS API request").
    fn settings(&self) -> SigningSettings {
        let mut settings = SigningSettings::default();
        if self.is_s3() {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        // As OPA does.
        if self.is_s3() || self.config.service == "glacier" {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        settings
    }

    fn is_s3(&self) -> bool {
        self.config.service == "s3"
    }
}

impl Credentials for Signer {
    fn authorize<'a>(&'a self, request: &'a mut Parts) -> CredentialsFuture<'a> {
        Box::pin(std::future::ready(self.sign(request)))
    }
}

impl Keys {
    fn new(config: &S3SigningConfig, env: &EnvPolicy) -> Result<Self, CredentialsError> {
        let identity = match &config.keys {
            Some(keys) => {
                let (id, secret) = (&keys.access_key_id, keys.secret_access_key.expose());
                Identity::new(id, secret, None, None, "configuration")
            }
            None => Self::identity(env)?,
        };
        let region = match &config.region {
            Some(region) => region.clone(),
            None => required(env, "AWS_REGION")?,
        };
        Ok(Self { identity, region })
    }

    fn identity(env: &EnvPolicy) -> Result<Identity, CredentialsError> {
        let key = required(env, "AWS_ACCESS_KEY_ID")?;
        let secret = required(env, "AWS_SECRET_ACCESS_KEY")?;
        let token = match variable(env, "AWS_SESSION_TOKEN")? {
            Some(token) => Some(token),
            // The older name.
            None => variable(env, "AWS_SECURITY_TOKEN")?,
        };
        Ok(Identity::new(key, secret, token, None, "environment"))
    }
}

fn required(env: &EnvPolicy, name: &str) -> Result<String, CredentialsError> {
    // OPA's words.
    let missing = || CredentialsError::new(format!("no {name} set in environment"));
    variable(env, name)?.ok_or_else(missing)
}

/// A variable that is empty is none, as in OPA.
fn variable(env: &EnvPolicy, name: &str) -> Result<Option<String>, CredentialsError> {
    match env.look_up(name) {
        Lookedup::Value(value) => Ok(Some(value).filter(|value| !value.is_empty())),
        Lookedup::Unset | Lookedup::Forbidden => Ok(None),
        Lookedup::NotUtf8 => Err(CredentialsError::new(format!(
            "{name} of the environment is not UTF-8"
        ))),
    }
}

/// The `Host` that will be sent.
fn host(request: &Parts) -> Result<String, CredentialsError> {
    if let Some(host) = request.headers.get(HOST) {
        return Ok(host.to_str().map_err(unsignable)?.to_owned());
    }
    let host = request.uri.host().unwrap_or_default();
    let default = match request.uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => 443,
        _ => 80,
    };
    Ok(match request.uri.port_u16() {
        Some(port) if port != default => format!("{host}:{port}"),
        _ => host.to_owned(),
    })
}

/// What S3 leaves as it is (RFC 3986's unreserved characters).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The path in the one encoding that S3 makes of a key before it checks the signature. Without
/// this `a+b` can't be read: servers refuse OPA's signature of it, which is over `+` as it stands.
fn s3_uri(uri: &Uri) -> Result<Uri, CredentialsError> {
    let encoded = |part| {
        let bytes: Vec<u8> = percent_decode_str(part).collect();
        percent_encode(&bytes, UNRESERVED).to_string()
    };
    let path: Vec<_> = uri.path().split('/').map(encoded).collect();
    let mut path = path.join("/");
    if let Some(query) = uri.query() {
        path = format!("{path}?{query}");
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(unsignable)?);
    Uri::from_parts(parts).map_err(unsignable)
}

/// The texts of these errors name no values.
fn unsignable(error: impl std::error::Error) -> CredentialsError {
    CredentialsError::new(format!("the request can't be signed: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    /// Always the same time, in seconds since 1970.
    #[derive(Debug)]
    struct At(u64);

    impl Clock for At {
        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(self.0)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }
    }

    /// 2013-05-24T00:00:00Z
    const S3_TIME: u64 = 1_369_353_600;
    /// 2015-08-30T12:36:00Z
    const SUITE_TIME: u64 = 1_440_938_160;
    const S3_SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const SUITE_SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn signer(service: &str, time: u64, variables: &[(&'static str, &'static str)]) -> Signer {
        let variables = variables.to_vec();
        let env = EnvPolicy::default().with_lookup(move |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| value.into())
        });
        let config = S3SigningConfig {
            service: service.to_owned(),
            ..S3SigningConfig::default()
        };
        Signer::new(&config, env, Arc::new(At(time)))
    }

    /// What the configuration has counts more than the environment.
    #[test]
    fn keys_and_region_may_be_configured() {
        let config = S3SigningConfig {
            region: Some("eu-central-1".to_owned()),
            keys: Some(crate::config::S3Keys {
                access_key_id: "AKIDCONFIG".to_owned(),
                secret_access_key: crate::config::Secret::new("secret"),
            }),
            ..S3SigningConfig::default()
        };
        let env = EnvPolicy::default().with_lookup(|_| Some("other".into()));
        let signer = Signer::new(&config, env, Arc::new(At(S3_TIME)));
        let mut request = get("https://b.test/key", &[]);
        signer.sign(&mut request).unwrap();
        let signature = request.headers["authorization"].to_str().unwrap();
        let scope = "Credential=AKIDCONFIG/20130524/eu-central-1/s3/aws4_request";
        assert!(signature.contains(scope), "{signature}");
        assert!(!request.headers.contains_key("x-amz-security-token"));
    }

    fn keys(
        key: &'static str,
        secret: &'static str,
        region: &'static str,
    ) -> [(&'static str, &'static str); 3] {
        [
            ("AWS_ACCESS_KEY_ID", key),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", region),
        ]
    }

    fn get(url: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn authorization(request: &Parts) -> &str {
        request.headers["authorization"].to_str().unwrap()
    }

    fn signed(url: &str, headers: &[(&str, &str)]) -> Parts {
        let keys = keys("AKIAIOSFODNN7EXAMPLE", S3_SECRET, "us-east-1");
        let mut request = get(url, headers);
        signer("s3", S3_TIME, &keys).sign(&mut request).unwrap();
        request
    }

    /// "Signature Calculations for the Authorization Header" of the S3 API Reference.
    #[test]
    fn the_examples_of_s3_are_met() {
        let host = "https://examplebucket.s3.amazonaws.com";
        for (target, range, headers, signature) in [
            (
                "/test.txt",
                &[("range", "bytes=0-9")][..],
                "host;range;x-amz-content-sha256;x-amz-date",
                "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
            ),
            (
                "/?lifecycle",
                &[],
                "host;x-amz-content-sha256;x-amz-date",
                "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
            ),
            (
                "/?max-keys=2&prefix=J",
                &[],
                "host;x-amz-content-sha256;x-amz-date",
                "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
            ),
        ] {
            let request = signed(&format!("{host}{target}"), range);
            let wanted = format!(
                "AWS4-HMAC-SHA256 \
                 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
                 SignedHeaders={headers}, Signature={signature}"
            );
            assert_eq!(authorization(&request), wanted);
            assert_eq!(request.headers["x-amz-content-sha256"], EMPTY);
            assert_eq!(request.headers["x-amz-date"], "20130524T000000Z");
        }
    }

    /// `get-vanilla`, `get-vanilla-with-session-token` and `get-vanilla-query-order-encoded` of
    /// AWS's test suite for Signature Version 4.
    #[test]
    fn the_examples_of_other_services_are_met() {
        const TOKEN: &str = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
        for (target, token, signature) in [
            (
                "",
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                "",
                TOKEN,
                "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8",
            ),
            (
                "?Param-3=Value3&Param=Value2&%E1%88%B4=Value1",
                "",
                "371d3713e185cc334048618a97f809c9ffe339c62934c032af5a0e595648fcac",
            ),
        ] {
            let keys = keys("AKIDEXAMPLE", SUITE_SECRET, "us-east-1");
            for name in ["AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"] {
                let all = [&keys[..], &[(name, token)]].concat();
                let mut request = get(&format!("https://example.amazonaws.com/{target}"), &[]);
                signer("service", SUITE_TIME, &all)
                    .sign(&mut request)
                    .unwrap();
                let authorization = authorization(&request);
                assert!(
                    authorization.ends_with(signature),
                    "{target} {authorization}"
                );
                let sent = request.headers.get("x-amz-security-token");
                assert_eq!(sent.is_some(), !token.is_empty());
                assert!(sent.is_none_or(HeaderValue::is_sensitive));
                assert!(!request.headers.contains_key("x-amz-content-sha256"));
            }
        }
    }

    /// What botocore 1.44.5 makes of the same requests.
    #[test]
    fn signatures_are_botocores() {
        for (service, url, token, signature) in [
            (
                "execute-api",
                "https://example.amazonaws.com/a%20b/%C3%BC+(x)/../k?b=c%20d&a=%2B",
                "",
                "a0a7075ad7c3f0c1e539eb1a943bd8732bf618f805922e31f7faf2ed507e960a",
            ),
            (
                "s3",
                "https://b.test/b/a%20b%2Bc/%C3%BC%25%20(x)/k?versionId=a%2Fb%3D&x",
                "tok",
                "d03b1474c9848b338d347121adb1e6d2a2fe76ae2da013d4d914053caf933011",
            ),
            (
                "s3",
                "http://127.0.0.1:9000/b//k",
                "tok",
                "f344521955aa9895760a2f443edaa1e09e08f382f13fda29d80960fa4194e880",
            ),
        ] {
            let keys = keys("AKIDEXAMPLE", SUITE_SECRET, "eu-central-1");
            let all = [&keys[..], &[("AWS_SESSION_TOKEN", token)]].concat();
            let headers = [("x-team", "red  blue"), ("if-none-match", "\"e\"")];
            let mut request = get(url, &headers);
            signer(service, SUITE_TIME, &all)
                .sign(&mut request)
                .unwrap();
            let authorization = authorization(&request);
            assert!(authorization.ends_with(signature), "{url} {authorization}");
        }
    }

    /// `post-x-www-form-urlencoded` of AWS's test suite for Signature Version 4.
    #[test]
    fn a_body_is_signed() {
        let keys = keys("AKIDEXAMPLE", SUITE_SECRET, "us-east-1");
        let mut request = get(
            "https://example.amazonaws.com/",
            &[("content-type", "application/x-www-form-urlencoded")],
        );
        request.method = http::Method::POST;
        let body = super::super::Body(bytes::Bytes::from_static(b"Param1=value1"));
        request.extensions.insert(body);
        signer("service", SUITE_TIME, &keys)
            .sign(&mut request)
            .unwrap();
        let signature = "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a";
        let authorization = authorization(&request);
        assert!(authorization.ends_with(signature), "{authorization}");
    }

    #[test]
    fn the_newer_name_of_the_token_comes_first() {
        let keys = keys("A", "s", "r");
        let tokens = [("AWS_SECURITY_TOKEN", "old"), ("AWS_SESSION_TOKEN", "new")];
        let mut request = get("https://b.test/k", &[]);
        let all = [&keys[..], &tokens].concat();
        signer("s3", 0, &all).sign(&mut request).unwrap();
        assert_eq!(request.headers["x-amz-security-token"], "new");
    }

    #[test]
    fn all_headers_are_signed_but_those_that_change_on_the_way() {
        let request = signed(
            "http://127.0.0.1:9000/b/k",
            &[
                ("user-agent", "Open-Policy-Agent/1"),
                ("authorization", "Bearer configured"),
                ("x-team", "red"),
                ("if-none-match", "\"e\""),
                ("prefer", "modes=snapshot"),
            ],
        );
        let names =
            "SignedHeaders=host;if-none-match;prefer;x-amz-content-sha256;x-amz-date;x-team,";
        assert!(authorization(&request).contains(names));
        assert_eq!(request.headers.get_all("authorization").iter().count(), 1);
        assert!(request.headers["authorization"].is_sensitive());
    }

    #[test]
    fn the_host_is_the_one_that_is_sent() {
        for (url, headers, wanted) in [
            ("http://b.test:80/k", &[][..], "b.test"),
            ("https://b.test:443/k", &[], "b.test"),
            ("https://b.test:80/k", &[], "b.test:80"),
            ("http://user:pw@b.test:9000/k", &[], "b.test:9000"),
            ("http://[::1]:9000/k", &[], "[::1]:9000"),
            (
                "http://b.test:9000/k",
                &[("host", "other.test")],
                "other.test",
            ),
        ] {
            assert_eq!(host(&get(url, headers)).unwrap(), wanted, "{url}");
        }
    }

    #[test]
    fn a_key_has_one_encoding() {
        for (sent, wanted) in [
            ("/b/a%20b", "/b/a%20b"),
            ("/b/a+b", "/b/a%2Bb"),
            ("/b/a%2bb", "/b/a%2Bb"),
            ("/b/%C3%BC%25%7e", "/b/%C3%BC%25~"),
            ("/b/%252e%252e/k", "/b/%252e%252e/k"),
            ("/b/a%2Fb//c/", "/b/a%2Fb//c/"),
            (
                "/b/(a)*'!$&,;=:@",
                "/b/%28a%29%2A%27%21%24%26%2C%3B%3D%3A%40",
            ),
            ("/b/%ff", "/b/%FF"),
            ("/b/a+b?x=a+b", "/b/a%2Bb?x=a+b"),
        ] {
            let request = signed(&format!("https://b.test{sent}"), &[]);
            assert_eq!(request.uri.path_and_query().unwrap(), wanted);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let all = keys("A", "s3cr3t", "r");
        for (missing, (name, _)) in all.iter().enumerate() {
            let mut some = all;
            some[missing].1 = "";
            let mut request = get("https://b.test/k", &[]);
            let error = signer("s3", 0, &some).sign(&mut request).unwrap_err();
            let wanted = format!("credentials: no {name} set in environment");
            assert_eq!(error.to_string(), wanted);
            assert!(request.headers.is_empty());
        }
    }

    #[test]
    fn values_that_no_header_can_carry_are_errors_without_them() {
        let all = keys("A", "s", "r");
        let token = [&all[..], &[("AWS_SESSION_TOKEN", "s3cr3t\n")]].concat();
        for variables in [
            &token[..],
            &keys("s3cr3t\n", "s", "r"),
            &keys("A", "s", "s3cr3t\n"),
        ] {
            let mut request = get("https://b.test/k", &[]);
            let error = signer("s3", 0, variables).sign(&mut request).unwrap_err();
            let error = format!("{error}");
            assert!(
                error.starts_with("credentials: the request can't be signed"),
                "{error}"
            );
            assert!(!error.contains("s3cr3t"), "{error}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn values_that_are_not_utf8_are_told() {
        use std::os::unix::ffi::OsStringExt;
        let env =
            EnvPolicy::default().with_lookup(|_| Some(std::ffi::OsString::from_vec(vec![0xff])));
        let error = required(&env, "AWS_REGION").unwrap_err();
        assert_eq!(
            error.to_string(),
            "credentials: AWS_REGION of the environment is not UTF-8"
        );
    }

    /// Sees what the signer would tell.
    #[derive(Default)]
    struct Listener(std::sync::atomic::AtomicUsize);

    impl tracing::Subscriber for Listener {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn event(&self, _: &tracing::Event<'_>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn headers_are_not_traced() {
        let listener = Arc::new(Listener::default());
        let heard = || listener.0.load(std::sync::atomic::Ordering::Relaxed);
        with_default(Arc::clone(&listener), || {
            signed("https://b.test/k", &[("x-secret", "s3cr3t")]);
            assert_eq!(heard(), 0);
            tracing::trace!("heard");
        });
        assert_eq!(heard(), 1);
    }
}
