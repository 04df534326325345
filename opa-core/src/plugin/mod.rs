//! What runs beside every instance: the traits that plugins implement, and what they are given.
//!
//! A [`Plugin`] is registered once, on the manager. For every instance it is asked to
//! [`attach`](Plugin::attach): it reads its part of the instance's configuration and answers the
//! sinks that the instance's decisions and status go to. What the configuration asks for and no
//! registered plugin claims is a configuration error: nothing is accepted and ignored.
//!
//! ```
//! use opa_core::plugin::{Attached, Event, Plugin, Scope};
//! use opa_core::config::ConfigError;
//! use std::sync::Arc;
//!
//! /// Counts decisions.
//! #[derive(Default)]
//! struct Count(std::sync::atomic::AtomicU64);
//!
//! struct CountPlugin(Arc<Count>);
//!
//! impl Plugin for CountPlugin {
//!     fn name(&self) -> &str {
//!         "count"
//!     }
//!     fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
//!         let count = Arc::clone(&self.0);
//!         Ok(Attached::default().decisions(move |_: Event| {
//!             count.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
//!         }))
//!     }
//! }
//! ```

mod event;
mod load_times;
mod log_policy;
mod sink;
mod status;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

pub use event::{
    BundleRevision, DeferredInput, Event, EventError, EventInput, Labels, Metrics, RequestHeader,
};
pub use load_times::{LastLoad, LoadStage, LoadTimes};
pub(crate) use log_policy::Asked;
pub use log_policy::{LogAnswer, LogPolicy, LogPolicyFuture};
pub use sink::{Admission, AdmissionFuture, DecisionSink, StatusSink};
pub use status::{BundleError, BundleStatus, InstanceStatus, State};

use crate::AppId;
use crate::config::{Config, ConfigError, ConfigErrorKind, ServiceConfig};
use crate::engine::EntrypointPath;
use crate::service::ServiceClient;

/// A boxed future of a plugin.
pub type PluginFuture<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Something that runs beside every instance, registered with
/// [`ManagerBuilder::plugin`](crate::ManagerBuilder::plugin).
pub trait Plugin: Send + Sync + 'static {
    /// The name under which configuration refers to it: a section of that name at the top level
    /// for `decision_logs` and `status`, `plugins.<name>` for every other.
    fn name(&self) -> &str;

    /// Whether it reads `plugins.<section>`, beside the section of its [name](Self::name). Default: no.
    fn claims(&self, section: &str) -> bool {
        let _ = section;
        false
    }

    /// Called for every instance when its configuration is known. Must not block.
    ///
    /// # Errors
    /// What the configuration asks for and the plugin can't do, with its place.
    fn attach(&self, scope: &Scope<'_>) -> Result<Attached, ConfigError>;

    /// Delivers what it still holds, called once when the manager has shut down and all instances
    /// are closed. Leases that outlive it may still record refusals
    /// ([`Closed`](crate::Reason::Closed)). Default: nothing to do.
    fn shutdown(&self, deadline: Duration) -> PluginFuture<'_> {
        let _ = deadline;
        Box::pin(std::future::ready(()))
    }
}

impl fmt::Debug for dyn Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Plugin({})", self.name())
    }
}

/// The instance that a plugin is attached to.
#[derive(Clone)]
#[non_exhaustive]
pub struct Scope<'a> {
    /// The app.
    pub app: &'a AppId,
    /// The app's own configuration.
    pub config: &'a Config,
    /// The instance's labels.
    pub labels: &'a Labels,
    services: &'a ServiceMaker<'a>,
}

/// Makes the client of a configured service.
pub(crate) type ServiceMaker<'a> =
    dyn Fn(&ServiceConfig) -> Result<ServiceClient, ConfigError> + 'a;

impl<'a> Scope<'a> {
    pub(crate) fn new(
        app: &'a AppId,
        config: &'a Config,
        labels: &'a Labels,
        services: &'a ServiceMaker<'a>,
    ) -> Self {
        Self {
            app,
            config,
            labels,
            services,
        }
    }

    /// The client of the service `name` of the app's configuration, with its credentials.
    ///
    /// # Errors
    /// When there is no such service, its TLS settings name a file that can't be used, or its
    /// credentials a plugin that isn't there.
    pub fn service(&self, name: &str) -> Result<ServiceClient, ConfigError> {
        let service = self.config.services.iter().find(|one| one.name == name);
        let missing = || {
            let text = format!("services: expected one called `{name}`, found none");
            ConfigError::new(ConfigErrorKind::Invalid, text)
        };
        (self.services)(service.ok_or_else(missing)?)
    }

    /// The client of a service that a plugin's own section describes. Connections are shared with
    /// all services of the same TLS settings.
    ///
    /// # Errors
    /// As [`service`](Self::service).
    pub fn client(&self, service: &ServiceConfig) -> Result<ServiceClient, ConfigError> {
        (self.services)(service)
    }
}

impl fmt::Debug for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope")
            .field("app", self.app)
            .field("labels", self.labels)
            .finish_non_exhaustive()
    }
}

/// What a plugin adds to one instance.
#[derive(Clone, Debug, Default)]
pub struct Attached {
    pub(crate) decisions: Option<Arc<dyn DecisionSink>>,
    pub(crate) status: Option<Arc<dyn StatusSink>>,
    pub(crate) log_policies: Vec<EntrypointPath>,
    pub(crate) logged_headers: Vec<Arc<str>>,
}

impl Attached {
    /// Sends the instance's decisions to `sink`.
    #[must_use]
    pub fn decisions(mut self, sink: impl DecisionSink) -> Self {
        self.decisions = Some(Arc::new(sink));
        self
    }

    /// The policy at `path` says what a log may show, as the one at `data.system.log` does: where
    /// there is one, no sink that doesn't [ask it](DecisionSink::asks_policy) sees what it might
    /// hide.
    #[must_use]
    pub fn log_policy(mut self, path: EntrypointPath) -> Self {
        self.log_policies.push(path);
        self
    }

    /// Events show these headers of requests.
    #[must_use]
    pub fn request_headers(mut self, names: impl IntoIterator<Item = Arc<str>>) -> Self {
        self.logged_headers.extend(names);
        self
    }

    /// Sends the instance's status to `sink`.
    #[must_use]
    pub fn status(mut self, sink: impl StatusSink) -> Self {
        self.status = Some(Arc::new(sink));
        self
    }
}
