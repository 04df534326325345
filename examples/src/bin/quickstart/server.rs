//! A bundle server as OPA expects one: entity tags, and answers that wait for news.
//!
//! <https://www.openpolicyagent.org/docs/management-bundles#bundle-service-api>

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use opa_core::bundle::etag;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::bundles::Revisions;

/// The content type that tells an OPA that the server waits for news when asked to.
const LONG_POLLING: &str = "application/vnd.openpolicyagent.bundles";

/// The longest wait that a client gets.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long a published revision may take until the instance has taken it over.
const TAKE_OVER: Duration = Duration::from_secs(10);

/// What is published, by app. Clones are the same shelf.
#[derive(Clone)]
pub(crate) struct Shelf(Arc<BTreeMap<&'static str, Slot>>);

/// The place of one app's bundle.
struct Slot {
    revisions: Revisions,
    published: watch::Sender<Option<Published>>,
    /// The entity tag that the instance came with last: what it has activated.
    taken_over: watch::Sender<Option<String>>,
}

#[derive(Clone)]
struct Published {
    etag: String,
    archive: Bytes,
}

impl Shelf {
    /// A shelf that can publish `bundles` and has published nothing yet.
    pub(crate) fn new(bundles: BTreeMap<&'static str, Revisions>) -> Self {
        let slot = |revisions| Slot {
            revisions,
            published: watch::Sender::default(),
            taken_over: watch::Sender::default(),
        };
        let slots = bundles
            .into_iter()
            .map(|(app, revisions)| (app, slot(revisions)));
        Self(Arc::new(slots.collect()))
    }

    /// Puts a revision into the place of the app's current one. Answers its entity tag, and
    /// nothing when there is no such revision.
    pub(crate) fn publish(&self, app: &str, revision: &str) -> Option<String> {
        let slot = self.0.get(app)?;
        let archive = Bytes::copy_from_slice(slot.revisions.get(revision)?);
        let etag = etag(&archive);
        slot.published.send_replace(Some(Published {
            etag: etag.clone(),
            archive,
        }));
        Some(etag)
    }

    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/bundles/{app}", get(bundle))
            .route("/publish/{app}/{revision}", post(publish))
            .with_state(self)
    }
}

/// What an OPA asks for.
async fn bundle(
    State(shelf): State<Shelf>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Response {
    let Some(slot) = shelf.0.get(&*app) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let known = headers
        .get(IF_NONE_MATCH)
        .and_then(|etag| etag.to_str().ok());
    let mut published = slot.published.subscribe();
    let is_news = |bundle: &Option<Published>| {
        bundle
            .as_ref()
            .is_some_and(|bundle| Some(&*bundle.etag) != known)
    };
    if let Some(known) = known {
        slot.taken_over.send_replace(Some(known.to_owned()));
        // An answer without news is as good as one that comes after the wait.
        let _ = timeout(wait_of(&headers), published.wait_for(is_news)).await;
    }
    let current = published.borrow().clone();
    let Some(Published { etag, archive }) = current else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let unchanged = known == Some(&*etag);
    let headers = [(CONTENT_TYPE, LONG_POLLING.to_owned()), (ETAG, etag)];
    match unchanged {
        true => (StatusCode::NOT_MODIFIED, headers).into_response(),
        false => (headers, archive).into_response(),
    }
}

/// How long the client would wait: `Prefer: modes=snapshot;wait=30` (RFC 7240, and OPA's modes).
fn wait_of(headers: &HeaderMap) -> Duration {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([';', ',']))
        .find_map(|preference| preference.trim().strip_prefix("wait=")?.parse().ok())
        .map_or(Duration::ZERO, |seconds| {
            Duration::from_secs(seconds).min(LONGEST_WAIT)
        })
}

/// Publishes a revision, and answers when the instance has taken it over: it then asks for news
/// with the entity tag of the new bundle.
async fn publish(
    State(shelf): State<Shelf>,
    Path((app, revision)): Path<(String, String)>,
) -> (StatusCode, String) {
    let Some((etag, slot)) = shelf.publish(&app, &revision).zip(shelf.0.get(&*app)) else {
        return (
            StatusCode::NOT_FOUND,
            format!("there is no {revision} of {app}\n"),
        );
    };
    let mut taken_over = slot.taken_over.subscribe();
    match timeout(
        TAKE_OVER,
        taken_over.wait_for(|known| known.as_ref() == Some(&etag)),
    )
    .await
    {
        Ok(_) => (
            StatusCode::OK,
            format!("{app} decides by {revision} from now on\n"),
        ),
        Err(_) => (
            StatusCode::GATEWAY_TIMEOUT,
            format!("{app} hasn't taken over {revision}\n"),
        ),
    }
}
