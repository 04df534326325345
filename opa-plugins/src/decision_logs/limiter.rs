//! How many decisions are logged per second: `reporting.max_decisions_per_second`.

use std::time::Duration;

/// A token bucket as OPA's: it starts full, holds as many tokens as the limit is, one at least, and
/// fills at the limit's rate.
///
/// ```
/// use opa_plugins::decision_logs::RateLimiter;
/// use std::time::Duration;
///
/// let mut limiter = RateLimiter::new(2.0);
/// let allowed = |at: f64| limiter.allow(Duration::from_secs_f64(at));
/// assert_eq!([0.0, 0.0, 0.0, 0.5, 0.5].map(allowed), [true, true, false, true, false]);
/// ```
#[derive(Clone, Debug)]
pub struct RateLimiter {
    per_second: f64,
    burst: f64,
    tokens: f64,
    /// The time that `tokens` are of.
    at: Duration,
}

impl RateLimiter {
    /// A limiter of so many decisions per second. At zero and below only the first one passes.
    #[must_use]
    pub fn new(per_second: f64) -> Self {
        let burst = per_second.max(1.0).trunc();
        Self {
            per_second,
            burst,
            tokens: burst,
            at: Duration::ZERO,
        }
    }

    /// Whether a decision may be logged at `now`, a time of a monotonic clock.
    pub fn allow(&mut self, now: Duration) -> bool {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        let filled = elapsed * self.per_second.max(0.0);
        let tokens = (self.tokens + filled).min(self.burst) - 1.0;
        // A token that is less than a nanosecond away is there.
        let allowed = tokens >= 0.0 || -tokens / self.per_second.max(0.0) < 1e-9;
        if allowed {
            (self.tokens, self.at) = (tokens, now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `tries`, evenly spread over a second from `start`, are allowed.
    fn allowed(limiter: &mut RateLimiter, start: u64, tries: u32) -> usize {
        let at = |n| Duration::from_secs(start) + Duration::from_secs(1) * n / tries;
        (0..tries).filter(|n| limiter.allow(at(*n))).count()
    }

    #[test]
    fn the_limit_holds_in_every_second() {
        for limit in [1.0, 2.5, 10.0, 100.0] {
            let mut limiter = RateLimiter::new(limit);
            let first = allowed(&mut limiter, 0, 1000) as f64;
            // The full bucket, and what flows in.
            assert!(first >= limit && first <= 2.0 * limit, "{limit}: {first}");
            let second = allowed(&mut limiter, 1, 1000) as f64;
            assert!((second - limit).abs() <= 1.0, "{limit}: {second}");
        }
    }

    #[test]
    fn fractions_pass_one_at_a_time() {
        let mut limiter = RateLimiter::new(0.5);
        let seconds = [0, 1, 2, 3, 4, 60, 60, 61].map(|s| limiter.allow(Duration::from_secs(s)));
        assert_eq!(
            seconds,
            [true, false, true, false, true, true, false, false]
        );
    }

    #[test]
    fn nothing_flows_at_zero_and_below() {
        for limit in [0.0, -1.0] {
            let mut limiter = RateLimiter::new(limit);
            let seconds = [0, 1, 1_000_000].map(|s| limiter.allow(Duration::from_secs(s)));
            assert_eq!(seconds, [true, false, false], "{limit}");
        }
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut limiter = RateLimiter::new(1.0);
        assert!(limiter.allow(Duration::from_secs(5)));
        assert!(!limiter.allow(Duration::from_secs(1)));
    }
}
