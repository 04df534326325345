//! How a decision shows in traces: an event on the caller's span, or a span of its own.

use std::fmt;
use std::sync::Arc;

use tracing::field::{Empty, debug, display};
use tracing::{Level, Span};

use super::Decision;
use crate::plugin::{BundleRevision, Labels};
use crate::trace::{SpanIds, TraceContext};
use crate::{AppId, Reason, Value};

/// What a manager traces of its decisions.
#[derive(Default)]
pub(crate) struct Tracing {
    pub(crate) context: Option<Arc<dyn TraceContext>>,
    /// Each decision has a span of its own.
    pub(crate) spans: bool,
}

/// A decision's place in a trace.
#[derive(Debug)]
pub(super) struct Traced {
    /// None, unless decisions have spans of their own.
    pub(super) span: Span,
    /// Of the span of its own, else of the caller's.
    ids: Option<SpanIds>,
}

impl Tracing {
    /// Whether somebody may be told of decisions.
    pub(super) fn listens(&self) -> bool {
        self.spans || tracing::event_enabled!(target: "opa::decision", Level::DEBUG)
    }

    pub(super) fn start(&self, app: &AppId, decision_id: &str) -> Traced {
        let span = match self.spans {
            true => decision_span(app, decision_id),
            false => Span::none(),
        };
        let context = self.context.as_ref();
        let ids = context.and_then(|context| span.in_scope(|| context.current()));
        Traced { span, ids }
    }
}

fn decision_span(app: &AppId, decision_id: &str) -> Span {
    tracing::info_span!(
        target: "opa::decision",
        "open-policy-agent",
        opa.app = %app,
        opa.bundle_name = %app,
        opa.decision_id = decision_id,
        opa.decision.allowed = Empty,
        opa.decision.reason = Empty,
        opa.path = Empty,
        opa.bundles = Empty,
        opa.labels = Empty,
        "error.type" = Empty,
        otel.status_code = Empty,
    )
}

impl Traced {
    /// The trace's id and the span's, as the decision's event has them.
    pub(super) fn ids(&self) -> (Option<Arc<str>>, Option<Arc<str>>) {
        let trace = self.ids.map(|ids| ids.trace_id().into());
        let span = self.ids.map(|ids| ids.span_id().into());
        (trace, span)
    }

    /// Tells the decision. What is told is formatted only if somebody listens.
    pub(super) fn end(&self, decision: &Decision, labels: Option<&Labels>, tracing: &Tracing) {
        if !tracing.spans {
            event(decision, labels);
            return;
        }
        if self.span.is_disabled() {
            return;
        }
        self.record(decision, labels);
        if let (Some(context), Some(labels)) = (&tracing.context, labels) {
            let _entered = self.span.enter();
            for (name, value) in labels.iter() {
                context.set_attribute(&format!("opa.label.{name}"), value);
            }
        }
    }

    /// Nobody waited for the decision.
    pub(super) fn cancel(&self) {
        let reason = Reason::Cancelled.as_str();
        self.span.record("opa.decision.reason", reason);
    }

    fn record(&self, decision: &Decision, labels: Option<&Labels>) {
        let span = &self.span;
        span.record("opa.decision.reason", decision.reason().as_str());
        if let Some(allowed) = allowed(decision) {
            span.record("opa.decision.allowed", allowed);
        }
        if let Some(path) = decision.path() {
            span.record("opa.path", path);
        }
        span.record("opa.bundles", display(Revisions(decision.bundles())));
        if let Some(labels) = labels {
            span.record("opa.labels", debug(labels));
        }
        if let Some(error) = decision.error() {
            span.record("error.type", &*error.code);
            span.record("otel.status_code", "ERROR");
        }
    }
}

fn event(decision: &Decision, labels: Option<&Labels>) {
    tracing::event!(
        name: "opa.decision",
        target: "opa::decision",
        Level::DEBUG,
        opa.app = %decision.app(),
        opa.bundle_name = %decision.app(),
        opa.decision_id = decision.id(),
        opa.decision.allowed = allowed(decision),
        opa.decision.reason = decision.reason().as_str(),
        opa.path = decision.path(),
        opa.bundles = %Revisions(decision.bundles()),
        opa.labels = labels.map(debug),
        "error.type" = decision.error().map(|error| &*error.code),
        message = "opa.decision",
    );
}

/// Whether the policy allowed; `None` where its answer was not read as allow or deny.
fn allowed(decision: &Decision) -> Option<bool> {
    match decision.reason() {
        Reason::Allowed => Some(true),
        Reason::Decided => decision.result().and_then(Value::as_bool),
        _ => Some(false),
    }
}

/// Bundles by name with their revisions, `a=1 b`.
struct Revisions<'a>(&'a [BundleRevision]);

impl fmt::Display for Revisions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, bundle) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            f.write_str(&bundle.name)?;
            if let Some(revision) = &bundle.revision {
                write!(f, "={revision}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use allocation_counter::measure;
    use tracing_subscriber::filter::LevelFilter;

    use super::super::decision::Inner;
    use super::*;
    use crate::plugin::EventError;

    fn decision(reason: Reason, result: Option<Value>) -> Decision {
        let bundle = |name: &str, revision: Option<&str>| BundleRevision {
            name: name.into(),
            revision: revision.map(Into::into),
        };
        Decision(Arc::new(Inner {
            id: "7".into(),
            app: AppId::new("shop").unwrap(),
            path: Some("shop/allow".into()),
            bundles: [bundle("a", Some("1")), bundle("b", None)].into(),
            result,
            reason,
            error: Some(EventError {
                code: "code".into(),
                message: "secret".into(),
            }),
        }))
    }

    fn labels() -> Labels {
        Labels::new([("team".to_owned(), "red".to_owned())])
    }

    fn told(tracing: &Tracing, decision: &Decision, labels: &Labels) {
        let traced = tracing.start(decision.app(), decision.id());
        traced.end(decision, Some(labels), tracing);
    }

    #[test]
    fn without_a_subscriber_nothing_is_allocated() {
        let (decision, labels) = (decision(Reason::Allowed, None), labels());
        for spans in [false, true] {
            let tracing = Tracing {
                spans,
                ..Tracing::default()
            };
            let without = || {
                told(&tracing, &decision, &labels);
            };
            // The first time, callsites are registered.
            without();
            assert_eq!(measure(without).count_total, 0, "spans: {spans}");

            let lines = tracing_subscriber::fmt()
                .with_max_level(LevelFilter::DEBUG)
                .with_writer(io::sink)
                .finish();
            let with = || tracing::subscriber::with_default(lines, without);
            assert_ne!(measure(with).count_total, 0, "spans: {spans}");
        }
    }

    #[test]
    fn only_what_was_read_as_allow_or_deny_is_one() {
        let yes = || Some(Value::from(true));
        for (reason, result, wanted) in [
            (Reason::Allowed, None, Some(true)),
            (Reason::Denied, yes(), Some(false)),
            (Reason::DryRun, None, Some(false)),
            (Reason::NotReady, None, Some(false)),
            (Reason::Decided, yes(), Some(true)),
            (Reason::Decided, Some(Value::empty_object()), None),
        ] {
            assert_eq!(allowed(&decision(reason, result)), wanted, "{reason}");
        }
    }

    #[test]
    fn bundles_are_told_with_their_revisions() {
        let decision = decision(Reason::Allowed, None);
        assert_eq!(Revisions(decision.bundles()).to_string(), "a=1 b");
    }

    /// What each decision costs nobody who doesn't listen:
    /// `cargo test --release -p opa-core --lib told_to_nobody -- --ignored --nocapture`.
    #[test]
    #[ignore = "it prints and asserts nothing"]
    fn what_is_told_to_nobody_costs() {
        const TIMES: u32 = 10_000_000;
        let (decision, labels) = (decision(Reason::Allowed, None), labels());
        for spans in [false, true] {
            let tracing = Tracing {
                spans,
                ..Tracing::default()
            };
            let started = std::time::Instant::now();
            for _ in 0..TIMES {
                told(&tracing, std::hint::black_box(&decision), &labels);
            }
            println!("spans: {spans}, {:?} for each", started.elapsed() / TIMES);
        }
    }
}
