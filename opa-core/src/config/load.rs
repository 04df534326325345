//! The whole configuration of one app.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::bundle::{BundleConfig, read_bundles};
use super::document::Document;
use super::envoy::{self, EnvoyConfig};
use super::error::{ConfigError, Warning};
use super::field::Field;
use super::node::Value;
use super::path::DecisionPath;
use super::reader::Reader;
use super::section::Section;
use super::service::{ServiceConfig, read_services};

/// The configuration of one app.
///
/// See the [module docs](super). The default is a configuration without services and bundles.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The services, in file order: the first one is the default of whoever needs one.
    pub services: Vec<ServiceConfig>,
    /// The bundles, in file order.
    pub bundles: Vec<BundleConfig>,
    /// Labels of decision logs and status. An instance overwrites `id` and `version`, as OPA
    /// does.
    pub labels: BTreeMap<String, String>,
    /// `decision_logs`, read by the plugin that does it.
    pub decision_logs: Option<Section>,
    /// `status`, read by the plugin that does it.
    pub status: Option<Section>,
    /// The other plugins by name. Each must be registered.
    pub plugins: BTreeMap<String, Section>,
    /// `plugins.envoy_ext_authz_grpc`.
    pub envoy: EnvoyConfig,
    /// `default_decision`; `system/main` by default.
    pub default_decision: DecisionPath,
    /// `persistence_directory`.
    pub persistence_directory: Option<PersistenceDirectory>,
    /// What deserves attention: unknown options, placeholders that were left as they are.
    pub warnings: Vec<Warning>,
}

/// Where activated bundles are kept: `persistence_directory`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PersistenceDirectory {
    /// The directory.
    pub path: PathBuf,
    /// The path was written with the app's placeholder, so that no other app uses it.
    pub per_app: bool,
}

impl Config {
    /// Reads the configuration of an app.
    ///
    /// # Errors
    /// An option has the wrong type or a value that makes no sense, or asks for something that
    /// OPA does and this version doesn't: nothing is accepted and ignored.
    pub fn from_document(document: &Document) -> Result<Self, ConfigError> {
        let mut warnings = document.warnings().to_vec();
        let mut reader = document.field().reader()?;
        let mut config = Self::read(&mut reader, document.app(), &mut warnings)?;
        warnings.extend(reader.finish()?);
        config.warnings = warnings;
        Ok(config)
    }

    fn read(
        reader: &mut Reader<'_>,
        app: &str,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        refuse_unsupported(reader)?;
        let services = match reader.field("services") {
            Some(services) => read_services(&services, warnings)?,
            None => Vec::new(),
        };
        let mut config = Self {
            bundles: read_all_bundles(reader, app, &services, warnings)?,
            services,
            labels: reader.string_map("labels")?,
            decision_logs: reader.field("decision_logs").as_ref().map(Section::new),
            status: reader.field("status").as_ref().map(Section::new),
            persistence_directory: read_persistence_directory(reader)?,
            ..Self::default()
        };
        if let Some(path) = read_default_decision(reader)? {
            config.default_decision = path;
        }
        if let Some(plugins) = reader.field("plugins") {
            config.read_plugins(&plugins, warnings)?;
        }
        Ok(config)
    }

    fn read_plugins(
        &mut self,
        plugins: &Field<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), ConfigError> {
        for (name, member) in plugins.members()? {
            if name == envoy::NAME {
                self.envoy = EnvoyConfig::read(&member, warnings)?;
            } else {
                self.plugins.insert(name.to_owned(), Section::new(&member));
            }
        }
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            bundles: Vec::new(),
            labels: BTreeMap::new(),
            decision_logs: None,
            status: None,
            plugins: BTreeMap::new(),
            envoy: EnvoyConfig::default(),
            default_decision: DecisionPath::from_static("system/main"),
            persistence_directory: None,
            warnings: Vec::new(),
        }
    }
}

/// Refuses the sections that OPA knows and this version doesn't act on.
fn refuse_unsupported(reader: &mut Reader<'_>) -> Result<(), ConfigError> {
    // OPA refuses these two when they are empty.
    reader.unsupported("discovery")?;
    reader.unsupported("bundle")?;
    reader.unsupported("default_authorization_decision")?;
    if let Some(field) = reader
        .field("nd_builtin_cache")
        .filter(|f| f.as_bool() != Ok(false))
    {
        field.as_bool()?;
        return Err(field.unsupported());
    }
    for section in [
        "keys",
        "caching",
        "distributed_tracing",
        "metrics_export",
        "server",
        "storage",
    ] {
        match reader.field(section) {
            Some(field) if !asks_for_nothing(&field) => return Err(field.unsupported()),
            _ => {}
        }
    }
    Ok(())
}

fn asks_for_nothing(field: &Field<'_>) -> bool {
    matches!(&field.node().value, Value::Object(entries) if entries.is_empty())
}

/// The configured bundles or, if the file has no `bundles`, the one named after the app.
fn read_all_bundles(
    reader: &mut Reader<'_>,
    app: &str,
    services: &[ServiceConfig],
    warnings: &mut Vec<Warning>,
) -> Result<Vec<BundleConfig>, ConfigError> {
    if let Some(bundles) = reader.field("bundles") {
        return read_bundles(&bundles, services, warnings);
    }
    match BundleConfig::of_app(app, services) {
        Some(bundle) => Ok(vec![bundle]),
        None => Err(reader.missing("services", "at least one service for the app's bundle")),
    }
}

fn read_default_decision(reader: &mut Reader<'_>) -> Result<Option<DecisionPath>, ConfigError> {
    let Some(field) = reader.field("default_decision") else {
        return Ok(None);
    };
    // OPA's text.
    let text = field
        .as_str()
        .map_err(|_| field.error("default_decision must be a string"))?;
    text.parse()
        .map(Some)
        .map_err(|error| field.error(format!("{error}")))
}

fn read_persistence_directory(
    reader: &mut Reader<'_>,
) -> Result<Option<PersistenceDirectory>, ConfigError> {
    let Some(field) = reader.field("persistence_directory") else {
        return Ok(None);
    };
    match field.as_str()? {
        "" => Err(field.error("expected the path of a directory, found an empty string")),
        path => Ok(Some(PersistenceDirectory {
            path: path.into(),
            per_app: field.node().per_app,
        })),
    }
}
