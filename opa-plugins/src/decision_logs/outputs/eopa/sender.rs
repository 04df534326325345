//! Messages for a receiver that speaks HTTP, one after the other.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use opa_core::service::ServiceClient;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::super::super::output::{Batch, LoggedEvent, Output, OutputError, OutputFuture};
use super::super::form::{Form, Format};
use super::super::options::answered;

/// What events stand in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Wrap {
    /// Nothing.
    #[default]
    None,
    /// The object that Splunk's collector takes.
    Splunk,
}

/// What becomes of messages that are not taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Retry {
    /// The first wait, doubled each time.
    pub(super) period: Option<Duration>,
    /// After so many tries a message is given up; zero for never.
    pub(super) max_attempts: u32,
    /// The longest wait.
    pub(super) max_backoff: Option<Duration>,
    /// Answers that give a message up.
    pub(super) drop_on: Vec<StatusCode>,
    /// Answers that are a success.
    pub(super) successful_on: Vec<StatusCode>,
}

/// How many requests there may be in an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) count: u32,
    pub(super) interval: Duration,
}

/// The longest wait for the next interval within a delivery, which has an end.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// Posts the messages of a batch. One batch of an app is delivered at a time.
pub(super) struct Sender {
    client: ServiceClient,
    /// Below the URL; `None` for the URL itself.
    path: Option<String>,
    headers: HeaderMap,
    form: Form,
    timeout: Duration,
    pub(super) wrap: Wrap,
    pub(super) retry: Retry,
    pub(super) rate: Option<Rate>,
    progress: Mutex<Progress>,
    /// When the interval began, and how many requests were in it.
    interval: Mutex<Option<(Instant, u32)>>,
}

/// How far a batch is: what was taken isn't sent again.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// The first event of the batch.
    batch: Option<Arc<str>>,
    /// So many messages are done with.
    done: usize,
    /// So often the next one was not taken.
    attempts: u32,
    /// Events that were given up, and why.
    lost: usize,
    why: Option<String>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Output for Sender {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
        Box::pin(self.send(batch))
    }
}

impl Sender {
    pub(super) fn new(
        client: ServiceClient,
        path: Option<String>,
        headers: HeaderMap,
        form: Form,
        timeout: Duration,
    ) -> Self {
        Self {
            client,
            path,
            headers,
            form,
            timeout,
            wrap: Wrap::default(),
            retry: Retry::default(),
            rate: None,
            progress: Mutex::default(),
            interval: Mutex::default(),
        }
    }

    async fn send(&self, batch: &Batch) -> Result<(), OutputError> {
        let first = batch.events.first().map(|event| &event.decision_id);
        let mut progress = self.progress.lock().clone();
        if progress.batch.as_ref() != first {
            progress = Progress {
                batch: first.cloned(),
                ..Progress::default()
            };
        }
        let messages = self.messages(&batch.events).await?;
        let in_each = match self.form.format {
            Format::Each => 1,
            Format::Lines | Format::Array => batch.events.len(),
        };
        for message in messages.into_iter().skip(progress.done) {
            self.pace().await?;
            match self.post(message).await {
                Ok(()) => progress.next(),
                Err(error) => {
                    progress.attempts += 1;
                    let is_last = progress.attempts == self.retry.max_attempts;
                    if !error.is_permanent && !is_last {
                        let error = self.again(error, progress.attempts);
                        *self.progress.lock() = progress;
                        return Err(error);
                    }
                    progress.lost += in_each;
                    progress.why.get_or_insert(error.message);
                    progress.next();
                }
            }
            *self.progress.lock() = progress.clone();
        }
        *self.progress.lock() = Progress::default();
        progress.into_result()
    }

    async fn messages(&self, events: &[LoggedEvent]) -> Result<Vec<Bytes>, OutputError> {
        let messages = match self.wrap {
            Wrap::None => self.form.messages(events).await,
            Wrap::Splunk => {
                let wrapped: Vec<_> = events.iter().map(splunk).collect();
                self.form.messages(&wrapped).await
            }
        };
        messages.map_err(|error| OutputError::new(format!("it can't be packed: {error}")))
    }

    async fn post(&self, body: Bytes) -> Result<(), OutputError> {
        let headers = self.headers.clone();
        let posting = async {
            match &self.path {
                Some(path) => self.client.post(path, headers, body).await,
                None => self.client.post_to_url(headers, body).await,
            }
        };
        let answer = tokio::time::timeout(self.timeout, posting).await;
        let late = |_| OutputError::new(format!("no answer within {:?}", self.timeout));
        let answer = answer.map_err(late)?;
        let answer = answer.map_err(|error| OutputError::new(error.to_string()))?;
        if self.retry.successful_on.contains(&answer.status) {
            return Ok(());
        }
        let answered = answered(&answer);
        answered.map_err(|mut error| {
            error.is_permanent = self.retry.drop_on.contains(&answer.status);
            error
        })
    }

    fn again(&self, mut error: OutputError, attempts: u32) -> OutputError {
        if let Some(period) = self.retry.period {
            let doubled = period.saturating_mul(1 << attempts.saturating_sub(1).min(20));
            let wait = doubled.min(self.retry.max_backoff.unwrap_or(Duration::from_secs(30)));
            error.retry_after = Some(error.retry_after.map_or(wait, |after| after.max(wait)));
        }
        error
    }

    /// Waits until there may be another request.
    async fn pace(&self) -> Result<(), OutputError> {
        let Some(Rate { count, interval }) = self.rate else {
            return Ok(());
        };
        loop {
            let wait = {
                let mut current = self.interval.lock();
                let now = Instant::now();
                match &mut *current {
                    Some((began, used)) if now - *began < interval => {
                        if *used < count {
                            *used += 1;
                            return Ok(());
                        }
                        interval - (now - *began)
                    }
                    _ => {
                        *current = Some((now, 1));
                        return Ok(());
                    }
                }
            };
            if wait > MAX_PAUSE {
                let mut error = OutputError::new("the configured rate is reached");
                error.retry_after = Some(wait);
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
    }
}

impl Progress {
    fn next(&mut self) {
        self.done += 1;
        self.attempts = 0;
    }

    fn into_result(self) -> Result<(), OutputError> {
        let Some(why) = self.why else {
            return Ok(());
        };
        let mut error = OutputError::new(format!("{} events are given up: {why}", self.lost));
        error.is_permanent = true;
        error.lost = Some(self.lost);
        Err(error)
    }
}

fn splunk(event: &LoggedEvent) -> LoggedEvent {
    let at = jiff::Timestamp::try_from(event.timestamp).unwrap_or_default();
    let time = format!(",\"time\":{}}}", at.as_second());
    let json = [b"{\"event\":", &*event.json, time.as_bytes()].concat();
    LoggedEvent::new(Arc::clone(&event.decision_id), event.timestamp, json.into())
}
