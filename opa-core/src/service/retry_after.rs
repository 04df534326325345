use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;

/// The longest `Retry-After` that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

/// When a server wants to be asked again, at most in an hour.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    let delay = retry_after_at(value, SystemTime::now())?;
    Some(delay.min(MAX_RETRY_AFTER))
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110, 10.2.3).
fn retry_after_at(value: &str, now: SystemTime) -> Option<Duration> {
    let digits = value.trim();
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than fits is as long as can be.
        let seconds = digits.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        assert_eq!(retry_after_at("120", now), Some(Duration::from_secs(120)));
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(retry_after_at(date, now), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after_at(date, now + Duration::from_secs(100)),
            Some(Duration::ZERO)
        );
        let more_than_fits = retry_after_at("99999999999999999999", now);
        assert_eq!(more_than_fits, Some(Duration::from_secs(u64::MAX)));
        for nonsense in ["soon", "-1", "+1", "2.5", ""] {
            assert_eq!(retry_after_at(nonsense, now), None, "{nonsense}");
        }
    }
}
