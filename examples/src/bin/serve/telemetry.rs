//! Traces by OTLP, as the standard `OTEL_*` variables say. Without them nothing is built and nothing
//! is sent.
//!
//! | variable | |
//! | --- | --- |
//! | `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` | one of them, or `OTEL_TRACES_EXPORTER=otlp`, switches traces on |
//! | `OTEL_SDK_DISABLED=true`, `OTEL_TRACES_EXPORTER=none` | switch them off |
//! | `OTEL_EXPORTER_OTLP_PROTOCOL`, `…_TRACES_PROTOCOL` | `http/protobuf` (default) or `grpc` |
//! | `OTEL_EXPORTER_OTLP_HEADERS`, `…_TIMEOUT`, `…_COMPRESSION`, `…_INSECURE`, and each for `…_TRACES_` | as specified |
//! | `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_*`, `OTEL_SPAN_*_LIMIT` | as specified |
//! | `OTEL_TRACES_SAMPLER`, `OTEL_TRACES_SAMPLER_ARG` | as specified, but for remote samplers |
//! | `OTEL_PROPAGATORS` | `tracecontext`, `baggage` (both by default), `none` |
//!
//! What would be ignored is refused, by its name.

use std::env;
use std::fmt;
use std::io::{self, IsTerminal};
use std::time::Duration;

use opentelemetry::global;
use opentelemetry::propagation::{TextMapCompositePropagator, TextMapPropagator};
use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::propagation::{BaggagePropagator, TraceContextPropagator};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// What the library has no answer for.
const UNSUPPORTED: [&str; 6] = [
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
];

/// The traces of the process, if it is to export some.
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

/// A variable that can't be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EnvError(String);

impl fmt::Display for EnvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What the variables ask for.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    protocol: Protocol,
    trace_context: bool,
    baggage: bool,
}

/// Writes what happens inside to standard error, and exports traces as the environment says. Must
/// be called inside of a Tokio runtime.
///
/// # Errors
/// The variable that is wrong, or asks for what this program doesn't do.
pub(crate) fn start() -> Result<Telemetry, EnvError> {
    let settings = Settings::read(|name| env::var(name).ok())?;
    // Spans are for traces: as a prefix of lines they would repeat what the lines say.
    let lines = FilterFn::new(|metadata| metadata.is_event() && *metadata.level() <= Level::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .with_filter(lines.with_max_level_hint(LevelFilter::INFO));
    let registry = tracing_subscriber::registry().with(lines);
    match settings {
        None => {
            registry.init();
            Ok(Telemetry(None))
        }
        Some(settings) => {
            let provider = settings.provider()?;
            settings.propagate();
            let spans = traces(&provider);
            registry.with(spans).init();
            Ok(Telemetry(Some(provider)))
        }
    }
}

/// Only what this product and program tell: exporting has spans of its own, which would be exported.
fn traces<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let told = Targets::new()
        .with_target("opa", LevelFilter::INFO)
        .with_target("opa::decision", LevelFilter::DEBUG)
        .with_target("serve", LevelFilter::INFO);
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("opa-tower"))
        .with_location(false)
        .with_threads(false)
        .with_filter(told)
}

impl Telemetry {
    /// Whether traces are exported.
    pub(crate) fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Exports what is left, until the deadline.
    pub(crate) async fn shutdown(self, deadline: Duration) {
        let Some(provider) = self.0 else {
            return;
        };
        let flushed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(deadline));
        match tokio::time::timeout(deadline, flushed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!("traces may be lost: {error}"),
            Ok(Err(error)) => tracing::error!("traces may be lost: {error}"),
            Err(_) => tracing::error!("traces may be lost: not exported within {deadline:?}"),
        }
    }
}

impl Settings {
    /// `None` if there is nothing to export to.
    fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, EnvError> {
        // A variable without a value is one that isn't set (OpenTelemetry, "SDK configuration").
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        if get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let endpoint = get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| get("OTEL_EXPORTER_OTLP_ENDPOINT"));
        match get("OTEL_TRACES_EXPORTER").as_deref() {
            Some("none") => return Ok(None),
            None if endpoint.is_none() => return Ok(None),
            Some("otlp") | None => {}
            Some(_) => return Err(unsupported("OTEL_TRACES_EXPORTER", "`otlp` or `none`")),
        }
        if let Some(name) = UNSUPPORTED.into_iter().find(|name| get(name).is_some()) {
            return Err(EnvError(format!("{name}: not supported in this version")));
        }
        check_sampler(&get)?;
        let (trace_context, baggage) = propagators(&get)?;
        Ok(Some(Self {
            protocol: protocol(&get)?,
            trace_context,
            baggage,
        }))
    }

    fn provider(&self) -> Result<SdkTracerProvider, EnvError> {
        let exporter = match self.protocol {
            // For `https` alone. Left to itself it trusts no authority.
            Protocol::Grpc => SpanExporter::builder()
                .with_tonic()
                .with_tls_config(ClientTlsConfig::new().with_enabled_roots())
                .build(),
            protocol => SpanExporter::builder()
                .with_http()
                .with_protocol(protocol)
                .build(),
        };
        // Its text would repeat the endpoint, which can carry a password.
        let exporter = exporter.map_err(|_| {
            let text = "OTEL_EXPORTER_OTLP_*: no exporter can be made of them";
            EnvError(text.to_owned())
        })?;
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter);
        Ok(provider.build())
    }

    fn propagate(&self) {
        let mut all: Vec<Box<dyn TextMapPropagator + Send + Sync>> = Vec::new();
        if self.trace_context {
            all.push(Box::new(TraceContextPropagator::new()));
        }
        if self.baggage {
            all.push(Box::new(BaggagePropagator::new()));
        }
        global::set_text_map_propagator(TextMapCompositePropagator::new(all));
    }
}

fn protocol(get: &impl Fn(&str) -> Option<String>) -> Result<Protocol, EnvError> {
    let names = [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ];
    let named = names.into_iter().find_map(|name| Some((name, get(name)?)));
    match named {
        None => Ok(Protocol::HttpBinary),
        Some((name, value)) => match value.as_str() {
            "http/protobuf" => Ok(Protocol::HttpBinary),
            "grpc" => Ok(Protocol::Grpc),
            _ => Err(unsupported(name, "`http/protobuf` or `grpc`")),
        },
    }
}

fn check_sampler(get: &impl Fn(&str) -> Option<String>) -> Result<(), EnvError> {
    let (name, argument) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
    match get(name).as_deref() {
        None
        | Some("always_on" | "always_off" | "parentbased_always_on" | "parentbased_always_off") => {
            Ok(())
        }
        Some("traceidratio" | "parentbased_traceidratio") => {
            let ratio = get(argument).map(|ratio| ratio.parse::<f64>());
            match ratio {
                None => Ok(()),
                Some(Ok(ratio)) if (0.0..=1.0).contains(&ratio) => Ok(()),
                Some(_) => Err(unsupported(argument, "a number from 0 to 1")),
            }
        }
        Some(_) => {
            let wanted = "`always_on`, `always_off` or `traceidratio`, or one of them after \
                          `parentbased_`";
            Err(unsupported(name, wanted))
        }
    }
}

/// Whether traces and baggage are handed on.
fn propagators(get: &impl Fn(&str) -> Option<String>) -> Result<(bool, bool), EnvError> {
    let name = "OTEL_PROPAGATORS";
    let Some(list) = get(name) else {
        return Ok((true, true));
    };
    let (mut trace_context, mut baggage) = (false, false);
    for one in list.split(',').map(str::trim) {
        match one {
            "tracecontext" => trace_context = true,
            "baggage" => baggage = true,
            "none" => {}
            _ => return Err(unsupported(name, "`tracecontext`, `baggage` or `none`")),
        }
    }
    Ok((trace_context, baggage))
}

/// Values aren't repeated: the next variable's secret may stand in this one by mistake.
fn unsupported(name: &str, wanted: &str) -> EnvError {
    EnvError(format!("{name}: expected {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    fn read(variables: &[(&str, &str)]) -> Result<Option<Settings>, EnvError> {
        Settings::read(|name| {
            let variable = variables.iter().find(|(one, _)| *one == name);
            variable.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn nothing_is_exported_unless_it_is_asked_for() {
        for variables in [
            &[][..],
            &[
                ("OTEL_SERVICE_NAME", "x"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", ""),
            ],
            &[ENDPOINT, ("OTEL_SDK_DISABLED", "True")],
            &[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")],
        ] {
            assert_eq!(read(variables), Ok(None), "{variables:?}");
        }
    }

    #[test]
    fn an_endpoint_or_an_exporter_is_enough() {
        let default = Settings {
            protocol: Protocol::HttpBinary,
            trace_context: true,
            baggage: true,
        };
        for variable in [
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a.test/x"),
            ("OTEL_TRACES_EXPORTER", "otlp"),
        ] {
            assert_eq!(read(&[variable]), Ok(Some(Settings { ..default })));
        }
        let variables = [
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_PROPAGATORS", "tracecontext"),
        ];
        let settings = read(&variables).unwrap().unwrap();
        assert_eq!(settings.protocol, Protocol::Grpc);
        assert!(settings.trace_context && !settings.baggage);
    }

    #[test]
    fn what_would_be_ignored_is_refused_by_its_name() {
        for (name, value) in [
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "ca.pem"),
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_PROPAGATORS", "b3"),
        ] {
            let error = read(&[ENDPOINT, (name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name}: ")), "{error}");
            assert!(!error.contains(value) || value == "b3", "{error}");
        }
        let ratio = [
            ENDPOINT,
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ];
        let error = read(&ratio).unwrap_err().to_string();
        assert_eq!(
            error,
            "OTEL_TRACES_SAMPLER_ARG: expected a number from 0 to 1"
        );
    }
}
