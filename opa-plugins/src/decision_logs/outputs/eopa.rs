//! `decision_logs.plugin: eopa_dl`: several outputs as Enterprise OPA's plugin of that name has them,
//! read from `plugins.eopa_dl`.
//!
//! ```yaml
//! decision_logs: {plugin: eopa_dl, drop_decision: system/log/drop}
//! plugins:
//!   eopa_dl:
//!     # or {type: disk, path: /var/lib/opa/log}, or {type: unbuffered}
//!     buffer: {type: memory, max_bytes: 524288000, flush_at_count: 100, flush_at_period: 1s}
//!     output:                              # one of them, or an array
//!     - {type: console}
//!     - {type: service, service: control, resource: logs}
//!     - type: http
//!       url: https://collector.example.com/events
//!       headers: {Authorization: "Bearer …"}
//!       timeout: 10s
//!       tls: {ca_cert: ca.pem, cert: own.pem, private_key: own.key}
//!       batching: {at_count: 500, at_bytes: 1000000, at_period: 10s, format: lines, compress: true}
//!       retry: {period: 1s, max_attempts: 3, max_backoff: 30s, drop_on: [400], successful_on: [409]}
//!       rate_limit: {count: 500, interval: 20ms}
//!       mask_decision: audit/mask          # in addition to those of `decision_logs`
//!       drop_decision: audit/drop
//!     - {type: kafka, urls: ["k1:9092"], topic: log, sasl: [{mechanism: PLAIN, username: u, password: p}]}
//!     - {type: splunk, url: "https://splunk.example.com/services/collector/event", token: "…"}
//!     - {type: s3, bucket: log, region: eu-central-1, access_key_id: "…", access_secret: "…"}
//! ```
//!
//! What differs from EOPA:
//!
//! - An output that fails delays no other one, and loses nothing: its events wait and are sent again,
//!   in order, until the receiver takes them. `retry.max_attempts` and `retry.drop_on` (`http`) give
//!   events up sooner.
//! - `buffer.max_bytes` is a bound for each output of an app; all bounds of the process count as
//!   well. Above it decisions wait for room, as in EOPA, but no longer than a second: without room
//!   they are refused (`decision_logs.when_full: hold`), unless `when_full` says otherwise.
//! - The outputs `http` and `splunk` without batches, and with `batching.format: none`, send one
//!   event with each request; `buffer.flush_at_…` says when they start.
//! - The console is the one of decision logs: standard error, unless the program says otherwise.
//! - The id of a batch in the key of an `s3` object is made from its events, so that a batch that is
//!   put again replaces itself.
//! - `buffer: {type: disk, path: …}` is the [spool](super#the-spool), so `path` is a directory (the
//!   file of EOPA is refused there, and left as it is) of `max_bytes` at most, 1 GiB by default. As in
//!   EOPA a decision waits until its event is on the disk, unless there is `durability: async`. A
//!   process has one spool: another `path` is an error, and if the program has one itself
//!   (`DecisionLogs::spool`), that is used, with a warning. It needs Unix and the feature `spool`.
//!   Whoever may write the configuration chooses the path.
//! - With `buffer: {type: unbuffered}` a decision waits until all of the plugin's outputs have its event;
//!   without that, for a second or `decision_logs.hold_deadline_ms` (beside `when_full: hold`), it is
//!   refused. Its event is sent nevertheless, as long as 16 MiB for each output are not full. Outputs
//!   without batches send one request after the other; one that fails is tried every second at least.
//!   An event that an output refuses for good refuses its decision, where EOPA lets it pass. The
//!   spool of the program isn't used.
//! - The outputs `gcs` and `experimental`, `oauth2` that is enabled, and certificates as texts
//!   (`client_certs`, `root_cas`) are configuration errors in this version. `kafka` needs the feature
//!   `kafka`.

mod batching;
mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod s3;
mod sender;

use std::collections::HashMap;

use opa_core::config::{Config, ConfigError, Field, Reader, Section, ServiceConfig, Warning};
use opa_core::engine::EntrypointPath;
use opa_core::plugin::Scope;
use opa_core::service::ServiceClient;

use self::batching::{Buffer, Gathering};
use super::options::Warned;
use super::{Further, OutputSpec, Policies, Way};

/// The name of the plugin.
pub(in super::super) const NAME: &str = "eopa_dl";

/// What all apps share.
#[derive(Debug, Default)]
pub(super) struct Eopa {
    warned: Warned,
    #[cfg(feature = "kafka")]
    clusters: super::kafka::Clusters,
}

/// What EOPA knows and this version doesn't do.
const UNSUPPORTED: [&str; 2] = ["gcs", "experimental"];

/// An output as the rest of its section describes it.
struct Opened {
    way: Way,
    gathering: Gathering,
    max_retry: Option<std::time::Duration>,
}

impl Eopa {
    /// The outputs that the section asks for.
    pub(super) fn outputs(
        &self,
        section: &Section,
        scope: &Scope<'_>,
        policies: &Policies,
    ) -> Result<Vec<OutputSpec>, ConfigError> {
        let mut warnings = Vec::new();
        let mut reader = section.reader()?;
        let buffer = Buffer::read(&mut reader, &mut warnings)?;
        let Some(output) = reader.field("output") else {
            return Err(reader.error("no outputs"));
        };
        // A reader tells objects from arrays.
        let all: Vec<_> = match output.items() {
            Ok(items) => items.collect(),
            Err(_) => vec![output],
        };
        if all.is_empty() {
            return Err(reader.error("no outputs"));
        }
        let mut outputs = Vec::new();
        let mut names = HashMap::new();
        for field in all {
            let read = self.output(&field, scope, policies, &buffer, &mut warnings);
            let (output_type, mut output) = read?;
            let count: &mut usize = names.entry(output_type).or_default();
            *count += 1;
            output.name = match count {
                1 => format!("{NAME}.{output_type}"),
                count => format!("{NAME}.{output_type}.{count}"),
            }
            .into();
            outputs.push(output);
        }
        warnings.extend(reader.finish()?);
        self.warned.about(warnings);
        Ok(outputs)
    }

    /// One output, and its type.
    fn output<'a>(
        &self,
        field: &Field<'a>,
        scope: &Scope<'_>,
        policies: &Policies,
        buffer: &Buffer,
        warnings: &mut Vec<Warning>,
    ) -> Result<(&'a str, OutputSpec), ConfigError> {
        let mut reader = field.reader()?;
        let Some(kind) = reader.field("type") else {
            return Err(reader.missing("type", "the type of an output"));
        };
        let then = Further {
            drop_decision: decision(&mut reader, "drop_decision")?,
            mask_decision: decision(&mut reader, "mask_decision")?,
        };
        let output_type = kind.as_str()?;
        let opened = match output_type {
            "console" => Opened {
                way: Way::Console,
                gathering: Gathering::default(),
                max_retry: None,
            },
            "service" => http::service(&mut reader, scope)?,
            "http" => http::Http::read(&mut reader, warnings)?.open(field, scope)?,
            "splunk" => http::splunk(&mut reader, warnings)?.open(field, scope)?,
            "s3" => s3::S3::read(&mut reader, warnings)?.open(field, scope)?,
            #[cfg(feature = "kafka")]
            "kafka" => kafka::open(&mut reader, field, &self.clusters, warnings)?,
            #[cfg(not(feature = "kafka"))]
            "kafka" => {
                let text = "this program was built without the feature `kafka` of opa-plugins";
                return Err(kind.error(text));
            }
            other if UNSUPPORTED.contains(&other) => return Err(kind.unsupported_value(other)),
            other => return Err(kind.error(format!("unknown output type: {other:?}"))),
        };
        warnings.extend(reader.finish()?);
        let output = OutputSpec {
            name: NAME.into(),
            way: opened.way,
            policies: Policies {
                then,
                ..policies.clone()
            },
            batching: opened.gathering.batching(buffer),
            buffer_bytes: Some(buffer.max_bytes),
            max_retry: buffer.max_retry(opened.max_retry),
            storage: buffer.storage.clone(),
        };
        Ok((output_type, output))
    }
}

/// Why the spool that `buffer.path` names can't be used.
pub(in super::super) fn disk_error(config: &Config, section: &Section, text: &str) -> ConfigError {
    let of_path = || {
        let mut reader = config.plugins.get(NAME)?.reader().ok()?;
        let path = reader.object("buffer").ok()??.field("path")?;
        Some(path.error(text))
    };
    of_path().unwrap_or_else(|| section.error(text))
}

/// The client of an output.
fn client(
    service: &ServiceConfig,
    field: &Field<'_>,
    scope: &Scope<'_>,
) -> Result<ServiceClient, ConfigError> {
    scope.client(service).map_err(|error| {
        let (text, place) = (error.message(), format!("services.{}: ", service.name));
        field.error(text.strip_prefix(&place).unwrap_or(text))
    })
}

fn decision(
    reader: &mut Reader<'_>,
    key: &'static str,
) -> Result<Option<EntrypointPath>, ConfigError> {
    let field = reader.field(key);
    let parsed = field.map(|field| {
        let path = EntrypointPath::parse(field.as_str()?);
        path.map_err(|error| field.error(format!("invalid {key}: {error}")))
    });
    parsed.transpose()
}

#[cfg(test)]
mod tests;
