//! The `status` section, read as OPA reads it, and our own keys.

use std::time::Duration;

use opa_core::config::{ConfigError, Field, Reader, Section, Warning};

/// The `status` section. The defaults are OPA's; `heartbeat_seconds` and `per_poll` are ours.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct StatusConfig {
    /// `plugin`: the plugin that statuses are handed to.
    pub plugin: Option<String>,
    /// `service`: the service that statuses are posted to. Without one in the configuration it is
    /// the first one, unless there is a plugin, the console or `prometheus`.
    pub service: Option<String>,
    /// The path below the service's URL: `/status`, or `/status/<partition_name>`.
    pub resource: String,
    /// `console`: whether statuses are written to the console.
    pub console: bool,
    /// `prometheus`: whether `metrics` has the series of bundles and plugins.
    pub prometheus: bool,
    /// `prometheus_config.collectors.bundle_loading_duration_ns.buckets`: the upper bounds of the
    /// histogram's buckets, in nanoseconds, increasing. By default 20 from 1,000, each twice the
    /// one before; Prometheus' own default (0.005 to 10) where the list is empty.
    pub bundle_loading_buckets: Vec<f64>,
    /// `trigger`: what makes a status be sent.
    pub trigger: StatusTrigger,
    /// `heartbeat_seconds`, which OPA doesn't have: how long a status that doesn't change is not
    /// sent, at most, from 1 second to a year. The wait is drawn from its half to the whole, anew
    /// each time. Default: 120 seconds, so that a status comes as often as OPA's, which posts one
    /// for each poll of a bundle, every 60 to 120 seconds by default.
    pub heartbeat: Duration,
    /// `per_poll`, which OPA doesn't have: whether a status is sent for every poll of a bundle as
    /// by OPA, also where nothing but its times changes. Default: false.
    pub per_poll: bool,
}

/// What makes a status be sent: `trigger`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatusTrigger {
    /// `periodic`, the default: changes, and time.
    #[default]
    Periodic,
    /// `manual`: the program ([`Status::trigger`](super::Status::trigger)).
    Manual,
}

const DEFAULT_HEARTBEAT: Duration = Duration::from_secs(120);
/// No delay is longer: a year, as everywhere in the configuration.
const MAX_SECONDS: i64 = 365 * 24 * 60 * 60;

/// Those of Prometheus' Go client, which OPA falls back to.
const PROMETHEUS_BUCKETS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

impl StatusConfig {
    /// Reads the section. `services` and `plugins` are the names that the configuration has, in
    /// its order. `None` when nothing is configured that statuses could go to, in which case OPA
    /// has no status plugin.
    ///
    /// ```
    /// use opa_core::config::Section;
    /// use opa_plugins::status::StatusConfig;
    ///
    /// let section = Section::from_json("status", &serde_json::json!({"partition_name": "eu"}));
    /// let mut warnings = Vec::new();
    /// let config = StatusConfig::read(&section, &["control"], &[], &mut warnings)?
    ///     .ok_or("nowhere to go")?;
    /// assert_eq!(config.service.as_deref(), Some("control"));
    /// assert_eq!(config.resource, "/status/eu");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// In OPA's words: names that don't exist and a `trigger` that it doesn't know; and values of
    /// another type or out of range. `trigger: immediate`, with which OPA never sends anything, is
    /// not supported.
    pub fn read(
        section: &Section,
        services: &[&str],
        plugins: &[&str],
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Self>, ConfigError> {
        let mut reader = section.reader()?;
        let plugin = read_name(&mut reader, "plugin", plugins)?;
        let service = read_name(&mut reader, "service", services)?;
        let console = reader.bool("console")?.unwrap_or_default();
        let prometheus = reader.bool("prometheus")?.unwrap_or_default();
        let elsewhere = plugin.is_some() || console || prometheus;
        let service = match service {
            None if !elsewhere => services.first().map(|it| (*it).to_owned()),
            service => service,
        };
        let usable = elsewhere || service.is_some();
        let config = Self {
            plugin,
            service,
            resource: match reader.string("partition_name")?.unwrap_or_default() {
                "" => "/status".to_owned(),
                partition => format!("/status/{partition}"),
            },
            console,
            prometheus,
            bundle_loading_buckets: read_buckets(&mut reader, warnings)?,
            trigger: StatusTrigger::read(&mut reader)?,
            heartbeat: read_heartbeat(&mut reader)?,
            per_poll: reader.bool("per_poll")?.unwrap_or_default(),
        };
        warnings.extend(reader.finish()?);
        Ok(usable.then_some(config))
    }
}

impl StatusTrigger {
    fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        let Some(field) = reader.field("trigger") else {
            return Ok(Self::default());
        };
        match field.as_str()? {
            "periodic" => Ok(Self::Periodic),
            "manual" => Ok(Self::Manual),
            "immediate" => Err(field.unsupported_value("immediate")),
            other => Err(field.error(format!(
                "invalid status config: invalid trigger mode {other:?} \
                 (want \"periodic\", \"manual\" or \"immediate\")"
            ))),
        }
    }
}

fn read_name(
    reader: &mut Reader<'_>,
    key: &'static str,
    known: &[&str],
) -> Result<Option<String>, ConfigError> {
    let Some(field) = reader.field(key) else {
        return Ok(None);
    };
    match field.as_str()? {
        "" if key == "service" => Ok(None),
        name if known.contains(&name) => Ok(Some(name.to_owned())),
        name => Err(field.error(format!("invalid {key} name {name:?} in status"))),
    }
}

fn read_buckets(
    reader: &mut Reader<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<f64>, ConfigError> {
    let mut buckets = None;
    if let Some(mut config) = reader.object("prometheus_config")? {
        if let Some(mut collectors) = config.object("collectors")? {
            if let Some(mut duration) = collectors.object("bundle_loading_duration_ns")? {
                buckets = duration.field("buckets").as_ref().map(bounds).transpose()?;
                warnings.extend(duration.finish()?);
            }
            warnings.extend(collectors.finish()?);
        }
        warnings.extend(config.finish()?);
    }
    let exponential = || (0..20).map(|power| 1_000.0 * f64::from(1_u32 << power));
    Ok(buckets.unwrap_or_else(|| exponential().collect()))
}

/// OPA ends with a panic at the first bundle where these don't increase.
fn bounds(field: &Field<'_>) -> Result<Vec<f64>, ConfigError> {
    let items: Vec<_> = field.items()?.collect();
    let mut bounds: Vec<f64> = Vec::new();
    for item in &items {
        let bound = item.as_f64()?;
        if let Some(last) = bounds.last().filter(|last| **last >= bound) {
            let text =
                format!("histogram buckets must be in increasing order: {last:.6} >= {bound:.6}");
            return Err(item.error(text));
        }
        bounds.push(bound);
    }
    if bounds.is_empty() {
        bounds.extend(PROMETHEUS_BUCKETS);
    }
    Ok(bounds)
}

fn read_heartbeat(reader: &mut Reader<'_>) -> Result<Duration, ConfigError> {
    let Some(field) = reader.field("heartbeat_seconds") else {
        return Ok(DEFAULT_HEARTBEAT);
    };
    match field.as_i64()? {
        seconds @ 1..=MAX_SECONDS => Ok(Duration::from_secs(seconds.unsigned_abs())),
        ..1 => Err(field.error("'heartbeat_seconds' must be at least 1")),
        _ => Err(field.error(format!("'heartbeat_seconds' must be at most {MAX_SECONDS}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opa_core::config::ConfigErrorKind;
    use serde_json::{Value as Json, json};

    fn read(section: Json) -> Result<Option<StatusConfig>, ConfigError> {
        let section = Section::from_json("status", &section);
        let mut warnings = Vec::new();
        let read = StatusConfig::read(&section, &["a", "b"], &["p"], &mut warnings);
        assert!(warnings.is_empty(), "{warnings:?}");
        read
    }

    fn config(section: Json) -> StatusConfig {
        read(section).unwrap().unwrap()
    }

    #[test]
    fn the_defaults_are_opas() {
        let config = config(json!({}));
        assert_eq!(config.service.as_deref(), Some("a"));
        assert_eq!(config.resource, "/status");
        assert_eq!(config.trigger, StatusTrigger::Periodic);
        assert!(!config.console && !config.prometheus && !config.per_poll);
        assert_eq!(config.heartbeat, Duration::from_secs(120));
        assert_eq!(config.bundle_loading_buckets.len(), 20);
        assert_eq!(config.bundle_loading_buckets.first(), Some(&1_000.0));
        assert_eq!(config.bundle_loading_buckets.last(), Some(&524_288_000.0));
    }

    #[test]
    fn no_service_is_the_default_where_statuses_go_elsewhere() {
        for section in [
            json!({"console": true}),
            json!({"prometheus": true}),
            json!({"plugin": "p"}),
            json!({"console": true, "service": ""}),
        ] {
            assert_eq!(config(section.clone()).service, None, "{section}");
        }
        let both = config(json!({"console": true, "service": "b"}));
        assert_eq!(both.service.as_deref(), Some("b"));
    }

    #[test]
    fn without_anything_to_go_to_there_is_no_status() {
        let section = Section::from_json("status", &json!({}));
        assert_eq!(
            StatusConfig::read(&section, &[], &[], &mut vec![]),
            Ok(None)
        );
    }

    #[test]
    fn all_keys_are_read() {
        let config = config(json!({
            "service": "b",
            "partition_name": "eu",
            "console": true,
            "prometheus": true,
            "prometheus_config": {"collectors": {"bundle_loading_duration_ns": {"buckets": [-1, 0, 2.5]}}},
            "trigger": "manual",
            "heartbeat_seconds": 7,
            "per_poll": true,
        }));
        assert_eq!(config.resource, "/status/eu");
        assert_eq!(config.bundle_loading_buckets, [-1.0, 0.0, 2.5]);
        assert_eq!(config.trigger, StatusTrigger::Manual);
        assert_eq!(config.heartbeat, Duration::from_secs(7));
        assert!(config.console && config.prometheus && config.per_poll);
    }

    #[test]
    fn an_empty_list_of_buckets_means_prometheus_own() {
        let buckets = json!({"collectors": {"bundle_loading_duration_ns": {"buckets": []}}});
        let config = config(json!({"prometheus_config": buckets}));
        assert_eq!(config.bundle_loading_buckets, PROMETHEUS_BUCKETS);
    }

    #[test]
    fn what_is_wrong_is_told_in_opas_words() {
        let buckets = |list: Json| json!({"prometheus_config": {"collectors": {"bundle_loading_duration_ns": {"buckets": list}}}});
        for (section, text) in [
            (
                json!({"service": "nope"}),
                "status.service: invalid service name \"nope\" in status",
            ),
            (
                json!({"plugin": "nope"}),
                "status.plugin: invalid plugin name \"nope\" in status",
            ),
            (
                json!({"trigger": "foo"}),
                "status.trigger: invalid status config: invalid trigger mode \"foo\" \
                 (want \"periodic\", \"manual\" or \"immediate\")",
            ),
            (
                buckets(json!([3, 1])),
                "status.prometheus_config.collectors.bundle_loading_duration_ns.buckets.1: \
                 histogram buckets must be in increasing order: 3.000000 >= 1.000000",
            ),
            (
                buckets(json!([1, 1])),
                "status.prometheus_config.collectors.bundle_loading_duration_ns.buckets.1: \
                 histogram buckets must be in increasing order: 1.000000 >= 1.000000",
            ),
        ] {
            assert_eq!(read(section).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn other_values_are_refused_by_their_place() {
        for (section, path) in [
            (json!({"heartbeat_seconds": 0}), "status.heartbeat_seconds"),
            (
                json!({"heartbeat_seconds": 1e9}),
                "status.heartbeat_seconds",
            ),
            (json!({"per_poll": 1}), "status.per_poll"),
            (json!({"prometheus": "yes"}), "status.prometheus"),
            (json!({"Console": true}), "status.Console"),
            (json!([]), "status"),
        ] {
            assert_eq!(read(section).unwrap_err().path(), path);
        }
        let error = read(json!({"trigger": "immediate"})).unwrap_err();
        assert_eq!(error.kind(), ConfigErrorKind::Unsupported);
        assert_eq!(error.path(), "status.trigger");
    }
}
