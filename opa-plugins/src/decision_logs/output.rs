//! Where the events of the log go, beside OPA's own upload and console: the trait that a sink
//! implements.
//!
//! An [`OutputType`] is registered under a name with
//! [`DecisionLogs::output_type`](super::DecisionLogs::output_type), and opens an [`Output`] for
//! each configuration that asks for it. The pipeline does the rest: masks, buffers, batches, retries in
//! order, and accounts for every event.
//!
//! ```
//! use opa_core::config::Section;
//! use opa_core::plugin::Scope;
//! use opa_plugins::decision_logs::output::{Batch, Output, OutputFuture};
//! use std::sync::Arc;
//!
//! /// Counts events.
//! #[derive(Default)]
//! struct Count(std::sync::atomic::AtomicUsize);
//!
//! impl Output for Count {
//!     fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
//!         self.0.fetch_add(batch.events.len(), std::sync::atomic::Ordering::Relaxed);
//!         Box::pin(std::future::ready(Ok(())))
//!     }
//! }
//!
//! // For `decision_logs: {outputs: [{type: count}]}`.
//! let plugin = opa_plugins::decision_logs().output_type("count", |section: &Section, _: &Scope<'_>| {
//!     section.reader()?.finish()?;
//!     Ok(Arc::new(Count::default()) as Arc<dyn Output>)
//! });
//! # drop(plugin);
//! ```

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use opa_core::AppId;
use opa_core::config::{ConfigError, Section};
use opa_core::plugin::{Labels, Scope};

use super::pipeline::Receipt;

/// A boxed future of an [`Output`].
pub type OutputFuture<'a> = Pin<Box<dyn Future<Output = Result<(), OutputError>> + Send + 'a>>;

/// Where the events of one app go.
pub trait Output: Send + Sync + 'static {
    /// Delivers the whole batch. After an error the whole batch is delivered again, before any later
    /// one of the app; so a receiver may see an event twice, with the same decision id.
    ///
    /// It is dropped when it takes longer than a minute. A panic is an error, too.
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a>;
}

impl fmt::Debug for dyn Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<output>")
    }
}

/// Makes the outputs of one type.
///
/// Closures of two arguments are output types.
pub trait OutputType: Send + Sync + 'static {
    /// The output that `section` asks for. Called for every app; what apps can share, such as
    /// connections, is shared by the type. Must not block.
    ///
    /// # Errors
    /// What is wrong in the section, with its place.
    fn open(&self, section: &Section, scope: &Scope<'_>) -> Result<Arc<dyn Output>, ConfigError>;
}

impl<F> OutputType for F
where
    F: Fn(&Section, &Scope<'_>) -> Result<Arc<dyn Output>, ConfigError> + Send + Sync + 'static,
{
    fn open(&self, section: &Section, scope: &Scope<'_>) -> Result<Arc<dyn Output>, ConfigError> {
        self(section, scope)
    }
}

impl fmt::Debug for dyn OutputType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<output type>")
    }
}

/// Events of one app, oldest first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Batch {
    /// The app.
    pub app: AppId,
    /// Its labels, as far as they are known: those of events that a process before this one logged
    /// are in their text alone.
    pub labels: Option<Labels>,
    /// The events; never empty.
    pub events: Vec<LoggedEvent>,
}

impl Batch {
    /// A batch.
    #[must_use]
    pub fn new(app: AppId, labels: Option<Labels>, events: Vec<LoggedEvent>) -> Self {
        Self {
            app,
            labels,
            events,
        }
    }
}

/// An event as it may be shown: masked and encoded.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LoggedEvent {
    /// The decision's id.
    pub decision_id: Arc<str>,
    /// When the decision was asked for.
    pub timestamp: SystemTime,
    /// The event as OPA uploads it: one JSON object, without a line break.
    pub json: Bytes,
    /// Who waits until it is delivered.
    pub(super) receipt: Option<Receipt>,
}

impl LoggedEvent {
    /// An event.
    #[must_use]
    pub fn new(decision_id: Arc<str>, timestamp: SystemTime, json: Bytes) -> Self {
        Self {
            decision_id,
            timestamp,
            json,
            receipt: None,
        }
    }
}

/// Why a batch was not delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputError {
    /// In words, without secrets.
    pub message: String,
    /// The receiver's answer, if it speaks HTTP.
    pub http_code: Option<u16>,
    /// When the receiver wants to be asked again; an hour at most.
    pub retry_after: Option<Duration>,
    /// Whether trying again is of no use: the batch is given up.
    pub is_permanent: bool,
    /// How many events are given up if the error is permanent, and the others were delivered; all
    /// of them without this.
    pub lost: Option<usize>,
}

impl OutputError {
    /// An error after which the batch is delivered again.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            http_code: None,
            retry_after: None,
            is_permanent: false,
            lost: None,
        }
    }
}

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for OutputError {}
