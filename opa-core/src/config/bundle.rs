//! The bundles of an app: `bundles`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::error::{ConfigError, ConfigErrorKind, Warning};
use super::field::Field;
use super::keys::{KeyConfig, SigningConfig};
use super::local_path::local_path;
use super::polling::PollingConfig;
use super::reader::Reader;
use super::service::{ServiceConfig, ServiceKind};
use crate::bundle::persist;
use crate::bundle::source::Reference;

/// A bundle and where it comes from: `bundles.*`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct BundleConfig {
    /// The name, under which the bundle appears in logs and status.
    pub name: String,
    /// Where it comes from.
    pub source: BundleSource,
    /// How often it is asked for.
    pub polling: PollingConfig,
    /// The most bytes that one file of the bundle may have; 1 GiB by default.
    pub size_limit_bytes: u64,
    /// What its signature must be like. Without it, a signature that is there is verified if the
    /// configuration has [`keys`](super::Config::keys), and refused if it has none.
    pub signing: Option<SigningConfig>,
    /// Whether it is kept on disk once it was activated, for a start without its source, which
    /// verifies it again with the keys of the day.
    ///
    /// `<persistence_directory>/<app>/` is a persistence directory of OPA, or
    /// `<persistence_directory>/` itself if its path has `{{ .bundlename }}`: the two read each
    /// other's. Our etags lie beside, so that nothing is downloaded twice; OPA's store of blobs
    /// (`oci/`) is neither written nor read. What can't be written is tried again, and told in the
    /// status ([`not_persisted`](crate::plugin::BundleStatus::not_persisted)). Delta bundles are not
    /// asked for, and refused.
    pub persist: bool,
    /// How long ago the source's last answer that the bundle is current may be, in whole seconds
    /// (`max_staleness_seconds`); after that decisions are refused until the next one. An answer is
    /// a 304, or a bundle that was activated, from when it came; one from disk is none. By default there is no such
    /// bound, as in OPA, which doesn't know the option.
    pub max_staleness: Option<Duration>,
}

/// Where a bundle comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BundleSource {
    /// A service, asked by HTTP.
    Service {
        /// The name of one of [`Config::services`](super::Config::services).
        service: String,
        /// The path below the service's URL, or an image reference if it is a registry.
        resource: String,
    },
    /// A local directory or archive (`file://`), watched.
    File(PathBuf),
}

const DEFAULT_SIZE_LIMIT_BYTES: u64 = 1_073_741_824;

/// Reads `bundles`, an object by name. A null bundle is no bundle.
pub(crate) fn read_bundles(
    field: &Field<'_>,
    services: &[ServiceConfig],
    keys: &BTreeMap<String, KeyConfig>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<BundleConfig>, ConfigError> {
    field
        .members()?
        .filter(|(_, member)| !member.is_null())
        .map(|(name, member)| BundleConfig::read(name, &member, services, keys, warnings))
        .collect()
}

impl BundleConfig {
    /// The bundle of an app whose configuration names none: `bundles/<app>` of the first service.
    pub(crate) fn of_app(app: &str, services: &[ServiceConfig]) -> Option<Self> {
        Some(Self {
            name: app.to_owned(),
            source: BundleSource::Service {
                service: services.first()?.name.clone(),
                resource: default_resource(app),
            },
            polling: PollingConfig::default(),
            size_limit_bytes: DEFAULT_SIZE_LIMIT_BYTES,
            signing: None,
            persist: false,
            max_staleness: None,
        })
    }

    fn read(
        name: &str,
        field: &Field<'_>,
        services: &[ServiceConfig],
        keys: &BTreeMap<String, KeyConfig>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut reader = field.reader()?;
        let signing = reader
            .field("signing")
            .map(|field| SigningConfig::read(&field, keys, warnings))
            .transpose()
            .map_err(|error| about(name, error))?;
        read_trigger(&mut reader, name)?;
        let source = BundleSource::read(&mut reader, name, services)?;
        let polling = match reader.field("polling") {
            Some(polling) => {
                PollingConfig::read(&polling, warnings).map_err(|error| about(name, error))?
            }
            None => PollingConfig::default(),
        };
        let bundle = Self {
            name: name.to_owned(),
            persist: read_persist(&mut reader, name, &source, warnings)?,
            max_staleness: read_max_staleness(&mut reader, name, &polling)?,
            source,
            polling,
            size_limit_bytes: read_size_limit(&mut reader)?,
            signing,
        };
        if bundle.polling.long_polling_timeout.is_some() && bundle.is_of_registry(services) {
            warnings.push(field.warning(NO_LONG_POLLING));
        }
        warnings.extend(reader.finish()?);
        Ok(bundle)
    }
}

const NO_LONG_POLLING: &str =
    "polling.long_polling_timeout_seconds has no effect: registries do not wait for news";

impl BundleConfig {
    fn is_of_registry(&self, services: &[ServiceConfig]) -> bool {
        let BundleSource::Service { service, .. } = &self.source else {
            return false;
        };
        let mut registries = services.iter().filter(|one| one.kind == ServiceKind::Oci);
        registries.any(|one| one.name == *service)
    }
}

impl BundleSource {
    fn read(
        reader: &mut Reader<'_>,
        name: &str,
        services: &[ServiceConfig],
    ) -> Result<Self, ConfigError> {
        let service_field = reader.field("service");
        let service = service_field
            .as_ref()
            .map(Field::as_str)
            .transpose()?
            .unwrap_or_default();
        let resource_field = reader.field("resource");
        let resource = resource_field
            .as_ref()
            .map(Field::as_str)
            .transpose()?
            .unwrap_or_default();

        if let Some(field) = resource_field.filter(|_| is_file_url(resource)) {
            return match local_path(resource) {
                Ok(path) => Ok(Self::File(path)),
                Err(problem) => {
                    Err(field.error(format!("invalid URL for bundle \"{name}\": {problem}")))
                }
            };
        }
        let Some(found) = find_service(service, services) else {
            let message = format!("service name \"{service}\" not found");
            let error = match service_field {
                Some(field) => field.error(message),
                None => reader.error(message),
            };
            return Err(about(name, error));
        };
        let resource = if resource.is_empty() {
            default_resource(name)
        } else {
            resource.to_owned()
        };
        if found.kind == ServiceKind::Oci
            && let Err(problem) = Reference::parse(&resource)
        {
            return Err(about(name, reader.error(format!("resource: {problem}"))));
        }
        Ok(Self::Service {
            service: found.name.clone(),
            resource,
        })
    }
}

/// The named service, or the first one if the name is empty.
fn find_service<'s>(name: &str, services: &'s [ServiceConfig]) -> Option<&'s ServiceConfig> {
    if name.is_empty() {
        services.first()
    } else {
        services.iter().find(|service| service.name == name)
    }
}

fn is_file_url(resource: &str) -> bool {
    resource
        .get(..5)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("file:"))
}

/// `bundles/<name>`, cleaned as Go's `path.Join` does, because OPA asks for that path.
fn default_resource(name: &str) -> String {
    let mut segments = vec!["bundles"];
    for segment in name.split('/') {
        match segment {
            "" | "." => {}
            ".." if segments.last().is_none_or(|last| *last == "..") => segments.push(".."),
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    if segments.is_empty() {
        ".".to_owned()
    } else {
        segments.join("/")
    }
}

/// OPA's introduction to what is wrong with a bundle's options.
fn about(name: &str, error: ConfigError) -> ConfigError {
    match error.kind() {
        ConfigErrorKind::Invalid => {
            error.about(&format!("invalid configuration for bundle \"{name}\""))
        }
        _ => error,
    }
}

fn read_persist(
    reader: &mut Reader<'_>,
    bundle: &str,
    source: &BundleSource,
    warnings: &mut Vec<Warning>,
) -> Result<bool, ConfigError> {
    let Some(field) = reader.field("persist") else {
        return Ok(false);
    };
    if !field.as_bool()? {
        return Ok(false);
    }
    if !cfg!(unix) {
        return Err(field.unsupported());
    }
    if let BundleSource::File(_) = source {
        // OPA activates it, and then fails for want of bytes to write.
        warnings.push(field.warning("has no effect: the bundle is a file already"));
        return Ok(false);
    }
    match persist::segments(bundle) {
        Ok(_) => Ok(true),
        Err(error) => Err(about(bundle, field.error(error.to_string()))),
    }
}

/// Longer than the longest pause between two answers: else a healthy source would be stale.
fn read_max_staleness(
    reader: &mut Reader<'_>,
    bundle: &str,
    polling: &PollingConfig,
) -> Result<Option<Duration>, ConfigError> {
    let Some(field) = reader.field("max_staleness_seconds") else {
        return Ok(None);
    };
    let wait = polling.long_polling_timeout.unwrap_or_default();
    let pause = polling.max_delay.max(wait);
    let seconds = field.as_i64()?;
    let bound = u64::try_from(seconds).ok().map(Duration::from_secs);
    match bound.filter(|bound| *bound > pause) {
        Some(bound) => Ok(Some(bound)),
        None => Err(about(
            bundle,
            field.error(format!(
                "expected more than the longest pause between two polls ({} s), found `{seconds}`",
                pause.as_secs_f64()
            )),
        )),
    }
}

fn read_trigger(reader: &mut Reader<'_>, bundle: &str) -> Result<(), ConfigError> {
    let Some(field) = reader.field("trigger") else {
        return Ok(());
    };
    match field.as_str()? {
        "periodic" => Ok(()),
        "manual" => Err(field.unsupported_value("manual")),
        mode => Err(about(
            bundle,
            field.error(format!(
                "invalid trigger mode \"{mode}\" (want \"periodic\" or \"manual\")"
            )),
        )),
    }
}

/// OPA's default stands for zero and negative limits too.
fn read_size_limit(reader: &mut Reader<'_>) -> Result<u64, ConfigError> {
    let limit = reader.integer("size_limit_bytes")?.unwrap_or(0);
    Ok(u64::try_from(limit)
        .ok()
        .filter(|limit| *limit > 0)
        .unwrap_or(DEFAULT_SIZE_LIMIT_BYTES))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, config_error, warnings};
    use super::*;

    const SERVICES: &str = "services: {s1: {url: 'http://a.test'}, s2: {url: 'http://b.test'}}\n";

    fn read(bundles: &str) -> Vec<BundleConfig> {
        config(&format!("{SERVICES}bundles: {bundles}")).bundles
    }

    fn read_error(bundles: &str) -> ConfigError {
        config_error(&format!("{SERVICES}bundles: {bundles}"))
    }

    fn from(service: &str, resource: &str) -> BundleSource {
        BundleSource::Service {
            service: service.to_owned(),
            resource: resource.to_owned(),
        }
    }

    #[test]
    fn defaults_are_those_of_opa() {
        assert_eq!(
            read("{authz: {}}"),
            [BundleConfig {
                name: "authz".to_owned(),
                source: from("s1", "bundles/authz"),
                polling: PollingConfig::default(),
                size_limit_bytes: 1_073_741_824,
                signing: None,
                persist: false,
                max_staleness: None,
            }]
        );
    }

    #[test]
    fn staleness_is_longer_than_the_pauses_between_polls() {
        let bound = |text: &str| {
            read(&format!("{{b: {{max_staleness_seconds: {text}}}}}"))[0].max_staleness
        };
        assert_eq!(bound("121"), Some(Duration::from_secs(121)));
        assert_eq!(
            bound("30, polling: {min_delay_seconds: 1, max_delay_seconds: 2}"),
            Some(Duration::from_secs(30))
        );
        assert_eq!(
            warnings(&format!(
                "{SERVICES}bundles: {{b: {{max_staleness_seconds: 300}}}}"
            ))
            .len(),
            0
        );
        for text in [
            "120",
            "0",
            "-1",
            "x",
            "200, polling: {long_polling_timeout_seconds: 200}",
        ] {
            let error = read_error(&format!("{{b: {{max_staleness_seconds: {text}}}}}"));
            assert_eq!(error.path(), "bundles.b.max_staleness_seconds", "{text}");
        }
        let error = read_error("{b: {max_staleness_seconds: 60}}");
        assert_eq!(
            error.message(),
            "invalid configuration for bundle \"b\": expected more than the longest pause between \
             two polls (120 s), found `60`"
        );
    }

    #[test]
    fn options_are_read() {
        let bundles = read(
            "{b: {service: s2, resource: '/x/{{ .bundlename }}.tar.gz', size_limit_bytes: 5, \
             trigger: periodic, persist: false, signing: null}, a: {service: ''}}",
        );
        assert_eq!(bundles[0].name, "b");
        assert_eq!(bundles[0].source, from("s2", "/x/orders.tar.gz"));
        assert_eq!(bundles[0].size_limit_bytes, 5);
        assert_eq!(bundles[1].name, "a");
        assert_eq!(bundles[1].source, from("s1", "bundles/a"));
    }

    #[test]
    fn nulls_are_no_bundles() {
        assert_eq!(read("{a: null, b: {}}").len(), 1);
        assert_eq!(read("{}"), []);
    }

    #[test]
    fn default_resources_are_cleaned_as_in_go() {
        for (name, resource) in [
            ("a/b", "bundles/a/b"),
            ("/a//b/", "bundles/a/b"),
            ("./a", "bundles/a"),
            ("../a", "a"),
            ("../../a", "../a"),
            ("a/../../..", ".."),
            ("..", "."),
            ("", "bundles"),
        ] {
            assert_eq!(default_resource(name), resource, "{name}");
        }
    }

    #[test]
    fn a_registrys_resource_is_an_image_reference() {
        let with = |bundle: &str| {
            format!(
                "services: {{r: {{type: oci, url: 'https://r.test'}}}}\nbundles: {{x: {bundle}}}"
            )
        };
        let bundle = config(&with("{resource: 'r.test/acme/authz:1.0'}"))
            .bundles
            .remove(0);
        assert_eq!(bundle.source, from("r", "r.test/acme/authz:1.0"));
        let polling = "polling: {long_polling_timeout_seconds: 1}";
        let long_polling = with(&format!("{{resource: 'r.test/a:1', {polling}}}"));
        assert!(warnings(&long_polling)[0].ends_with(NO_LONG_POLLING));
        assert_eq!(
            config_error(&with("{}")).to_string(),
            "opa.yaml:2:14: bundles.x: invalid configuration for bundle \"x\": resource: expected \
             a tag or a digest at the end of `bundles/x`"
        );
    }

    #[test]
    fn services_must_exist() {
        let error = read_error("{x: {service: y}}");
        assert_eq!(
            error.to_string(),
            "opa.yaml:2:24: bundles.x.service: invalid configuration for bundle \"x\": service \
             name \"y\" not found"
        );
        let error = config_error("bundles: {x: {}}");
        assert_eq!(
            error.message(),
            "invalid configuration for bundle \"x\": service name \"\" not found"
        );
    }

    #[test]
    fn files_need_no_service() {
        let config = config("bundles: {x: {resource: 'file:///srv/x.tar.gz'}}");
        assert_eq!(
            config.bundles[0].source,
            BundleSource::File("/srv/x.tar.gz".into())
        );
        for resource in [
            "file://host/share",
            "FILE:////host/x",
            "file:x",
            "file://{{ .bundlename }}",
        ] {
            let error = config_error(&format!("bundles: {{x: {{resource: '{resource}'}}}}"));
            assert_eq!(error.path(), "bundles.x.resource");
            assert!(
                error
                    .message()
                    .starts_with("invalid URL for bundle \"x\": "),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_not_done_is_refused() {
        let error = read_error("{x: {trigger: manual}}");
        assert_eq!(error.kind(), ConfigErrorKind::Unsupported);
        assert_eq!(error.path(), "bundles.x.trigger");
    }

    #[test]
    fn what_is_persisted_has_a_name_that_makes_a_path() {
        assert!(read("{x: {persist: true}}")[0].persist);
        assert!(read("{a/b: {persist: true}}")[0].persist);
        assert!(!read("{x: {persist: null}}")[0].persist);
        for name in ["..", "a/../b", "../a", "/a", "a/", "a//b", "./a", "''"] {
            let error = read_error(&format!("{{{name}: {{persist: true}}}}"));
            assert_eq!(error.kind(), ConfigErrorKind::Invalid, "{name}");
            assert!(error.message().contains("makes no path"), "{error}");
        }
        let text = "bundles: {x: {resource: 'file:///srv/x', persist: true}}";
        assert!(!config(text).bundles[0].persist);
        assert!(
            warnings(text)[0]
                .ends_with("bundles.x.persist: has no effect: the bundle is a file already")
        );
    }

    #[test]
    fn triggers_are_checked() {
        assert_eq!(
            read_error("{x: {trigger: immediate}}").message(),
            "invalid configuration for bundle \"x\": invalid trigger mode \"immediate\" (want \
             \"periodic\" or \"manual\")"
        );
    }

    #[test]
    fn size_limits_that_are_not_positive_are_the_default() {
        for limit in ["0", "-5", "null"] {
            let bundles = read(&format!("{{x: {{size_limit_bytes: {limit}}}}}"));
            assert_eq!(bundles[0].size_limit_bytes, DEFAULT_SIZE_LIMIT_BYTES);
        }
        assert_eq!(
            read_error("{x: {size_limit_bytes: 1.5}}").path(),
            "bundles.x.size_limit_bytes"
        );
    }

    #[test]
    fn without_bundles_the_app_has_one() {
        for bundles in ["", "bundles: null"] {
            let config = config(&format!("{SERVICES}{bundles}"));
            assert_eq!(config.bundles.len(), 1);
            assert_eq!(config.bundles[0].name, "orders");
            assert_eq!(config.bundles[0].source, from("s1", "bundles/orders"));
        }
        // Without a service there is nowhere to get it from.
        for text in ["", "labels: {}", "services: []", "services: null"] {
            assert_eq!(config(text).bundles, [], "{text:?}");
        }
    }

    #[test]
    fn keys_in_another_case_are_refused() {
        // OPA would check signatures here.
        let error = read_error("{x: {Signing: {keyid: k}}}");
        assert_eq!(error.message(), "expected the key to be `signing`");
    }

    #[test]
    fn unknown_options_are_warned_about() {
        assert_eq!(
            warnings(&format!("{SERVICES}bundles: {{authz: {{servcie: s1}}}}")),
            [
                "opa.yaml:2:19: bundles.authz.servcie: unknown configuration option \
              \"bundles.authz.servcie\" encountered"
            ]
        );
    }
}
