//! The options of `kafka`.

use std::time::Duration;

use opa_core::config::{ConfigError, Field, Reader, Secret, Section, Warning};
use rskafka::client::partition::Compression;

use super::super::form::{Form, Format};
use super::super::tls_files::TlsFiles;

/// Where the events of an app go, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Settings {
    pub(in super::super) target: Target,
    pub(in super::super) topic: String,
    pub(in super::super) form: Form,
    pub(in super::super) compression: Compression,
    pub(in super::super) timeout: Duration,
    pub(in super::super) max_request_bytes: usize,
}

/// All that decides whether connections may be shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Target {
    /// `host:port` each.
    pub(in super::super) brokers: Vec<String>,
    /// `None` for connections without TLS.
    pub(in super::super) tls: Option<TlsFiles>,
    pub(in super::super) sasl: Option<Sasl>,
}

/// Who we are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Sasl {
    pub(in super::super) mechanism: Mechanism,
    pub(in super::super) username: String,
    pub(in super::super) password: Secret,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in super::super) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

pub(in super::super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Brokers take batches of 1 MiB by default.
pub(in super::super) const DEFAULT_MAX_REQUEST_BYTES: usize = 1_000_000;
const DEFAULT_PORT: u16 = 9092;

impl Settings {
    pub(super) fn read(
        section: &Section,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut reader = section.reader()?;
        let tls = reader.object("tls")?;
        let tls = tls
            .map(|reader| TlsFiles::read(reader, warnings))
            .transpose()?;
        let sasl = reader
            .field("sasl")
            .map(|field| read_sasl(&field, warnings));
        let target = Target {
            brokers: read_brokers(&mut reader, "brokers", tls.is_some())?,
            tls,
            sasl: sasl.transpose()?.flatten(),
        };
        let settings = Self {
            target,
            topic: read_topic(&mut reader)?,
            form: Form {
                format: match reader.field("format") {
                    Some(field) => format(&field)?,
                    None => Format::Each,
                },
                gzip: false,
            },
            compression: match reader.field("compression") {
                Some(field) => compression(&field)?,
                None => Compression::NoCompression,
            },
            timeout: match reader.field("timeout_seconds") {
                Some(field) => seconds(&field)?,
                None => DEFAULT_TIMEOUT,
            },
            max_request_bytes: match reader.field("max_request_bytes") {
                Some(field) => at_least_one(&field)?,
                None => DEFAULT_MAX_REQUEST_BYTES,
            },
        };
        warnings.extend(reader.finish()?);
        Ok(settings)
    }
}

/// The addresses of brokers; `9092` where there is no port.
pub(in super::super) fn read_brokers(
    reader: &mut Reader<'_>,
    key: &'static str,
    tls: bool,
) -> Result<Vec<String>, ConfigError> {
    let Some(field) = reader.field(key) else {
        return Err(reader.missing(key, "the addresses of brokers"));
    };
    let read = |item: Field<'_>| {
        let text = item.as_str()?;
        address(text, tls).map_err(|problem| item.error(format!("{problem}, found `{text}`")))
    };
    let brokers: Vec<_> = field.items()?.map(read).collect::<Result<_, _>>()?;
    match brokers.is_empty() {
        true => Err(field.error("expected the address of a broker, found none")),
        false => Ok(brokers),
    }
}

fn address(text: &str, tls: bool) -> Result<String, &'static str> {
    if text.contains("://") || text.contains('/') {
        return Err("expected `host:port` without a scheme or path");
    }
    if text.starts_with('[') {
        let has_end = text.contains("]:");
        return match (tls, has_end) {
            (true, _) => Err("expected a name or an IPv4 address, since TLS is on"),
            (false, true) => Ok(text.to_owned()),
            (false, false) => Ok(format!("{text}:{DEFAULT_PORT}")),
        };
    }
    match text.split_once(':') {
        None if !text.is_empty() => Ok(format!("{text}:{DEFAULT_PORT}")),
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(text.to_owned())
        }
        _ => Err("expected `host:port`"),
    }
}

/// Kafka's own rule for the names of topics.
pub(in super::super) fn read_topic(reader: &mut Reader<'_>) -> Result<String, ConfigError> {
    let Some(field) = reader.field("topic") else {
        return Err(reader.missing("topic", "the name of a topic"));
    };
    let topic = field.as_str()?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_name = !topic.is_empty() && topic.len() <= 249 && topic.chars().all(allowed);
    if !is_name || topic == "." || topic == ".." {
        return Err(field.error(format!("expected the name of a topic, found `{topic}`")));
    }
    Ok(topic.to_owned())
}

/// `None` for the mechanism `none`.
pub(in super::super) fn read_sasl(
    field: &Field<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Option<Sasl>, ConfigError> {
    let mut reader = field.reader()?;
    let Some(named) = reader.field("mechanism") else {
        return Err(reader.missing("mechanism", "`PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`"));
    };
    let name = named.as_str()?;
    let mechanism = match &*name.to_ascii_uppercase() {
        "PLAIN" => Some(Mechanism::Plain),
        "SCRAM-SHA-256" => Some(Mechanism::ScramSha256),
        "SCRAM-SHA-512" => Some(Mechanism::ScramSha512),
        "NONE" => None,
        _ => return Err(named.error(format!("unsupported SASL mechanism: {name:?}"))),
    };
    let username = reader.string("username")?.unwrap_or_default().to_owned();
    let password = Secret::new(reader.string("password")?.unwrap_or_default());
    if mechanism.is_some() && (username.is_empty() || password.expose().is_empty()) {
        let key = if username.is_empty() {
            "username"
        } else {
            "password"
        };
        return Err(reader.missing(key, "a text"));
    }
    warnings.extend(reader.finish()?);
    Ok(mechanism.map(|mechanism| Sasl {
        mechanism,
        username,
        password,
    }))
}

fn format(field: &Field<'_>) -> Result<Format, ConfigError> {
    match field.as_str()? {
        "none" => Ok(Format::Each),
        "lines" => Ok(Format::Lines),
        "array" => Ok(Format::Array),
        other => Err(field.error(format!(
            "expected `none`, `lines` or `array`, found `{other}`"
        ))),
    }
}

fn compression(field: &Field<'_>) -> Result<Compression, ConfigError> {
    match field.as_str()? {
        "none" => Ok(Compression::NoCompression),
        "gzip" => Ok(Compression::Gzip),
        other => Err(field.error(format!("expected `none` or `gzip`, found `{other}`"))),
    }
}

fn seconds(field: &Field<'_>) -> Result<Duration, ConfigError> {
    let seconds = field.as_f64()?;
    let timeout = Duration::try_from_secs_f64(seconds).ok();
    let timeout = timeout.filter(|it| !it.is_zero());
    timeout.ok_or_else(|| field.error(format!("expected more than 0, found `{seconds}`")))
}

fn at_least_one(field: &Field<'_>) -> Result<usize, ConfigError> {
    let number = field.as_i64()?;
    let count = usize::try_from(number).ok().filter(|count| *count > 0);
    count.ok_or_else(|| field.error(format!("expected 1 or more, found `{number}`")))
}

#[cfg(test)]
mod tests;
