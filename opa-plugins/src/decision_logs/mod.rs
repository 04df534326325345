//! OPA's decision log: the `decision_logs` section of the configuration.
//!
//! Events are handed over without blocking. One pipeline for all apps asks the policies on logs,
//! encodes, and uploads chunks to the configured service, as OPA does (`service`, `resource`,
//! `partition_name`, `reporting`); `console: true` writes one JSON line for each decision. What
//! differs from OPA:
//!
//! - The policies on logs (`drop_decision`, `mask_decision`) are those of the snapshot that made the
//!   decision. Where one fails, is stopped by its budget (a second, else that of decisions) or has
//!   a bad rule, the event is delivered without input, result, `nd_builtin_cache` and the text of
//!   its error, and `custom.withheld` tells why. OPA loses such an event.
//! - The wait for an upload (`min_delay_seconds` to `max_delay_seconds`) starts with the first event
//!   that waits. After an upload that failed it is tried again sooner, exponentially from 100 ms to
//!   `max_delay_seconds`, uniform in \[50 ms, cap\], and not before `Retry-After`. Chunks keep their
//!   order.
//! - An upload may take a minute. To one service at most 16 apps upload at a time.
//! - All apps together hold at most [so many bytes](DecisionLogs::buffer_bytes) of encoded events,
//!   and each app 8,192 that wait to be encoded (its share of 65,536, if there are that many).
//! - When an app goes, its events are uploaded at once, and given up after ten minutes; when the
//!   manager shuts down, all that is left is, until its deadline.
//!
//! Every event is accounted for, by app: [`AppCounts`]. The console counts for itself
//! ([`Counts`]): beside a service, what it loses is lost to it alone.
//!
//! `plugin`, `nd_builtin_cache` and `reporting.trigger: manual` are configuration errors in this
//! version. Events wait in memory only.
//!
//! The parts are here for sinks of a program's own, too: the event as OPA uploads it
//! ([`write_event`]), the answers of the policies on logs ([`mask`], [`is_dropped`]),
//! [chunks](chunk), the rate limit and the configuration.
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
pub mod output;
mod pipeline;
#[cfg(all(feature = "spool", unix))]
pub mod spool;

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use opa_core::AppId;
use opa_core::config::{Config, ConfigError, Section};
use opa_core::plugin::{Attached, Plugin, PluginFuture, Scope};
use parking_lot::Mutex;

pub use config::{BufferConfig, DecisionLogsConfig, ReportingConfig, Trigger};
use console::Console;
pub use console::Counts;
pub use drop::is_dropped;
pub use encode::{MAX_EVENT_BYTES, Written, to_value, write_event};
pub use limiter::RateLimiter;
pub use lines::Lines;
pub use pipeline::AppCounts;
use pipeline::Pipeline;

/// The keys that OPA knows and this version does not act on.
const UNSUPPORTED: [&str; 2] = ["plugin", "nd_builtin_cache"];

/// The plugin for the `decision_logs` section. See the [module docs](self).
#[must_use]
pub fn decision_logs() -> DecisionLogs {
    let console = Arc::new(Console::new(Box::new(std::io::stderr())));
    DecisionLogs {
        pipeline: Pipeline::new(Arc::clone(&console)),
        console,
        warned: Mutex::default(),
    }
}

/// OPA's decision log. See the [module docs](self).
pub struct DecisionLogs {
    console: Arc<Console>,
    pipeline: Pipeline,
    /// What was warned about: the same configuration is read for every app.
    warned: Mutex<HashSet<String>>,
}

impl DecisionLogs {
    /// Writes the console's lines to `writer`. Default: standard error, as OPA.
    #[must_use]
    pub fn console_to(mut self, writer: impl Write + Send + 'static) -> Self {
        self.console = Arc::new(Console::new(Box::new(writer)));
        self.pipeline.set_console(Arc::clone(&self.console));
        self
    }

    /// How many bytes of encoded events all apps together may hold for uploading. When they hold
    /// more, whoever holds most gives up its oldest events, so that each app has a fair share.
    /// Default: 256 MiB.
    #[must_use]
    pub fn buffer_bytes(self, bytes: usize) -> Self {
        self.pipeline.set_max_bytes(bytes);
        self
    }

    /// A reader of how many events were handed to the console, written and dropped there.
    pub fn counts(&self) -> impl Fn() -> Counts + Send + Sync + use<> + 'static {
        let console = Arc::clone(&self.console);
        move || console.counts()
    }

    /// A reader of what became of the events of each app that had some, sorted by app. Apps that are
    /// gone and have nothing left may be missing.
    pub fn app_counts(
        &self,
    ) -> impl Fn() -> Vec<(AppId, AppCounts)> + Send + Sync + use<> + 'static {
        let shared = self.pipeline.shared();
        move || Pipeline::counts(&shared)
    }

    fn read(&self, section: &Section, config: &Config) -> Result<DecisionLogsConfig, ConfigError> {
        let services: Vec<_> = config.services.iter().map(|it| it.name.as_str()).collect();
        let plugins: Vec<_> = config.plugins.keys().map(String::as_str).collect();
        let mut warnings = Vec::new();
        let read = DecisionLogsConfig::read(section, &services, &plugins, &mut warnings)?;
        let mut reader = section.reader()?;
        for key in UNSUPPORTED {
            reader.unsupported(key)?;
        }
        let Some(read) = read else {
            return Err(reader.error("there is no service and no console that events could go to"));
        };
        if read.reporting.trigger == Trigger::Manual
            && let Some(mut reporting) = reader.object("reporting")?
        {
            reporting.unsupported("trigger")?;
        }
        for warning in warnings {
            let warning = warning.to_string();
            if self.warned.lock().insert(warning.clone()) {
                tracing::warn!(target: "opa::config", "{warning}");
            }
        }
        Ok(read)
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
        let config = self.read(section, scope.config)?;
        let client = config.service.as_deref();
        let client = client.map(|name| scope.service(name)).transpose()?;
        if let Some(client) = &client {
            let checked = client.check_path(&config.resource);
            checked.map_err(|error| section.error(format!("resource: {error}")))?;
        }
        let attached = Attached::default()
            .log_policy(config.drop_decision.clone())
            .log_policy(config.mask_decision.clone())
            .request_headers(
                config
                    .request_headers
                    .iter()
                    .map(|name| name.as_str().into()),
            );
        let sink = self.pipeline.sink(scope.app, config, client);
        let sink = sink.ok_or_else(|| section.error("decision logs need a Tokio runtime"))?;
        Ok(attached.decisions(sink))
    }

    fn shutdown(&self, deadline: Duration) -> PluginFuture<'_> {
        Box::pin(async move {
            self.pipeline.shutdown(deadline).await;
            // The manager ends the wait at the deadline; what is written by then is counted.
            self.console.flush().await;
        })
    }
}
