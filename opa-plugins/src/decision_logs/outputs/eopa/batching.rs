//! `buffer`, and `batching` of an output: how many events are delivered at once, and what as.

use std::time::Duration;

use opa_core::config::{ConfigError, Field, Reader, Warning};

use super::super::super::config::{Batching, go_duration};
use super::super::form::{Form, Format};
use super::super::{Disk, Storage};

/// `buffer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Buffer {
    /// The most bytes in memory.
    pub(super) max_bytes: usize,
    /// `flush_at_count`, `flush_at_bytes` and `flush_at_period`; `None` without any of them.
    pub(super) flush: Option<Batching>,
    /// `type`, and what `disk` has.
    pub(super) storage: Storage,
}

const DEFAULT_MAX_BYTES: usize = 524_288_000;
/// What waits for the output together with decisions, and after those that were refused meanwhile.
const UNBUFFERED_MAX_BYTES: usize = 16 * 1024 * 1024;
const UNBUFFERED_RETRY: Duration = Duration::from_secs(1);
const DEFAULT_FLUSH_PERIOD: Duration = Duration::from_secs(1);
const DEFAULT_PERIOD: Duration = Duration::from_secs(10);
/// How long the first event waits for others where none should wait: those that come together are
/// sent together.
const AT_ONCE: Duration = Duration::from_millis(1);
/// How much is handed to an output at once, whatever is configured.
const MOST_BYTES: usize = 16 * 1024 * 1024;
const MOST_EVENTS: usize = 10_000;
/// How long a request may take where nothing is configured.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// As long as the pipeline waits for a delivery.
const MAX_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest period, a day.
const MAX_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Buffer {
    fn default() -> Self {
        Self {
            max_bytes: DEFAULT_MAX_BYTES,
            flush: None,
            storage: Storage::Default,
        }
    }
}

impl Buffer {
    pub(super) fn read(
        reader: &mut Reader<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let Some(mut reader) = reader.object("buffer")? else {
            return Ok(Self::default());
        };
        let kind = reader.field("type");
        let buffer = match kind.as_ref().map_or(Ok("memory"), Field::as_str)? {
            "" | "memory" => Self::memory(&mut reader)?,
            "disk" => Self {
                storage: Storage::Disk(read_disk(&mut reader)?),
                ..Self::default()
            },
            "unbuffered" => Self {
                max_bytes: UNBUFFERED_MAX_BYTES,
                storage: Storage::Unbuffered,
                ..Self::default()
            },
            other => {
                let text = format!("unknown buffer type: {other:?}");
                return Err(kind.map_or_else(|| reader.error(&*text), |kind| kind.error(&*text)));
            }
        };
        warnings.extend(reader.finish()?);
        Ok(buffer)
    }

    fn memory(reader: &mut Reader<'_>) -> Result<Self, ConfigError> {
        let max_bytes = limit(reader, "max_bytes")?.unwrap_or(DEFAULT_MAX_BYTES);
        let (count, bytes) = (
            limit(reader, "flush_at_count")?,
            limit(reader, "flush_at_bytes")?,
        );
        let period = period(reader, "flush_at_period")?;
        let is_flushed = count.is_some() || bytes.is_some() || period.is_some();
        Ok(Self {
            max_bytes,
            flush: is_flushed.then(|| limits(count, bytes, period.unwrap_or(DEFAULT_FLUSH_PERIOD))),
            storage: Storage::Default,
        })
    }

    /// How long a delivery that failed waits for the next try, where `configured` doesn't say. As long
    /// as that nothing is decided without a buffer.
    pub(super) fn max_retry(&self, configured: Option<Duration>) -> Option<Duration> {
        match self.storage {
            Storage::Unbuffered => configured.or(Some(UNBUFFERED_RETRY)),
            Storage::Default | Storage::Disk(_) => configured,
        }
    }
}

/// `path`, and, which EOPA doesn't have, `max_bytes`.
fn read_disk(reader: &mut Reader<'_>) -> Result<Disk, ConfigError> {
    let path = reader.string("path")?.unwrap_or_default();
    if path.is_empty() {
        return Err(reader.missing("path", "the path of a directory"));
    }
    Ok(Disk {
        path: path.into(),
        max_bytes: limit(reader, "max_bytes")?.map(|bytes| bytes as u64),
    })
}

/// How an output gathers events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Gathering {
    /// Of `batching`.
    pub(super) limits: Option<Batching>,
    pub(super) form: Form,
    /// Each event goes by itself, and what went is not to be repeated.
    pub(super) singly: bool,
}

impl Gathering {
    /// `batching`.
    pub(super) fn read(
        reader: &mut Reader<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let Some(mut reader) = reader.object("batching")? else {
            return Ok(Self::default());
        };
        let (count, bytes) = (
            limit(&mut reader, "at_count")?,
            limit(&mut reader, "at_bytes")?,
        );
        let period = period(&mut reader, "at_period")?.unwrap_or(DEFAULT_PERIOD);
        let mut format = match reader.field("format") {
            Some(field) => format(&field, warnings)?,
            None => Format::Lines,
        };
        if let Some(field) = reader.field("array")
            && field.as_bool()?
        {
            warnings.push(field.warning("`array` is deprecated: use `format: array`"));
            format = Format::Array;
        }
        let gzip = reader.bool("compress")?.unwrap_or_default();
        warnings.extend(reader.finish()?);
        Ok(Self {
            limits: Some(limits(count, bytes, period)),
            form: Form { format, gzip },
            singly: false,
        })
    }

    /// For the pipeline.
    pub(super) fn batching(self, buffer: &Buffer) -> Batching {
        let at_once = limits(None, None, AT_ONCE);
        let limits = self.limits.or(buffer.flush).unwrap_or(at_once);
        let at_count = match (self.singly, &buffer.storage) {
            // Each decision has its own answer.
            (true, Storage::Unbuffered) => 1,
            (true, _) => limits.at_count.min(100),
            (false, _) => limits.at_count,
        };
        Batching { at_count, ..limits }
    }
}

fn limits(count: Option<usize>, bytes: Option<usize>, at_period: Duration) -> Batching {
    Batching {
        at_count: count.unwrap_or(MOST_EVENTS),
        at_bytes: bytes.unwrap_or(MOST_BYTES),
        at_period,
    }
}

/// A limit that zero turns off.
fn limit(reader: &mut Reader<'_>, key: &'static str) -> Result<Option<usize>, ConfigError> {
    let Some(field) = reader.field(key) else {
        return Ok(None);
    };
    let number = field.as_i64()?;
    let number = usize::try_from(number)
        .map_err(|_| field.error(format!("expected 0 or more, found `{number}`")))?;
    Ok(Some(number).filter(|number| *number > 0))
}

/// A duration as Go writes it.
pub(super) fn period(
    reader: &mut Reader<'_>,
    key: &'static str,
) -> Result<Option<Duration>, ConfigError> {
    let Some(field) = reader.field(key) else {
        return Ok(None);
    };
    let text = field.as_str()?;
    if text.is_empty() {
        return Ok(None);
    }
    match go_duration(text) {
        Some(period) if !period.is_zero() && period <= MAX_PERIOD => Ok(Some(period)),
        Some(_) => Err(field.error("must be longer than `0s` and at most `24h`")),
        None => Err(field.error("expected a duration such as `1s` or `500ms`")),
    }
}

/// `timeout`, which a delivery's own end bounds.
pub(super) fn timeout(
    reader: &mut Reader<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Duration, ConfigError> {
    let timeout = period(reader, "timeout")?.unwrap_or(DEFAULT_TIMEOUT);
    if let Some(field) = reader.field("timeout").filter(|_| timeout > MAX_TIMEOUT) {
        warnings.push(field.warning("a delivery takes no longer than a minute"));
    }
    Ok(timeout.min(MAX_TIMEOUT))
}

fn format(field: &Field<'_>, warnings: &mut Vec<Warning>) -> Result<Format, ConfigError> {
    Ok(match field.as_str()? {
        "none" => Format::Each,
        "array" => Format::Array,
        "lines" => Format::Lines,
        other => {
            let text =
                format!("expected `none`, `lines` or `array`, found `{other}`; it is `lines`");
            warnings.push(field.warning(text));
            Format::Lines
        }
    })
}
