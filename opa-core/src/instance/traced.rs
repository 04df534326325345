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
