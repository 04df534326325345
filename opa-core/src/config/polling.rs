//! How often a service is asked for a bundle.

use std::time::Duration;

use super::duration;
use super::error::{ConfigError, Warning};
use super::field::Field;

/// How often a bundle is asked for: `polling`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PollingConfig {
    /// The shortest wait between two requests; 60 seconds by default.
    pub min_delay: Duration,
    /// The longest wait between two requests, and the cap of the backoff after errors;
    /// 120 seconds by default. Never less than `min_delay`.
    pub max_delay: Duration,
    /// How long the service may hold a request until there is news; `None`, the default, is no
    /// long polling.
    pub long_polling_timeout: Option<Duration>,
}

impl Default for PollingConfig {
    fn default() -> Self {
        Self {
            min_delay: Duration::from_secs(60),
            max_delay: Duration::from_secs(120),
            long_polling_timeout: None,
        }
    }
}

impl PollingConfig {
    /// Reads a `polling` object. The messages are OPA's.
    pub(crate) fn read(
        field: &Field<'_>,
        warnings: &mut Vec<Warning>,
    ) -> Result<Self, ConfigError> {
        let mut reader = field.reader()?;
        // Since OPA 1.22: etags of replaced bundles are sent too.
        reader.unsupported("superseded_etag_ttl_seconds")?;
        let min = reader.field("min_delay_seconds");
        let max = reader.field("max_delay_seconds");
        let long_polling = reader.field("long_polling_timeout_seconds");
        warnings.extend(reader.finish()?);

        let (min_delay, max_delay) = match (min, max) {
            (Some(min), Some(max)) => read_delays(&min, &max)?,
            (Some(min), None) => {
                return Err(min.error("polling configuration missing 'max_delay_seconds'"));
            }
            (None, Some(max)) => {
                return Err(max.error("polling configuration missing 'min_delay_seconds'"));
            }
            (None, None) => (Self::default().min_delay, Self::default().max_delay),
        };
        let long_polling_timeout = long_polling
            .map(|field| duration::seconds(&field, "long_polling_timeout_seconds", 1))
            .transpose()?;
        Ok(Self {
            min_delay,
            max_delay,
            long_polling_timeout,
        })
    }
}

/// OPA lets both be zero and then polls without a pause; here a second is the least.
fn read_delays(min: &Field<'_>, max: &Field<'_>) -> Result<(Duration, Duration), ConfigError> {
    if max.as_i64()? < min.as_i64()? {
        return Err(max.error("max polling delay must be >= min polling delay"));
    }
    Ok((
        duration::seconds(min, "min_delay_seconds", 1)?,
        duration::seconds(max, "max_delay_seconds", 1)?,
    ))
}
