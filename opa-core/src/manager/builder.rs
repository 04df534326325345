use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::runtime::Handle;

use super::blueprint::{Blueprint, Given};
use super::poll::CompilePool;
use super::reload::{self, Base, Origin, Reloader};
use super::scheduler::Scheduler;
use super::{Inner, Instances, Manager, sweeper};
use crate::Value;
use crate::bundle::source::{Memory, Source};
use crate::bundle::{BundleError, BundleWriter};
use crate::config::{ConfigError, ConfigErrorKind, EnvPolicy};
use crate::engine::pool::{Pool, PoolConfig, Spawn};
use crate::engine::{
    Budget, Clock, Engine, IoDriver, Module, NoIo, PrintSink, Runner, Scheduling, SystemClock,
};
use crate::instance::{Shared, Tracing};
use crate::plugin::Plugin;
use crate::service::Credentials;
use crate::trace::TraceContext;

/// How long an evaluation may run on the caller's thread.
const SLICE: Duration = Duration::from_micros(100);

/// Builds a [`Manager`]. See the [module docs](crate::manager).
///
/// Mistakes in what is given are reported by [`build`](Self::build).
#[must_use = "nothing runs until `build` is called"]
pub struct ManagerBuilder {
    given: Given,
    origin: Origin,
    watch_config: Option<Duration>,
    engine: Option<Arc<dyn Engine>>,
    budget: Budget,
    grace: Duration,
    max_apps: usize,
    io: Arc<dyn IoDriver>,
    prints: Option<Arc<dyn PrintSink>>,
    clock: Arc<dyn Clock>,
    blocking_pools: bool,
    decision_spans: bool,
}

impl Default for ManagerBuilder {
    fn default() -> Self {
        Self {
            given: Given::default(),
            origin: Origin::default(),
            watch_config: None,
            engine: None,
            budget: Budget::default(),
            grace: Duration::from_secs(30),
            max_apps: 100_000,
            io: Arc::new(NoIo),
            prints: None,
            clock: Arc::new(SystemClock::new()),
            blocking_pools: false,
            decision_spans: false,
        }
    }
}

impl ManagerBuilder {
    /// Reads OPA's configuration from a file: the template of all apps.
    pub fn config_file(self, path: impl AsRef<Path>) -> Self {
        self.base(Base::File(path.as_ref().to_owned()))
    }

    /// Reads OPA's configuration, the template of all apps, from a text.
    pub fn config_yaml(self, text: &str) -> Self {
        self.base(Base::Text(text.to_owned()))
    }

    fn base(mut self, base: Base) -> Self {
        self.origin.base = base;
        self
    }

    /// Puts options over the configuration, as `--set` of OPA: `labels.region=eu,services.a.url=…`.
    /// See [`Overrides`](crate::config::Overrides). Can be called again; later ones win.
    pub fn set(mut self, options: impl Into<String>) -> Self {
        self.origin.set.push(options.into());
        self
    }

    /// Puts the content of files over the configuration and over what is [`set`](Self::set), as
    /// `--set-file` of OPA: `services.a.credentials.bearer.token=/run/secrets/token`. They are read
    /// again by each [`Manager::reload`].
    pub fn set_file(mut self, options: impl Into<String>) -> Self {
        self.origin.set_files.push(options.into());
        self
    }

    /// Looks at the configuration's files, [`config_file`](Self::config_file) and those of
    /// [`set_file`](Self::set_file), every so often, and [reloads](Manager::reload) when their
    /// content has changed and is the same at the next look. Links may be swapped, as Kubernetes
    /// does. What is wrong is logged, and the old configuration stays. Default: only
    /// [`Manager::reload`] reads them again.
    pub fn watch_config(mut self, every: Duration) -> Self {
        self.watch_config = Some(every);
        self
    }

    /// Which environment variables the configuration may read. Default: none.
    pub fn env(mut self, env: EnvPolicy) -> Self {
        self.given.env = env;
        self
    }

    /// Registers a plugin: it runs beside every instance.
    pub fn plugin(mut self, plugin: impl Plugin) -> Self {
        self.given.plugins.push(Arc::new(plugin));
        self
    }

    /// Registers credentials that `services.*.credentials.plugin` can name. Of two of the same
    /// name the later one counts.
    pub fn credentials(mut self, name: impl Into<String>, credentials: impl Credentials) -> Self {
        let credentials = Arc::new(credentials);
        self.given
            .credentials
            .plugins
            .insert(name.into(), credentials);
        self
    }

    /// Gives every app a bundle `name` from `source`, besides those of the configuration. A
    /// configuration without `bundles` then needs no service.
    pub fn source(mut self, name: impl Into<Arc<str>>, source: impl Source) -> Self {
        self.given.sources.push((name.into(), Arc::new(source)));
        self
    }

    /// Gives every app the bundle `bundle` of `modules`, all of one version of Rego, and `data`.
    ///
    /// # Errors
    /// When the bundle can't be written: a module or the data makes no bundle.
    pub fn in_memory(
        self,
        modules: impl IntoIterator<Item = Module>,
        data: Value,
    ) -> Result<Self, ConfigError> {
        let invalid = |error: BundleError| {
            ConfigError::new(
                ConfigErrorKind::Invalid,
                format!("bundle in memory: {error}"),
            )
        };
        let mut bundle = BundleWriter::new().data("", &data).map_err(invalid)?;
        let mut version = None;
        for module in modules {
            if *version.get_or_insert(module.version()) != module.version() {
                let text = "bundle in memory: its modules are of two versions of Rego";
                return Err(ConfigError::new(ConfigErrorKind::Invalid, text));
            }
            bundle = bundle
                .rego_version(module.version())
                .module(module.id(), module.source())
                .map_err(invalid)?;
        }
        let archive = bundle.to_vec().map_err(invalid)?;
        Ok(self.source("bundle", Memory::new(archive)))
    }

    /// The engine that runs Rego. Default: [`Regorus`](crate::engine::Regorus).
    pub fn engine(mut self, engine: impl Engine) -> Self {
        self.engine = Some(Arc::new(engine));
        self
    }

    /// What one decision may use. Default: [`Budget::default`].
    pub fn budget(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// How long an instance that nobody uses stays warm. Default: 30 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How many apps there may be at a time. Default: 100,000.
    pub fn max_apps(mut self, max: usize) -> Self {
        self.max_apps = max;
        self
    }

    /// Permits the configuration to ask for `dry-run`. Default: it must not.
    ///
    /// Dry-run lets nothing pass that [can't be logged](crate::Reason::LogUnavailable), nor before
    /// the first activation.
    pub fn permit_dry_run(mut self, permit: bool) -> Self {
        self.given.permit_dry_run = permit;
        self
    }

    /// Activates signed bundles only, whatever the configuration says. Default: the configuration
    /// decides, see [`Verification`](crate::bundle::Verification). The keys are always the
    /// configuration's; without any no bundle is ever activated.
    pub fn require_signed(mut self, require: bool) -> Self {
        self.given.require_signed = require;
        self
    }

    /// What answers built-ins that need input or output. Default: [`NoIo`].
    pub fn io(mut self, driver: impl IoDriver) -> Self {
        self.io = Arc::new(driver);
        self
    }

    /// Where the lines of `print` go. Default: nowhere.
    pub fn prints(mut self, sink: impl PrintSink) -> Self {
        self.prints = Some(Arc::new(sink));
        self
    }

    /// The clocks of decisions, timestamps and signatures. Default: the system's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// What knows the trace that decisions belong to, and hands it on with requests to services.
    /// Default: nothing does; events have no `trace_id` then. See [`trace`](crate::trace).
    pub fn trace_context(mut self, context: impl TraceContext) -> Self {
        self.given.trace = Some(Arc::new(context));
        self
    }

    /// Gives each decision a span of its own, `open-policy-agent`, from the question to the
    /// decision. Default: the decision is an event on the caller's span. See
    /// [`trace`](crate::trace).
    pub fn decision_spans(mut self, spans: bool) -> Self {
        self.decision_spans = spans;
        self
    }

    /// Runs evaluations on the runtime's blocking threads instead of threads of the manager's own,
    /// for tests under Tokio's paused time: it stands still while such a thread works.
    pub fn blocking_pools(mut self) -> Self {
        self.blocking_pools = true;
        self
    }

    /// Builds the manager and starts its background work: one scheduler and one sweeper.
    ///
    /// # Errors
    /// What is wrong with the configuration, with file, place and what was expected;
    /// [`ConfigErrorKind::NoRuntime`] outside of a Tokio runtime.
    pub fn build(mut self) -> Result<Manager, ConfigError> {
        // Before they are read: a change in between is seen.
        let content = self.watch_config.map(|_| self.origin.content());
        let template = self.origin.read()?;
        let runtime = Handle::try_current()
            .map_err(|error| ConfigError::new(ConfigErrorKind::NoRuntime, error.to_string()))?;
        let engine = self.engine.map_or_else(default_engine, Ok)?;
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = match engine.scheduling() {
            Scheduling::Sliced => cores,
            Scheduling::Pooled => (2 * cores).max(4),
        };
        let mut pool = PoolConfig::threads(threads);
        if self.blocking_pools {
            pool = pool.spawn(Spawn::Blocking(runtime.clone()));
        }
        let runner = Runner {
            scheduling: engine.scheduling(),
            pool: Pool::new(pool),
            slice: SLICE,
            io: self.io,
        };
        let plugins = self.given.plugins.clone();
        let tracing = Tracing {
            context: self.given.trace.clone(),
            spans: self.decision_spans,
        };
        self.given.credentials.env = self.given.env.clone();
        self.given.credentials.clock = Arc::clone(&self.clock);
        let blueprint = Blueprint::new(self.given, template, CompilePool::new(cores));
        blueprint.validate()?;
        let mut shared = Shared::new(engine, runner, self.clock, self.budget, self.prints);
        shared.tracing = tracing;
        let instances = Arc::new(Instances {
            shared: Arc::new(shared),
            by_app: parking_lot::RwLock::default(),
            closed: AtomicBool::new(false),
            grace: self.grace,
            max_apps: self.max_apps,
        });
        let scheduler = Arc::new(Scheduler::new(blueprint));
        let reloader = Arc::new(Reloader {
            instances: Arc::clone(&instances),
            scheduler: Arc::clone(&scheduler),
            origin: Arc::new(self.origin),
            runtime: runtime.clone(),
            one: tokio::sync::Mutex::default(),
        });
        let mut background = vec![
            runtime.spawn(Arc::clone(&scheduler).run()),
            runtime.spawn(sweeper::run(Arc::clone(&instances), Arc::clone(&scheduler))),
        ];
        if let Some(every) = self.watch_config {
            background.push(runtime.spawn(reload::watch(Arc::clone(&reloader), every, content)));
        }
        Ok(Manager(Arc::new(Inner {
            instances,
            scheduler,
            reloader,
            plugins,
            background,
            ended: tokio::sync::Mutex::default(),
        })))
    }
}

#[cfg(feature = "regorus")]
#[expect(
    clippy::unnecessary_wraps,
    reason = "without an engine compiled in it is an error"
)]
fn default_engine() -> Result<Arc<dyn Engine>, ConfigError> {
    Ok(Arc::new(crate::engine::Regorus::default()))
}

#[cfg(not(feature = "regorus"))]
fn default_engine() -> Result<Arc<dyn Engine>, ConfigError> {
    let text = "no engine is compiled in (feature `regorus`) and none was given";
    Err(ConfigError::new(ConfigErrorKind::Unsupported, text))
}
