use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

/// How old the bundles of an instance may become (`max_staleness_seconds`). Times are milliseconds
/// of the manager's clock.
pub(super) struct Freshness {
    /// The first moment at which one of them is too old.
    stale_from: AtomicU64,
    bundles: Mutex<BTreeMap<Arc<str>, Bound>>,
}

struct Bound {
    max_ms: u64,
    contact_ms: Option<u64>,
}

const NEVER: u64 = u64::MAX;

impl Freshness {
    /// Bounds these bundles. Until their sources have answered they count as too old.
    pub(super) fn configure(&self, bounds: &BTreeMap<Arc<str>, Duration>) {
        let mut bundles = self.bundles.lock();
        *bundles = bounds
            .iter()
            .map(|(name, max)| {
                let max_ms = u64::try_from(max.as_millis()).unwrap_or(NEVER);
                let contact_ms = bundles.get(name).and_then(|old| old.contact_ms);
                (Arc::clone(name), Bound { max_ms, contact_ms })
            })
            .collect();
        self.refresh(&bundles);
    }

    /// The source of a bundle said that it is current, or the current one came.
    pub(super) fn contact(&self, name: &str, now_ms: u64) {
        let mut bundles = self.bundles.lock();
        if let Some(bound) = bundles.get_mut(name) {
            bound.contact_ms = Some(now_ms);
            self.refresh(&bundles);
        }
    }

    /// Whether one of the bundles is too old: one load, and the clock only where there is a bound.
    pub(super) fn is_stale(&self, now_ms: impl FnOnce() -> u64) -> bool {
        let stale_from = self.stale_from.load(Ordering::Acquire);
        stale_from != NEVER && now_ms() >= stale_from
    }

    /// Whether this bundle is too old.
    pub(super) fn is_bundle_stale(&self, name: &str, now_ms: u64) -> bool {
        let bundles = self.bundles.lock();
        bundles
            .get(name)
            .is_some_and(|bound| now_ms >= bound.stale_from())
    }

    fn refresh(&self, bundles: &BTreeMap<Arc<str>, Bound>) {
        let first = bundles.values().map(Bound::stale_from).min();
        self.stale_from
            .store(first.unwrap_or(NEVER), Ordering::Release);
    }
}

impl Bound {
    fn stale_from(&self) -> u64 {
        match self.contact_ms {
            Some(contact) => contact.saturating_add(self.max_ms),
            None => 0,
        }
    }
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            stale_from: AtomicU64::new(NEVER),
            bundles: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(seconds: &[(&str, u64)]) -> BTreeMap<Arc<str>, Duration> {
        let bound =
            |(name, seconds): &(&str, u64)| (Arc::from(*name), Duration::from_secs(*seconds));
        seconds.iter().map(bound).collect()
    }

    #[test]
    fn the_first_bundle_that_is_too_old_counts() {
        let freshness = Freshness::default();
        assert!(!freshness.is_stale(|| panic!("the clock is not asked without a bound")));
        freshness.configure(&bounds(&[("a", 10), ("b", 20)]));
        assert!(freshness.is_stale(|| 0), "never asked");
        freshness.contact("a", 1_000);
        assert!(freshness.is_stale(|| 1_000), "b was never asked");
        freshness.contact("b", 5_000);
        freshness.contact("unbounded", 0);
        assert!(!freshness.is_stale(|| 10_999));
        assert!(freshness.is_stale(|| 11_000));
        assert!(freshness.is_bundle_stale("a", 11_000));
        assert!(!freshness.is_bundle_stale("b", 11_000));
        assert!(!freshness.is_bundle_stale("unbounded", 11_000));
        freshness.contact("a", 11_000);
        assert!(!freshness.is_stale(|| 20_999));
        freshness.configure(&BTreeMap::new());
        assert!(!freshness.is_stale(|| 1 << 40));
    }
}
