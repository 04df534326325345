//! How events leave the process.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use opa_core::AppId;
use opa_core::plugin::Labels;
use opa_core::service::ServiceClient;

use super::super::chunk::Chunk;
use super::super::output::{Batch, LoggedEvent, Output, OutputError};
use super::super::{Batching, ReportingConfig, Trigger, WhenFull};
use super::outbox::{Outbox, Parcel};

/// How long a delivery may take as a whole, beside a service's own timeout for the answer.
const TIME: Duration = Duration::from_secs(60);

/// The longest wait between two tries of an output that takes batches.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// How many apps upload to one service at a time: one that hangs keeps no other waiting.
const UPLOADS: usize = 16;

/// How many apps deliver to outputs of one name at a time.
const DELIVERIES: usize = 64;

/// How parcels are made of what a spool has.
#[cfg(all(feature = "spool", unix))]
pub(super) enum Packing {
    Chunks {
        upload_size: usize,
        is_immediate: bool,
        max_per_second: Option<f64>,
    },
    Batches(Batching),
}

/// How the events of one lane leave the process.
pub(in super::super) enum Transport {
    /// OPA's own upload.
    Service {
        client: ServiceClient,
        resource: String,
        reporting: ReportingConfig,
    },
    /// Lines, written by the console's own thread.
    Console,
    /// Batches for an output.
    Output {
        output: Arc<dyn Output>,
        batching: Batching,
        buffer_bytes: Option<usize>,
        max_retry: Option<Duration>,
        labels: Labels,
    },
}

impl Transport {
    pub(super) fn outbox(&self, when_full: WhenFull) -> Outbox {
        match self {
            Self::Service { reporting, .. } => Outbox::chunks(reporting, when_full),
            Self::Console => Outbox::batches(Batching::default(), None, when_full),
            Self::Output {
                batching,
                buffer_bytes,
                ..
            } => Outbox::batches(*batching, *buffer_bytes, when_full),
        }
    }

    /// How parcels are made of what a spool has; `None` of what has none.
    #[cfg(all(feature = "spool", unix))]
    pub(super) fn packing(&self) -> Option<Packing> {
        match self {
            Self::Service { reporting, .. } => Some(Packing::Chunks {
                upload_size: usize::try_from(reporting.upload_size_limit_bytes)
                    .unwrap_or(usize::MAX),
                is_immediate: reporting.trigger == Trigger::Immediate,
                max_per_second: reporting.max_decisions_per_second,
            }),
            Self::Console => None,
            Self::Output { batching, .. } => Some(Packing::Batches(*batching)),
        }
    }

    pub(in super::super) fn is_console(&self) -> bool {
        matches!(self, Self::Console)
    }

    /// Who shares the way out with whom, and how many of them may use it at a time.
    pub(super) fn line(&self, name: &str) -> (Arc<str>, usize) {
        match self {
            Self::Service { client, .. } => (format!("service {}", client.url()).into(), UPLOADS),
            Self::Console | Self::Output { .. } => (format!("output {name}").into(), DELIVERIES),
        }
    }

    /// How long the first event waits for others.
    pub(super) fn delay(&self) -> Duration {
        match self {
            Self::Service { reporting, .. } => {
                let spread = reporting.max_delay - reporting.min_delay;
                reporting.min_delay + spread.mul_f64(rand::random::<f64>())
            }
            Self::Console => Duration::ZERO,
            Self::Output { batching, .. } => batching.at_period,
        }
    }

    /// Whether only the program, and the end, start a delivery.
    pub(super) fn is_manual(&self) -> bool {
        match self {
            Self::Service { reporting, .. } => reporting.trigger == Trigger::Manual,
            Self::Console | Self::Output { .. } => false,
        }
    }

    /// The longest wait between two tries.
    pub(super) fn max_retry(&self) -> Duration {
        match self {
            Self::Service { reporting, .. } => reporting.max_delay,
            Self::Console => MAX_RETRY,
            Self::Output { max_retry, .. } => max_retry.unwrap_or(MAX_RETRY),
        }
    }

    /// Delivers a parcel, which is as it was afterwards.
    pub(super) async fn deliver(
        &self,
        app: &AppId,
        parcel: &mut Parcel,
    ) -> Result<(), OutputError> {
        match (self, parcel) {
            (
                Self::Service {
                    client, resource, ..
                },
                Parcel::Chunk(chunk),
            ) => upload(client, resource, chunk).await,
            (Self::Output { output, labels, .. }, Parcel::Batch(events)) => {
                hand_over(&**output, app, labels, events).await
            }
            _ => Err(OutputError::new("nobody takes this")),
        }
    }
}

async fn upload(
    client: &ServiceClient,
    resource: &str,
    chunk: &mut Chunk,
) -> Result<(), OutputError> {
    let body = Bytes::from(std::mem::take(&mut chunk.body));
    let posted = post(client, resource, body.clone()).await;
    // Usually nobody else has the body any more, and it isn't copied.
    chunk.body = body.into();
    posted
}

async fn post(client: &ServiceClient, resource: &str, body: Bytes) -> Result<(), OutputError> {
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CONTENT_ENCODING, HeaderValue::from_static("gzip")),
    ]);
    let posting = client.post(resource, headers, body);
    match tokio::time::timeout(TIME, posting).await {
        Ok(Ok(posted)) if posted.status.is_success() => Ok(()),
        Ok(Ok(posted)) => {
            // OPA's words.
            let status = posted.status;
            let text = format!("log upload failed, server replied with HTTP {status}");
            let mut error = OutputError::new(text);
            error.http_code = Some(status.as_u16());
            error.retry_after = posted.retry_after();
            Err(error)
        }
        Ok(Err(error)) => Err(OutputError::new(format!("log upload failed: {error}"))),
        Err(_) => Err(OutputError::new("log upload failed: timeout")),
    }
}

async fn hand_over(
    output: &dyn Output,
    app: &AppId,
    labels: &Labels,
    events: &mut Vec<LoggedEvent>,
) -> Result<(), OutputError> {
    let taken = std::mem::take(events);
    let batch = Batch::new(app.clone(), Some(labels.clone()), taken);
    let delivered = tokio::time::timeout(TIME, contained(output, &batch)).await;
    *events = batch.events;
    delivered.unwrap_or_else(|_| Err(OutputError::new("timeout")))
}

/// An output is a program's own code, which may panic: then nobody knows what it delivered.
async fn contained(output: &dyn Output, batch: &Batch) -> Result<(), OutputError> {
    let panicked = || OutputError::new("the output panicked");
    let delivering = catch_unwind(AssertUnwindSafe(|| output.deliver(batch)));
    let mut delivering = delivering.map_err(|_| panicked())?;
    poll_fn(|context| {
        let polled = AssertUnwindSafe(|| delivering.as_mut().poll(context));
        catch_unwind(polled).unwrap_or_else(|_| Poll::Ready(Err(panicked())))
    })
    .await
}
