//! The whole configuration of one app.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::bundle::{BundleConfig, read_bundles};
use super::document::Document;
use super::envoy::{self, EnvoyConfig};
use super::error::{ConfigError, Warning};
use super::field::Field;
use super::keys::{KeyConfig, read_keys};
use super::node::Value;
use super::reader::Reader;
use super::section::Section;
use super::service::{ServiceConfig, ServiceKind, read_services};
use crate::entrypoint_path::EntrypointPath;

/// The configuration of one app.
///
/// See the [module docs](super). The default is a configuration without services and bundles.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The services, in file order: the first one is the default of whoever needs one.
    pub services: Vec<ServiceConfig>,
    /// The keys that verify signed bundles, by id: `keys`.
    pub keys: BTreeMap<String, KeyConfig>,
    /// The bundles, in file order. Empty if the file has neither `bundles` nor `services`.
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
    /// `default_decision`; `system/main` by default. Has no effect yet, which is warned about.
    pub default_decision: EntrypointPath,
    /// `persistence_directory`: where bundles with [`persist`](BundleConfig::persist) are kept.
    /// Without one that is `.opa` in the working directory. It has no effect without such a
    /// bundle, which is warned about.
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
        let keys = match reader.field("keys") {
            Some(keys) => read_keys(&keys, warnings)?,
            None => BTreeMap::new(),
        };
        let mut config = Self {
            bundles: read_all_bundles(reader, app, &services, &keys, warnings)?,
            keys,
            services,
            labels: reader.string_map("labels")?,
            decision_logs: reader.field("decision_logs").as_ref().map(Section::new),
            status: reader.field("status").as_ref().map(Section::new),
            persistence_directory: read_persistence_directory(reader)?,
            ..Self::default()
        };
        let persists = config.bundles.iter().any(|bundle| bundle.persist);
        warn_of_no_effect(reader, persists, warnings);
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

/// Configurations are equal that say the same, wherever it stands in a file and whatever was warned
/// about.
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        // Without `..`, so that no new option is forgotten.
        let Self {
            services,
            keys,
            bundles,
            labels,
            decision_logs,
            status,
            plugins,
            envoy,
            default_decision,
            persistence_directory,
            warnings: _,
        } = self;
        services == &other.services
            && keys == &other.keys
            && bundles == &other.bundles
            && labels == &other.labels
            && decision_logs == &other.decision_logs
            && status == &other.status
            && plugins == &other.plugins
            && envoy == &other.envoy
            && default_decision == &other.default_decision
            && persistence_directory == &other.persistence_directory
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            services: Vec::new(),
            keys: BTreeMap::new(),
            bundles: Vec::new(),
            labels: BTreeMap::new(),
            decision_logs: None,
            status: None,
            plugins: BTreeMap::new(),
            envoy: EnvoyConfig::default(),
            default_decision: EntrypointPath::from_static("system/main"),
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

/// Warns about what OPA reads for features that this version refuses or has no use for.
fn warn_of_no_effect(reader: &mut Reader<'_>, persists: bool, warnings: &mut Vec<Warning>) {
    let unused = ("persistence_directory", "no bundle has `persist: true`");
    let options = [("default_decision", "there is no REST API")]
        .into_iter()
        .chain((!persists).then_some(unused));
    for (option, why) in options {
        if let Some(field) = reader.field(option) {
            warnings.push(field.warning(format!("has no effect: {why}")));
        }
    }
}

fn asks_for_nothing(field: &Field<'_>) -> bool {
    matches!(&field.node().value, Value::Object(entries) if entries.is_empty())
}

/// The configured bundles or, if the file has no `bundles`, the one named after the app.
///
/// Without services either there is none. That is no error here: a program may bring its bundles
/// itself, and the manager refuses an app that has none at all.
fn read_all_bundles(
    reader: &mut Reader<'_>,
    app: &str,
    services: &[ServiceConfig],
    keys: &BTreeMap<String, KeyConfig>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<BundleConfig>, ConfigError> {
    if let Some(bundles) = reader.field("bundles") {
        return read_bundles(&bundles, services, keys, warnings);
    }
    if services
        .first()
        .is_some_and(|first| first.kind == ServiceKind::Oci)
    {
        let wanted = "a bundle with an image reference, since the first service is a registry";
        return Err(reader.missing("bundles", wanted));
    }
    Ok(BundleConfig::of_app(app, services).into_iter().collect())
}

fn read_default_decision(reader: &mut Reader<'_>) -> Result<Option<EntrypointPath>, ConfigError> {
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

#[cfg(test)]
mod tests {
    use super::super::testing::{config, config_error, render_error, warnings};
    use super::super::{BundleSource, ConfigErrorKind};
    use super::*;
    use serde_json::json;

    const SERVICES: &str = "services: {s: {url: 'http://a.test'}}\n";

    fn with(text: &str) -> String {
        format!("{SERVICES}{text}")
    }

    #[test]
    fn configurations_are_equal_that_say_the_same() {
        let text = with(
            "decision_logs: {console: true}\nplugins: {p: {a: [1, {b: c}]}, \
                         envoy_ext_authz_grpc: {path: a/b, dry-run: true}}",
        );
        let moved = format!("# a comment\n\n{text}\nunknown: 1");
        assert_eq!(config(&text), config(&moved));
        for (from, to) in [
            ("console: true", "console: false"),
            ("[1, {b: c}]", "[2, {b: c}]"),
            ("[1, {b: c}]", "[1, {c: c}]"),
            ("[1, {b: c}]", "[1]"),
            ("p: {", "q: {"),
            ("a/b", "a/c"),
            ("a.test", "b.test"),
            ("dry-run: true", "dry-run: false"),
        ] {
            assert_ne!(config(&text), config(&text.replace(from, to)), "{from}");
        }
        for more in [
            "\nlabels: {a: b}",
            "\nstatus: {console: true}",
            "\ndefault_decision: a/b",
            "\npersistence_directory: x",
            "\nkeys: {k: {key: x, algorithm: HS256}}",
            "\nbundles: {b: {}}",
        ] {
            assert_ne!(config(&text), config(&format!("{text}{more}")), "{more}");
        }
    }

    #[test]
    fn the_quick_start_of_skipper_loads() {
        let config = config(
            "bundles: {play: {resource: \"{{ .bundlename }}.tar.gz\", polling: \
             {long_polling_timeout_seconds: 45}}}\n\
             services: [{name: play, url: http://localhost:8000/}]\n\
             plugins: {envoy_ext_authz_grpc: {path: envoy/http/public/allow, dry-run: false}}\n\
             decision_logs: {console: true}\n\
             status: {console: true}\n",
        );
        assert_eq!(
            config.bundles[0].source,
            BundleSource::Service {
                service: "play".to_owned(),
                resource: "orders.tar.gz".to_owned()
            }
        );
        assert_eq!(config.envoy.path.as_str(), "envoy/http/public/allow");
        assert_eq!(
            config.decision_logs.unwrap().to_json(),
            json!({"console": true})
        );
        assert_eq!(config.status.unwrap().path(), "status");
        assert_eq!(config.warnings, []);
    }

    #[test]
    fn what_is_not_done_is_refused() {
        for (text, path) in [
            ("discovery: {resource: x}", "discovery"),
            ("discovery: {}", "discovery"),
            ("bundle: {name: x}", "bundle"),
            (
                "caching: {inter_query_builtin_cache: {max_size_bytes: 1}}",
                "caching",
            ),
            ("nd_builtin_cache: true", "nd_builtin_cache"),
            ("distributed_tracing: {type: grpc}", "distributed_tracing"),
            ("metrics_export: {type: x}", "metrics_export"),
            ("server: {metrics: {}}", "server"),
            ("storage: {disk: {}}", "storage"),
            (
                "default_authorization_decision: /x",
                "default_authorization_decision",
            ),
        ] {
            let error = config_error(&with(text));
            assert_eq!(error.kind(), ConfigErrorKind::Unsupported, "{text}");
            assert_eq!(error.path(), path);
            assert_eq!(
                error.message(),
                format!("`{path}` is not supported by this version")
            );
            assert_eq!(error.position().map(|at| at.line), Some(2), "{error}");
        }
    }

    #[test]
    fn what_asks_for_nothing_is_accepted() {
        let text = "discovery: null\nkeys: {}\ncaching: {}\nserver: {}\nnd_builtin_cache: false";
        assert_eq!(config(&with(text)).warnings, []);
        assert_eq!(
            config_error(&with("nd_builtin_cache: x")).kind(),
            ConfigErrorKind::Invalid
        );
    }

    #[test]
    fn unknown_options_are_warned_about() {
        assert_eq!(
            warnings(&with("decision_log: {console: true}")),
            [
                "opa.yaml:2:1: decision_log: unknown configuration option \"decision_log\" \
              encountered"
            ]
        );
    }

    #[test]
    fn placeholders_that_stay_are_warned_about() {
        let config = config(&with("labels: {region: '${UNSET}'}"));
        assert_eq!(config.labels["region"], "${UNSET}");
        assert_eq!(config.warnings[0].path(), "labels.region");
    }

    #[test]
    fn labels_are_strings() {
        let config = config(&with(
            "labels: {app: '{{ .bundlename }}', id: x, none: null}",
        ));
        assert_eq!(config.labels["app"], "orders");
        assert_eq!(config.labels["none"], "");
        let error = config_error(&with("labels: {a: 5}"));
        assert_eq!(
            error.to_string(),
            "opa.yaml:2:13: labels.a: expected a string, found a number"
        );
        assert_eq!(config_error(&with("labels: [a]")).path(), "labels");
    }

    #[test]
    fn plugins_are_kept_by_name() {
        let config = config(&with(
            "plugins: {b: {x: 1}, a: null, envoy_ext_authz_grpc: {}}",
        ));
        let names: Vec<_> = config.plugins.keys().collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(config.plugins["a"].to_json(), json!({}));
        let error = config.plugins["b"].not_registered("b");
        assert_eq!(
            error.to_string(),
            "opa.yaml:2:14: plugins.b: plugin \"b\" not registered"
        );
        let error = config.plugins["b"]
            .reader()
            .unwrap()
            .string("x")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "opa.yaml:2:18: plugins.b.x: expected a string, found a number"
        );
    }

    #[test]
    fn the_default_decision_is_a_path() {
        assert_eq!(config(SERVICES).default_decision.as_str(), "system/main");
        assert_eq!(
            config(&with("default_decision: null"))
                .default_decision
                .as_str(),
            "system/main"
        );
        assert_eq!(
            config(&with("default_decision: /a/b"))
                .default_decision
                .as_str(),
            "a/b"
        );
        let error = config_error(&with("default_decision: 42"));
        assert_eq!(error.message(), "default_decision must be a string");
        assert_eq!(
            config_error(&with("default_decision: /")).path(),
            "default_decision"
        );
    }

    #[test]
    fn the_persistence_directory_tells_whether_it_is_the_apps_own() {
        let read = |text: &str| config(&with(text)).persistence_directory;
        assert_eq!(read(""), None);
        for (text, path, per_app) in [
            ("persistence_directory: /var/opa", "/var/opa", false),
            (
                "persistence_directory: '/var/{{ .bundlename }}'",
                "/var/orders",
                true,
            ),
            ("persistence_directory: /var/${A}", "/var/1", false),
        ] {
            assert_eq!(
                read(text),
                Some(PersistenceDirectory {
                    path: path.into(),
                    per_app
                })
            );
        }
        assert!(
            config_error(&with("persistence_directory: ''"))
                .message()
                .contains("empty")
        );
    }

    #[test]
    fn what_has_no_effect_is_warned_about() {
        assert_eq!(warnings(&with("default_decision: ~")), [""; 0]);
        let warned = warnings(&with(
            "default_decision: /a/b\npersistence_directory: /var/opa",
        ));
        assert_eq!(warned.len(), 2, "{warned:?}");
        assert!(
            warned[0].ends_with("default_decision: has no effect: there is no REST API"),
            "{warned:?}"
        );
        assert!(
            warned[1].contains("persistence_directory: has no effect"),
            "{warned:?}"
        );
        let persists = "persistence_directory: /var/opa\nbundles: {x: {persist: true}}";
        assert_eq!(warnings(&with(persists)), [""; 0]);
    }

    #[test]
    fn sections_are_objects_at_the_top() {
        for text in ["[]", "x", "1", "[{a: 1}]"] {
            assert!(
                config_error(text)
                    .message()
                    .starts_with("expected an object"),
                "{text}"
            );
        }
        assert!(
            config(&with("decision_logs: null\nstatus: ~"))
                .decision_logs
                .is_none()
        );
    }

    #[test]
    fn an_app_called_like_a_number_needs_quotes() {
        let template = crate::config::Template::parse(
            "opa.yaml",
            "services: {s: {url: 'http://a.test'}}\nbundles: {b: {resource: {{ .bundlename }}}}",
        )
        .unwrap();
        let error = template
            .config("123", &crate::config::EnvPolicy::default())
            .unwrap_err();
        assert_eq!(error.path(), "bundles.b.resource");
        assert!(error.message().contains("found a number"), "{error}");
    }

    #[test]
    fn errors_of_rendering_reach_the_caller() {
        assert_eq!(
            render_error("services: ${UNSET}").kind(),
            ConfigErrorKind::Variable
        );
    }
}
