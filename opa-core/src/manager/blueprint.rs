mod kept;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use self::kept::{polling_of, ticket_of};
use super::download::{Downloads, Key, Member};
use super::poll::{CompilePool, Poll, Terms};
use super::slots::{Slots, Total};
use crate::bundle::persist::Place;
use crate::bundle::source::{File, HttpSource, OciSource, Source, Watches};
use crate::bundle::{Limits, Verification};
use crate::config::{
    BundleConfig, BundleSource, Config, ConfigError, ConfigErrorKind, EnvPolicy, PollingConfig,
    ServiceConfig, ServiceKind, SigningConfig, Template,
};
use crate::instance::{Configured, Instance, Profile, Ticket};
use crate::plugin::{Attached, Labels, Plugin, Scope, ServiceMaker};
use crate::service::{Clients, Registry, Service, ServiceClient};
use crate::trace::TraceContext;
use crate::{AppId, OPA_VERSION};

/// How often a source from code is asked that does not wait for news.
const CODE_DELAY: Duration = Duration::from_secs(1);

/// How long a source from code may wait for news.
const CODE_WAIT: Duration = Duration::from_secs(60 * 60);

/// OPA's, in the working directory.
const DEFAULT_DIRECTORY: &str = ".opa";

/// From what instances are started. Clones are the same blueprint.
#[derive(Clone)]
pub(super) struct Blueprint {
    pub(super) compile: CompilePool,
    template: Option<Arc<Template>>,
    /// What another app has by the template, to be compared with.
    another: Arc<OnceLock<Option<Config>>>,
    parts: Arc<Parts>,
}

/// What an instance is to be made.
pub(super) struct Plan {
    pub(super) told: Configured,
    pub(super) profile: Arc<Profile>,
    /// Those that it doesn't have yet.
    pub(super) polls: Vec<Poll>,
}

/// What a program gives a manager, besides the engine and its bounds.
#[derive(Default)]
pub(super) struct Given {
    pub(super) env: EnvPolicy,
    /// Bundles from code; with one of them, none is read from a service that isn't configured.
    pub(super) sources: Vec<(Arc<str>, Arc<dyn Source>)>,
    pub(super) plugins: Vec<Arc<dyn Plugin>>,
    pub(super) credentials: Registry,
    pub(super) permit_dry_run: bool,
    pub(super) require_signed: bool,
    pub(super) trace: Option<Arc<dyn TraceContext>>,
}

struct Parts {
    given: Given,
    clients: Clients,
    watches: Watches,
    downloads: Downloads,
    total: Total,
    of_files: Slots,
    /// Of each source from code, so that one that hangs delays nobody else.
    of_code: HashMap<Arc<str>, Slots>,
    of_services: Mutex<HashMap<String, Slots>>,
}

impl Blueprint {
    pub(super) fn new(given: Given, template: Option<Template>, compile: CompilePool) -> Self {
        let total = Total::new();
        let names = given.sources.iter().map(|(name, _)| Arc::clone(name));
        let parts = Parts {
            clients: Clients::default(),
            watches: Watches::default(),
            downloads: Downloads::default(),
            of_files: Slots::of_code(&total),
            of_code: names.map(|name| (name, Slots::of_code(&total))).collect(),
            of_services: Mutex::default(),
            given,
            total,
        };
        Self {
            compile,
            template: template.map(Arc::new),
            another: Arc::default(),
            parts: Arc::new(parts),
        }
    }

    /// The same with another configuration: clients and bounds stay.
    pub(super) fn with_template(&self, template: Option<Template>) -> Self {
        Self {
            template: template.map(Arc::new),
            another: Arc::default(),
            ..self.clone()
        }
    }

    /// Renders the configuration once and attaches the plugins to it, so that what is wrong with
    /// it for any app is known when the manager is built. Warnings are logged here, once.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let app = AppId::new("app")
            .map_err(|error| ConfigError::new(ConfigErrorKind::Invalid, error.to_string()))?;
        let config = self.config(&app)?;
        if config.bundles.is_empty() && self.parts.given.sources.is_empty() {
            let file = self
                .template
                .as_ref()
                .map_or("configuration", |template| template.file());
            let text = if config.services.is_empty() {
                format!("{file}: services: expected one for the app's bundle, found none")
            } else {
                format!("{file}: bundles: expected at least one, found none")
            };
            return Err(ConfigError::new(ConfigErrorKind::Invalid, text));
        }
        for warning in &config.warnings {
            tracing::warn!(target: "opa::config", "{warning}");
        }
        self.check_clients(&config)?;
        // A file that a service names may be there for some apps only.
        let service = |config: &ServiceConfig| {
            let client = self.client(&app, config);
            Ok(client.unwrap_or_else(ServiceClient::unusable))
        };
        self.profile(&app, &config, String::new(), &service)
            .map(|_| ())
    }

    /// What names a file of certificates is known to be usable when the manager is built, if all
    /// apps have the same.
    fn check_clients(&self, config: &Config) -> Result<(), ConfigError> {
        let another = AppId::new("other")
            .map_err(|error| ConfigError::new(ConfigErrorKind::Invalid, error.to_string()))?;
        let of_another = self.config(&another)?;
        for service in &config.services {
            if of_another.services.contains(service) {
                self.service(service)?;
            }
        }
        Ok(())
    }

    fn service(&self, config: &ServiceConfig) -> Result<Service, ConfigError> {
        let Parts { given, clients, .. } = &*self.parts;
        match Service::new(config, clients, &given.credentials) {
            Ok(service) => Ok(service.trace(given.trace.clone())),
            Err(error) => {
                let text = format!("services.{}: {error}", config.name);
                Err(ConfigError::new(ConfigErrorKind::Invalid, text))
            }
        }
    }

    fn client(&self, app: &AppId, config: &ServiceConfig) -> Result<ServiceClient, ConfigError> {
        let service = self.service(config)?.of_app(app);
        Ok(ServiceClient::new(service))
    }

    /// What `instance` is to be made, if that isn't what it was told last. What is the same of its
    /// bundles keeps its poll.
    pub(super) fn plan(
        &self,
        instance: &Arc<Instance>,
        previous: Option<&Configured>,
    ) -> Result<Option<Plan>, ConfigError> {
        let config = self.config(instance.id())?;
        if previous.is_some_and(|previous| previous.config == config) {
            return Ok(None);
        }
        let mut tickets = BTreeMap::new();
        let mut polls = Vec::new();
        for bundle in &config.bundles {
            let name: Arc<str> = bundle.name.as_str().into();
            let (ticket, is_new) = ticket_of(&config, bundle, previous);
            if is_new && let Some(poll) = self.poll_of_service(instance, &config, bundle)? {
                polls.push(poll.with_ticket(ticket.clone()));
            }
            tickets.insert(name, ticket);
        }
        for (name, source) in &self.parts.given.sources {
            let known = previous.filter(|previous| previous.config.keys == config.keys);
            let ticket = match known.and_then(|previous| previous.polls.get(name)) {
                Some(ticket) => ticket.clone(),
                None => {
                    let ticket = Ticket::default();
                    let poll = self.poll_of_code(instance, &config, name, Arc::clone(source));
                    polls.push(poll.with_ticket(ticket.clone()));
                    ticket
                }
            };
            tickets.insert(Arc::clone(name), ticket);
        }
        let id = previous.map_or_else(|| uuid::Uuid::new_v4().to_string(), |one| one.id.clone());
        let mut profile = self.profile(instance.id(), &config, id.clone(), &|service| {
            self.client(instance.id(), service)
        })?;
        profile.max_staleness = max_staleness(&config);
        let lineages = tickets.iter();
        let lineages = lineages.map(|(name, it)| (Arc::clone(name), it.lineage().clone()));
        profile.bundles = lineages.collect();
        Ok(Some(Plan {
            told: Configured {
                config,
                id,
                polls: tickets,
            },
            profile: Arc::new(profile),
            polls,
        }))
    }

    fn config(&self, app: &AppId) -> Result<Config, ConfigError> {
        match &self.template {
            Some(template) => template.config(app.as_str(), &self.parts.given.env),
            None => Ok(Config::default()),
        }
    }

    fn profile(
        &self,
        app: &AppId,
        config: &Config,
        id: String,
        services: &ServiceMaker<'_>,
    ) -> Result<Profile, ConfigError> {
        let given = &self.parts.given;
        if let Some(refused) = &config.envoy.dry_run_refused
            && config.envoy.dry_run
            && !given.permit_dry_run
        {
            return Err(refused.clone());
        }
        self.check_registered(config)?;
        // OPA's own labels win over configured ones.
        let own = [
            ("id".to_owned(), id),
            ("version".to_owned(), OPA_VERSION.to_owned()),
        ];
        let labels = Labels::new(config.labels.clone().into_iter().chain(own));
        let scope = Scope::new(app, config, &labels, services);
        let attached: Vec<Attached> = given
            .plugins
            .iter()
            .map(|plugin| plugin.attach(&scope))
            .collect::<Result<_, _>>()?;
        Ok(Profile {
            labels,
            entrypoint: config.envoy.path.clone(),
            dry_run: config.envoy.dry_run,
            skip_request_body_parse: config.envoy.skip_request_body_parse,
            bundles: BTreeMap::new(),
            max_staleness: BTreeMap::new(),
            has_decision_logs: config.decision_logs.is_some(),
            has_status: config.status.is_some(),
            decision_sinks: attached
                .iter()
                .filter_map(|one| one.decisions.clone())
                .collect(),
            status_sinks: attached
                .iter()
                .filter_map(|one| one.status.clone())
                .collect(),
            log_policies: attached
                .iter()
                .flat_map(|one| one.log_policies.iter().cloned())
                .collect(),
            logged_headers: attached
                .iter()
                .flat_map(|one| one.logged_headers.iter().cloned())
                .collect(),
        })
    }

    /// Nothing is accepted and ignored: each section must have a plugin that reads it.
    fn check_registered(&self, config: &Config) -> Result<(), ConfigError> {
        let top_level = [
            ("decision_logs", &config.decision_logs),
            ("status", &config.status),
        ];
        let plugins = &self.parts.given.plugins;
        for (name, section) in top_level {
            if let Some(section) = section
                && !plugins.iter().any(|plugin| plugin.name() == name)
            {
                return Err(section.not_registered(name));
            }
        }
        for (name, section) in &config.plugins {
            let reads = |plugin: &Arc<dyn Plugin>| plugin.name() == name || plugin.claims(name);
            if !plugins.iter().any(reads) {
                return Err(section.not_registered(name));
            }
        }
        Ok(())
    }

    fn poll_of_service(
        &self,
        instance: &Arc<Instance>,
        config: &Config,
        bundle: &BundleConfig,
    ) -> Result<Option<Poll>, ConfigError> {
        let (source, slots): (Arc<dyn Source>, Slots) = match &bundle.source {
            BundleSource::File(path) => {
                let file = File::watched_by(&self.parts.watches, path, limits(bundle));
                (Arc::new(file), self.parts.of_files.clone())
            }
            BundleSource::Service { service, resource } => {
                let service = config.services.iter().find(|one| one.name == *service);
                // The configuration was read with this check.
                let Some(service) = service else {
                    return Ok(None);
                };
                let client = self.service(service)?;
                let source = source_of(service.kind, client, resource)?;
                (source, self.slots_of(service))
            }
        };
        let member = self.member(config, bundle, &source, &slots);
        let poll = Poll::new(
            instance,
            bundle.name.as_str().into(),
            source,
            polling_of(bundle),
            Terms {
                limits: limits(bundle),
                verification: self.verification(config, bundle.signing.clone()),
            },
            slots,
            self.compile.clone(),
        );
        let poll = match member {
            Some(member) => poll.member(member),
            None => poll,
        };
        Ok(Some(match self.place(instance.id(), config, bundle)? {
            Some(place) => poll.persisted(place),
            None => poll,
        }))
    }

    /// The app's part in the download of a bundle, which other apps may have as well.
    fn member(
        &self,
        config: &Config,
        bundle: &BundleConfig,
        source: &Arc<dyn Source>,
        slots: &Slots,
    ) -> Option<Arc<Member>> {
        let (service, resource) = service_of(config, bundle)?;
        let another = self.another.get_or_init(|| {
            let app = AppId::new("another-app").ok()?;
            self.config(&app).ok()
        });
        let of_another = another.as_ref().and_then(|another| {
            let of_name = |of: &&BundleConfig| of.name == bundle.name;
            service_of(another, another.bundles.iter().find(of_name)?)
        });
        let is_common = of_another == Some((service, resource));
        let downloads = &self.parts.downloads;
        let key = Key {
            service: downloads.interned(service),
            resource: resource.to_owned(),
            polling: bundle.polling.clone(),
            limit: limits(bundle).total_bytes(),
        };
        Some(downloads.join(key, Arc::clone(source), slots.clone(), is_common))
    }

    /// The downloads that apps share.
    pub(super) fn downloads(&self) -> &Downloads {
        &self.parts.downloads
    }

    /// Where the bundle is kept, if it is to be. Without an app's placeholder in the configured
    /// path all apps have it, and each has a directory of its own below.
    fn place(
        &self,
        app: &AppId,
        config: &Config,
        bundle: &BundleConfig,
    ) -> Result<Option<Place>, ConfigError> {
        let BundleSource::Service { service, resource } = &bundle.source else {
            return Ok(None);
        };
        if !bundle.persist {
            return Ok(None);
        }
        let (root, per_app) = match &config.persistence_directory {
            Some(directory) => (&*directory.path, directory.per_app),
            None => (Path::new(DEFAULT_DIRECTORY), false),
        };
        let service = config.services.iter().find(|one| one.name == *service);
        let origin = format!("{}\n{resource}", service.map_or("", |one| &one.url));
        let own = (!per_app).then_some(app.as_str());
        match Place::new(root, own, &bundle.name, &origin) {
            Ok(place) => Ok(Some(place)),
            Err(error) => {
                let text = format!("bundles.{}.persist: {error}", bundle.name);
                Err(ConfigError::new(ConfigErrorKind::Invalid, text))
            }
        }
    }

    fn poll_of_code(
        &self,
        instance: &Arc<Instance>,
        config: &Config,
        name: &Arc<str>,
        source: Arc<dyn Source>,
    ) -> Poll {
        let slots = self.parts.of_code.get(name);
        let slots = slots.unwrap_or(&self.parts.of_files).clone();
        let polling = PollingConfig {
            min_delay: CODE_DELAY,
            max_delay: CODE_DELAY,
            long_polling_timeout: Some(CODE_WAIT),
        };
        Poll::new(
            instance,
            Arc::clone(name),
            source,
            polling,
            Terms {
                limits: Limits::default(),
                verification: self.verification(config, None),
            },
            slots,
            self.compile.clone(),
        )
    }

    fn verification(&self, config: &Config, signing: Option<SigningConfig>) -> Arc<Verification> {
        let verification = Verification::new(config.keys.clone(), signing);
        Arc::new(verification.require(self.parts.given.require_signed))
    }

    /// Apps whose services have the same URL share its bounds.
    fn slots_of(&self, service: &ServiceConfig) -> Slots {
        let mut of_services = self.parts.of_services.lock();
        if of_services.len() == of_services.capacity() {
            // It would grow: first what no app uses any more goes, since URLs can name apps.
            of_services.retain(|_, slots| slots.is_used());
        }
        let of_service = of_services
            .entry(service.url.clone())
            .or_insert_with(|| Slots::of_service(&self.parts.total));
        of_service.clone()
    }
}

fn source_of(
    kind: ServiceKind,
    service: Service,
    resource: &str,
) -> Result<Arc<dyn Source>, ConfigError> {
    let service = Arc::new(service);
    match kind {
        ServiceKind::Http => Ok(Arc::new(HttpSource::new(service, resource.to_owned()))),
        ServiceKind::Oci => match OciSource::new(service, resource) {
            Ok(source) => Ok(Arc::new(source)),
            Err(problem) => {
                let text = format!("resource: {problem}");
                Err(ConfigError::new(ConfigErrorKind::Invalid, text))
            }
        },
    }
}

/// How old the bundles may become for which the configuration bounds it.
fn max_staleness(config: &Config) -> BTreeMap<Arc<str>, Duration> {
    let bundles = config.bundles.iter();
    let bounded = bundles.filter_map(|bundle| {
        let bound = bundle.max_staleness?;
        Some((bundle.name.as_str().into(), bound))
    });
    bounded.collect()
}

/// What an archive of the bundle may have.
fn limits(bundle: &BundleConfig) -> Limits {
    Limits::default().with_file_bytes(bundle.size_limit_bytes)
}

/// The service that a bundle comes from, and where there.
fn service_of<'a>(
    config: &'a Config,
    bundle: &'a BundleConfig,
) -> Option<(&'a ServiceConfig, &'a str)> {
    let BundleSource::Service { service, resource } = &bundle.source else {
        return None;
    };
    let service = config.services.iter().find(|one| one.name == *service)?;
    Some((service, resource))
}
