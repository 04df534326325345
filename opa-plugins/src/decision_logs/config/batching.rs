//! How an output gathers events: `batching`.

use std::time::Duration;

use opa_core::config::{ConfigError, Field, Reader, Warning};

/// How an output gathers events: `batching`. A batch is delivered as soon as one of the limits is
/// reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batching {
    /// `at_count`: so many events; 500 by default.
    pub at_count: usize,
    /// `at_bytes`: so many bytes of their text; 1 MiB by default. A larger event is delivered alone.
    pub at_bytes: usize,
    /// `at_period`: so long after the first event, written as Go writes it (`500ms`, `1m30s`); a
    /// second by default.
    pub at_period: Duration,
}

/// The longest period, a day.
const MAX_PERIOD: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for Batching {
    fn default() -> Self {
        Self {
            at_count: 500,
            at_bytes: 1024 * 1024,
            at_period: Duration::from_secs(1),
        }
    }
}

impl Batching {
    /// Reads the limits that `reader` has; the others are those of `default`.
    pub(in super::super) fn read(
        mut reader: Reader<'_>,
        default: Self,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let count = reader.field("at_count").as_ref().map(at_least_one);
        let bytes = reader.field("at_bytes").as_ref().map(at_least_one);
        let period = reader.field("at_period").as_ref().map(period);
        warnings.extend(reader.finish()?);
        Ok(Self {
            at_count: count.transpose()?.unwrap_or(default.at_count),
            at_bytes: bytes.transpose()?.unwrap_or(default.at_bytes),
            at_period: period.transpose()?.unwrap_or(default.at_period),
        })
    }
}

/// A number that is at least one.
pub(in super::super) fn at_least_one(field: &Field<'_>) -> Result<usize, ConfigError> {
    let number = usize::try_from(field.as_i64()?).unwrap_or_default();
    match number {
        0 => Err(field.error("must be higher than 0")),
        number => Ok(number),
    }
}

fn period(field: &Field<'_>) -> Result<Duration, ConfigError> {
    let period = go_duration(field.as_str()?)
        .ok_or_else(|| field.error("expected a duration such as `1s` or `500ms`"))?;
    if period.is_zero() || period > MAX_PERIOD {
        return Err(field.error("must be longer than `0s` and at most `24h`"));
    }
    Ok(period)
}

/// A duration as Go writes it, without a sign: numbers with units, such as `1m30s` or `1.5h`.
pub(in super::super) fn go_duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("h", 3600.0),
        ("m", 60.0),
        ("s", 1.0),
    ];
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let (unit, size) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        seconds += number * size;
        rest = after.strip_prefix(unit)?;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("0", Some(0)),
            ("500ms", Some(500)),
            ("1s", Some(1_000)),
            ("1.5s", Some(1_500)),
            ("1m30s", Some(90_000)),
            ("2h", Some(7_200_000)),
            (".5s", Some(500)),
            ("2000µs", Some(2)),
            ("", None),
            ("1", None),
            ("s", None),
            ("-1s", None),
            ("1 s", None),
            ("1d", None),
            ("1.2.3s", None),
        ] {
            let read = go_duration(text).map(|it| it.as_millis());
            assert_eq!(read, millis, "{text}");
        }
    }
}
