//! One bundle of one app, asked for again and again.

mod persisted;

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use rand::RngExt;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::{Instrument, Span, field};

use super::download::Member;
use super::slots::{Room, Slots};
use crate::FailureClass;
use crate::bundle::persist::Place;
use crate::bundle::source::{Body, Content, Fetch, Source, SourceAnswer, SourceError, Waiting};
use crate::bundle::{ArchiveBytes, Limits, Update, Verification};
use crate::config::PollingConfig;
use crate::instance::{ActivationError, Incoming, Instance, Ticket, Unsaved, check_persistable};
use crate::plugin::{BundleError, LoadStage};

/// The shortest wait before a retry.
const MIN_RETRY: Duration = Duration::from_millis(50);

/// What the first retry waits at most; doubled with each further one, up to the longest interval.
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// A long poll that is answered sooner than this without news waits the rest.
const MIN_LONG_POLL: Duration = Duration::from_millis(100);

/// Where an activation runs: on blocking threads, as many at a time as there are cores.
#[derive(Clone, Debug)]
pub(super) struct CompilePool(Arc<Semaphore>);

/// What a bundle must be like to be taken.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) limits: Limits,
    pub(super) verification: Arc<Verification>,
}

/// One bundle of one app, with what is known from the last answer.
pub(super) struct Poll {
    pub(super) instance: Weak<Instance>,
    pub(super) bundle: Arc<str>,
    pub(super) source: Arc<dyn Source>,
    pub(super) polling: PollingConfig,
    pub(super) terms: Terms,
    pub(super) slots: Slots,
    pub(super) compile: CompilePool,
    pub(super) ticket: Ticket,
    place: Option<Arc<Place>>,
    etag: Option<Arc<str>>,
    /// The part in a download that other apps may share.
    member: Option<Arc<Member>>,
    long_polling: bool,
    /// What it takes to wait for news.
    waiting: Waiting,
    failures: u32,
    /// A long poll that had waited failed: the next success goes back to waiting at once.
    cut_off: bool,
}

/// What came for a bundle, as it came.
struct Arrived {
    archive: ArchiveBytes,
    etag: Option<Arc<str>>,
    /// The source said that it is a change to the active bundle.
    is_delta: bool,
    /// When the source answered; `None` if an earlier process kept it.
    contacted_ms: Option<u64>,
}

/// What went wrong with one poll.
enum PollError {
    Source(SourceError),
    Activation(ActivationError),
    Panic,
}

impl CompilePool {
    pub(super) fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads.max(1))))
    }

    /// Runs `work` on a thread that may block.
    ///
    /// # Errors
    /// `None` when `work` panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let permit = Arc::clone(&self.0).acquire_owned().await.ok();
        let work = move || {
            let _permit = permit;
            work()
        };
        tokio::task::spawn_blocking(work).await.ok()
    }
}

impl Poll {
    pub(super) fn new(
        instance: &Arc<Instance>,
        bundle: Arc<str>,
        source: Arc<dyn Source>,
        polling: PollingConfig,
        terms: Terms,
        slots: Slots,
        compile: CompilePool,
    ) -> Self {
        let long_polling = polling.long_polling_timeout.is_some();
        let instance = Arc::downgrade(instance);
        Self {
            instance,
            bundle,
            source,
            polling,
            terms,
            slots,
            compile,
            ticket: Ticket::default(),
            place: None,
            etag: None,
            member: None,
            long_polling,
            waiting: Waiting::default(),
            failures: 0,
            cut_off: false,
        }
    }

    /// Lets the poll change the instance by `ticket`.
    pub(super) fn with_ticket(self, ticket: Ticket) -> Self {
        Self { ticket, ..self }
    }

    /// The source is this part in a download that other apps may share.
    pub(super) fn member(mut self, member: Arc<Member>) -> Self {
        self.source = Arc::clone(&member) as Arc<dyn Source>;
        self.member = Some(member);
        self
    }

    /// Tells one app from another.
    pub(super) fn app(&self) -> usize {
        self.instance.as_ptr().addr()
    }

    /// Tells one download from another.
    pub(super) fn download(&self) -> Option<usize> {
        self.member.as_ref().map(|member| member.download())
    }

    /// Whether the instance is closed, or has no such bundle any more.
    pub(super) fn is_over(&self) -> bool {
        self.ticket.is_retired()
            || self
                .instance
                .upgrade()
                .is_none_or(|instance| instance.is_closed())
    }

    /// Room for the next question if that will wait for news: it needs none for a download until
    /// they come. When too many wait already, it asks and goes.
    pub(super) fn room_to_wait(&self) -> Option<Room> {
        let waits = self.long_polling && self.etag.is_some() && !self.is_retry();
        if !waits {
            return None;
        }
        let slot = self.slots.try_long_poll(self.waiting == Waiting::Shared)?;
        Some(Room::LongPoll(slot))
    }

    /// Room for the next question, if there is any now.
    pub(super) fn room(&self) -> Option<Room> {
        let slot = match self.is_retry() {
            true => self.slots.try_retry(),
            false => self.slots.try_download(),
        };
        slot.map(Room::Download)
    }

    /// Whether the last attempt failed.
    pub(super) fn is_retry(&self) -> bool {
        self.failures > 0
    }

    /// Asks once and activates what comes. Answers how long to wait before the next time.
    pub(super) async fn run(&mut self, room: Room) -> Duration {
        let Some(instance) = self.instance.upgrade() else {
            return Duration::MAX;
        };
        let asked = Instant::now();
        let first = self.etag.is_none();
        let waits = matches!(room, Room::LongPoll(_));
        // Sources, their bodies and sinks are users' code: a panic of theirs, also one before the
        // first await, must not end the polling.
        let span = self.span(&instance);
        let asking = AssertUnwindSafe(self.ask(&instance, room)).catch_unwind();
        let asked_for = asking.instrument(span.clone()).await;
        match asked_for.unwrap_or(Err(PollError::Panic)) {
            Ok(()) => {
                self.failures = 0;
                let was_cut_off = std::mem::take(&mut self.cut_off);
                // A server can't wait for news for one whose etag it doesn't know.
                let can_wait = self.long_polling && self.etag.is_some();
                if self
                    .member
                    .as_ref()
                    .is_some_and(|member| member.is_behind())
                {
                    // News came for another app meanwhile.
                    Duration::ZERO
                } else if can_wait
                    && (waits || first || was_cut_off)
                    && self.waiting != Waiting::Refused
                {
                    MIN_LONG_POLL.saturating_sub(asked.elapsed())
                } else {
                    between(self.polling.min_delay, self.polling.max_delay)
                }
            }
            Err(error) => {
                // One that fails at once would do so over and over again.
                self.cut_off |= waits && asked.elapsed() >= self.polling.min_delay;
                let delay = self.retry_delay(error.retry_after());
                self.failures = self.failures.saturating_add(1);
                self.note_failure(&instance, &error, delay);
                error.tell(&span);
                delay
            }
        }
    }

    fn span(&self, instance: &Instance) -> Span {
        tracing::info_span!(
            target: "opa::bundle",
            parent: None,
            "open-policy-agent.bundle",
            opa.app = %instance.id(),
            opa.bundle = &*self.bundle,
            "error.type" = field::Empty,
            otel.status_code = field::Empty,
            otel.status_description = field::Empty,
        )
    }

    async fn ask(&mut self, instance: &Arc<Instance>, room: Room) -> Result<(), PollError> {
        // The first question says that it would wait, as OPA's does, but is answered at once.
        let may_wait = self.etag.is_none() || matches!(room, Room::LongPoll(_));
        let wait = self
            .polling
            .long_polling_timeout
            .filter(|_| self.long_polling && may_wait);
        let request = Fetch {
            etag: self.etag.clone(),
            wait,
            // A server is not asked for what would be refused.
            deltas: self.place.is_none() && self.terms.verification.takes_deltas(),
        };
        let asked = Instant::now();
        let answer = self.source.fetch(request.clone()).await;
        instance.note_stage(&self.bundle, LoadStage::Request, asked.elapsed());
        let now = instance.now();
        instance.note_bundle(&self.bundle, |status| status.last_request = Some(now));
        let answer = answer.and_then(|answer| answer.to(&request));
        let SourceAnswer {
            content,
            etag,
            long_polling,
            waiting,
            answered,
        } = answer.map_err(PollError::Source)?;
        // Not when its body has come: that may take long.
        let answered = answered.unwrap_or_else(Instant::now);
        let contacted_ms = instance.shared().ms_at(answered);
        self.waiting = waiting;
        // Who was not asked to wait and has nothing new has not said that it would not.
        let silent = wait.is_none() && matches!(content, Content::NotModified);
        if !silent {
            self.long_polling = long_polling && self.polling.long_polling_timeout.is_some();
        }
        let is_delta = matches!(content, Content::Delta(_));
        match content {
            Content::NotModified => {
                // Its etag, should it be another one, is not that of what is here.
                instance.note_contact(&self.bundle, &self.ticket, contacted_ms);
                instance.note_bundle(&self.bundle, |status| {
                    status.last_successful_request = Some(now);
                    status.clear_error();
                });
                self.persist_again(instance).await;
                Ok(())
            }
            Content::Snapshot(body) | Content::Delta(body) => {
                let slot = match room {
                    Room::Download(slot) => Some(slot),
                    Room::LongPoll(_) => self.slots.download().await,
                };
                let body_slot = self.slots.body().await;
                let activated =
                    self.activate(instance, body, (is_delta, contacted_ms), etag.clone());
                let activated = activated.await;
                drop((slot, body_slot));
                if activated.is_ok() {
                    self.etag = etag;
                }
                activated
            }
        }
    }

    async fn activate(
        &self,
        instance: &Arc<Instance>,
        body: Body,
        (is_delta, contacted_ms): (bool, u64),
        etag: Option<Arc<str>>,
    ) -> Result<(), PollError> {
        let max = self.terms.limits.total_bytes();
        let reading = Instant::now();
        let bytes = body.read(max).await.map_err(PollError::Source)?;
        let read = reading.elapsed();
        let now = instance.now();
        instance.note_bundle(&self.bundle, |status| {
            // One time, as in OPA: who compares them learns whether the last request succeeded.
            status.last_request = Some(now);
            status.last_successful_request = Some(now);
            status.last_successful_download = Some(now);
        });
        let unsaved = self.place.clone().map(|place| Unsaved {
            place,
            archive: bytes.clone(),
            etag: etag.clone(),
            lineage: self.ticket.lineage().clone(),
        });
        let arrived = Arrived {
            archive: bytes,
            etag,
            is_delta,
            contacted_ms: Some(contacted_ms),
        };
        self.take(instance, arrived, (unsaved, read)).await
    }

    async fn take(
        &self,
        instance: &Arc<Instance>,
        arrived: Arrived,
        (unsaved, read): (Option<Unsaved>, Duration),
    ) -> Result<(), PollError> {
        let (terms, persists) = (self.terms.clone(), self.place.is_some());
        let name = Arc::clone(&self.bundle);
        let ticket = self.ticket.clone();
        let activating = Arc::clone(instance);
        let mut loaded = instance.loaded().await;
        // All on one thread that may block: what is large is also freed there, whatever becomes of
        // this future.
        let activate = move || {
            let terms = (&terms.limits, &*terms.verification);
            let started = Instant::now();
            let incoming = arrived.read(&activating, terms, persists);
            activating.note_stage(&name, LoadStage::Load, read + started.elapsed());
            let started = Instant::now();
            let taken = activating.take(&mut loaded, (&name, &ticket), incoming?, terms);
            activating.note_stage(&name, LoadStage::Compile, started.elapsed());
            taken?;
            // With that stage, which was not over when it became active.
            activating.publish();
            // It was told while this waited that the instance has no such bundle any more.
            let unsaved = unsaved.filter(|_| !ticket.is_retired());
            activating.persist(&mut loaded, unsaved.map(|unsaved| (name, unsaved)));
            Ok(())
        };
        self.compile.run(activate).await.ok_or(PollError::Panic)?
    }

    /// Longer if the server says so.
    fn retry_delay(&self, retry_after: Option<Duration>) -> Duration {
        backoff(self.failures, self.polling.max_delay).max(retry_after.unwrap_or_default())
    }

    fn note_failure(&self, instance: &Instance, error: &PollError, delay: Duration) {
        let message: Arc<str> = error.to_string().into();
        tracing::warn!(
            target: "opa::bundle",
            app = %instance.id(),
            bundle = %self.bundle,
            retry_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            "bundle failed: {message}",
        );
        instance.note_bundle(&self.bundle, |status| {
            status.code = Some("bundle_error");
            status.message = Some(Arc::clone(&message));
            status.errors = error.compile_errors();
            status.http_code = error.http_code();
            status.class = Some(error.class());
            status.failures.add(error.class());
        });
        let reason = format!("bundle `{}`: {message}", self.bundle);
        instance.fail(&reason, instance.now().checked_add(delay));
    }
}

impl Arrived {
    /// Reads and checks it. Blocks.
    fn read(
        self,
        instance: &Instance,
        terms: (&Limits, &Verification),
        persists: bool,
    ) -> Result<Incoming, PollError> {
        let update = instance.read_update(&self.archive, terms)?;
        if persists {
            check_persistable(&update)?;
        }
        if self.is_delta && matches!(update, Update::Snapshot(_)) {
            let text = "the source announced a delta, but sent a whole bundle";
            return Err(PollError::Source(SourceError::new(text)));
        }
        Ok(Incoming {
            update,
            size: self.archive.len(),
            etag: self.etag,
            contacted_ms: self.contacted_ms,
        })
    }
}

impl<E: Into<ActivationError>> From<E> for PollError {
    fn from(error: E) -> Self {
        Self::Activation(error.into())
    }
}

impl PollError {
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Source(error) => error.retry_after(),
            Self::Activation(_) | Self::Panic => None,
        }
    }

    fn tell(&self, span: &Span) {
        let kind = match self {
            Self::Source(_) => "source",
            Self::Activation(_) => "activation",
            Self::Panic => "panic",
        };
        span.record("error.type", kind);
        span.record("otel.status_code", "ERROR");
        span.record("otel.status_description", field::display(self));
    }

    fn class(&self) -> FailureClass {
        match self {
            Self::Source(error) => error.class(),
            Self::Activation(error) => error.class(),
            Self::Panic => FailureClass::Panic,
        }
    }

    fn http_code(&self) -> Option<u16> {
        match self {
            Self::Source(error) => error.http_code(),
            Self::Activation(_) | Self::Panic => None,
        }
    }

    /// What the compiler found, if that is the failure.
    fn compile_errors(&self) -> Vec<BundleError> {
        match self {
            Self::Activation(ActivationError::Compile(errors)) => {
                errors.iter().map(BundleError::from).collect()
            }
            Self::Source(_) | Self::Activation(_) | Self::Panic => Vec::new(),
        }
    }
}

impl std::fmt::Display for PollError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Source(error) => error.fmt(f),
            Self::Activation(error) => error.fmt(f),
            Self::Panic => f.write_str("a panic ended the attempt"),
        }
    }
}

/// Full jitter above a floor, doubled with each failure up to `cap`.
pub(super) fn backoff(failures: u32, cap: Duration) -> Duration {
    let doubled = FIRST_RETRY.saturating_mul(1 << failures.min(20));
    between(MIN_RETRY, doubled.min(cap.max(MIN_RETRY)))
}

fn between(min: Duration, max: Duration) -> Duration {
    if min >= max {
        min
    } else {
        rand::rng().random_range(min..=max)
    }
}
