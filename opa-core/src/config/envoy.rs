//! What opa-envoy-plugin reads: `plugins.envoy_ext_authz_grpc`.

use super::error::{ConfigError, Warning};
use super::field::Field;
use super::reader::Reader;
use crate::entrypoint_path::EntrypointPath;

/// The name of the plugin in configuration files.
pub(crate) const NAME: &str = "envoy_ext_authz_grpc";

/// How requests are judged: the options of `plugins.envoy_ext_authz_grpc`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EnvoyConfig {
    /// The decision that is asked for, from `path` or a plain `query`; `envoy/authz/allow` by
    /// default.
    pub path: EntrypointPath,
    /// `dry-run`: decisions are logged but not enforced, if the program permits it. `false` by
    /// default.
    pub dry_run: bool,
    /// `skip-request-body-parse`: policies see no parsed body. `false` by default.
    pub skip_request_body_parse: bool,
    /// What a program answers that does not permit the dry-run that is asked for.
    pub(crate) dry_run_refused: Option<ConfigError>,
}

/// Equal wherever the options stand in a file.
impl PartialEq for EnvoyConfig {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            path,
            dry_run,
            skip_request_body_parse,
            dry_run_refused: _,
        } = self;
        (path, dry_run, skip_request_body_parse)
            == (&other.path, &other.dry_run, &other.skip_request_body_parse)
    }
}

impl Eq for EnvoyConfig {}

impl Default for EnvoyConfig {
    fn default() -> Self {
        Self {
            path: EntrypointPath::from_static("envoy/authz/allow"),
            dry_run: false,
            skip_request_body_parse: false,
            dry_run_refused: None,
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
        let dry_run = reader.field("dry-run").filter(|field| !field.is_null());
        let config = Self {
            path: read_path(&mut reader)?,
            dry_run: dry_run.as_ref().map_or(Ok(false), Field::as_bool)?,
            dry_run_refused: dry_run
                .map(|field| field.error("the program does not permit dry-run (`permit_dry_run`)")),
            skip_request_body_parse: reader.bool("skip-request-body-parse")?.unwrap_or(false),
        };
        warnings.extend(reader.finish()?);
        Ok(config)
    }
}

fn read_path(reader: &mut Reader<'_>) -> Result<EntrypointPath, ConfigError> {
    let text = |field: &Field<'_>| field.as_str().map(str::to_owned);
    let path = reader.field("path");
    let path_text = path.as_ref().map(text).transpose()?.unwrap_or_default();
    let query = reader.field("query");
    let query_text = query.as_ref().map(text).transpose()?.unwrap_or_default();
    match (path, query) {
        (_, Some(query)) if !path_text.is_empty() && !query_text.is_empty() => {
            Err(query.error("invalid config: specify a value for only the \"path\" field"))
        }
        (_, Some(query)) if !query_text.is_empty() => EntrypointPath::from_reference(&query_text)
            .ok_or_else(|| query.unsupported_value(&query_text)),
        (Some(path), _) if !path_text.is_empty() => path_text
            .parse()
            .map_err(|error| path.error(format!("{error}"))),
        _ => Ok(EnvoyConfig::default().path),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ConfigErrorKind;
    use super::super::testing::{config, config_error, warnings};
    use super::*;

    fn with(options: &str) -> String {
        format!(
            "services: {{a: {{url: 'http://a.test'}}}}\nplugins: {{envoy_ext_authz_grpc: {options}}}"
        )
    }

    fn read(options: &str) -> EnvoyConfig {
        config(&with(options)).envoy
    }

    #[test]
    fn defaults_are_those_of_the_plugin() {
        for options in ["null", "{}", "{path: null, query: ''}", "{path: ''}"] {
            let envoy = read(options);
            assert_eq!(envoy.path.as_str(), "envoy/authz/allow", "{options}");
            assert!(!envoy.dry_run && !envoy.skip_request_body_parse);
        }
        assert_eq!(
            config("services: {a: {url: 'http://a.test'}}").envoy,
            EnvoyConfig::default()
        );
    }

    #[test]
    fn options_are_read() {
        let envoy =
            read("{path: /a/{{ .bundlename }}, dry-run: true, skip-request-body-parse: true}");
        assert_eq!(envoy.path.as_str(), "a/orders");
        assert!(envoy.dry_run && envoy.skip_request_body_parse);
        assert_eq!(read("{query: data.a.b}").path.as_str(), "a/b");
    }

    #[test]
    fn path_and_query_exclude_each_other() {
        let error = config_error(&with("{path: a, query: data.a}"));
        assert_eq!(
            error.message(),
            "invalid config: specify a value for only the \"path\" field"
        );
    }

    #[test]
    fn paths_are_checked() {
        for path in ["/", "\"a\\nb\""] {
            let error = config_error(&with(&format!("{{path: {path}}}")));
            assert_eq!(error.path(), "plugins.envoy_ext_authz_grpc.path");
        }
        let error = config_error(&with("{query: \"data.a[x]\"}"));
        assert_eq!(error.kind(), ConfigErrorKind::Unsupported);
        assert!(error.message().contains("data.a[x]"), "{error}");
    }

    #[test]
    fn options_of_the_grpc_server_are_warned_about() {
        let options: String = SERVER_OPTIONS
            .map(|option| format!("{option}: 1, "))
            .concat();
        let warnings = warnings(&with(&format!("{{{options}}}")));
        assert_eq!(warnings.len(), SERVER_OPTIONS.len());
        assert!(
            warnings[0].ends_with(
                "plugins.envoy_ext_authz_grpc.addr: has no effect: there is no gRPC server of \
                 its own"
            ),
            "{warnings:?}"
        );
    }

    #[test]
    fn unknown_options_are_warned_about() {
        assert_eq!(warnings(&with("{dry_run: true}")).len(), 1);
        assert_eq!(
            config_error(&with("{Dry-Run: true}")).message(),
            "expected the key to be `dry-run`"
        );
    }
}
