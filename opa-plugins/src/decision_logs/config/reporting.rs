//! How events are buffered and uploaded: `reporting`.

use std::time::Duration;

use opa_core::config::{ConfigError, Field, Reader, Warning};

/// How events are buffered and uploaded: `reporting`. The defaults are OPA's.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReportingConfig {
    /// `buffer_type`, with its limit.
    pub buffer: BufferConfig,
    /// `upload_size_limit_bytes`: the most bytes that an upload has; 32,768 by default, never
    /// less than 90 and more than 4 GiB, which is warned about.
    pub upload_size_limit_bytes: u64,
    /// `min_delay_seconds`: the shortest wait between two uploads; 300 seconds by default.
    pub min_delay: Duration,
    /// `max_delay_seconds`: the longest wait, and the cap of the backoff after errors; 600 seconds
    /// by default. Never less than `min_delay`.
    pub max_delay: Duration,
    /// `max_decisions_per_second`; no limit by default.
    pub max_decisions_per_second: Option<f64>,
    /// `trigger`: what starts an upload.
    pub trigger: Trigger,
}

/// What events wait in: `buffer_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BufferConfig {
    /// `size`, the default: compressed chunks.
    Size {
        /// `buffer_size_limit_bytes`: the most bytes of all chunks; no limit by default.
        limit_bytes: Option<u64>,
    },
    /// `event`: single events.
    Event {
        /// `buffer_size_limit_events`: the most events; 10,000 by default.
        limit_events: u64,
    },
}

/// What starts an upload: `trigger`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trigger {
    /// `periodic`, the default: time.
    #[default]
    Periodic,
    /// `immediate`: a full chunk, and time.
    Immediate,
    /// `manual`: the program.
    Manual,
}

const DEFAULT_LIMIT_EVENTS: u64 = 10_000;
const DEFAULT_UPLOAD_SIZE: u64 = 32_768;
/// An event with a decision id (69 bytes) and an empty gzip file (21 bytes).
const MIN_UPLOAD_SIZE: u64 = 90;
const MAX_UPLOAD_SIZE: u64 = 4_294_967_296;
/// No delay is longer: a year, as everywhere in the configuration.
const MAX_SECONDS: i64 = 365 * 24 * 60 * 60;

impl Default for ReportingConfig {
    fn default() -> Self {
        Self {
            buffer: BufferConfig::Size { limit_bytes: None },
            upload_size_limit_bytes: DEFAULT_UPLOAD_SIZE,
            min_delay: Duration::from_secs(300),
            max_delay: Duration::from_secs(600),
            max_decisions_per_second: None,
            trigger: Trigger::Periodic,
        }
    }
}

impl ReportingConfig {
    pub(super) fn read(
        mut reader: Reader<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let trigger = Trigger::read(&mut reader)?;
        let (min_delay, max_delay) = read_delays(&mut reader)?;
        let upload_size_limit_bytes = read_upload_size(&mut reader, warnings)?;
        let max_decisions_per_second = reader.number("max_decisions_per_second")?;
        let buffer = BufferConfig::read(&mut reader, max_decisions_per_second.is_some())?;
        warnings.extend(reader.finish()?);
        Ok(Self {
            buffer,
            upload_size_limit_bytes,
            min_delay,
            max_delay,
            max_decisions_per_second,
            trigger,
        })
    }
}

impl Trigger {
    /// `periodic`, `immediate` or `manual`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Periodic => "periodic",
            Self::Immediate => "immediate",
            Self::Manual => "manual",
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        let Some(field) = reader.field("trigger") else {
            return Ok(Self::default());
        };
        match field.as_str()? {
            "periodic" => Ok(Self::Periodic),
            "immediate" => Ok(Self::Immediate),
            "manual" => Ok(Self::Manual),
            other => Err(field.error(format!(
                "invalid decision_log config: invalid trigger mode {other:?} \
                 (want \"periodic\", \"manual\" or \"immediate\")"
            ))),
        }
    }
}

impl BufferConfig {
    fn read(reader: &mut Reader<'_>, rate_limited: bool) -> Result<Self, ConfigError> {
        let bytes = reader.field("buffer_size_limit_bytes");
        let events = reader.field("buffer_size_limit_events");
        let kind = reader.field("buffer_type");
        let limited = |field: &Field<'_>, name: &str| {
            let limit = field.as_i64()?;
            u64::try_from(limit)
                .ok()
                .filter(|limit| *limit > 0)
                .ok_or_else(|| {
                    let text =
                        format!("invalid decision_log config, '{name}' must be higher than 0");
                    field.error(text)
                })
        };
        let not_for = |field: &Field<'_>, name: &str, kind: &str| {
            field.error(format!(
                "invalid decision_log config, '{name}' isn't supported for the {kind} buffer type"
            ))
        };
        match kind.as_ref().map_or(Ok(""), Field::as_str)? {
            "" | "size" => {
                if let Some(field) = events {
                    return Err(not_for(&field, "buffer_size_limit_events", "size"));
                }
                if let Some(field) = bytes.as_ref().filter(|_| rate_limited) {
                    return Err(field.error(
                        "invalid decision_log config, specify either 'buffer_size_limit_bytes' or \
                         'max_decisions_per_second'",
                    ));
                }
                let limit = bytes.map(|field| limited(&field, "buffer_size_limit_bytes"));
                Ok(Self::Size {
                    limit_bytes: limit.transpose()?,
                })
            }
            "event" => {
                if let Some(field) = bytes {
                    return Err(not_for(&field, "buffer_size_limit_bytes", "event"));
                }
                // So OPA calls it in this message alone.
                let limit = events.map(|field| limited(&field, "buffer_size_limit_entries"));
                Ok(Self::Event {
                    limit_events: limit.transpose()?.unwrap_or(DEFAULT_LIMIT_EVENTS),
                })
            }
            other => {
                let text = format!("invalid buffer type {other:?}, expected \"event\" or \"size\"");
                Err(kind.map_or_else(
                    || reader.error(text.clone()),
                    |field| field.error(text.clone()),
                ))
            }
        }
    }
}

fn read_upload_size(
    reader: &mut Reader<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<u64, ConfigError> {
    let Some(field) = reader.field("upload_size_limit_bytes") else {
        return Ok(DEFAULT_UPLOAD_SIZE);
    };
    let asked = field.as_i64()?;
    let limit = u64::try_from(asked).unwrap_or_default();
    let (which, limit) = match limit {
        ..MIN_UPLOAD_SIZE => ("minimum", MIN_UPLOAD_SIZE),
        MIN_UPLOAD_SIZE..=MAX_UPLOAD_SIZE => return Ok(limit),
        _ => ("maximum", MAX_UPLOAD_SIZE),
    };
    warnings.push(field.warning(format!(
        "the configured `upload_size_limit_bytes` ({asked}) has been set to the {which} limit ({limit})"
    )));
    Ok(limit)
}

/// OPA lets both be zero and then uploads without a pause; here a second is the least.
fn read_delays(reader: &mut Reader<'_>) -> Result<(Duration, Duration), ConfigError> {
    let min = reader.field("min_delay_seconds");
    let max = reader.field("max_delay_seconds");
    let missing = |field: &Field<'_>, name| {
        let text = format!("reporting configuration missing '{name}' in decision_logs");
        field.error(text)
    };
    match (min, max) {
        (None, None) => {
            let default = ReportingConfig::default();
            Ok((default.min_delay, default.max_delay))
        }
        (Some(min), None) => Err(missing(&min, "max_delay_seconds")),
        (None, Some(max)) => Err(missing(&max, "min_delay_seconds")),
        (Some(min), Some(max)) => {
            if max.as_i64()? < min.as_i64()? {
                return Err(max
                    .error("max reporting delay must be >= min reporting delay in decision_logs"));
            }
            Ok((
                seconds(&min, "min_delay_seconds")?,
                seconds(&max, "max_delay_seconds")?,
            ))
        }
    }
}

fn seconds(field: &Field<'_>, name: &str) -> Result<Duration, ConfigError> {
    match field.as_i64()? {
        seconds @ 1..=MAX_SECONDS => Ok(Duration::from_secs(seconds.unsigned_abs())),
        ..1 => Err(field.error(format!("'{name}' must be at least 1"))),
        _ => Err(field.error(format!("'{name}' must be at most {MAX_SECONDS}"))),
    }
}
