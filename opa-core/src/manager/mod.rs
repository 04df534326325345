//! Owns all instances of a process.
//!
//! A [`Manager`] starts an instance when an app is first asked for, keeps it while somebody holds
//! a lease and for a grace period afterwards, and polls the bundles of all apps with one scheduler.
//!
//! ```
//! use opa_core::Manager;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let manager = Manager::builder()
//!     .config_yaml("services: {control: {url: 'http://127.0.0.1:1'}}\nlabels: {app: '{{ .bundlename }}'}")
//!     .grace(std::time::Duration::from_secs(30))
//!     .build()?;
//! let orders = manager.app("orders")?;                     // returns at once
//! let tenants = manager.app_set(["blue", "red"])?;          // a closed set
//! assert!(tenants.get("green").is_none());
//! assert_eq!(manager.statuses().len(), 3);
//! manager.shutdown(std::time::Duration::from_secs(1)).await;
//! # drop(orders);
//! # Ok(())
//! # }
//! ```

mod agenda;
mod app_set;
mod blueprint;
mod builder;
mod download;
mod error;
mod poll;
mod reload;
mod scheduler;
mod slots;
mod sweeper;
mod turns;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::RwLock;
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub use app_set::AppSet;
pub use builder::ManagerBuilder;
pub use error::AppError;
pub use reload::ReloadReport;

use self::reload::Reloader;
use self::scheduler::Scheduler;
use crate::config::{ConfigError, ConfigErrorKind};
use crate::engine::Module;
use crate::histogram::Sharded;
use crate::instance::{Instance, Reports, Shared};
use crate::plugin::{InstanceStatus, LoadTimes, Plugin};
use crate::{App, AppId, Histogram, InvalidAppId, Value};

/// How often a shutdown looks whether the last decisions are made.
const DRAIN_EVERY: Duration = Duration::from_millis(5);

/// The longest that a shutdown takes, whatever its deadline: clocks can't count further.
const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// Owns all instances of a process. Clones are the same manager.
///
/// Dropping the last clone aborts the background work: leases that outlive it answer
/// [`Reason::Closed`](crate::Reason::Closed). [`shutdown`](Self::shutdown) ends it gracefully.
#[derive(Clone)]
pub struct Manager(Arc<Inner>);

struct Inner {
    instances: Arc<Instances>,
    scheduler: Arc<Scheduler>,
    reloader: Arc<Reloader>,
    plugins: Vec<Arc<dyn Plugin>>,
    background: Vec<JoinHandle<()>>,
    /// Whether a shutdown has come to its end; held by the one that is under way.
    ended: tokio::sync::Mutex<bool>,
}

/// The instances by the folded id of their app.
struct Instances {
    shared: Arc<Shared>,
    by_app: RwLock<HashMap<String, Arc<Instance>>>,
    closed: AtomicBool,
    grace: Duration,
    max_apps: usize,
}

impl Manager {
    /// A manager to be configured.
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder::default()
    }

    /// A manager whose apps all have the same bundle of `modules` and `data`, for tests and small
    /// services.
    ///
    /// # Errors
    /// When there is no Tokio runtime, or the bundle can't be written.
    pub fn in_memory(
        modules: impl IntoIterator<Item = Module>,
        data: Value,
    ) -> Result<Self, ConfigError> {
        Self::builder().in_memory(modules, data)?.build()
    }

    /// Takes a lease on the instance of `app`, which is started if there is none. Returns at once.
    ///
    /// # Errors
    /// When the id is invalid or differs from another one only in case, when there are too many
    /// apps, or when the manager is shut down.
    pub fn app<I>(&self, app: I) -> Result<App, AppError>
    where
        I: TryInto<AppId>,
        I::Error: Into<InvalidAppId>,
    {
        let id = app
            .try_into()
            .map_err(|error| AppError::InvalidId(error.into()))?;
        let (lease, started) = self.0.instances.lease(id)?;
        if let Some(instance) = started {
            self.0.scheduler.start(&instance);
        }
        Ok(lease)
    }

    /// Takes a lease on each of `apps`: the closed set that requests may name.
    ///
    /// # Errors
    /// As [`app`](Self::app), for the first app that fails.
    pub fn app_set<I>(&self, apps: impl IntoIterator<Item = I>) -> Result<AppSet, AppError>
    where
        I: TryInto<AppId>,
        I::Error: Into<InvalidAppId>,
    {
        let leases = apps
            .into_iter()
            .map(|app| self.app(app))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(AppSet::new(leases))
    }

    /// Reads the configuration again: its file and those of
    /// [`set_file`](ManagerBuilder::set_file), variables, and what overrides it.
    ///
    /// It is checked as a whole, as by [`build`](ManagerBuilder::build), before anything changes.
    /// Then it is in force for every app that starts, and each instance whose configuration says
    /// something else than before is configured anew; the others are not touched, not even by a
    /// request to a bundle server. The content of files that a configuration only names, such as
    /// certificates, is not compared.
    ///
    /// A changed instance keeps its label `id`, the bundles that are the same, and what it serves,
    /// until all of its new bundles are there. Then bundles, labels, entrypoint and plugins change
    /// at once. Plugins [attach](crate::plugin::Plugin::attach) anew; decisions of the old state go
    /// where they went.
    ///
    /// Calls at the same time follow each other. The reload goes on when the future is dropped.
    ///
    /// # Errors
    /// What is wrong with the new configuration: the old one stays in force for all apps, also for
    /// those that start later. [`ConfigErrorKind::Closed`]
    /// when the manager is shut down.
    pub async fn reload(&self) -> Result<ReloadReport, ConfigError> {
        let reloader = Arc::clone(&self.0.reloader);
        let reload = async move { reloader.reload().await };
        let ended = self.0.reloader.runtime.spawn(reload).await;
        ended.unwrap_or_else(|_| {
            let text = "the reload was ended before its time";
            Err(ConfigError::new(ConfigErrorKind::Closed, text))
        })
    }

    /// What an operator wants to know of each instance, sorted by app.
    #[must_use]
    pub fn statuses(&self) -> Vec<InstanceStatus> {
        let mut statuses: Vec<_> = self
            .0
            .instances
            .all()
            .iter()
            .map(|instance| instance.status())
            .collect();
        statuses.sort_by(|a, b| a.app.cmp(&b.app));
        statuses
    }

    /// What there is to measure of each instance, sorted by app. The map of the instances is locked
    /// only while it is copied, and each instance for a moment.
    ///
    /// An instance that is closed is no longer among them, whatever it counted.
    #[must_use]
    pub fn reports(&self) -> Reports {
        Reports::of(&self.0.instances.all())
    }

    /// How long decisions take in the whole process, from the question to its end, refusals
    /// included and cancelled ones not. It is recorded from the first call on; before that
    /// nothing is spent on it, later a reading of the clock and two uncontended atomic writes for
    /// each decision.
    #[must_use]
    pub fn decision_times(&self) -> Histogram {
        let times = &self.0.instances.shared.decision_times;
        times.get_or_init(Sharded::default).read()
    }

    /// How long loading bundles has taken, of all apps together.
    #[must_use]
    pub fn load_times(&self) -> LoadTimes {
        self.0.instances.shared.loads.times.lock().clone()
    }

    /// Records how long loading takes also for each bundle of each app, from here on: in
    /// [`BundleStatus::load_times`](crate::plugin::BundleStatus::load_times), 0.6 KiB each.
    pub fn record_loads_by_app(&self) {
        let by_app = &self.0.instances.shared.loads.by_app;
        by_app.store(true, Ordering::Relaxed);
    }

    /// Ends the manager: no new leases, waits for decisions under way, closes all instances, and
    /// lets the plugins deliver what they hold, all within `deadline`. Decisions have half of it: one
    /// that doesn't end, since its client is slow or its log is full, costs no logs.
    ///
    /// Call it after the server has shut down, so that the last requests have their decisions. A
    /// second call waits for the first one and then has nothing to do, unless the first one's future
    /// was dropped before its end.
    pub async fn shutdown(&self, deadline: Duration) {
        let now = Instant::now();
        let end = now.checked_add(deadline).unwrap_or(now + FAR);
        let Inner {
            instances,
            plugins,
            background,
            ended,
            ..
        } = &*self.0;
        instances.closed.store(true, Ordering::Release);
        let Ok(mut ended) = tokio::time::timeout_at(end, ended.lock()).await else {
            return;
        };
        if *ended {
            return;
        }
        let last_decision = end - deadline.min(FAR) / 2;
        while instances
            .all()
            .iter()
            .any(|instance| instance.is_deciding())
            && Instant::now() < last_decision
        {
            tokio::time::sleep(DRAIN_EVERY).await;
        }
        for task in background {
            task.abort();
        }
        instances.close_all();
        instances.shared.free_retired();
        let flushes = plugins.iter().map(|plugin| {
            let left = end.saturating_duration_since(Instant::now());
            async move {
                // A plugin's panic must not keep the others from delivering.
                let flush = async { plugin.shutdown(left).await };
                let flush = AssertUnwindSafe(flush).catch_unwind();
                let problem = match tokio::time::timeout(left, flush).await {
                    Ok(Ok(())) => return,
                    Ok(Err(_)) => "a panic ended the plugin's shutdown",
                    Err(_) => "the plugin did not end in time",
                };
                tracing::error!(target: "opa::manager", plugin = plugin.name(), "{problem}");
            }
        });
        futures_util::future::join_all(flushes).await;
        // Only now: plugins ask the policy what a log may show.
        instances.shared.runner.pool.close();
        *ended = true;
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let apps = self.0.instances.by_app.read().len();
        f.debug_struct("Manager")
            .field("apps", &apps)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.background {
            task.abort();
        }
        self.instances.closed.store(true, Ordering::Release);
        self.instances.close_all();
        self.instances.shared.runner.pool.close();
        self.instances.shared.free_retired();
    }
}

impl Instances {
    /// A lease, and the instance if it must be started.
    fn lease(&self, id: AppId) -> Result<(App, Option<Arc<Instance>>), AppError> {
        let key = id.folded();
        if let Some(lease) = self.existing(&self.by_app.read(), &key, &id)? {
            return Ok((lease, None));
        }
        self.shared.hooks.reach("lease: not found");
        let mut by_app = self.by_app.write();
        // Another thread may have started it meanwhile.
        if let Some(lease) = self.existing(&by_app, &key, &id)? {
            return Ok((lease, None));
        }
        if !by_app.contains_key(&key) && by_app.len() >= self.max_apps {
            return Err(AppError::TooManyApps { max: self.max_apps });
        }
        let instance = Arc::new(Instance::new(id, Arc::clone(&self.shared)));
        let lease = App::lease(&instance).ok_or(AppError::Closed)?;
        by_app.insert(key, Arc::clone(&instance));
        Ok((lease, Some(instance)))
    }

    fn existing(
        &self,
        by_app: &HashMap<String, Arc<Instance>>,
        key: &str,
        id: &AppId,
    ) -> Result<Option<App>, AppError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(AppError::Closed);
        }
        let Some(instance) = by_app.get(key) else {
            return Ok(None);
        };
        if instance.id() != id {
            return Err(AppError::CaseConflict {
                wanted: id.clone(),
                existing: instance.id().clone(),
            });
        }
        // A closed instance gives no lease: a new one takes its place.
        Ok(App::lease(instance))
    }

    fn all(&self) -> Vec<Arc<Instance>> {
        self.by_app.read().values().cloned().collect()
    }

    fn close_all(&self) {
        let instances: Vec<_> = self
            .by_app
            .write()
            .drain()
            .map(|(_, instance)| instance)
            .collect();
        for instance in instances {
            instance.close();
        }
    }
}
