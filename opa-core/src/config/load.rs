//! The whole configuration of one app.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::bundle::{BundleConfig, read_bundles};
use super::envoy::{self, EnvoyConfig};
use super::error::{ConfigError, Warning};
use super::field::Field;
use super::node::{Node, Value};
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
