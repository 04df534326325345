//! OTLP over HTTP, in Protobuf.

use std::fmt;
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use ::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderMap, HeaderValue, StatusCode};
use flate2::Compression;
use flate2::write::GzEncoder;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message;
use reqwest::{Certificate, Client, Identity, Url};

use super::super::super::output::OutputError;
use super::answer::{Accepted, Refused, causes, text};
use super::config::Target;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read.
const MAX_ANSWER: usize = 64 * 1024;
/// The longest `Retry-After` that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);
const PROTOBUF: &str = "application/x-protobuf";

pub(super) const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

/// A client, with its pool of connections.
pub(super) struct Sender {
    client: Client,
    url: Url,
    gzip: bool,
}

impl Sender {
    pub(super) fn new(target: &Target) -> Result<Self, String> {
        let mut client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Headers may be secrets of this server.
            .redirect(reqwest::redirect::Policy::none())
            .tls_version_min(reqwest::tls::Version::TLS_1_2)
            .user_agent(USER_AGENT);
        if is_this_host(&target.endpoint) {
            client = client.no_proxy();
        }
        if let Some(path) = &target.tls.ca_cert {
            let (_, authorities) = authorities(path)?;
            client = client.tls_certs_only(authorities);
        }
        if let Some((cert, key)) = &target.tls.own {
            let pem = [read(cert)?, read(key)?].join(&b'\n');
            let identity = Identity::from_pem(&pem);
            let identity = identity.map_err(|error| format!("`{}`: {error}", cert.display()))?;
            client = client.identity(identity);
        }
        let client = client.build().map_err(|error| causes(&error))?;
        Ok(Self {
            client,
            url: target.endpoint.clone(),
            gzip: target.gzip,
        })
    }

    pub(super) async fn send(
        &self,
        request: &ExportLogsServiceRequest,
        headers: &HeaderMap,
    ) -> Result<Accepted, Refused> {
        let mut headers = headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        let mut body = request.encode_to_vec();
        if self.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            body = gzip(&body)?;
        }
        let request = self.client.post(self.url.clone()).headers(headers);
        let mut response = request.body(body).send().await.map_err(unsent)?;
        let mut answer = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(unsent)? {
            answer.extend_from_slice(&piece);
            if answer.len() > MAX_ANSWER {
                break;
            }
        }
        answered(response.status(), response.headers(), &answer)
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("`{}`: {error}", path.display()))
}

/// A file of authorities, as it is and as it is read.
pub(super) fn authorities(path: &Path) -> Result<(Vec<u8>, Vec<Certificate>), String> {
    let pem = read(path)?;
    let authorities = Certificate::from_pem_bundle(&pem);
    let authorities = authorities.map_err(|error| format!("`{}`: {error}", path.display()))?;
    if authorities.is_empty() {
        return Err(format!("`{}` has no certificate", path.display()));
    }
    Ok((pem, authorities))
}

/// As Go's programs, we never ask a proxy for our own host.
fn is_this_host(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn gzip(body: &[u8]) -> Result<Vec<u8>, Refused> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    let written = gzip.write_all(body).and_then(|()| gzip.finish());
    written.map_err(|error| Refused::Now(OutputError::new(error.to_string())))
}

/// URLs may have passwords: they are not shown.
fn unsent(error: reqwest::Error) -> Refused {
    Refused::Now(OutputError::new(causes(&error.without_url())))
}

fn answered(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<Accepted, Refused> {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_otlp = kind.is_some_and(|kind| kind.starts_with(PROTOBUF.as_bytes()));
    if status.is_success() {
        // An empty answer is one without anything to say.
        return match ExportLogsServiceResponse::decode(body) {
            Ok(response) => Ok(response.into()),
            Err(_) => Ok(Accepted::default()),
        };
    }
    let mut message = format!("server replied with HTTP {status}");
    if let Some(said) = said(body).filter(|_| is_otlp) {
        message = format!("{message}: {said}");
    }
    match status {
        StatusCode::PAYLOAD_TOO_LARGE => Err(Refused::TooLarge(message)),
        // If that is a collector's word, and not that of something else in its place.
        StatusCode::BAD_REQUEST if is_otlp => Err(Refused::Invalid(message)),
        _ => {
            let mut error = OutputError::new(message);
            error.http_code = Some(status.as_u16());
            error.retry_after = retry_after(headers);
            Err(Refused::Now(error))
        }
    }
}

/// The text of a `google.rpc.Status`.
fn said(body: &[u8]) -> Option<String> {
    let status = tonic_types::pb::Status::decode(body).ok()?;
    Some(text(&status.message)).filter(|text| !text.is_empty())
}

/// Seconds; OTLP's servers send no dates.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let after = Duration::from_secs(seconds.parse().ok()?);
    Some(after.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess;

    use super::*;

    fn answer(status: u16, kind: &'static str, body: &[u8]) -> Result<Accepted, Refused> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        answered(StatusCode::from_u16(status).unwrap(), &headers, body)
    }

    fn status(message: &str) -> Vec<u8> {
        let message = message.to_owned();
        let status = tonic_types::pb::Status {
            message,
            ..Default::default()
        };
        status.encode_to_vec()
    }

    #[test]
    fn success_may_be_partial() {
        assert_eq!(answer(200, PROTOBUF, b""), Ok(Accepted::default()));
        let response = ExportLogsServiceResponse {
            partial_success: Some(ExportLogsPartialSuccess {
                rejected_log_records: 2,
                error_message: "too\nold".to_owned(),
            }),
        };
        let wanted = Accepted {
            rejected: 2,
            message: "too old".to_owned(),
        };
        assert_eq!(answer(200, PROTOBUF, &response.encode_to_vec()), Ok(wanted));
    }

    #[test]
    fn only_a_collectors_word_that_a_request_is_invalid_counts() {
        let invalid = answer(400, PROTOBUF, &status("no"));
        let text = "server replied with HTTP 400 Bad Request: no";
        assert_eq!(invalid, Err(Refused::Invalid(text.to_owned())));
        for (code, kind) in [(400, "text/html"), (401, PROTOBUF), (404, PROTOBUF)] {
            let answer = answer(code, kind, &status("no")).unwrap_err();
            assert!(matches!(answer, Refused::Now(_)), "{code} {answer:?}");
        }
        let large = answer(413, "text/html", b"<html>").unwrap_err();
        assert!(matches!(large, Refused::TooLarge(_)), "{large:?}");
    }

    #[test]
    fn a_server_tells_when_it_wants_to_be_asked_again() {
        let Err(Refused::Now(error)) = answer(503, PROTOBUF, &status("busy")) else {
            panic!("it is an error that goes away");
        };
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
        assert_eq!(error.http_code, Some(503));
        assert!(error.message.ends_with(": busy"), "{error}");
    }
}
