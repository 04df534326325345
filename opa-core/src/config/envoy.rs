//! What opa-envoy-plugin reads: `plugins.envoy_ext_authz_grpc`.

use super::error::{ConfigError, Warning};
use super::field::Field;
use super::path::DecisionPath;
use super::reader::Reader;

/// The name of the plugin in configuration files.
pub(crate) const NAME: &str = "envoy_ext_authz_grpc";

/// How requests are judged: the options of `plugins.envoy_ext_authz_grpc`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EnvoyConfig {
    /// The decision that is asked for, from `path` or a plain `query`; `envoy/authz/allow` by
    /// default.
    pub path: DecisionPath,
    /// `dry-run`: decisions are logged but not enforced, if the program permits it. `false` by
    /// default.
    pub dry_run: bool,
    /// `skip-request-body-parse`: policies see no parsed body. `false` by default.
    pub skip_request_body_parse: bool,
}

impl Default for EnvoyConfig {
    fn default() -> Self {
        Self {
            path: DecisionPath::from_static("envoy/authz/allow"),
            dry_run: false,
            skip_request_body_parse: false,
        }
    }
}

/// Options of the plugin's own gRPC server, which doesn't exist here.
const SERVER_OPTIONS: [&str; 7] = [
    "addr",
    "enable-reflection",
    "proto-descriptor",
    "grpc-max-recv-msg-size",
    "grpc-max-send-msg-size",
    "enable-performance-metrics",
    "grpc-request-duration-seconds-buckets",
];

impl EnvoyConfig {
    pub(crate) fn read(
        field: &Field<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        if field.is_null() {
            return Ok(Self::default());
        }
        let mut reader = field.reader()?;
        for option in SERVER_OPTIONS {
            if let Some(field) = reader.field(option) {
                warnings.push(field.warning("has no effect: there is no gRPC server of its own"));
            }
        }
        let config = Self {
            path: read_path(&mut reader)?,
            dry_run: reader.bool("dry-run")?.unwrap_or(false),
            skip_request_body_parse: reader.bool("skip-request-body-parse")?.unwrap_or(false),
        };
        warnings.extend(reader.finish()?);
        Ok(config)
    }
}

fn read_path(reader: &mut Reader<'_>) -> Result<DecisionPath, ConfigError> {
    let text = |field: &Field<'_>| field.as_str().map(str::to_owned);
    let path = reader.field("path");
    let path_text = path.as_ref().map(text).transpose()?.unwrap_or_default();
    let query = reader.field("query");
    let query_text = query.as_ref().map(text).transpose()?.unwrap_or_default();
    match (path, query) {
        (_, Some(query)) if !path_text.is_empty() && !query_text.is_empty() => {
            Err(query.error("invalid config: specify a value for only the \"path\" field"))
        }
        (_, Some(query)) if !query_text.is_empty() => DecisionPath::from_reference(&query_text)
            .ok_or_else(|| query.unsupported_value(&query_text)),
        (Some(path), _) if !path_text.is_empty() => path_text
            .parse()
            .map_err(|error| path.error(format!("{error}"))),
        _ => Ok(EnvoyConfig::default().path),
    }
}
