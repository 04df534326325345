//! The output `otlp`: log records for an OpenTelemetry collector.

mod answer;
mod config;
mod environment;
mod grpc;
mod http;
mod record;

use std::collections::HashMap;
use std::iter;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ::http::HeaderMap;
use opa_core::config::{ConfigError, Section};
use opa_core::plugin::Scope;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use parking_lot::Mutex;
use prost::Message;

use self::answer::{Accepted, Refused};
use self::config::{Options, Protocol, Target};
use self::environment::Environment;
use super::super::output::{Batch, Output, OutputError, OutputFuture, OutputType};
use super::options::Warned;

/// Sends each event as a log record over OTLP (OpenTelemetry Protocol 1), by gRPC or HTTP.
///
/// | Option | Default | |
/// | --- | --- | --- |
/// | `protocol` | `http/protobuf` | or `grpc` |
/// | `endpoint` | `http://localhost:4318`, `http://localhost:4317` for gRPC | a URL; over HTTP `/v1/logs` is added, unless it ends so |
/// | `headers` | none | sent with each request |
/// | `timeout_seconds` | 10 | for each request |
/// | `compression` | `none` | or `gzip` |
/// | `tls.ca_cert` | the system's | a file of authorities (PEM) |
/// | `tls.cert`, `tls.private_key` | none | files of a certificate of our own (PEM) |
/// | `resource` | `service.name: opa` | attributes of the resource |
/// | `max_request_bytes` | 4000000 | larger batches are sent in parts; collectors take 4 MiB over gRPC |
///
/// What the section doesn't say may stand in the environment, under OpenTelemetry's names:
/// `OTEL_EXPORTER_OTLP_LOGS_…`, else `OTEL_EXPORTER_OTLP_…` with `PROTOCOL`, `ENDPOINT`, `HEADERS`,
/// `TIMEOUT`, `COMPRESSION`, `CERTIFICATE`, `CLIENT_CERTIFICATE` and `CLIENT_KEY`;
/// `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`. Headers and a certificate of our own that
/// stand there are for no endpoint that the section names: they may be secrets.
///
/// A record has the time of the decision, the name `opa.decision`, the event as its body, the
/// attributes `opa.decision_id` and `opa.path`, and the event's trace and span. What is nested deeper
/// than 24 levels is JSON text, as are integers of more than 64 bits. The resource has `opa.app`
/// and the labels as `opa.label.<name>`.
///
/// Events count as delivered when the collector says that it took them. Records that it rejects
/// (partial success), that are larger than it takes, or a request that it calls invalid, are given
/// up ([`OutputError::lost`]); after every other error the batch is sent again, more often than
/// OTLP asks for: a wrong key or path loses nothing. Over HTTP proxies of the environment are asked,
/// unless the endpoint is on this host; over gRPC they are not. Certificates are read when the first
/// app needs them.
#[derive(Debug, Default)]
pub struct Otlp {
    warned: Warned,
    environment: Environment,
    /// One for each target, however many apps use it; one that no app uses any more goes.
    senders: Mutex<HashMap<Target, Weak<Sender>>>,
}

impl OutputType for Otlp {
    fn open(&self, section: &Section, _: &Scope<'_>) -> Result<Arc<dyn Output>, ConfigError> {
        let mut warnings = Vec::new();
        let options = Options::read(section, self.environment, &mut warnings)?;
        self.warned.about(warnings);
        let sender = self.sender(&options.target);
        let sender = sender.map_err(|error| section.error(error))?;
        Ok(Arc::new(Exporter { sender, options }))
    }
}

impl Otlp {
    fn sender(&self, target: &Target) -> Result<Arc<Sender>, String> {
        let mut senders = self.senders.lock();
        if let Some(sender) = senders.get(target).and_then(Weak::upgrade) {
            return Ok(sender);
        }
        let sender = Arc::new(match target.protocol {
            Protocol::Http => Sender::Http(http::Sender::new(target)?),
            Protocol::Grpc => Sender::Grpc(Box::new(grpc::Sender::new(target)?)),
        });
        if senders.len() == senders.capacity() {
            // It would grow: first what no app uses any more goes, since endpoints can name apps.
            senders.retain(|_, sender| sender.strong_count() > 0);
        }
        senders.insert(target.clone(), Arc::downgrade(&sender));
        Ok(sender)
    }
}

/// Connections to one collector.
#[derive(Debug)]
enum Sender {
    Http(http::Sender),
    Grpc(Box<grpc::Sender>),
}

impl Sender {
    async fn send(
        &self,
        request: ExportLogsServiceRequest,
        headers: &HeaderMap,
        timeout: Duration,
    ) -> Result<Accepted, Refused> {
        let sending = async {
            match self {
                Self::Http(sender) => sender.send(&request, headers).await,
                Self::Grpc(sender) => sender.send(request, headers).await,
            }
        };
        let late = || Refused::Now(OutputError::new(format!("no answer within {timeout:?}")));
        tokio::time::timeout(timeout, sending)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

/// The output of one app.
#[derive(Debug)]
struct Exporter {
    sender: Arc<Sender>,
    options: Options,
}

impl Output for Exporter {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
        Box::pin(self.export(batch))
    }
}

impl Exporter {
    async fn export(&self, batch: &Batch) -> Result<(), OutputError> {
        // The last one is next.
        let mut waiting: Vec<_> = iter::once(0..batch.events.len()).collect();
        let mut lost = Lost::default();
        while let Some(part) = waiting.pop() {
            let request = self.request(batch, part.clone()).await?;
            let is_one = part.len() < 2;
            if request.encoded_len() > self.options.max_request_bytes && !is_one {
                waiting.extend(halves(&part));
                continue;
            }
            let (headers, timeout) = (&self.options.headers, self.options.timeout);
            match self.sender.send(request, headers, timeout).await {
                Ok(accepted) => lost.add(accepted.rejected.min(part.len()), accepted.message),
                Err(Refused::TooLarge(_)) if !is_one => waiting.extend(halves(&part)),
                Err(Refused::TooLarge(message) | Refused::Invalid(message)) => {
                    lost.add(part.len(), message);
                }
                Err(Refused::Now(error)) => return Err(error),
            }
        }
        lost.into_result()
    }

    /// Parsing is work: it is done off the runtime's threads.
    async fn request(
        &self,
        batch: &Batch,
        part: Range<usize>,
    ) -> Result<ExportLogsServiceRequest, OutputError> {
        let app = batch.app.clone();
        let events = batch.events.get(part).unwrap_or_default().to_vec();
        let attributes = self.options.resource.clone();
        let making =
            tokio::task::spawn_blocking(move || record::request(&app, attributes, &events));
        let made = making.await;
        made.map_err(|error| OutputError::new(format!("the request can't be made: {error}")))
    }
}

/// The first half last.
fn halves(part: &Range<usize>) -> [Range<usize>; 2] {
    let middle = part.start + part.len() / 2;
    [middle..part.end, part.start..middle]
}

/// What was given up, and the first reason.
#[derive(Debug, Default)]
struct Lost {
    events: usize,
    why: Option<String>,
}

impl Lost {
    fn add(&mut self, events: usize, why: String) {
        self.events += events;
        if events > 0 {
            self.why.get_or_insert(why);
        }
    }

    fn into_result(self) -> Result<(), OutputError> {
        let Some(why) = self.why else {
            return Ok(());
        };
        let text = format!("the collector rejected {} log records: {why}", self.events);
        let mut error = OutputError::new(text);
        error.is_permanent = true;
        error.lost = Some(self.events);
        Err(error)
    }
}

#[cfg(test)]
mod tests;
