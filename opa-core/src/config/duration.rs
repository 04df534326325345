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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Section;

    #[test]
    fn seconds_are_whole_and_bounded() {
        let read = |json| {
            let section = Section::from_json("x", &json);
            seconds(&section.field(), "x", 1).map_err(|error| error.message().to_owned())
        };
        assert_eq!(read(1.into()), Ok(Duration::from_secs(1)));
        assert_eq!(read(31_536_000.into()), Ok(Duration::from_secs(31_536_000)));
        assert_eq!(read(0.into()), Err("'x' must be at least 1".to_owned()));
        assert_eq!(
            read(i64::MIN.into()),
            Err("'x' must be at least 1".to_owned())
        );
        assert_eq!(
            read(31_536_001.into()),
            Err("'x' must be at most 31536000".to_owned())
        );
        assert_eq!(
            read(0.5.into()),
            Err("expected an integer, found `0.5`".to_owned())
        );
    }
}
