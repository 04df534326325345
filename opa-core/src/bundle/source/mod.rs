//! Where bundles come from.
//!
//! A [`Source`] answers raw bytes, so that digests and signatures can be checked over them. The
//! manager's scheduler asks it again and again, with the etag of what is active. Those that a
//! configuration names are OPA's: its bundle service over HTTP, OCI registries, and files.
//!
//! ```
//! use opa_core::bundle::source::{Body, Fetch, Source, SourceAnswer, SourceFuture};
//!
//! /// A source with nothing new, ever.
//! struct Frozen;
//!
//! impl Source for Frozen {
//!     fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
//!         let answer = match request.etag {
//!             Some(_) => SourceAnswer::not_modified(),
//!             None => SourceAnswer::snapshot(Body::from(vec![0x1f, 0x8b]), Some("1".into())),
//!         };
//!         Box::pin(std::future::ready(Ok(answer)))
//!     }
//! }
//! ```

mod body;
mod file;
mod http;
mod memory;
mod oci;
mod watched;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::FailureClass;

pub use body::{Body, ByteStream};
pub use file::File;
pub(crate) use http::HttpSource;
pub use memory::Memory;
pub(crate) use oci::{OciSource, Reference};
pub(crate) use watched::Watches;

/// A boxed future of [`Source::fetch`].
pub type SourceFuture<'a> =
    Pin<Box<dyn Future<Output = Result<SourceAnswer, SourceError>> + Send + 'a>>;

/// Where the bundles of apps come from.
pub trait Source: Send + Sync + 'static {
    /// Asks for the bundle. Dropping the future takes the question back. It must not block its
    /// thread, on which other apps wait for news.
    fn fetch(&self, request: Fetch) -> SourceFuture<'_>;
}

impl fmt::Debug for dyn Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<bundle source>")
    }
}

/// One question to a source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetch {
    /// The etag of what is active: the source answers [`Content::NotModified`] to the same one.
    pub etag: Option<Arc<str>>,
    /// How long the source may wait for news before it answers.
    pub wait: Option<Duration>,
    /// Whether a delta would be taken, too.
    pub deltas: bool,
}

/// What a source answers.
#[derive(Debug)]
#[non_exhaustive]
pub struct SourceAnswer {
    /// The bundle.
    pub content: Content,
    /// The etag of what is answered. With [`Content::NotModified`] it does not count: what the asker
    /// has is named as it came.
    pub etag: Option<Arc<str>>,
    /// The source waited for news, or would: it can be asked again at once.
    pub long_polling: bool,
    /// What it takes to wait for news.
    pub(crate) waiting: Waiting,
    /// When the answer came, if that wasn't just now.
    pub(crate) answered: Option<tokio::time::Instant>,
}

/// What it takes to wait for the news of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// A connection, or about that.
    #[default]
    Alone,
    /// Connections are shared.
    Shared,
    /// There was no room to wait: the source was only asked, and is to be asked by interval.
    Refused,
}

/// A bundle, or that there is no new one.
#[derive(Debug)]
pub enum Content {
    /// Nothing is newer than the etag that was sent.
    NotModified,
    /// A gzip'd tar archive: a whole bundle, or a delta if it has a `patch.json`.
    Snapshot(Body),
    /// The archive of a delta; a whole bundle instead is an error.
    Delta(Body),
}

impl SourceAnswer {
    /// There is nothing new.
    #[must_use]
    pub fn not_modified() -> Self {
        Self {
            content: Content::NotModified,
            etag: None,
            long_polling: false,
            waiting: Waiting::default(),
            answered: None,
        }
    }

    /// A whole bundle.
    #[must_use]
    pub fn snapshot(body: Body, etag: Option<Arc<str>>) -> Self {
        Self {
            content: Content::Snapshot(body),
            etag,
            long_polling: false,
            waiting: Waiting::default(),
            answered: None,
        }
    }

    /// The source waits for news when asked to.
    #[must_use]
    pub fn long_polling(mut self, long_polling: bool) -> Self {
        self.long_polling = long_polling;
        self
    }

    /// The answer, if it is one to that question.
    ///
    /// # Errors
    /// There is nothing new, for one who has nothing.
    pub(crate) fn to(self, request: &Fetch) -> Result<Self, SourceError> {
        if matches!(self.content, Content::NotModified) && request.etag.is_none() {
            let text = "the source answered that nothing is new (304), but no etag was named to it";
            return Err(SourceError::new(text).with_http_code(304));
        }
        Ok(self)
    }
}

/// Why a source has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceError {
    message: String,
    class: FailureClass,
    http_code: Option<u16>,
    retry_after: Option<Duration>,
}

impl SourceError {
    /// An error with a text that carries no secret.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            class: FailureClass::Source,
            http_code: None,
            retry_after: None,
        }
    }

    /// The server's status, which also tells the [class](Self::class).
    #[must_use]
    pub fn with_http_code(mut self, code: u16) -> Self {
        self.http_code = Some(code);
        self.class = FailureClass::of_status(code);
        self
    }

    /// What sort of failure it is. Default: what the status tells, or else
    /// [`FailureClass::Source`].
    #[must_use]
    pub fn with_class(mut self, class: FailureClass) -> Self {
        self.class = class;
        self
    }

    /// How long the server wants not to be asked.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// Says first what the error is about.
    fn about(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn class(&self) -> FailureClass {
        self.class
    }

    /// The server's status, if there was one.
    #[must_use]
    pub fn http_code(&self) -> Option<u16> {
        self.http_code
    }

    /// How long the server wants not to be asked.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SourceError {}
