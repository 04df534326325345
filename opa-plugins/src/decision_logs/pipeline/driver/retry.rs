//! When a delivery that failed is tried again.

use std::time::Duration;

/// The cap of the first wait, doubled from then on, and the least (as for bundles).
const FIRST: Duration = Duration::from_millis(100);
const LEAST: Duration = Duration::from_millis(50);

/// The longest wait that a receiver may want, as of a service. More may be more than a clock has.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// Uniform in \[50 ms, cap\], where the cap is 100 ms after the first of `failures` in a row,
/// grows exponentially to `max`; and not before the receiver wants it, but within an hour.
pub(super) fn delay(failures: u32, max: Duration, retry_after: Option<Duration>) -> Duration {
    let doubled = failures.saturating_sub(1).min(20);
    let cap = FIRST.saturating_mul(1 << doubled).min(max);
    let delay = LEAST + cap.saturating_sub(LEAST).mul_f64(rand::random::<f64>());
    delay.max(retry_after.unwrap_or_default().min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_grows_from_100_ms_to_its_cap() {
        let max = Duration::from_secs(10);
        for (failures, cap) in [
            (1, 100),
            (2, 200),
            (5, 1_600),
            (8, 10_000),
            (u32::MAX, 10_000),
        ] {
            let cap = Duration::from_millis(cap);
            let delays: Vec<_> = (0..1_000).map(|_| delay(failures, max, None)).collect();
            assert!(
                delays.iter().all(|it| (LEAST..=cap).contains(it)),
                "{failures}"
            );
            assert!(delays.iter().any(|it| *it > cap * 3 / 4), "{failures}");
        }
        let later = Duration::from_secs(60);
        assert_eq!(delay(1, max, Some(later)), later);
    }
}
