//! Equal downloads are one download, however many apps want it.
//!
//! Apps whose bundle has the same [`Key`] are members of one [`Download`]. Equal questions that are
//! under way at the same time are one question, which goes on as long as anybody waits for it. What
//! was answered counts for the other members for the shortest polling interval; when it is news
//! they are asked to come at once, and a bundle's bytes are kept until they all have them. An error
//! is everybody's as well, with one schedule of retries. Each app still reads and verifies what
//! comes with its own keys.
//!
//! A download of a single app is none of that: its body is handed on as it comes.

mod registry;
mod state;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;
use tokio::time::Instant;

use registry::News;
pub(super) use registry::{Downloads, Key};

use super::poll::backoff;
use super::slots::Slots;
use crate::FailureClass;
use crate::bundle::ArchiveBytes;
use crate::bundle::source::{
    Body, Content, Fetch, Source, SourceAnswer, SourceError, SourceFuture, Waiting,
};

/// The longest that a bundle's bytes are kept for members that don't come for them.
const MAX_KEPT: Duration = Duration::from_secs(60);

/// What all members of a download share.
struct Download {
    source: Arc<dyn Source>,
    key: Key,
    slots: Slots,
    /// Other apps are expected to have the same download.
    common: bool,
    news: Arc<News>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    members: usize,
    asking: Vec<(Fetch, WeakShared<Asking>)>,
    /// What was answered last, if it counts for other members.
    known: Option<Known>,
    /// What was last, whoever had it.
    mark: Option<Mark>,
    /// How often there was news.
    generation: u64,
    kept: Option<Kept>,
    failures: u32,
    failed: Option<(SourceError, Instant)>,
}

/// A question under way.
type Asking = BoxFuture<'static, Result<Arc<Answer>, SourceError>>;

struct Known {
    at: Instant,
    etag: Option<Arc<str>>,
    long_polling: bool,
    waiting: Waiting,
    /// When the source said so.
    answered: Instant,
}

/// What tells one bundle from the next.
#[derive(PartialEq, Eq)]
enum Mark {
    Etag(Arc<str>),
    /// Of a bundle from a server without etags.
    Digest([u8; 32]),
}

/// Bytes that members still want.
struct Kept {
    answer: Arc<Answer>,
    asked: Fetch,
    until: Instant,
    taken: usize,
}

/// An answer that more than one member can have.
struct Answer {
    part: Part,
    etag: Option<Arc<str>>,
    long_polling: bool,
    waiting: Waiting,
    /// When it came.
    answered: Instant,
    /// The generation of the download that it belongs to.
    generation: AtomicU64,
}

enum Part {
    NotModified,
    Snapshot(ArchiveBytes),
    Delta(ArchiveBytes),
    /// As it comes, for the one who takes it first.
    Once(Mutex<Option<Content>>),
}

/// One app's part in a download.
pub(super) struct Member {
    download: Arc<Download>,
    /// The generation of the last answer.
    seen: AtomicU64,
}

/// What a member does with its question.
enum Way {
    Known(Result<Arc<Answer>, SourceError>),
    Ask(Shared<Asking>),
}

impl Member {
    fn new(download: Arc<Download>) -> Self {
        download.state.lock().members += 1;
        Self {
            download,
            seen: AtomicU64::new(0),
        }
    }

    /// Tells one download from another.
    pub(super) fn download(&self) -> usize {
        self.download.number()
    }

    /// Whether other members have had news that this one has not.
    pub(super) fn is_behind(&self) -> bool {
        let state = self.download.state.lock();
        state.members > 1 && self.seen.load(Ordering::Relaxed) < state.generation
    }

    async fn ask(&self, request: Fetch) -> Result<SourceAnswer, SourceError> {
        loop {
            let answer = match self.download.way(&request) {
                Way::Known(answer) => answer,
                Way::Ask(asking) => asking.await,
            };
            let answer = answer.map_err(|error| self.download.with_schedule(error))?;
            if let Some(answer) = self.take(&answer) {
                return Ok(answer);
            }
        }
    }

    /// `None` if it was for one member only, who has it.
    fn take(&self, answer: &Answer) -> Option<SourceAnswer> {
        let content = match &answer.part {
            Part::NotModified => Content::NotModified,
            Part::Snapshot(bytes) => Content::Snapshot(Body::from(bytes.clone())),
            Part::Delta(bytes) => Content::Delta(Body::from(bytes.clone())),
            Part::Once(content) => content.lock().take()?,
        };
        let generation = answer.generation.load(Ordering::Relaxed);
        let seen = self.seen.swap(generation, Ordering::Relaxed);
        if seen < generation {
            self.download
                .state
                .lock()
                .note_taken(generation, self.download.common);
        }
        let mut taken = SourceAnswer::not_modified().long_polling(answer.long_polling);
        taken.content = content;
        taken.etag = answer.etag.clone();
        taken.waiting = answer.waiting;
        taken.answered = Some(answer.answered);
        Some(taken)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut state = self.download.state.lock();
        state.members -= 1;
        let seen = self.seen.load(Ordering::Relaxed);
        if let Some(kept) = &mut state.kept
            && kept.answer.generation.load(Ordering::Relaxed) == seen
        {
            kept.taken = kept.taken.saturating_sub(1);
        }
        state.drop_taken(self.download.common);
    }
}

impl Source for Member {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        Box::pin(self.ask(request))
    }
}

impl Download {
    fn number(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// What is known answers the question, or it joins an equal one, or it is asked.
    fn way(self: &Arc<Self>, request: &Fetch) -> Way {
        let mut state = self.state.lock();
        let now = Instant::now();
        if self.is_shared(&state) {
            if let Some(answer) = state.known(request, now, self.key.polling.min_delay) {
                return Way::Known(Ok(answer));
            }
            if let Some((error, _)) = state.failed.as_ref().filter(|(_, until)| now < *until) {
                return Way::Known(Err(error.clone()));
            }
        }
        let mut joined = None;
        state.asking.retain(|(asked, asking)| {
            let asking = asking.upgrade();
            let is_left = asking.is_some();
            if asked == request {
                joined = joined.take().or(asking);
            }
            is_left
        });
        Way::Ask(joined.unwrap_or_else(|| {
            let asking = Arc::clone(self).question(request.clone()).boxed().shared();
            let weak = asking.downgrade();
            state
                .asking
                .extend(weak.map(|weak| (request.clone(), weak)));
            asking
        }))
    }

    fn is_shared(&self, state: &State) -> bool {
        state.members > 1 || (self.common && self.news.apps() > 1)
    }

    async fn question(self: Arc<Self>, request: Fetch) -> Result<Arc<Answer>, SourceError> {
        let asking = AssertUnwindSafe(self.ask_source(&request)).catch_unwind();
        let panicked = || {
            let error = SourceError::new("a panic ended the attempt");
            Err(error.with_class(FailureClass::Panic))
        };
        let answer = asking.await.unwrap_or_else(|_| panicked()).map(Arc::new);
        self.note(&request, &answer);
        answer
    }

    async fn ask_source(&self, request: &Fetch) -> Result<Answer, SourceError> {
        let answer = self.source.fetch(request.clone()).await?;
        let answered = Instant::now();
        let etag = match answer.content {
            Content::NotModified => request.etag.clone(),
            Content::Snapshot(_) | Content::Delta(_) => answer.etag,
        };
        let is_shared = self.is_shared(&self.state.lock());
        let part = match answer.content {
            Content::NotModified => Part::NotModified,
            content if !is_shared => Part::Once(Mutex::new(Some(content))),
            Content::Snapshot(body) => Part::Snapshot(self.read(request, body).await?),
            Content::Delta(body) => Part::Delta(self.read(request, body).await?),
        };
        Ok(Answer {
            part,
            etag,
            long_polling: answer.long_polling,
            waiting: answer.waiting,
            answered,
            generation: AtomicU64::new(0),
        })
    }

    /// Those who waited for news have no room for a download yet; the others do.
    async fn read(&self, request: &Fetch, body: Body) -> Result<ArchiveBytes, SourceError> {
        let waited = request.etag.is_some() && request.wait.is_some();
        let _room = match waited {
            true => self.slots.download().await,
            false => None,
        };
        let _body_room = self.slots.body().await;
        body.read(self.key.limit).await
    }

    fn note(self: &Arc<Self>, request: &Fetch, answer: &Result<Arc<Answer>, SourceError>) {
        let mut state = self.state.lock();
        state.asking.retain(|(asked, _)| asked != request);
        let now = Instant::now();
        let is_shared = self.is_shared(&state);
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if is_shared => {
                let cap = self.key.polling.max_delay;
                let delay =
                    backoff(state.failures, cap).max(error.retry_after().unwrap_or_default());
                state.failures = state.failures.saturating_add(1);
                state.failed = Some((error.clone(), now + delay));
                return;
            }
            Err(_) => return,
        };
        state.failures = 0;
        state.failed = None;
        let has_news = state.note_mark(answer, now, self.key.polling.min_delay);
        answer.generation.store(state.generation, Ordering::Relaxed);
        if !is_shared {
            return;
        }
        state.known = Some(Known {
            at: now,
            etag: answer.etag.clone(),
            long_polling: answer.long_polling,
            waiting: answer.waiting,
            answered: answer.answered,
        });
        if has_news {
            self.news.announce(self.number());
        }
        if !matches!(answer.part, Part::NotModified) {
            let until = now + self.key.polling.min_delay.min(MAX_KEPT);
            state.kept = Some(Kept {
                answer: Arc::clone(answer),
                asked: request.clone(),
                until,
                taken: 0,
            });
            self.news.keep(until, self);
        }
    }

    /// All members try again by the one schedule.
    fn with_schedule(&self, error: SourceError) -> SourceError {
        let state = self.state.lock();
        let Some((_, until)) = state.failed.as_ref().filter(|_| self.is_shared(&state)) else {
            return error;
        };
        let left = until.saturating_duration_since(Instant::now());
        let wanted = error.retry_after().unwrap_or_default().max(left);
        error.with_retry_after(Some(wanted))
    }

    /// Frees bytes that were kept long enough.
    fn purge(&self, now: Instant) {
        let mut state = self.state.lock();
        if state.kept.as_ref().is_some_and(|kept| kept.until <= now) {
            state.kept = None;
        }
    }
}

#[cfg(test)]
mod tests;
