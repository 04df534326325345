//! The bundles of an app: `bundles`.

use std::path::PathBuf;

use super::error::{ConfigError, Warning};
use super::field::Field;
use super::local_path::local_path;
use super::polling::PollingConfig;
use super::reader::Reader;
use super::service::ServiceConfig;

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
}

/// Where a bundle comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BundleSource {
    /// A service, asked by HTTP.
    Service {
        /// The name of one of [`Config::services`](super::Config::services).
        service: String,
        /// The path below the service's URL.
        resource: String,
    },
    /// A local directory or archive (`file://`), loaded once.
    File(PathBuf),
}

const DEFAULT_SIZE_LIMIT_BYTES: u64 = 1_073_741_824;

/// Reads `bundles`, an object by name. A null bundle is no bundle.
pub(crate) fn read_bundles(
    field: &Field<'_>,
    services: &[ServiceConfig],
    warnings: &mut Vec<Warning>,
) -> Result<Vec<BundleConfig>, ConfigError> {
    field
        .members()?
        .filter(|(_, member)| !member.is_null())
        .map(|(name, member)| BundleConfig::read(name, &member, services, warnings))
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
        })
    }

    fn read(
        name: &str,
        field: &Field<'_>,
        services: &[ServiceConfig],
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut reader = field.reader()?;
        if let Some(signing) = reader.field("signing") {
            return Err(signing.unsupported());
        }
        read_persist(&mut reader)?;
        read_trigger(&mut reader, name)?;
        let bundle = Self {
            name: name.to_owned(),
            source: BundleSource::read(&mut reader, name, services)?,
            polling: match reader.field("polling") {
                Some(polling) => PollingConfig::read(&polling, warnings)?,
                None => PollingConfig::default(),
            },
            size_limit_bytes: read_size_limit(&mut reader)?,
        };
        warnings.extend(reader.finish()?);
        Ok(bundle)
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
            let message = format!(
                "invalid configuration for bundle \"{name}\": service name \"{service}\" not found"
            );
            return Err(match service_field {
                Some(field) => field.error(message),
                None => reader.error(message),
            });
        };
        let resource = if resource.is_empty() {
            default_resource(name)
        } else {
            resource.to_owned()
        };
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

fn read_persist(reader: &mut Reader<'_>) -> Result<(), ConfigError> {
    match reader.field("persist") {
        Some(field) if field.as_bool()? => Err(field.unsupported()),
        _ => Ok(()),
    }
}

fn read_trigger(reader: &mut Reader<'_>, bundle: &str) -> Result<(), ConfigError> {
    let Some(field) = reader.field("trigger") else {
        return Ok(());
    };
    match field.as_str()? {
        "periodic" => Ok(()),
        "manual" => Err(field.unsupported_value("manual")),
        mode => Err(field.error(format!(
            "invalid configuration for bundle \"{bundle}\": invalid trigger mode \"{mode}\" \
             (want \"periodic\" or \"manual\")"
        ))),
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
