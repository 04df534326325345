use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::download::{Downloads, Key, Member};
use super::poll::{CompilePool, Poll, Terms};
use super::slots::{Slots, Total};
use crate::bundle::persist::Place;
use crate::bundle::source::{File, HttpSource, Source};
use crate::bundle::{Limits, Verification};
use crate::config::{
    BundleConfig, BundleSource, Config, ConfigError, ConfigErrorKind, EnvPolicy, PollingConfig,
    ServiceConfig, SigningConfig, Template,
};
use crate::instance::{Instance, Profile};
use crate::plugin::{Attached, Labels, Plugin, Scope};
use crate::service::{Clients, Registry, Service};
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
    parts: Arc<Parts>,
}

/// What a program gives a manager, besides the engine and its bounds.
#[derive(Default)]
pub(super) struct Given {
    pub(super) template: Option<Template>,
    pub(super) env: EnvPolicy,
    /// Bundles from code; with one of them, none is read from a service that isn't configured.
    pub(super) sources: Vec<(Arc<str>, Arc<dyn Source>)>,
    pub(super) plugins: Vec<Arc<dyn Plugin>>,
    pub(super) credentials: Registry,
    pub(super) permit_dry_run: bool,
    pub(super) require_signed: bool,
}

struct Parts {
    given: Given,
    clients: Clients,
    downloads: Downloads,
    total: Total,
    of_files: Slots,
    /// Of each source from code, so that one that hangs delays nobody else.
    of_code: HashMap<Arc<str>, Slots>,
    of_services: Mutex<HashMap<String, Slots>>,
    /// What another app has, to be compared with.
    another: OnceLock<Option<Config>>,
}

impl Blueprint {
    pub(super) fn new(given: Given, compile: CompilePool) -> Self {
        let total = Total::new();
        let names = given.sources.iter().map(|(name, _)| Arc::clone(name));
        let parts = Parts {
            clients: Clients::default(),
            downloads: Downloads::default(),
            of_files: Slots::of_code(&total),
            of_code: names.map(|name| (name, Slots::of_code(&total))).collect(),
            of_services: Mutex::default(),
            another: OnceLock::new(),
            given,
            total,
        };
        Self {
            compile,
            parts: Arc::new(parts),
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
                .parts
                .given
                .template
                .as_ref()
                .map_or("configuration", Template::file);
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
        self.profile(&app, config).map(|_| ())
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
        Service::new(config, clients, &given.credentials).map_err(|error| {
            let text = format!("services.{}: {error}", config.name);
            ConfigError::new(ConfigErrorKind::Invalid, text)
        })
    }

    /// Gives an instance its configuration. Answers the polls of its bundles.
    pub(super) fn start(&self, instance: &Arc<Instance>) -> Result<Vec<Poll>, ConfigError> {
        let config = self.config(instance.id())?;
        let mut polls = self.polls_of_services(instance, &config)?;
        for (name, source) in &self.parts.given.sources {
            polls.push(self.poll_of_code(instance, &config, name, Arc::clone(source)));
        }
        let mut profile = self.profile(instance.id(), config)?;
        profile.bundles = polls.iter().map(|poll| Arc::clone(&poll.bundle)).collect();
        instance.configure(Arc::new(profile));
        Ok(polls)
    }

    fn config(&self, app: &AppId) -> Result<Config, ConfigError> {
        let Given { template, env, .. } = &self.parts.given;
        match template {
            Some(template) => template.config(app.as_str(), env),
            None => Ok(Config::default()),
        }
    }

    fn profile(&self, app: &AppId, config: Config) -> Result<Profile, ConfigError> {
        let given = &self.parts.given;
        if let Some(refused) = &config.envoy.dry_run_refused
            && config.envoy.dry_run
            && !given.permit_dry_run
        {
            return Err(refused.clone());
        }
        self.check_registered(&config)?;
        let id = uuid::Uuid::new_v4().to_string();
        // OPA's own labels win over configured ones.
        let own = [
            ("id".to_owned(), id),
            ("version".to_owned(), OPA_VERSION.to_owned()),
        ];
        let labels = Labels::new(config.labels.clone().into_iter().chain(own));
        let scope = Scope::new(app, &config, &labels);
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
            bundles: Vec::new(),
            decision_sinks: attached
                .iter()
                .filter_map(|one| one.decisions.clone())
                .collect(),
            status_sinks: attached
                .iter()
                .filter_map(|one| one.status.clone())
                .collect(),
        })
    }

    /// Nothing is accepted and ignored: each section must have a plugin that reads it.
    fn check_registered(&self, config: &Config) -> Result<(), ConfigError> {
        let top_level = [
            ("decision_logs", &config.decision_logs),
            ("status", &config.status),
        ];
        let top_level = top_level
            .into_iter()
            .filter_map(|(name, section)| Some((name, section.as_ref()?)));
        let others = config
            .plugins
            .iter()
            .map(|(name, section)| (name.as_str(), section));
        for (name, section) in top_level.chain(others) {
            if !self
                .parts
                .given
                .plugins
                .iter()
                .any(|plugin| plugin.name() == name)
            {
                return Err(section.not_registered(name));
            }
        }
        Ok(())
    }

    fn polls_of_services(
        &self,
        instance: &Arc<Instance>,
        config: &Config,
    ) -> Result<Vec<Poll>, ConfigError> {
        let mut polls = Vec::with_capacity(config.bundles.len());
        for bundle in &config.bundles {
            let (source, slots): (Arc<dyn Source>, Slots) = match &bundle.source {
                BundleSource::File(path) => {
                    (Arc::new(File::new(path)), self.parts.of_files.clone())
                }
                BundleSource::Service { service, resource } => {
                    let service = config.services.iter().find(|one| one.name == *service);
                    // The configuration was read with this check.
                    let Some(service) = service else { continue };
                    let client = self.service(service)?;
                    let source = HttpSource::new(Arc::new(client), resource.clone());
                    (Arc::new(source), self.slots_of(service))
                }
            };
            let member = self.member(config, bundle, &source, &slots);
            let poll = Poll::new(
                instance,
                bundle.name.as_str().into(),
                source,
                bundle.polling.clone(),
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
            polls.push(match self.place(instance.id(), config, bundle)? {
                Some(place) => poll.persisted(place),
                None => poll,
            });
        }
        Ok(polls)
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
        let another = self.parts.another.get_or_init(|| {
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
