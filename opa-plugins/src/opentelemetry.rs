//! OpenTelemetry: decisions, downloads and uploads belong to the traces of a program that bridges
//! `tracing` with `tracing-opentelemetry`.
//!
//! The current span is OpenTelemetry's own, or else that of the current `tracing` span. It is
//! handed on by the global propagator, which the program sets
//! (`opentelemetry::global::set_text_map_propagator`): until then nothing is.
//!
//! What is traced, and under which names, is told in [`opa_core::trace`]. Decisions are events of
//! level debug: the filter of the program's OpenTelemetry layer must let `opa::decision=debug`
//! pass.
//!
//! ```
//! use opa_core::engine::Module;
//! use opa_core::{Manager, Value};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Beside `tracing_subscriber::registry().with(tracing_opentelemetry::layer().with_tracer(…))`.
//! let manager = Manager::builder()
//!     .in_memory([Module::v1("a.rego", "package a\nallow := true")], Value::empty_object())?
//!     .trace_context(opa_plugins::opentelemetry())
//!     .build()?;
//! # Ok(())
//! # }
//! ```

use ::opentelemetry::propagation::Injector;
use ::opentelemetry::trace::{SpanContext, TraceContextExt};
use ::opentelemetry::{Context, global};
use http::{HeaderMap, HeaderName, HeaderValue};
use opa_core::trace::{SpanIds, TraceContext};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Traces of OpenTelemetry, for
/// [`ManagerBuilder::trace_context`](opa_core::ManagerBuilder::trace_context). See the
/// [module docs](self).
#[must_use]
pub fn opentelemetry() -> OpenTelemetry {
    OpenTelemetry(())
}

/// Knows the current span of OpenTelemetry. See the [module docs](self).
#[derive(Clone, Debug)]
pub struct OpenTelemetry(());

impl TraceContext for OpenTelemetry {
    fn current(&self) -> Option<SpanIds> {
        let active = Context::map_current(|context| ids(context.span().span_context()));
        active.or_else(|| ids(Span::current().context().span().span_context()))
    }

    fn inject(&self, headers: &mut HeaderMap) {
        let mut context = Context::current();
        if ids(context.span().span_context()).is_none() {
            let of_tracing = Span::current().context();
            let span = of_tracing.span().span_context().clone();
            if span.is_valid() {
                // What else the active context has, such as baggage, stays.
                context = context.with_remote_span_context(span);
            }
        }
        let mut headers = Headers(headers);
        global::get_text_map_propagator(|all| all.inject_context(&context, &mut headers));
    }

    fn set_attribute(&self, name: &str, value: &str) {
        Span::current().set_attribute(name.to_owned(), value.to_owned());
    }
}

fn ids(span: &SpanContext) -> Option<SpanIds> {
    SpanIds::new(span.trace_id().to_bytes(), span.span_id().to_bytes())
}

/// Headers that a propagator writes. What is no header is left out.
struct Headers<'a>(&'a mut HeaderMap);

impl Injector for Headers<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = HeaderName::from_bytes(key.as_bytes());
        let value = HeaderValue::try_from(value);
        if let (Ok(name), Ok(value)) = (name, value) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::opentelemetry::baggage::BaggageExt;
    use ::opentelemetry::propagation::TextMapCompositePropagator;
    use ::opentelemetry::trace::{TraceFlags, TraceId, TraceState, TracerProvider};
    use ::opentelemetry::{KeyValue, trace::SpanId};
    use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    fn propagate() {
        let both = TextMapCompositePropagator::new(vec![
            Box::new(TraceContextPropagator::new()),
            Box::new(BaggagePropagator::new()),
        ]);
        global::set_text_map_propagator(both);
    }

    fn remote() -> Context {
        let ids = (TraceId::from(0xab), SpanId::from(0xcd));
        let state = TraceState::from_key_value([("vendor", "1")]).unwrap();
        let span = SpanContext::new(ids.0, ids.1, TraceFlags::SAMPLED, true, state);
        Context::new()
            .with_remote_span_context(span)
            .with_baggage([KeyValue::new("tenant", "blue")])
    }

    #[test]
    fn outside_of_a_trace_there_is_none() {
        propagate();
        let mut headers = HeaderMap::new();
        opentelemetry().inject(&mut headers);
        assert!(headers.is_empty(), "{headers:?}");
        assert_eq!(opentelemetry().current(), None);
    }

    #[test]
    fn an_active_span_is_the_current_one() {
        propagate();
        let _active = remote().attach();
        let ids = opentelemetry().current().unwrap();
        assert_eq!(ids.trace_id(), "000000000000000000000000000000ab");
        assert_eq!(ids.span_id(), "00000000000000cd");
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", HeaderValue::from_static("another's"));
        opentelemetry().inject(&mut headers);
        let parent = "00-000000000000000000000000000000ab-00000000000000cd-01";
        assert_eq!(headers["traceparent"], parent);
        assert_eq!(headers["tracestate"], "vendor=1");
        assert_eq!(headers["baggage"], "tenant=blue");
    }

    /// Both ways in which a program may set the bridge up.
    #[test]
    fn a_span_of_tracing_is_bridged() {
        propagate();
        for activates in [true, false] {
            let tracer = SdkTracerProvider::default().tracer("test");
            let layer = tracing_opentelemetry::layer().with_tracer(tracer);
            let layer = layer.with_context_activation(activates);
            let subscriber = tracing_subscriber::registry().with(layer);
            tracing::subscriber::with_default(subscriber, || {
                let span = tracing::info_span!("caller");
                span.set_parent(remote()).unwrap();
                let _entered = span.enter();
                let ids = opentelemetry().current().unwrap();
                assert_eq!(ids.trace_id(), "000000000000000000000000000000ab");
                assert_ne!(ids.span_id(), "00000000000000cd");
                let mut headers = HeaderMap::new();
                opentelemetry().inject(&mut headers);
                let parent = headers["traceparent"].to_str().unwrap();
                let wanted = format!("00-{}-{}-01", ids.trace_id(), ids.span_id());
                assert_eq!(parent, wanted, "activates: {activates}");
            });
        }
    }
}
