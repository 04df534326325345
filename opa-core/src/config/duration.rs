//! Durations in whole seconds.

use std::time::Duration;

use super::error::ConfigError;
use super::field::Field;

/// No delay or timeout of a configuration is longer: a year. It keeps arithmetic with clocks far
/// from any overflow.
const MAX_SECONDS: i64 = 365 * 24 * 60 * 60;

/// A number of whole seconds between `min` and a year.
pub(crate) fn seconds(field: &Field<'_>, name: &str, min: i64) -> Result<Duration, ConfigError> {
    let seconds = field.as_i64()?;
    if seconds < min {
        return Err(field.error(format!("'{name}' must be at least {min}")));
    }
    if seconds > MAX_SECONDS {
        return Err(field.error(format!("'{name}' must be at most {MAX_SECONDS}")));
    }
    Ok(Duration::from_secs(seconds.unsigned_abs()))
}
