//! The work on one app's events: what is done at a time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::task::JoinError;

use super::super::chunk::Chunk;
use super::lane::Lane;
use super::ledger::{Fate, Unsettled};
use super::policy;

/// How many events of an app are taken at a time.
const BATCH: usize = 64;

/// How many chunks of an app are uploaded at a time.
const CHUNKS: usize = 16;

/// How long an upload may take as a whole, beside the service's own timeout for the answer.
const UPLOAD_TIME: Duration = Duration::from_secs(60);

/// Masks and encodes some of an app's events.
pub(super) async fn process(lane: Arc<Lane>) {
    let events = lane.dequeue(BATCH);
    let mut unsettled = Unsettled::new(&lane.ledger, events.len() as u64, Fate::EncodingFailed);
    let mut kept = Vec::with_capacity(events.len());
    for event in events {
        let asked = policy::ask(
            event,
            &lane.config.drop_decision,
            &lane.config.mask_decision,
        );
        match asked.await {
            Some(event) => kept.push(event),
            None => unsettled.settle(Fate::DroppedByPolicy, 1),
        }
    }
    // The semaphore is never closed.
    let _permit = lane.shared.encoders.acquire().await;
    let encoding = Arc::clone(&lane);
    let encoded = tokio::task::spawn_blocking(move || encoding.store(kept, &mut unsettled));
    if let Err(error) = encoded.await {
        tracing::error!(app = %lane.app, %error, "decision log: events are lost");
    }
}

/// How a turn of uploads ended.
pub(super) enum Turn {
    /// With a success, or nothing to do.
    Done,
    /// With a success, and what was due is not all uploaded yet.
    More,
    /// A chunk was not taken, and is the oldest again.
    Failed { retry_after: Option<Duration> },
}

/// Uploads some of an app's chunks, oldest first. `gathers` makes chunks of events that have none.
pub(super) async fn upload(lane: Arc<Lane>, gathers: bool) -> Turn {
    // The semaphore is never closed.
    let _permit = lane.shared.uploads.acquire().await;
    for _ in 0..CHUNKS {
        let chunk = match next(&lane, gathers).await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Turn::Done,
            Err(error) => {
                // As after a refusal there is a pause: it may fail again.
                tracing::error!(app = %lane.app, %error, "decision log: no chunk was made");
                return Turn::Failed { retry_after: None };
            }
        };
        if let Err(retry_after) = upload_one(&lane, chunk).await {
            return Turn::Failed { retry_after };
        }
    }
    // Events that came meanwhile and make no chunk yet have time.
    match gathers && lane.has_backlog() {
        true => Turn::More,
        false => Turn::Done,
    }
}

async fn next(lane: &Arc<Lane>, gathers: bool) -> Result<Option<Chunk>, JoinError> {
    let lane = Arc::clone(lane);
    let take = move || {
        let mut compressor = lane.shared.compressor();
        let chunk = lane.change(|outbox| outbox.next(gathers, &mut compressor, &lane.ledger));
        lane.shared.give_back(compressor);
        chunk
    };
    tokio::task::spawn_blocking(take).await
}

async fn upload_one(lane: &Arc<Lane>, mut chunk: Chunk) -> Result<(), Option<Duration>> {
    let events = chunk.events as u64;
    let mut unsettled = Unsettled::new(&lane.ledger, events, Fate::NotDelivered);
    let body = Bytes::from(std::mem::take(&mut chunk.body));
    let (retry_after, problem) = match post(lane, body.clone()).await {
        Ok(()) => {
            unsettled.settle(Fate::Delivered, events);
            return Ok(());
        }
        Err(failed) => failed,
    };
    tracing::warn!(app = %lane.app, events, "decision log: {problem}");
    // Usually nobody else has the body any more, and it isn't copied.
    chunk.body = body.into();
    unsettled.hand_on(events);
    lane.change(|outbox| outbox.put_back(chunk, &lane.ledger));
    lane.shared.relieve();
    Err(retry_after)
}

async fn post(lane: &Lane, body: Bytes) -> Result<(), (Option<Duration>, String)> {
    let Some(client) = &lane.client else {
        return Err((None, "there is no service".to_owned()));
    };
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (CONTENT_ENCODING, HeaderValue::from_static("gzip")),
    ]);
    let posting = client.post(&lane.config.resource, headers, body);
    match tokio::time::timeout(UPLOAD_TIME, posting).await {
        Ok(Ok(posted)) if posted.status.is_success() => Ok(()),
        Ok(Ok(posted)) => {
            // OPA's words.
            let problem = format!(
                "log upload failed, server replied with HTTP {}",
                posted.status
            );
            Err((posted.retry_after(), problem))
        }
        Ok(Err(error)) => Err((None, format!("log upload failed: {error}"))),
        Err(_) => Err((None, "log upload failed: timeout".to_owned())),
    }
}
