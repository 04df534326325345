//! OTLP over gRPC.

use std::fmt;
use std::time::Duration;

use ::http::HeaderMap;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use tokio::sync::OnceCell;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Extensions, Request, Status};
use tonic_types::StatusExt;

use super::super::super::output::OutputError;
use super::answer::{Accepted, Refused, causes, text};
use super::config::Target;
use super::http::{USER_AGENT, authorities, read};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection that leads nowhere any more ends.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The longest delay that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// One connection, made when it is needed and again when it is lost.
pub(super) struct Sender {
    endpoint: Endpoint,
    /// It needs a runtime: that of the first request.
    channel: OnceCell<Channel>,
    gzip: bool,
}

impl Sender {
    pub(super) fn new(target: &Target) -> Result<Self, String> {
        let endpoint = Endpoint::from_shared(target.endpoint.to_string());
        let mut endpoint = endpoint
            .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
            .map_err(|error| causes(&error))?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        if target.endpoint.scheme() == "https" {
            let tls = endpoint.tls_config(tls(target)?);
            endpoint = tls.map_err(|error| causes(&error))?;
        }
        Ok(Self {
            endpoint,
            channel: OnceCell::new(),
            gzip: target.gzip,
        })
    }

    pub(super) async fn send(
        &self,
        request: ExportLogsServiceRequest,
        headers: &HeaderMap,
    ) -> Result<Accepted, Refused> {
        let channel = self
            .channel
            .get_or_init(async || self.endpoint.connect_lazy());
        let mut client = LogsServiceClient::new(channel.await.clone());
        if self.gzip {
            // Go's servers answer as they were asked.
            client = client
                .send_compressed(CompressionEncoding::Gzip)
                .accept_compressed(CompressionEncoding::Gzip);
        }
        let metadata = MetadataMap::from_headers(headers.clone());
        let request = Request::from_parts(metadata, Extensions::new(), request);
        match client.export(request).await {
            Ok(response) => Ok(response.into_inner().into()),
            Err(status) => Err(refused(&status)),
        }
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

fn tls(target: &Target) -> Result<ClientTlsConfig, String> {
    let mut tls = ClientTlsConfig::new();
    tls = match &target.tls.ca_cert {
        Some(path) => tls.ca_certificate(Certificate::from_pem(authorities(path)?.0)),
        None => tls.with_native_roots(),
    };
    if let Some((cert, key)) = &target.tls.own {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(tls)
}

fn refused(status: &Status) -> Refused {
    let said = text(status.message());
    let message = match std::error::Error::source(status) {
        // Nobody answered.
        Some(cause) => causes(cause),
        None if said.is_empty() => format!("server replied with gRPC {:?}", status.code()),
        None => format!("server replied with gRPC {:?}: {said}", status.code()),
    };
    // Both are the words of servers, Go's and tonic's; the code alone can mean a quota.
    let is_size = said.contains("larger than max") || said.contains("length too large");
    match status.code() {
        Code::ResourceExhausted | Code::OutOfRange if is_size => Refused::TooLarge(message),
        Code::InvalidArgument => Refused::Invalid(message),
        _ => {
            let mut error = OutputError::new(message);
            let after = status.get_details_retry_info();
            let after = after.and_then(|info| info.retry_delay);
            error.retry_after = after.map(|after| after.min(MAX_RETRY_AFTER));
            Refused::Now(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_status_tells_whether_it_is_of_use_to_try_again() {
        let large = Status::resource_exhausted(
            "grpc: received message larger than max (5000000 vs. 4194304)",
        );
        assert!(matches!(refused(&large), Refused::TooLarge(_)));
        let invalid = refused(&Status::invalid_argument("no"));
        let text = "server replied with gRPC InvalidArgument: no";
        assert_eq!(invalid, Refused::Invalid(text.to_owned()));
        for status in [
            Status::resource_exhausted("quota"),
            Status::unauthenticated(""),
            Status::unavailable("gone"),
            Status::unimplemented("no such service"),
        ] {
            assert!(matches!(refused(&status), Refused::Now(_)), "{status:?}");
        }
    }

    #[test]
    fn a_server_tells_when_it_wants_to_be_asked_again() {
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::from_secs(7)));
        let status = Status::with_error_details(Code::Unavailable, "busy", details);
        let Refused::Now(error) = refused(&status) else {
            panic!("it is an error that goes away");
        };
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
    }
}
