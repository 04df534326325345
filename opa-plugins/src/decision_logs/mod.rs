//! OPA's decision log: the `decision_logs` section of the configuration.
//!
//! Events are handed over without blocking. One pipeline for all apps asks the policies on logs,
//! encodes, and uploads chunks to the configured service, as OPA does (`service`, `resource`,
//! `partition_name`, `reporting`); `console: true` writes one JSON line for each decision. What
//! differs from OPA:
//!
//! - The console [hides](DecisionLogs::redact_console) the values of `Authorization`, `Cookie` and
//!   other headers that are secret. The request's query is told, as it is part of the input: a
//!   mask hides it.
//! - The policies on logs (`drop_decision`, `mask_decision`) are those of the snapshot that made
//!   the decision. Where one fails, is stopped by its budget (a second, else that of decisions) or
//!   has a bad rule, the event is delivered without input, result, `nd_builtin_cache` and the text
//!   of its error, and `custom.withheld` tells why. OPA loses such an event. The error of a
//!   built-in (`to_number("x")`) fails the policy, too: OPA skips the rule, and so shows what it
//!   would hide.
//! - The wait for an upload (`min_delay_seconds` to `max_delay_seconds`) starts with the first
//!   event that waits. After an upload that failed it is tried again sooner, exponentially from 100
//!   ms to `max_delay_seconds`, uniform in \[50 ms, cap\], and not before `Retry-After`. Chunks
//!   keep their order. When a configuration changes what was decided before it is uploaded beside
//!   what comes: the order over changes is kept with a [spool](#the-spool) alone.
//! - An upload may take a minute. To one service at most 16 apps upload at a time, half of them
//!   after a failure; and at most 512 in all, of which services that hang leave some to the others.
//! - In memory all apps together hold at most [so many bytes](DecisionLogs::buffer_bytes) of
//!   encoded events, and each app 8,192 that wait to be encoded (its share of 65,536, if there are
//!   that many).
//! - When an app goes, its events are uploaded at once, and given up after ten minutes; when the
//!   manager shuts down, all that is left is, until its deadline.
//!
//! Every event is accounted for, by app and output: [`AppCounts`]. What an output loses is lost to
//! it alone. The console also counts what became of the events that it took ([`Counts`]).
//!
//! An app's log can have several outputs at once, each with policies on logs, a buffer and a pace
//! of its own: `decision_logs.plugin`, and, which OPA doesn't have, `outputs`. What they are is the
//! matter of the [types](output) that were [registered](DecisionLogs::output_type). The plugin
//! `eopa_dl` is one for [several outputs](outputs::eopa), as Enterprise OPA has them.
//!
//! ```yaml
//! decision_logs:
//!   service: control
//!   outputs:
//!     - type: file                    # a registered type; it reads what isn't read here
//!       name: everything              # in counters; default: the type
//!       mask_decision: audit/mask     # default: those of the section
//!       drop_decision: audit/drop
//!       batching: {at_count: 500, at_bytes: 1048576, at_period: 1s}
//!       buffer_size_limit_bytes: 10485760
//! ```
//!
//! Without a [spool](#the-spool) events wait in memory only. Where an app's events have no room, in
//! the queue before they are encoded or in an output's buffer, `when_full` says what happens (OPA
//! has no such key): `drop_oldest` (the default), `drop_newest`, `sample` (from half full on, one
//! of ten events that come is kept, and the oldest give way when that is too much), `hold`:
//! decisions wait for room up to `hold_deadline_ms` (1000) and are refused without, or `deny`: they
//! are refused at once. What decisions were held for is not given up for other apps: such a lane
//! gets its share of the bytes and no more. The queue is bounded by events and by about the bytes
//! that they hold: 8,192 and 32 MiB for an app, 65,536 and 128 MiB in all.
//!
//! With `audit: true` (OPA has no such key) each event has `custom.audit.sequence`, from 1 for each
//! instance (`labels.id` and app) and without a gap in the order of decisions: a gap at a receiver
//! is an event that was lost, or dropped by the drop policy, which the counters tell apart. With
//! `audit: required` no decision is made when the pipeline takes no more events: because the
//! program shuts it down, or the Tokio runtime has ended in which the first instance was made, and
//! where all work on logs is done.
//!
//! # The spool
//!
//! With `DecisionLogs::spool` (feature `spool`, Unix) events are kept on the disk until they are
//! delivered, for each app and output but the console: masked and encoded, so that nothing reaches
//! the disk that the receiver isn't shown. A parcel is read back when it is made, so a receiver
//! that is dead takes no memory for the events themselves, only about 100 bytes for each. Limits of
//! an output's buffer are for memory and don't count then; the spool's own does, and
//! `max_decisions_per_second`. A configuration may want a spool for the outputs of `eopa_dl` alone
//! ([`buffer: {type: disk}`](outputs::eopa)). `durability` (OPA has no such key) says when a
//! decision takes effect:
//!
//! - `async`, the default (but for `buffer: {type: disk}`): at once. A crash loses what was handed
//!   over and is not on the disk: where encoding and the disk keep up, 5 ms for a turn of policies
//!   on logs (a slow one takes its time), 5 ms until it is written (`SpoolConfig::max_delay`), and
//!   the time of one sync. Where they don't, the queue.
//! - `before_response`: when the event is on the disk at all outputs that it goes to, which many
//!   decisions wait for together. The wait is bounded by `hold_deadline_ms`, else by 30 s; then the
//!   decision is refused, though its event may be in the log. `when_full` is `hold` if it isn't
//!   said. Where it is `drop_oldest`, `drop_newest` or `sample` a decision takes effect although
//!   its event is dropped. What a drop policy or `max_decisions_per_second` drops is waited for by
//!   nobody.
//!
//! When the spool is full, or its disk is full or broken, `when_full` says what happens:
//! `drop_oldest` has the app and output with most in the spool give up its oldest; `sample` begins
//! when the spool is half full. With `hold` and `deny` no more decisions are admitted, those that
//! were are kept (in memory, while the disk fails), and so are the events of apps that are not
//! there: nobody knows what their configuration says. Whoever may lose events gives way to these,
//! too. So that a receiver that is dead leaves room to others, from three quarters full on the
//! spool is full for those that hold, deny or drop their newest and have more than an equal share
//! of it. What a disk takes no more waits in memory, up to `SpoolConfig::max_pending_bytes`, is
//! delivered from there, and written when the disk is well again. If the disk is full,
//! `drop_oldest` and `sample` give up as much as a file of the spool has, twice a second at most,
//! so that one can go.
//!
//! After a restart what is left goes out before newer events of the same app and output, with the
//! same decision ids, to the destination that the configuration names now; the policies on logs are
//! not asked again. A receiver may see an event twice. The counters `decided` and `recovered` have
//! these events. What belongs to apps or outputs that are not there (an output that a reload gave
//! another name, too) stays in the spool, is counted as `spooled` and warned about once when the
//! spool is opened; it is delivered when an app and an output of that name come again, also without
//! a restart. What an app leaves that is closed is tried for ten minutes and stays then. With
//! `SpoolConfig::max_absence` it gives way to others after that time, when the spool is full, and
//! is counted as `abandoned`. At the end of the process what can't be delivered within the deadline
//! stays.
//!
//! A mask that is undefined shows the event whole, as in OPA.
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
pub(crate) mod console;
#[cfg(test)]
mod cost;
mod drop;
mod encode;
mod limiter;
mod lines;
pub mod mask;
pub mod output;
pub mod outputs;
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

use crate::metrics::LogReport;
use crate::status::DecisionLogsStatus;

pub use config::{
    Audit, Batching, BufferConfig, DecisionLogsConfig, Durability, OutputConfig, ReportingConfig,
    Trigger, WhenFull,
};
use config::{CONSOLE, SERVICE};
use console::Console;
pub use console::Counts;
pub use drop::is_dropped;
pub use encode::{MAX_EVENT_BYTES, Written, to_value, write_event};
pub use limiter::RateLimiter;
pub use lines::Lines;
use output::OutputType;
use outputs::{OutputTypes, Policies, Storage, Way};
pub use pipeline::{AppCounts, UploadError, UploadTrigger};
use pipeline::{Pipeline, Route, Terms, Transport};

/// The plugin for the `decision_logs` section. See the [module docs](self).
#[must_use]
pub fn decision_logs() -> DecisionLogs {
    let console = Arc::new(Console::new(Box::new(std::io::stderr())));
    DecisionLogs {
        pipeline: Pipeline::new(Arc::clone(&console)),
        console,
        types: OutputTypes::default(),
        warned: Mutex::default(),
    }
}

/// OPA's decision log. See the [module docs](self).
pub struct DecisionLogs {
    console: Arc<Console>,
    pipeline: Pipeline,
    types: OutputTypes,
    /// What was warned about: the same configuration is read for every app.
    warned: Mutex<HashSet<String>>,
}

impl DecisionLogs {
    /// Writes the console's lines to `writer`. Default: standard error, as OPA.
    #[must_use]
    pub fn console_to(mut self, writer: impl Write + Send + 'static) -> Self {
        let redacts = self.console.redacts();
        self.console = Arc::new(Console::new(Box::new(writer)));
        self.console.set_redacts(redacts);
        self.pipeline.set_console(Arc::clone(&self.console));
        self
    }

    /// Whether the console hides headers that are secret, unlike OPA's: `Authorization`, `Cookie`,
    /// `Proxy-Authorization`, `Set-Cookie`, `X-Amz-Security-Token` and `X-Api-Key`, in
    /// `request_context` and wherever a member of that name in input, result or `nd_builtin_cache`
    /// has a text, a number, a list or a set; it is `REDACTED` then. What is uploaded is as OPA's and hides what the masks hide. Default: true.
    #[must_use]
    pub fn redact_console(self, redact: bool) -> Self {
        self.console.set_redacts(redact);
        self
    }

    /// Registers a type of outputs under `name`: `decision_logs.plugin: <name>` sends events to the
    /// output that it opens for `plugins.<name>`, and an item of `decision_logs.outputs` with
    /// `type: <name>` to the one that it opens for this item. See [`output`].
    #[must_use]
    pub fn output_type(mut self, name: impl Into<String>, output_type: impl OutputType) -> Self {
        self.types.add(&name.into(), Arc::new(output_type));
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

    /// Keeps events in a spool until they are delivered: all but the console's. It is opened when the
    /// manager is built, or with the first app whose decisions are logged: all of it is read then, on
    /// a thread of its own that is waited for. If it can't be, that is an error of the configuration.
    /// Without this events wait in memory alone. See the [module docs](self#the-spool).
    #[cfg(all(feature = "spool", unix))]
    #[must_use]
    pub fn spool(self, config: spool::SpoolConfig) -> Self {
        self.pipeline.set_spool(config);
        self
    }

    /// A reader of how many events were handed to the console, written and dropped there.
    pub fn counts(&self) -> impl Fn() -> Counts + Send + Sync + use<> + 'static {
        let console = Arc::clone(&self.console);
        move || console.counts()
    }

    /// What starts uploads, for programs that say when (`reporting.trigger: manual`), or that want
    /// one now.
    pub fn trigger(&self) -> UploadTrigger {
        self.pipeline.trigger()
    }

    /// A reader of what became of an app's last upload, as OPA's status shows it: that of the
    /// service, or, without one, of the first of its outputs by name. `None` before the first
    /// attempt. See [`on_upload`](Self::on_upload).
    pub fn upload_status(
        &self,
    ) -> impl Fn(&AppId) -> Option<DecisionLogsStatus> + Send + Sync + use<> + 'static {
        let shared = self.pipeline.shared();
        move |app| shared.upload_status(app)
    }

    /// Calls `told` whenever attempts to deliver some of an app's events have ended. It must not
    /// block.
    pub fn on_upload(&self, told: impl Fn(&AppId) + Send + Sync + 'static) {
        self.pipeline.shared().listen(Arc::new(told));
    }

    /// A reader of what became of the events of each app that had some at each of its outputs,
    /// sorted by app and the output's name. OPA's own upload is called `service`, and its console
    /// `console`. Apps that are gone and have nothing left may be missing.
    pub fn app_counts(
        &self,
    ) -> impl Fn() -> Vec<(AppId, Arc<str>, AppCounts)> + Send + Sync + use<> + 'static {
        let shared = self.pipeline.shared();
        move || shared.counts()
    }

    /// A reader of the same with what [metrics](crate::metrics()) tell beside it: the last upload and
    /// OPA's counters of each app, and the chunks and buffers of all apps together.
    pub fn report(&self) -> impl Fn() -> LogReport + Send + Sync + use<> + 'static {
        let shared = self.pipeline.shared();
        move || shared.report()
    }

    fn read(&self, section: &Section, config: &Config) -> Result<DecisionLogsConfig, ConfigError> {
        let services: Vec<_> = config.services.iter().map(|it| it.name.as_str()).collect();
        let plugins: Vec<_> = config.plugins.keys().map(String::as_str).collect();
        let mut warnings = Vec::new();
        let read = DecisionLogsConfig::read(section, &services, &plugins, &mut warnings)?;
        let Some(read) = read else {
            return Err(section.error("there is no service and no console that events could go to"));
        };
        for warning in warnings {
            self.warn_once(warning.to_string());
        }
        Ok(read)
    }
}

impl DecisionLogs {
    /// Where an app's events go.
    fn routes(
        &self,
        section: &Section,
        config: &DecisionLogsConfig,
        scope: &Scope<'_>,
    ) -> Result<Vec<Route>, ConfigError> {
        let own = |name: &str, transport| Route {
            name: name.into(),
            policies: Policies::of(config),
            transport,
            storage: Storage::Default,
        };
        let mut routes = Vec::new();
        if let Some(service) = &config.service {
            let client = scope.service(service)?;
            let checked = client.check_path(&config.resource);
            checked.map_err(|error| section.error(format!("resource: {error}")))?;
            let transport = Transport::Service {
                client,
                resource: config.resource.clone(),
                reporting: config.reporting.clone(),
            };
            routes.push(own(SERVICE, transport));
        }
        if config.console {
            routes.push(own(CONSOLE, Transport::Console));
        }
        for output in outputs::outputs(section, config, scope, &self.types)? {
            let transport = match output.way {
                Way::Console => Transport::Console,
                Way::Output(to) => Transport::Output {
                    output: to,
                    batching: output.batching,
                    buffer_bytes: output.buffer_bytes,
                    max_retry: output.max_retry,
                    labels: scope.labels.clone(),
                },
            };
            routes.push(Route {
                name: output.name,
                policies: output.policies,
                transport,
                storage: output.storage,
            });
        }
        Ok(routes)
    }
}

impl DecisionLogs {
    /// What decisions wait for: what is configured, else what is usual where events wait so.
    fn waits(
        &self,
        section: &Section,
        config: &DecisionLogsConfig,
        has_spool: bool,
        routes: &[Route],
    ) -> Result<(WhenFull, Durability), ConfigError> {
        let is_held = self.types.holds(config) && !has(section, "when_full")?;
        let when_full = match is_held && !config.when_full.holds() {
            true => WhenFull::held(),
            false => config.when_full,
        };
        if routes.iter().all(|it| it.storage == Storage::Default) {
            check_durability(section, config, has_spool, routes)?;
            return Ok((when_full, config.durability));
        }
        let is_unbuffered = routes.iter().any(|it| it.storage == Storage::Unbuffered);
        let is_async = has(section, "durability")? && config.durability == Durability::Async;
        if is_unbuffered && is_async {
            let text = "`async` contradicts `plugins.eopa_dl.buffer.type: unbuffered`";
            return Err(error_at(section, "durability", text));
        }
        if is_unbuffered && !when_full.holds() {
            let text = "a log without a buffer drops nothing: expected `hold` or `deny`";
            return Err(error_at(section, "when_full", text));
        }
        let durability = match is_async {
            true => Durability::Async,
            false => Durability::BeforeResponse,
        };
        Ok((when_full, durability))
    }

    /// Opens the spool that an output wants.
    fn open_disk(
        &self,
        section: &Section,
        scope: &Scope<'_>,
        routes: &[Route],
    ) -> Result<(), ConfigError> {
        for route in routes.iter().filter(|it| !it.transport.is_console()) {
            let Storage::Disk(disk) = &route.storage else {
                continue;
            };
            let opened = self.pipeline.open_disk(disk);
            let opened =
                opened.map_err(|text| outputs::eopa::disk_error(scope.config, section, &text))?;
            if opened.is_none() {
                let path = disk.path.display();
                let warning = format!(
                    "plugins.eopa_dl.buffer: the program has a spool, which is used instead of `{path}`"
                );
                self.warn_once(warning);
            }
        }
        Ok(())
    }

    fn warn_once(&self, warning: String) {
        if self.warned.lock().insert(warning.clone()) {
            tracing::warn!(target: "opa::config", "{warning}");
        }
    }
}

fn has(section: &Section, key: &'static str) -> Result<bool, ConfigError> {
    Ok(section.reader()?.field(key).is_some())
}

/// Whether there is something that decisions can wait for, if they are to.
fn check_durability(
    section: &Section,
    config: &DecisionLogsConfig,
    has_spool: bool,
    routes: &[Route],
) -> Result<(), ConfigError> {
    if config.durability != Durability::BeforeResponse {
        return Ok(());
    }
    let problem = if !has_spool {
        "`before_response` needs a spool, and the program has none"
    } else if routes.iter().all(|it| it.transport.is_console()) {
        "`before_response` needs an output, and the console has no spool"
    } else {
        return Ok(());
    };
    Err(error_at(section, "durability", problem))
}

fn error_at(section: &Section, key: &'static str, text: &str) -> ConfigError {
    let field = section.reader().ok().and_then(|mut it| it.field(key));
    field.map_or_else(|| section.error(text), |field| field.error(text))
}

impl Plugin for DecisionLogs {
    fn name(&self) -> &str {
        "decision_logs"
    }

    fn claims(&self, section: &str) -> bool {
        self.types.claims(section)
    }

    fn attach(&self, scope: &Scope<'_>) -> Result<Attached, ConfigError> {
        let Some(section) = &scope.config.decision_logs else {
            self.types.check_named(scope.config, None)?;
            return Ok(Attached::default());
        };
        let config = self.read(section, scope.config)?;
        let opened = self.pipeline.open_spool();
        let has_spool = opened.map_err(|error| section.error(error))?;
        let routes = self.routes(section, &config, scope)?;
        let (when_full, durability) = self.waits(section, &config, has_spool, &routes)?;
        self.open_disk(section, scope, &routes)?;
        let mut attached = Attached::default();
        for path in routes.iter().flat_map(|route| route.policies.paths()) {
            attached = attached.log_policy(path.clone());
        }
        let headers = config.request_headers.iter();
        let attached = attached.request_headers(headers.map(|name| name.as_str().into()));
        let terms = Terms {
            when_full,
            durability,
            audit: config.audit,
            nd_builtin_cache: config.nd_builtin_cache,
            instance: scope.labels.get("id").unwrap_or_default().to_owned(),
        };
        let sink = self.pipeline.sink(scope.app, routes, terms);
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
