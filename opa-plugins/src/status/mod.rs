//! OPA's status: what an instance tells a control plane about itself, by the `status` section of
//! the configuration.
//!
//! The newest status of each app is posted to the configured service, as OPA does (`service`,
//! `partition_name`), and written to the console (`console: true`). It is sent when something
//! changed: the state of a plugin, the outcome of a bundle's poll, an upload of decisions, a problem
//! with the configuration. What differs from OPA:
//!
//! - What changes nothing but the times of polls is not sent at once, but with the next heartbeat:
//!   our own key `heartbeat_seconds`, 120 by default; the wait is drawn from its half to the whole,
//!   so that the statuses of many apps spread over time. `per_poll: true`, also ours, sends one for
//!   each outcome of a poll, as OPA.
//! - News are gathered for 100 ms, and an app sends at most one status in a second. At most one is
//!   under way, and the newest is the next. To one service at most 16 apps post at a time.
//! - OPA doesn't try again what it could not send. Here the newest status is, after a wait that
//!   grows exponentially from 100 ms to a minute (or the heartbeat, if that is shorter), uniform in
//!   \[50 ms, cap\], and not before `Retry-After`.
//! - When an app goes, its last status has all its plugins that had work as `NOT_READY`, bundles
//!   included; it is tried for ten minutes. When the manager shuts down, all that is left is sent,
//!   until its deadline.
//! - `metrics` has what is the app's own, not the process': the counters of its decision log
//!   (`counter_…`, where OPA has them), and with `prometheus: true` OPA's `opa_info`,
//!   `plugin_status_gauge`, `decision_logs_…`, `enc_…` and those of bundles, in the shape in which OPA
//!   has them. Not there: histograms (`bundle_loading_duration_ns`, `histogram_enc_events_written_in_chunk`
//!   and those of OPA's server), `counter_status_dropped_buffer_limit_exceeded` (statuses are
//!   coalesced, none is dropped), and what is Go's.
//! - A configuration that can't be used, while the one before goes on, is told of as state `WARN`
//!   of the plugin `discovery`, with the reason.
//! - Bundles that weren't asked for yet are there from the start. Of the timers of bundles
//!   (`metrics`) `timer_rego_module_parse_ns` is missing: the engine parses modules as a part of
//!   compiling them.
//!
//! With `trigger: manual` a status is sent only when the program [asks for it](Status::trigger).
//! `plugin`, and `trigger: immediate` (with which OPA never sends any), are configuration errors in
//! this version.
//!
//! ```
//! use opa_core::{Manager, Value};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lines = opa_plugins::decision_logs::Lines::default();
//! let manager = Manager::builder()
//!     .config_yaml("labels: {team: red}\nstatus: {console: true}")
//!     .in_memory([], Value::empty_object())?
//!     .plugin(opa_plugins::status().console_to(lines.clone()))
//!     .build()?;
//! let app = manager.app("shop")?;
//! app.ready(Duration::from_secs(5)).await?;
//! manager.shutdown(Duration::from_secs(5)).await;
//!
//! let last = Value::from_json(lines.take().last().ok_or("no status")?.as_bytes())?;
//! assert_eq!(last.at(&["labels", "team"]).and_then(Value::as_str), Some("red"));
//! assert_eq!(last.at(&["plugins", "status", "state"]).and_then(Value::as_str), Some("OK"));
//! # Ok(())
//! # }
//! ```
//!
//! [`StatusReport`] is the JSON alone, for sinks of a program's own.

mod config;
mod driver;
mod encode;
mod lane;
mod metrics;
mod news;
mod report;
mod target;

use std::collections::HashSet;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opa_core::AppId;
use opa_core::config::{Config, ConfigError, Section};
use opa_core::plugin::{Attached, Plugin, PluginFuture, Scope};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::AbortHandle;

use crate::decision_logs::console::LineWriter;
pub use config::{StatusConfig, StatusTrigger};
use driver::Message;
use lane::{Lane, LaneSink};
pub(crate) use report::plugin_states;
pub use report::{Buffer, DecisionLogsStatus, PluginState, StatusReport};
use target::{StatusLine, Target};

/// How many posts of all apps are under way at a time.
const POSTS: usize = 256;

/// Tells what became of the last upload of an app's decisions.
type ReadLogs = Arc<dyn Fn(&AppId) -> Option<DecisionLogsStatus> + Send + Sync>;

/// The plugin for the `status` section. See the [module docs](self).
#[must_use]
pub fn status() -> Status {
    let (messages, receiver) = unbounded_channel();
    let console = LineWriter::new(Box::new(std::io::stderr()));
    let shared = Shared {
        messages,
        console: Mutex::new(Arc::new(console)),
        read_logs: OnceLock::new(),
        posts: Semaphore::new(POSTS),
    };
    Status {
        shared: Arc::new(shared),
        next_lane: AtomicU64::new(0),
        unstarted: Mutex::new(Some(receiver)),
        driver: OnceLock::new(),
        warned: Mutex::default(),
    }
}

/// OPA's status plugin. See the [module docs](self).
pub struct Status {
    shared: Arc<Shared>,
    next_lane: AtomicU64,
    unstarted: Mutex<Option<UnboundedReceiver<Message>>>,
    driver: OnceLock<AbortHandle>,
    /// What was warned about: the same configuration is read for every app.
    warned: Mutex<HashSet<String>>,
}

/// What all lanes share.
struct Shared {
    messages: UnboundedSender<Message>,
    console: Mutex<Arc<LineWriter<StatusLine>>>,
    read_logs: OnceLock<ReadLogs>,
    posts: Semaphore,
}

impl Shared {
    fn send(&self, message: Message) {
        // Without a driver nothing is sent any more.
        let _ = self.messages.send(message);
    }

    fn console(&self) -> Arc<LineWriter<StatusLine>> {
        Arc::clone(&self.console.lock())
    }

    fn read_logs(&self) -> Option<&ReadLogs> {
        self.read_logs.get()
    }
}

impl Status {
    /// Writes the console's lines to `writer`. Default: standard error, as OPA.
    #[must_use]
    pub fn console_to(self, writer: impl Write + Send + 'static) -> Self {
        *self.shared.console.lock() = Arc::new(LineWriter::new(Box::new(writer)));
        self
    }

    /// Tells of decision logs what `read` answers for an app: what became of the last upload of its
    /// decisions. The first reader stays. Without one, no status has a `decision_logs`.
    #[must_use]
    pub fn with_decision_logs(
        self,
        read: impl Fn(&AppId) -> Option<DecisionLogsStatus> + Send + Sync + 'static,
    ) -> Self {
        let _ = self.shared.read_logs.set(Arc::new(read));
        self
    }

    /// What is to be called after each attempt to upload an app's decisions: the status is sent if
    /// there is something new. Never blocks.
    pub fn upload_listener(&self) -> impl Fn(&AppId) + Send + Sync + use<> + 'static {
        let shared = Arc::clone(&self.shared);
        move |app| shared.send(Message::Uploaded(app.clone()))
    }

    /// What sends an app's newest status now, whatever `trigger` says, and tries again until it is
    /// sent. Without such an app, or a `status` in its configuration, there is nothing to do. Never
    /// blocks.
    ///
    /// ```
    /// let status = opa_plugins::status();
    /// let trigger = status.trigger();
    /// // When `status` is a plugin of the manager:
    /// trigger(&opa_core::AppId::new("shop")?);
    /// # Ok::<(), opa_core::InvalidAppId>(())
    /// ```
    pub fn trigger(&self) -> impl Fn(&AppId) + Send + Sync + use<> + 'static {
        let shared = Arc::clone(&self.shared);
        move |app| shared.send(Message::Trigger(app.clone()))
    }

    fn read(&self, section: &Section, config: &Config) -> Result<StatusConfig, ConfigError> {
        let services: Vec<_> = config.services.iter().map(|it| it.name.as_str()).collect();
        let plugins: Vec<_> = config.plugins.keys().map(String::as_str).collect();
        let mut warnings = Vec::new();
        let read = StatusConfig::read(section, &services, &plugins, &mut warnings)?;
        let mut reader = section.reader()?;
        reader.unsupported("plugin")?;
        for warning in warnings {
            let warning = warning.to_string();
            if self.warned.lock().insert(warning.clone()) {
                tracing::warn!(target: "opa::config", "{warning}");
            }
        }
        read.ok_or_else(|| reader.error("there is no service and no console that it could go to"))
    }

    /// Starts the driver with the first app. `None` outside of a Tokio runtime.
    fn start(&self) -> Option<()> {
        let mut unstarted = self.unstarted.lock();
        if unstarted.is_none() {
            return Some(());
        }
        let runtime = Handle::try_current().ok()?;
        if let Some(receiver) = unstarted.take() {
            let driver = runtime.spawn(driver::run(receiver));
            let _ = self.driver.set(driver.abort_handle());
        }
        Some(())
    }

    fn stop(&self) {
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
    }
}

impl Plugin for Status {
    fn name(&self) -> &str {
        "status"
    }

    fn attach(&self, scope: &Scope<'_>) -> Result<Attached, ConfigError> {
        let Some(section) = &scope.config.status else {
            return Ok(Attached::default());
        };
        let config = self.read(section, scope.config)?;
        let client = config.service.as_deref();
        let client = client.map(|name| scope.service(name)).transpose()?;
        if let Some(client) = &client {
            let checked = client.check_path(&config.resource);
            checked.map_err(|error| section.error(format!("partition_name: {error}")))?;
        } else if !config.console {
            // `prometheus: true` alone: nothing is sent.
            return Ok(Attached::default());
        }
        self.start()
            .ok_or_else(|| section.error("status needs a Tokio runtime"))?;
        let id = self.next_lane.fetch_add(1, Ordering::Relaxed);
        let target = client.map(|client| Arc::new(client) as Arc<dyn Target>);
        let logs_decisions = scope.config.decision_logs.is_some();
        let lane = Lane::new(
            &self.shared,
            (id, scope.app),
            config,
            target,
            logs_decisions,
        );
        Ok(Attached::default().status(LaneSink(Arc::new(lane))))
    }

    fn shutdown(&self, deadline: Duration) -> PluginFuture<'_> {
        Box::pin(async move {
            let (send, drained) = oneshot::channel();
            self.shared.send(Message::Drain(send));
            if self.driver.get().is_some() {
                // The rest of the time is for the console.
                let time = deadline - (deadline / 10).min(Duration::from_millis(100));
                if tokio::time::timeout(time, drained).await.is_err() {
                    tracing::error!("status: not every app's last status was sent");
                }
                self.stop();
            }
            // The manager ends the wait at the deadline.
            self.shared.console().flush().await;
        })
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        self.stop();
    }
}
