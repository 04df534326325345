//! A running server of S3's protocol that checks signatures.

use std::io;
use std::net::SocketAddr;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4::SigningParams;
use bytes::Bytes;
use http::{Method, Request, StatusCode};

use super::ports::Port;
use super::process::Process;
use crate::http_client;

/// The region of all of them.
pub const S3_REGION: &str = "eu-central-1";

/// A server, ended when dropped, with a bucket `bundles` and keys that may do anything.
#[derive(Debug)]
pub struct RunningS3 {
    process: Process,
    /// The first one is S3's.
    ports: Vec<Port>,
    access_key: String,
    secret_key: String,
}

impl RunningS3 {
    /// Makes the bucket in a server that just started.
    pub(super) async fn with_bucket(
        process: Process,
        ports: Vec<Port>,
        access_key: &str,
        secret_key: &str,
    ) -> RunningS3 {
        let server = RunningS3 {
            process,
            ports,
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
        };
        let configuration = format!(
            "<CreateBucketConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
             <LocationConstraint>{S3_REGION}</LocationConstraint></CreateBucketConfiguration>"
        );
        server
            .send(Method::PUT, "/bundles", configuration.into())
            .await;
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.ports[0].address()
    }

    /// The URL of the bucket, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}/bundles", self.address())
    }

    /// The environment of a process that may read the bucket.
    pub fn environment(&self) -> [(&'static str, &str); 5] {
        [
            // None of those that run the tests.
            ("AWS_SESSION_TOKEN", ""),
            ("AWS_SECURITY_TOKEN", ""),
            ("AWS_ACCESS_KEY_ID", &self.access_key),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_key),
            ("AWS_REGION", S3_REGION),
        ]
    }

    /// Puts an object into the bucket, with a signed request.
    ///
    /// # Panics
    ///
    /// When the server refuses it.
    pub async fn put(&self, encoded_key: &str, object: Vec<u8>) {
        let path = format!("/bundles/{encoded_key}");
        self.send(Method::PUT, &path, object.into()).await;
    }

    /// Takes an object out of the bucket.
    ///
    /// # Panics
    ///
    /// When the server refuses to.
    pub async fn delete(&self, encoded_key: &str) {
        let path = format!("/bundles/{encoded_key}");
        self.send(Method::DELETE, &path, Bytes::new()).await;
    }

    /// An object of the bucket.
    ///
    /// # Panics
    ///
    /// When the server refuses to.
    pub async fn get(&self, encoded_key: &str) -> Bytes {
        let path = format!("/bundles/{encoded_key}");
        self.send(Method::GET, &path, Bytes::new()).await
    }

    /// The keys of the bucket that start so, at most 1,000, sorted. Only characters that XML leaves
    /// alone are read right.
    ///
    /// # Panics
    ///
    /// When the server refuses to.
    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let path = "/bundles?list-type=2&max-keys=1000";
        let listing = self.send(Method::GET, path, Bytes::new()).await;
        let listing = String::from_utf8_lossy(&listing);
        let keys = listing.split("<Key>").skip(1);
        let mut keys: Vec<_> = keys
            .filter_map(|rest| Some(rest.split_once("</Key>")?.0.to_owned()))
            .filter(|key| key.starts_with(prefix))
            .collect();
        keys.sort();
        keys
    }

    /// The process, for its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Bytes {
        let request = self
            .signed(method, path, body)
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let response = http_client::send(self.address(), request)
            .await
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        let wanted = [StatusCode::OK, StatusCode::NO_CONTENT];
        assert!(wanted.contains(&response.status()), "{path}: {response:?}");
        response.into_body()
    }

    fn signed(&self, method: Method, path: &str, body: Bytes) -> io::Result<Request<Bytes>> {
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let identity = Credentials::new(&self.access_key, &self.secret_key, None, None, "test");
        let identity = identity.into();
        let parameters = SigningParams::builder()
            .identity(&identity)
            .region(S3_REGION)
            .name("s3")
            .time(SystemTime::now())
            .settings(settings)
            .build()
            .map_err(io::Error::other)?
            .into();
        let url = format!("http://{}{path}", self.address());
        let signable = SignableRequest::new(
            method.as_str(),
            url,
            std::iter::empty(),
            SignableBody::Bytes(&body),
        );
        let signed = sign(signable.map_err(io::Error::other)?, &parameters);
        let (instructions, _) = signed.map_err(io::Error::other)?.into_parts();
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in instructions.headers() {
            request = request.header(name, value);
        }
        request.body(body).map_err(io::Error::other)
    }
}
