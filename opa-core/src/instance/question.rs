use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::concluded::Admissions;
use super::decision::Inner;
use super::traced::Traced;
use super::{App, Concluded, Decision, Evaluation, Instance, Profile, Snapshot};
use crate::engine::{Entrypoint, EntrypointPath, EvalContext, InputPaths, Memo, Run, Task};
use crate::plugin::{BundleRevision, Event, EventError, EventInput, Labels, RequestHeader};
use crate::{Reason, Value};

/// A decision that was asked for and is not made yet.
///
/// The building blocks for layers and services that bring their own input: [`App::ask`], then
/// [`prepare`](Self::prepare), [`Prepared::evaluate`] and
/// [`Evaluated::conclude`](super::Evaluated::conclude). Each of them can end the way with a
/// [`Concluded`], the decision that may wait for its log. A question that is dropped instead counts
/// as [`cancelled`](Reason::Cancelled) and records no event.
#[derive(Debug)]
#[must_use = "a question that is dropped counts as cancelled"]
pub struct Question {
    app: App,
    id: Arc<str>,
    /// Of its instance, from 1.
    number: u64,
    timestamp: SystemTime,
    /// By the injected clock.
    started: Duration,
    concluded: bool,
    /// For whoever is told of the decision in a trace.
    told_labels: Option<Labels>,
    pub(super) traced: Traced,
}

/// What only the asker knows of a decision, for its event.
#[derive(Debug)]
pub struct LogEntry {
    /// The input document.
    pub input: EventInput,
    /// The client's address.
    pub requested_by: Option<Arc<str>>,
    /// The headers of the request that the log shows, see [`Prepared::logged_headers`].
    pub request_headers: Vec<RequestHeader>,
}

impl Default for LogEntry {
    fn default() -> Self {
        Self {
            input: EventInput::None,
            requested_by: None,
            request_headers: Vec::new(),
        }
    }
}

impl App {
    /// Asks for a decision: gives it an id and notes the time.
    pub fn ask(&self) -> Question {
        let clock = &self.instance.shared.clock;
        let number = self.instance.counters.ask();
        let id: Arc<str> = uuid::Uuid::new_v4().to_string().into();
        Question {
            number,
            traced: self.instance.shared.tracing.start(&self.instance.id, &id),
            told_labels: None,
            id,
            timestamp: clock.wall(),
            started: clock.monotonic(),
            app: self.clone(),
            concluded: false,
        }
    }
}

impl Question {
    /// The id of the decision to come.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The app that is asked.
    #[must_use]
    pub fn app(&self) -> &App {
        &self.app
    }

    /// When the decision was asked for, by the manager's clock.
    #[must_use]
    pub fn timestamp(&self) -> SystemTime {
        self.timestamp
    }

    /// Takes the active snapshot and looks up `path`, by default the configured entrypoint.
    ///
    /// # Errors
    /// The decision, when no policy is active, a sink is
    /// [not available](crate::plugin::DecisionSink::is_available) or the path can't be evaluated.
    pub fn prepare(self, path: Option<&EntrypointPath>) -> Result<Prepared, Concluded> {
        let instance = &self.app.instance;
        let Some(snapshot) = instance.snapshot.load_full() else {
            let (reason, message) = if instance.is_closed() {
                (Reason::Closed, "the instance is closed")
            } else {
                (Reason::NotReady, "the instance has no policy yet")
            };
            let profile = instance.profile();
            let asked = path.or_else(|| profile.as_ref().map(|profile| &profile.entrypoint));
            let mut ends = Ends::unasked(reason, reason, message);
            ends.path = asked.map(EntrypointPath::shared);
            return Err(self.conclude(ends, LogEntry::default(), None));
        };
        if !instance.is_log_available(&snapshot.profile) {
            let asked = path.unwrap_or(&snapshot.profile.entrypoint);
            let (reason, message) = (Reason::LogUnavailable, "a decision log takes no decisions");
            let mut ends = Ends::unasked(reason, reason, message);
            ends.path = Some(asked.shared());
            return Err(self.conclude(ends, LogEntry::default(), None));
        }
        if snapshot.is_stale(|| instance.shared.now_ms()) {
            let asked = path.unwrap_or(&snapshot.profile.entrypoint);
            let message = "the last answer of a bundle's source is longer ago than max_staleness";
            let mut ends = Ends::unasked(Reason::Stale, Reason::Stale, message);
            ends.path = Some(asked.shared());
            return Err(self.conclude(ends, LogEntry::default(), None));
        }
        match snapshot.entrypoint(path) {
            Ok(entrypoint) => Ok(Prepared {
                question: self,
                snapshot,
                entrypoint,
            }),
            Err(error) => {
                let message = error.to_string();
                Err(self.refuse(Reason::InvalidEntrypoint, &message, LogEntry::default()))
            }
        }
    }

    /// Ends the question without asking the policy.
    pub fn refuse(self, reason: Reason, message: &str, entry: LogEntry) -> Concluded {
        self.conclude(Ends::unasked(reason, reason, message), entry, None)
    }

    pub(super) fn instance(&self) -> &Instance {
        &self.app.instance
    }

    /// Makes the decision and hands its event over.
    pub(super) fn conclude(
        mut self,
        ends: Ends,
        entry: LogEntry,
        prepared: Option<(&Arc<Snapshot>, &Entrypoint)>,
    ) -> Concluded {
        let instance = &self.app.instance;
        let made = Inner {
            id: Arc::clone(&self.id),
            app: instance.id.clone(),
            path: prepared.map_or(ends.path, |(_, entrypoint)| {
                Some(entrypoint.path().shared())
            }),
            bundles: prepared
                .map(|(snapshot, _)| Arc::clone(&snapshot.bundles))
                .unwrap_or_default(),
            result: ends.result,
            reason: ends.reason,
            error: ends.error,
        };
        // Whoever was refused before the policy was asked may still have shown something.
        let served = match prepared {
            Some((snapshot, _)) => Some(Arc::clone(snapshot)),
            None => instance.snapshot.load_full(),
        };
        let unserved = match served {
            Some(_) => None,
            None => instance.profile(),
        };
        // The sinks of a configuration that is not served yet would ask for masks that this policy
        // may not know.
        let profile = served.as_ref().map(|served| &*served.profile);
        let profile = profile.or(unserved.as_deref());
        if instance.shared.tracing.listens() {
            self.told_labels = profile.map(|profile| profile.labels.clone());
        }
        let admissions = match profile.filter(|profile| !profile.decision_sinks.is_empty()) {
            Some(profile) => {
                let event = self.event(&made, profile, entry, ends.eval);
                instance.emit(profile, served.as_ref(), event)
            }
            None => Admissions::default(),
        };
        Concluded::new(self, made, admissions)
    }

    /// Makes the decision final: counts it.
    pub(super) fn settle(mut self, made: Inner) -> Decision {
        self.concluded = true;
        let instance = &self.app.instance;
        instance.counters.count(made.reason);
        if let Some(times) = instance.shared.decision_times.get() {
            let now = instance.shared.clock.monotonic();
            times.record(now.saturating_sub(self.started));
        }
        let decision = Decision(Arc::new(made));
        let labels = self.told_labels.as_ref();
        self.traced.end(&decision, labels, &instance.shared.tracing);
        decision
    }

    fn event(&self, made: &Inner, profile: &Profile, entry: LogEntry, eval: Duration) -> Event {
        let labels: Labels = profile.labels.clone();
        let id = Arc::clone(&self.id);
        let mut event = Event::new(made.app.clone(), labels, id, made.reason, self.timestamp);
        event.req_id = Some(self.number);
        event.bundles = Arc::clone(&made.bundles);
        event.path = made.path.clone();
        event.error = made.error.clone();
        event.requested_by = entry.requested_by;
        event.metrics.eval = eval;
        event.metrics.handler = self
            .app
            .instance
            .shared
            .clock
            .monotonic()
            .saturating_sub(self.started);
        event.request_headers = entry.request_headers;
        event.input = entry.input;
        event.result = made.result.clone();
        (event.trace_id, event.span_id) = self.traced.ids();
        event
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.concluded {
            self.app.instance.counters.count(Reason::Cancelled);
            self.traced.cancel();
        }
    }
}

/// How a question ends.
pub(super) struct Ends {
    pub(super) reason: Reason,
    pub(super) result: Option<Value>,
    pub(super) error: Option<EventError>,
    pub(super) eval: Duration,
    /// The path that was asked for, where no entrypoint tells it.
    pub(super) path: Option<Arc<str>>,
}

impl Ends {
    /// The policy was not asked because of `problem`.
    fn unasked(reason: Reason, problem: Reason, message: &str) -> Self {
        let error = EventError {
            code: problem.as_str().into(),
            message: message.into(),
        };
        Self {
            reason,
            result: None,
            error: Some(error),
            eval: Duration::ZERO,
            path: None,
        }
    }
}

/// A question with the snapshot and the entrypoint that will answer it.
#[must_use = "a question that is dropped counts as cancelled"]
pub struct Prepared {
    pub(super) question: Question,
    /// Goes before the snapshot, which is retired and not freed here: so is what an engine keeps for
    /// an entrypoint.
    pub(super) entrypoint: Entrypoint,
    pub(super) snapshot: Arc<Snapshot>,
}

impl Prepared {
    /// The parts of the input that the entrypoint can read.
    #[must_use]
    pub fn inputs(&self) -> &InputPaths {
        self.entrypoint.inputs()
    }

    /// The question.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// The bundles that are active.
    #[must_use]
    pub fn bundles(&self) -> &[BundleRevision] {
        &self.snapshot.bundles
    }

    /// Whether the configuration asks for dry-run and the program permits it.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.snapshot.profile.dry_run
    }

    /// Whether the configuration wants no `parsed_body` and `truncated_body` in the input
    /// (`skip-request-body-parse`).
    #[must_use]
    pub fn skips_request_body_parse(&self) -> bool {
        self.snapshot.profile.skip_request_body_parse
    }

    /// Whether the decision's event will have an input; where not, [`LogEntry::input`] is dropped
    /// and need not be made.
    #[must_use]
    pub fn records_input(&self) -> bool {
        let sinks = &self.snapshot.profile.decision_sinks;
        sinks
            .iter()
            .any(|sink| !self.snapshot.withholds || sink.asks_policy())
    }

    /// The names of the headers that the decision's event shows of the request, for
    /// [`LogEntry::request_headers`].
    #[must_use]
    pub fn logged_headers(&self) -> &[Arc<str>] {
        &self.snapshot.profile.logged_headers
    }

    /// Ends the question without asking the policy.
    pub fn refuse(self, reason: Reason, message: &str, entry: LogEntry) -> Concluded {
        self.end(reason, reason, message, entry)
    }

    /// Ends the question without asking the policy, but lets the request pass: it would be refused
    /// for `refused` if this were no [dry-run](Self::is_dry_run). It doesn't pass when its event
    /// can't be logged: only the final decision tells.
    pub fn pass_in_dry_run(self, refused: Reason, message: &str, entry: LogEntry) -> Concluded {
        self.end(Reason::DryRun, refused, message, entry)
    }

    fn end(self, reason: Reason, problem: Reason, message: &str, entry: LogEntry) -> Concluded {
        let ends = Ends::unasked(reason, problem, message);
        self.question
            .conclude(ends, entry, Some((&self.snapshot, &self.entrypoint)))
    }

    /// Evaluates the entrypoint with `input`, under the app's budgets.
    pub fn evaluate(self, input: Value) -> Evaluation {
        let instance = &self.question.app.instance;
        let shared = &instance.shared;
        let memo = Memo::new(self.question.timestamp, rand::random());
        let mut ctx = EvalContext::with_clock(shared.budget, Arc::clone(&shared.clock))
            .with_memo(memo)
            .with_caches(Arc::clone(&instance.caches));
        if let Some(sink) = &shared.prints {
            ctx = ctx.with_prints(Arc::clone(sink));
        }
        let task = Task {
            runner: Arc::clone(&shared.runner),
            app: instance.id.clone(),
            key: instance.key,
            bound: Arc::clone(&self.snapshot.bound),
            entrypoint: self.entrypoint.clone(),
            input,
            owner: Arc::clone(&self.snapshot) as _,
        };
        let run = self
            .question
            .traced
            .span
            .in_scope(|| Run::start(task, Box::new(ctx)));
        Evaluation::new(self, run)
    }
}
