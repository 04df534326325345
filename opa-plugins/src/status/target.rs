//! What statuses are posted to, and the work of posting one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use opa_core::service::ServiceClient;

use super::lane::Lane;
use crate::decision_logs::console::Line;

/// How long a post may take as a whole, beside the service's own timeout for the answer.
const POST_TIME: Duration = Duration::from_secs(60);

/// Where statuses are posted.
pub(super) trait Target: Send + Sync + 'static {
    /// What tells one service from another.
    fn url(&self) -> &str;

    fn post<'a>(&'a self, path: &'a str, body: Bytes) -> TargetFuture<'a>;
}

pub(super) type TargetFuture<'a> = Pin<Box<dyn Future<Output = Result<(), Refused>> + Send + 'a>>;

/// A status was not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) problem: String,
    pub(super) retry_after: Option<Duration>,
}

impl Target for ServiceClient {
    fn url(&self) -> &str {
        Self::url(self)
    }

    fn post<'a>(&'a self, path: &'a str, body: Bytes) -> TargetFuture<'a> {
        let json = HeaderValue::from_static("application/json");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, json)]);
        Box::pin(async move {
            let posted = Self::post(self, path, headers, body).await;
            // OPA's words.
            let posted = posted.map_err(|error| Refused {
                problem: format!("status update failed: {error}"),
                retry_after: None,
            })?;
            if posted.status.is_success() {
                return Ok(());
            }
            let status = posted.status;
            Err(Refused {
                problem: format!("status update failed, server replied with HTTP {status}"),
                retry_after: posted.retry_after(),
            })
        })
    }
}

/// A line of the console, whole.
pub(super) struct StatusLine(Vec<u8>);

impl Line for StatusLine {
    const LOG: &'static str = "status";
    const THREAD: &'static str = "opa-status";

    fn write(&self, _: bool, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(&self.0);
        true
    }
}

/// Sends the newest status. The console has it already when it is tried again.
pub(super) async fn send(lane: Arc<Lane>, is_retry: bool) -> Result<(), Refused> {
    let _permit = match &lane.target {
        // The semaphore is never closed.
        Some(_) => lane.shared.posts.acquire().await.ok(),
        None => None,
    };
    let Some(status) = lane.take() else {
        return Ok(());
    };
    let report = lane.report(&status);
    if lane.config.console && !is_retry {
        let mut line = Vec::new();
        report.write_line(SystemTime::now(), &mut line);
        lane.shared.console().record(StatusLine(line));
    }
    let Some(target) = &lane.target else {
        return Ok(());
    };
    let mut body = Vec::new();
    report.write(&mut body);
    let posting = target.post(&lane.config.resource, body.into());
    let posted = tokio::time::timeout(POST_TIME, posting).await;
    posted.unwrap_or_else(|_| {
        Err(Refused {
            problem: "status update failed: timeout".to_owned(),
            retry_after: None,
        })
    })
}
