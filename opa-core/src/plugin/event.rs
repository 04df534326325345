use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::LogPolicy;
use crate::{AppId, Reason, Value};

/// The labels of an instance: OPA's `id` and `version`, and the configured ones.
///
/// Cloning is cheap.
#[derive(Clone, PartialEq, Eq)]
pub struct Labels(Arc<(BTreeMap<String, String>, Value)>);

impl Labels {
    /// Labels from names and values.
    pub fn new(labels: impl IntoIterator<Item = (String, String)>) -> Self {
        let labels: BTreeMap<_, _> = labels.into_iter().collect();
        let value = Value::object(
            labels
                .iter()
                .map(|(name, label)| (Value::from(&**name), Value::from(&**label))),
        );
        Self(Arc::new((labels, value)))
    }

    /// One label.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.0.get(name).map(String::as_str)
    }

    /// All labels, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.0.iter().map(|(name, label)| (&**name, &**label))
    }

    /// The labels as an object, shared by all events.
    #[must_use]
    pub fn to_value(&self) -> Value {
        self.0.1.clone()
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.0.fmt(f)
    }
}

/// A bundle that a decision was made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleRevision {
    /// The bundle's name in the configuration.
    pub name: Arc<str>,
    /// The revision in its manifest, if it has one.
    pub revision: Option<Arc<str>>,
}

/// The record of one decision, for the decision log.
///
/// It shares what it holds with the decision; nothing is encoded yet. Its `Debug` tells neither
/// input nor result.
#[derive(Clone)]
#[non_exhaustive]
pub struct Event {
    /// The app.
    pub app: AppId,
    /// The instance's labels.
    pub labels: Labels,
    /// The decision's id.
    pub decision_id: Arc<str>,
    /// The bundles that were active.
    pub bundles: Arc<[BundleRevision]>,
    /// The path below `data`, such as `orders/allow`.
    pub path: Option<Arc<str>>,
    /// The input document.
    pub input: EventInput,
    /// The policy's whole answer; `None` when undefined or failed.
    pub result: Option<Value>,
    /// What failed.
    pub error: Option<EventError>,
    /// Why the decision is what it is.
    pub reason: Reason,
    /// What non-deterministic built-ins answered: an object by built-in, of objects by arguments. No instance
    /// fills it yet.
    pub nd_builtin_cache: Option<Value>,
    /// The paths that the mask policy removed, such as `/input/password`.
    pub erased: Vec<Arc<str>>,
    /// The paths that the mask policy set.
    pub masked: Vec<Arc<str>>,
    /// The client's address, if known.
    pub requested_by: Option<Arc<str>>,
    /// The id of the trace that the request belongs to, in hexadecimal digits, if there is a
    /// [`TraceContext`](crate::trace::TraceContext) that knows it.
    pub trace_id: Option<Arc<str>>,
    /// The id of the request's span, or of the decision's own
    /// ([`decision_spans`](crate::ManagerBuilder::decision_spans)), in hexadecimal digits.
    pub span_id: Option<Arc<str>>,
    /// The number of the question among those of its instance, from 1. OPA counts the requests of a
    /// server so.
    pub req_id: Option<u64>,
    /// The labels of the rules that succeeded, an object for each. No instance
    /// fills it yet.
    pub rule_labels: Vec<Value>,
    /// The headers of the request that the log shows (`request_context.http.headers`).
    pub request_headers: Vec<RequestHeader>,
    /// When the decision was asked for.
    pub timestamp: SystemTime,
    /// How long it took.
    pub metrics: Metrics,
    /// The policy that made the decision, which says what a log may show of it. `None` without a
    /// policy, and for sinks that don't [ask it](super::DecisionSink::asks_policy).
    pub policy: Option<LogPolicy>,
    /// More members of the event's `custom`.
    pub custom: Vec<(&'static str, Value)>,
}

impl Event {
    /// Removes what a policy on logs might hide: input, result, `nd_builtin_cache`, and the text of
    /// the error, which can carry values of the input. `custom.withheld` tells `why`, which must
    /// not have values of the event.
    pub fn withhold(&mut self, why: &str) {
        self.input = EventInput::Withheld;
        self.result = None;
        self.nd_builtin_cache = None;
        if let Some(error) = &mut self.error {
            error.message = "withheld".into();
        }
        self.custom.push(("withheld", Value::from(why)));
    }

    /// An event with the members that every event has.
    pub fn new(
        app: AppId,
        labels: Labels,
        decision_id: Arc<str>,
        reason: Reason,
        timestamp: SystemTime,
    ) -> Self {
        Self {
            app,
            labels,
            decision_id,
            bundles: Arc::default(),
            path: None,
            input: EventInput::None,
            result: None,
            error: None,
            reason,
            nd_builtin_cache: None,
            erased: Vec::new(),
            masked: Vec::new(),
            requested_by: None,
            trace_id: None,
            span_id: None,
            req_id: None,
            rule_labels: Vec::new(),
            request_headers: Vec::new(),
            timestamp,
            metrics: Metrics::default(),
            policy: None,
            custom: Vec::new(),
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("app", &self.app)
            .field("decision_id", &self.decision_id)
            .field("path", &self.path)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

/// A header of the request, in an event. Its `Debug` tells the name.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestHeader {
    /// The name, spelled as the configuration spells it.
    pub name: Arc<str>,
    /// The values, in their order.
    pub values: Vec<Arc<str>>,
}

impl fmt::Debug for RequestHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        f.debug_struct("RequestHeader")
            .field("name", name)
            .finish_non_exhaustive()
    }
}

/// An error in an event, with OPA's code or the reason's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventError {
    /// Such as `eval_conflict_error`.
    pub code: Arc<str>,
    /// In words. Can carry values of the input.
    pub message: Arc<str>,
}

/// The input document of an event. Its `Debug` doesn't tell the document.
#[derive(Clone)]
pub enum EventInput {
    /// There was none.
    None,
    /// The document.
    Built(Value),
    /// Only parts were built for the evaluation; the whole is built when the log wants it.
    Deferred(Arc<dyn DeferredInput>),
    /// Withheld, because the policy says what a log may show, and nobody asked it or it gave no
    /// answer that helps.
    Withheld,
}

impl fmt::Debug for EventInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Built(_) => "Built(..)",
            Self::Deferred(_) => "Deferred(..)",
            Self::Withheld => "Withheld",
        })
    }
}

/// An input document that is built off the way of the request.
pub trait DeferredInput: Send + Sync + 'static {
    /// The whole document.
    fn build(&self) -> Value;

    /// About how many bytes it holds until then, for whoever bounds what waits. Must be cheap.
    /// Default: 4 KiB.
    fn size_hint(&self) -> usize {
        4096
    }
}

impl fmt::Debug for dyn DeferredInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<deferred input>")
    }
}

/// OPA's timers of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// `timer_rego_query_eval_ns`: evaluation, over all rounds.
    pub eval: Duration,
    /// `timer_server_handler_ns`: from the request's arrival to the decision.
    pub handler: Duration,
}
