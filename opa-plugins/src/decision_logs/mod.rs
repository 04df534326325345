//! OPA's decision log: the `decision_logs` section of the configuration.
//!
//! `console: true` writes one JSON line for each decision, as OPA does: the members of the event,
//! with `msg` "Decision Log" and `type` "openpolicyagent.org/decision_logs". Events are handed over
//! without blocking; one thread for all apps encodes and writes them. The hand-over queue is
//! bounded: an event that finds it full is dropped and [counted](DecisionLogs::counts).
//!
//! The parts of which an upload consists are here for sinks of a program's own: the event as OPA
//! uploads it ([`write_event`]), the answers of the policies on logs ([`mask`], [`is_dropped`]),
//! [chunks](chunk), the rate limit and the configuration. This version uploads nothing itself.
//!
//! ```
//! use opa_core::engine::Module;
//! use opa_core::{Manager, Value};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lines = opa_plugins::decision_logs::Lines::default();
//! let manager = Manager::builder()
//!     .config_yaml("decision_logs: {console: true}")
//!     .in_memory([Module::v1("a.rego", "package a\nallow := true")], Value::empty_object())?
//!     .plugin(opa_plugins::decision_logs().console_to(lines.clone()))
//!     .build()?;
//! let app = manager.app("shop")?;
//! app.ready(Duration::from_secs(5)).await?;
//! let decision = app.decide("a/allow", Value::empty_object()).await;
//! manager.shutdown(Duration::from_secs(5)).await;
//!
//! let event = Value::from_json(lines.take().first().ok_or("no event")?.as_bytes())?;
//! assert_eq!(event.get("decision_id").and_then(Value::as_str), Some(decision.id()));
//! assert_eq!(event.get("result"), Some(&Value::from(true)));
//! # Ok(())
//! # }
//! ```

pub mod chunk;
mod config;
mod console;
#[cfg(test)]
mod cost;
mod drop;
mod encode;
mod limiter;
mod lines;
pub mod mask;

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use opa_core::config::{Config, ConfigError, Section};
use opa_core::plugin::{Attached, Event, Plugin, PluginFuture, Scope};
use parking_lot::Mutex;

pub use config::{BufferConfig, DecisionLogsConfig, ReportingConfig, Trigger};
use console::Console;
pub use console::Counts;
pub use drop::is_dropped;
pub use encode::{MAX_EVENT_BYTES, Written, to_value, write_event};
pub use limiter::RateLimiter;
pub use lines::Lines;

/// The keys that OPA knows and this version does not act on.
const UNSUPPORTED: [&str; 9] = [
    "plugin",
    "service",
    "partition_name",
    "resource",
    "reporting",
    "request_context",
    "mask_decision",
    "drop_decision",
    "nd_builtin_cache",
];

/// The plugin for the `decision_logs` section. See the [module docs](self).
#[must_use]
pub fn decision_logs() -> DecisionLogs {
    DecisionLogs {
        console: Arc::new(Console::new(Box::new(std::io::stderr()))),
        warned: Mutex::default(),
    }
}

/// OPA's decision log. See the [module docs](self).
pub struct DecisionLogs {
    console: Arc<Console>,
    /// What was warned about: the same configuration is read for every app.
    warned: Mutex<HashSet<String>>,
}

impl DecisionLogs {
    /// Writes the console's lines to `writer`. Default: standard error, as OPA.
    #[must_use]
    pub fn console_to(mut self, writer: impl Write + Send + 'static) -> Self {
        self.console = Arc::new(Console::new(Box::new(writer)));
        self
    }

    /// A reader of how many events were recorded, written and dropped.
    pub fn counts(&self) -> impl Fn() -> Counts + Send + Sync + 'static {
        let console = Arc::clone(&self.console);
        move || console.counts()
    }

    /// Whether the section asks for the console.
    fn read(&self, section: &Section, config: &Config) -> Result<bool, ConfigError> {
        let services: Vec<_> = config.services.iter().map(|it| it.name.as_str()).collect();
        let plugins: Vec<_> = config.plugins.keys().map(String::as_str).collect();
        let mut warnings = Vec::new();
        let read = DecisionLogsConfig::read(section, &services, &plugins, &mut warnings)?;
        let mut reader = section.reader()?;
        for key in UNSUPPORTED {
            reader.unsupported(key)?;
        }
        if !read.is_some_and(|config| config.console) {
            let text =
                "uploading to a service is not supported by this version; set `console: true`";
            return Err(reader.error(text));
        }
        for warning in warnings {
            let warning = warning.to_string();
            if self.warned.lock().insert(warning.clone()) {
                tracing::warn!(target: "opa::config", "{warning}");
            }
        }
        Ok(true)
    }
}

impl Plugin for DecisionLogs {
    fn name(&self) -> &str {
        "decision_logs"
    }

    fn attach(&self, scope: &Scope<'_>) -> Result<Attached, ConfigError> {
        let Some(section) = &scope.config.decision_logs else {
            return Ok(Attached::default());
        };
        if !self.read(section, scope.config)? {
            return Ok(Attached::default());
        }
        let console = Arc::clone(&self.console);
        Ok(Attached::default().decisions(move |event: Event| console.record(event)))
    }

    fn shutdown(&self, deadline: Duration) -> PluginFuture<'_> {
        // The manager ends the wait at the deadline; what is written by then is counted.
        let _ = deadline;
        Box::pin(self.console.flush())
    }
}
