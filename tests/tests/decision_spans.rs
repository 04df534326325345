//! Decisions, polls and requests as a program sees them that bridges `tracing` to OpenTelemetry.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opa_core::config::ConfigError;
use opa_core::engine::Module;
use opa_core::plugin::{Attached, Event, Plugin, Scope};
use opa_core::{App, Manager, ManagerBuilder, Value};
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags};
use opentelemetry::trace::{TraceId, TraceState, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use tests::bundle_server::{Answer, BundleServer};
use tracing::subscriber::DefaultGuard;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;

const POLICY: &str = "package shop\nallow := input.ok\nfails := 1 / input.zero";

/// Takes all that this thread tells.
struct Ears {
    spans: InMemorySpanExporter,
    provider: SdkTracerProvider,
    lines: Lines,
    _guard: DefaultGuard,
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Ears {
    fn listen() -> Ears {
        let spans = InMemorySpanExporter::default();
        let provider = SdkTracerProvider::builder()
            .with_simple_exporter(spans.clone())
            .build();
        let lines = Lines::default();
        let writer = lines.clone();
        let ours = || FilterFn::new(|metadata| metadata.target().starts_with("opa"));
        let traces = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let log = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(move || writer.clone());
        let log = log.with_filter(ours().with_max_level_hint(LevelFilter::TRACE));
        let test = FilterFn::new(|metadata| {
            metadata.target().starts_with("opa") || metadata.target() == "decision_spans"
        });
        let all = tracing_subscriber::registry()
            .with(traces.with_filter(test))
            .with(log);
        Ears {
            spans,
            provider,
            lines,
            _guard: tracing::subscriber::set_default(all),
        }
    }

    fn spans(&self) -> Vec<SpanData> {
        self.provider.force_flush().unwrap();
        self.spans.get_finished_spans().unwrap()
    }

    fn span(&self, name: &str) -> SpanData {
        let spans = self.spans();
        let mut named = spans.iter().filter(|it| it.name == name);
        let found = named
            .next()
            .unwrap_or_else(|| panic!("no {name}: {spans:#?}"));
        assert!(named.next().is_none(), "two of {name}: {spans:#?}");
        found.clone()
    }

    fn lines(&self) -> String {
        String::from_utf8(self.lines.0.lock().unwrap().clone()).unwrap()
    }
}

fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let pairs = attributes.iter();
    pairs
        .map(|it| (it.key.to_string(), it.value.to_string()))
        .collect()
}

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<Event>>>);

impl Plugin for Events {
    fn name(&self) -> &str {
        "events"
    }
    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        let events = self.clone();
        Ok(Attached::default().decisions(move |event| events.0.lock().unwrap().push(event)))
    }
}

async fn app(builder: ManagerBuilder) -> (App, Events, Manager) {
    let events = Events::default();
    let manager = builder
        .config_yaml("labels: {team: red}")
        .in_memory([Module::v1("shop.rego", POLICY)], Value::empty_object())
        .unwrap()
        .plugin(events.clone())
        .trace_context(opa_plugins::opentelemetry())
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(Duration::from_secs(10)).await.unwrap();
    (app, events, manager)
}

fn input(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap()
}

/// Somebody else's span.
fn remote(flags: TraceFlags) -> Context {
    let ids = (TraceId::from(0xab), SpanId::from(0xcd));
    let span = SpanContext::new(ids.0, ids.1, flags, true, TraceState::default());
    Context::new().with_remote_span_context(span)
}

fn caller(flags: TraceFlags) -> tracing::Span {
    let span = tracing::info_span!("caller");
    span.set_parent(remote(flags)).unwrap();
    span
}

#[tokio::test]
async fn a_decision_is_an_event_on_the_callers_span() {
    let ears = Ears::listen();
    let (app, events, _manager) = app(Manager::builder()).await;
    let span = caller(TraceFlags::SAMPLED);
    // The future is polled outside of the span: what counts is where the question was asked.
    let deciding = span.in_scope(|| app.decide("shop/allow", input(r#"{"ok": true}"#)));
    let decision = tracing::Instrument::instrument(deciding, span.clone()).await;
    drop(span);

    let caller = ears.span("caller");
    assert!(ears.spans().iter().all(|it| it.name != "open-policy-agent"));
    let [told] = &*caller.events.events else {
        panic!("{caller:#?}")
    };
    assert_eq!(told.name, "opa.decision");
    let told = attributes(&told.attributes);
    assert_eq!(told["opa.decision_id"], decision.id());
    assert_eq!(told["opa.decision.allowed"], "true");
    assert_eq!(told["opa.decision.reason"], "decided");
    assert_eq!(told["opa.path"], "shop/allow");
    assert!(!told.contains_key("error.type"));
    let event = events.0.lock().unwrap().pop().unwrap();
    let trace = "000000000000000000000000000000ab";
    assert_eq!(event.trace_id.as_deref(), Some(trace));
    let span = caller.span_context.span_id().to_string();
    assert_eq!(event.span_id.as_deref(), Some(&*span));
}

#[tokio::test]
async fn a_decision_has_a_span_of_its_own_where_that_is_asked_for() {
    let ears = Ears::listen();
    let (app, events, _manager) = app(Manager::builder().decision_spans(true)).await;
    let span = caller(TraceFlags::SAMPLED);
    let decision = span.in_scope(|| app.decide("shop/allow", input(r#"{"ok": false}"#)));
    let decision = decision.await;
    drop(span);

    let caller = ears.span("caller");
    assert!(caller.events.events.is_empty(), "{caller:#?}");
    let own = ears.span("open-policy-agent");
    assert_eq!(own.parent_span_id, caller.span_context.span_id());
    assert_eq!(own.span_context.trace_id(), TraceId::from(0xab));
    assert_eq!(own.status, Status::Unset);
    let told = attributes(&own.attributes);
    assert_eq!(told["opa.decision_id"], decision.id());
    assert_eq!(told["opa.decision.allowed"], "false");
    assert_eq!(told["opa.decision.reason"], "decided");
    assert_eq!(told["opa.bundle_name"], "shop");
    assert_eq!(told["opa.bundles"], "bundle");
    assert_eq!(told["opa.label.team"], "red");
    assert_eq!(told["opa.label.version"], "1.22.2");
    let event = events.0.lock().unwrap().pop().unwrap();
    let span = own.span_context.span_id().to_string();
    assert_eq!(event.span_id.as_deref(), Some(&*span));
}

#[tokio::test]
async fn a_failure_is_told_without_its_text() {
    let ears = Ears::listen();
    let (app, _, _manager) = app(Manager::builder().decision_spans(true)).await;
    let decision = app
        .decide("shop/fails", input(r#"{"zero": "canary"}"#))
        .await;
    assert!(decision.error().is_some());
    let own = ears.span("open-policy-agent");
    assert!(matches!(own.status, Status::Error { .. }), "{own:#?}");
    let told = attributes(&own.attributes);
    assert_eq!(told["opa.decision.allowed"], "false");
    assert_eq!(told["opa.decision.reason"], decision.reason().as_str());
    assert_eq!(told["error.type"], *decision.error().unwrap().code);
    assert!(!format!("{own:?}").contains("canary"), "{own:#?}");
}

#[tokio::test]
async fn a_question_that_nobody_waits_for_is_told_as_cancelled() {
    let ears = Ears::listen();
    let (app, events, _manager) = app(Manager::builder().decision_spans(true)).await;
    drop(app.ask());
    let told = attributes(&ears.span("open-policy-agent").attributes);
    assert_eq!(told["opa.decision.reason"], "cancelled");
    assert!(events.0.lock().unwrap().is_empty());
}

/// As OPA's: the log has the caller's ids also where nobody records the trace.
#[tokio::test]
async fn a_trace_that_is_not_sampled_has_ids_all_the_same() {
    let ears = Ears::listen();
    let (app, events, _manager) = app(Manager::builder()).await;
    let span = caller(TraceFlags::NOT_SAMPLED);
    let deciding = span.in_scope(|| app.decide("shop/allow", input(r#"{"ok": true}"#)));
    deciding.await;
    drop(span);
    assert!(ears.spans().iter().all(|it| it.name != "caller"));
    let event = events.0.lock().unwrap().pop().unwrap();
    let trace = "000000000000000000000000000000ab";
    assert_eq!(event.trace_id.as_deref(), Some(trace));
    assert_eq!(event.span_id.map(|id| id.len()), Some(16));
}

async fn polled(url: &str) -> Manager {
    let url = url.replace("://", "://canary-user:canary-password@");
    let config = format!(
        "services: {{control: {{url: '{url}', headers: {{x-secret: canary-header}},\n  \
         credentials: {{bearer: {{token: canary-token}}}}}}}}\n\
         bundles: {{main: {{service: control, resource: 'b.tar.gz?token=canary-query'}}}}"
    );
    let manager = Manager::builder()
        .config_yaml(&config)
        .trace_context(opa_plugins::opentelemetry())
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    // It never has a bundle.
    app.ready(Duration::from_millis(300)).await.unwrap_err();
    manager
}

#[tokio::test]
async fn what_fails_is_told_without_secrets() {
    let refusing = BundleServer::start().await;
    let path = "/b.tar.gz?token=canary-query";
    refusing.answer(path, Answer::Status(403, ""));
    refusing.answer("/b.tar.gz", Answer::Status(403, ""));
    let closing = BundleServer::start().await;
    closing.answer(path, Answer::Close);
    closing.answer("/b.tar.gz", Answer::Close);
    let redirecting = BundleServer::start().await;
    let to = "location: http://canary-user:canary-password@127.0.0.1:1/x?token=canary-query\r\n";
    redirecting.answer(path, Answer::Status(302, to));
    redirecting.answer("/b.tar.gz", Answer::Status(302, to));
    let nobody = "http://127.0.0.1:1".to_owned();
    for (url, kind) in [
        (refusing.url(), "403"),
        (closing.url(), "_OTHER"),
        (redirecting.url(), "_OTHER"),
        (nobody, "_OTHER"),
    ] {
        let ears = Ears::listen();
        let manager = polled(&url).await;
        let state = format!("{:?}", manager.app("shop").unwrap().status());
        assert!(!state.contains("canary"), "{state}");
        manager.shutdown(Duration::from_secs(10)).await;
        let spans = ears.spans();
        let requests: Vec<_> = spans
            .iter()
            .filter(|it| it.span_kind == SpanKind::Client && it.name == "GET")
            .collect();
        let failed = requests.iter().find(|it| {
            let told = attributes(&it.attributes);
            told.get("error.type").is_some_and(|it| it == kind)
        });
        let failed = failed.unwrap_or_else(|| panic!("{url}: {spans:#?}"));
        assert!(matches!(failed.status, Status::Error { .. }), "{failed:#?}");
        let poll = spans
            .iter()
            .find(|it| it.name == "open-policy-agent.bundle")
            .unwrap();
        assert!(matches!(poll.status, Status::Error { .. }), "{poll:#?}");
        assert!(!format!("{spans:?}").contains("canary"), "{spans:#?}");
        let lines = ears.lines();
        assert!(lines.contains("bundle failed"), "{lines}");
        assert!(!lines.contains("canary"), "{lines}");
    }
}
