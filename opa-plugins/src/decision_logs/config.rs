//! The `decision_logs` section, read as OPA reads it.

mod batching;
mod durability;
mod outputs;
mod reporting;

use opa_core::config::{ConfigError, Field, Reader, Section, Warning};
use opa_core::engine::EntrypointPath;

pub use batching::Batching;
pub(super) use batching::go_duration;
pub use durability::{Audit, Durability, WhenFull};
pub use outputs::OutputConfig;
pub(super) use outputs::{CONSOLE, SERVICE};
pub use reporting::{BufferConfig, ReportingConfig, Trigger};

/// The `decision_logs` section. The defaults are OPA's.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DecisionLogsConfig {
    /// `plugin`: the plugin that events are handed to.
    pub plugin: Option<String>,
    /// `service`: the service that events are uploaded to. Without one in the configuration it is
    /// the first one, unless there is a plugin, the console or another output.
    pub service: Option<String>,
    /// `resource`: the path below the service's URL; `/logs` by default, `/logs/<name>` with the
    /// deprecated `partition_name`, which wins.
    pub resource: String,
    /// `console`: whether events are written to the console.
    pub console: bool,
    /// `mask_decision`: the policy that tells what is masked; `system/log/mask` by default.
    pub mask_decision: EntrypointPath,
    /// `drop_decision`: the policy that tells which events are dropped; `system/log/drop` by
    /// default.
    pub drop_decision: EntrypointPath,
    /// `request_context.http.headers`: the headers of requests that events show.
    pub request_headers: Vec<String>,
    /// `nd_builtin_cache`: whether events have the answers of non-deterministic built-ins.
    pub nd_builtin_cache: bool,
    /// `reporting`: how events are buffered and uploaded.
    pub reporting: ReportingConfig,
    /// `when_full`: what happens when events have no room.
    pub when_full: WhenFull,
    /// `durability`: whether a decision waits until its event is on the disk.
    pub durability: Durability,
    /// `audit`: whether events are numbered.
    pub audit: Audit,
    /// `outputs`: further outputs, each with policies on logs of its own. OPA has no such key.
    pub outputs: Vec<OutputConfig>,
}

impl DecisionLogsConfig {
    /// Reads the section. `services` and `plugins` are the names that the configuration has, in
    /// its order. `None` when nothing is configured that events could go to, in which case OPA has
    /// no decision log.
    ///
    /// ```
    /// use opa_core::config::Section;
    /// use opa_plugins::decision_logs::DecisionLogsConfig;
    ///
    /// let section = Section::from_json("decision_logs", &serde_json::json!({"partition_name": "eu"}));
    /// let mut warnings = Vec::new();
    /// let config = DecisionLogsConfig::read(&section, &["control"], &[], &mut warnings)?
    ///     .ok_or("nowhere to go")?;
    /// assert_eq!(config.service.as_deref(), Some("control"));
    /// assert_eq!(config.upload_url("https://control.test/"), "https://control.test/logs/eu");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// In OPA's words: names that don't exist, values that contradict each other or are out of
    /// range; and values of another type.
    pub fn read(
        section: &Section,
        services: &[&str],
        plugins: &[&str],
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Self>, ConfigError> {
        let mut reader = section.reader()?;
        let console = reader.bool("console")?.unwrap_or_default();
        let plugin = read_plugin(&mut reader, plugins)?;
        let service = read_service(&mut reader, services)?;
        let durability = Durability::read(&mut reader)?;
        let mut config = Self {
            plugin,
            service,
            resource: read_resource(&mut reader)?,
            console,
            mask_decision: read_decision(&mut reader, "mask_decision", "system/log/mask")?,
            drop_decision: read_decision(&mut reader, "drop_decision", "system/log/drop")?,
            request_headers: read_request_headers(&mut reader, warnings)?,
            nd_builtin_cache: reader.bool("nd_builtin_cache")?.unwrap_or_default(),
            reporting: match reader.object("reporting")? {
                Some(reporting) => ReportingConfig::read(reporting, warnings)?,
                None => ReportingConfig::default(),
            },
            when_full: WhenFull::read(&mut reader, durability)?,
            durability,
            audit: Audit::read(&mut reader)?,
            outputs: Vec::new(),
        };
        config.outputs = OutputConfig::read_all(&mut reader, &config, warnings)?;
        warnings.extend(reader.finish()?);
        let has_another = config.console || config.plugin.is_some() || !config.outputs.is_empty();
        if config.service.is_none() && !has_another {
            config.service = services.first().map(|it| (*it).to_owned());
        }
        let usable = has_another || config.service.is_some();
        Ok(usable.then_some(config))
    }

    /// Where events are uploaded, at a service with this URL.
    #[must_use]
    pub fn upload_url(&self, service: &str) -> String {
        let (service, resource) = (
            service.trim_end_matches('/'),
            self.resource.trim_matches('/'),
        );
        format!("{service}/{resource}")
    }
}

fn read_plugin(reader: &mut Reader<'_>, plugins: &[&str]) -> Result<Option<String>, ConfigError> {
    let Some(field) = reader.field("plugin") else {
        return Ok(None);
    };
    let plugin = field.as_str()?;
    if !plugins.contains(&plugin) {
        let text = format!("invalid plugin name {plugin:?} in decision_logs");
        return Err(field.error(text));
    }
    Ok(Some(plugin.to_owned()))
}

fn read_service(reader: &mut Reader<'_>, services: &[&str]) -> Result<Option<String>, ConfigError> {
    let Some(field) = reader.field("service") else {
        return Ok(None);
    };
    let service = field.as_str()?;
    if service.is_empty() {
        return Ok(None);
    }
    if !services.contains(&service) {
        let text = format!("invalid service name {service:?} in decision_logs");
        return Err(field.error(text));
    }
    Ok(Some(service.to_owned()))
}

fn read_resource(reader: &mut Reader<'_>) -> Result<String, ConfigError> {
    let partition = reader.string("partition_name")?.unwrap_or_default();
    let Some(field) = reader.field("resource") else {
        return Ok(match partition {
            "" => "/logs".to_owned(),
            partition => format!("/logs/{partition}"),
        });
    };
    let resource = field.as_str()?;
    if !partition.is_empty() {
        return Ok(format!("/logs/{partition}"));
    }
    if let Some(problem) = url_problem(resource) {
        // A query can carry a secret.
        let path = resource.split(['?', '#']).next().unwrap_or_default();
        let text = format!("invalid resource path {path:?}: {problem}");
        return Err(field.error(text));
    }
    Ok(resource.to_owned())
}

/// What Go's `url.Parse` refuses in a path.
fn url_problem(resource: &str) -> Option<&'static str> {
    if resource.contains(|character: char| character.is_ascii_control()) {
        return Some("invalid control character in URL");
    }
    let is_escape = |part: &str| {
        part.as_bytes()
            .get(..2)
            .is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
    };
    let path = resource.split(['?', '#']).next().unwrap_or_default();
    if !path.split('%').skip(1).all(is_escape) {
        return Some("invalid URL escape");
    }
    let first = path.split('/').next().unwrap_or_default();
    match first.split_once(':') {
        Some(("", _)) => Some("missing protocol scheme"),
        Some((scheme, _)) if !is_scheme(scheme) => {
            Some("first path segment in URL cannot contain colon")
        }
        _ => None,
    }
}

/// Whether Go takes what stands before a colon for a scheme, which may be any (RFC 3986, 3.1).
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

fn read_decision(
    reader: &mut Reader<'_>,
    key: &'static str,
    default: &str,
) -> Result<EntrypointPath, ConfigError> {
    let field = reader.field(key);
    let path = field.as_ref().map_or(Ok(default), Field::as_str)?;
    EntrypointPath::parse(path).map_err(|error| {
        let text = format!("invalid {key} in decision_logs: {error}");
        match &field {
            Some(field) => field.error(text),
            None => reader.error(text),
        }
    })
}

fn read_request_headers(
    reader: &mut Reader<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<String>, ConfigError> {
    let Some(mut context) = reader.object("request_context")? else {
        return Ok(Vec::new());
    };
    let mut headers = Vec::new();
    if let Some(mut http) = context.object("http")? {
        headers.extend(http.strings("headers")?.into_iter().map(str::to_owned));
        warnings.extend(http.finish()?);
    }
    warnings.extend(context.finish()?);
    Ok(headers)
}

#[cfg(test)]
mod tests;
