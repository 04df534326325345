use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::ticket::Lineage;

/// How old the bundles of an instance may become (`max_staleness_seconds`). Times are milliseconds
/// of the manager's clock.
pub(super) struct Freshness {
    /// The first moment at which one of them is too old.
    stale_from: AtomicU64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    bounds: BTreeMap<Arc<str>, Bound>,
    /// The last contacts of what has no bound yet: another configuration may bound it.
    others: BTreeMap<Arc<str>, (Lineage, u64)>,
}

struct Bound {
    max_ms: u64,
    lineage: Lineage,
    contact_ms: Option<u64>,
}

const NEVER: u64 = u64::MAX;

impl Freshness {
    /// Bounds these bundles, of these lineages. Until their sources have answered they count as too
    /// old.
    pub(super) fn configure(&self, bounds: impl Iterator<Item = (Arc<str>, Duration, Lineage)>) {
        let mut known = self.known.lock();
        let fresh = bounds.map(|(name, max, lineage)| {
            let bound = Bound {
                max_ms: u64::try_from(max.as_millis()).unwrap_or(NEVER),
                contact_ms: known.contact(&name, &lineage),
                lineage,
            };
            (name, bound)
        });
        let fresh: BTreeMap<_, _> = fresh.collect();
        for (name, old) in std::mem::replace(&mut known.bounds, fresh) {
            if let Some(contact_ms) = old.contact_ms {
                let contact = (old.lineage, contact_ms);
                known.others.entry(name).or_insert(contact);
            }
        }
        self.refresh(&known.bounds);
    }

    /// The source of a bundle of that lineage said that it is current, or the current one came.
    pub(super) fn contact(&self, name: &Arc<str>, lineage: &Lineage, now_ms: u64) {
        let mut known = self.known.lock();
        match known.bounds.get_mut(name) {
            Some(bound) if bound.lineage == *lineage => {
                bound.contact_ms = Some(now_ms);
                self.refresh(&known.bounds);
            }
            _ => {
                let contact = (lineage.clone(), now_ms);
                known.others.insert(Arc::clone(name), contact);
            }
        }
    }

    /// Whether one of the bundles is too old: one load, and the clock only where there is a bound.
    pub(super) fn is_stale(&self, now_ms: impl FnOnce() -> u64) -> bool {
        let stale_from = self.stale_from.load(Ordering::Acquire);
        stale_from != NEVER && now_ms() >= stale_from
    }

    /// Whether this bundle is too old.
    pub(super) fn is_bundle_stale(&self, name: &str, now_ms: u64) -> bool {
        let known = self.known.lock();
        known
            .bounds
            .get(name)
            .is_some_and(|bound| now_ms >= bound.stale_from())
    }

    fn refresh(&self, bounds: &BTreeMap<Arc<str>, Bound>) {
        let first = bounds.values().map(Bound::stale_from).min();
        self.stale_from
            .store(first.unwrap_or(NEVER), Ordering::Release);
    }
}

impl Known {
    fn contact(&self, name: &str, lineage: &Lineage) -> Option<u64> {
        let bound = self.bounds.get(name);
        let bound = bound.map(|bound| (&bound.lineage, bound.contact_ms));
        let other = self.others.get(name);
        let other = other.map(|(lineage, contact_ms)| (lineage, Some(*contact_ms)));
        let contacts = [bound, other].into_iter().flatten();
        let contacts = contacts.filter(|(of, _)| *of == lineage);
        contacts.filter_map(|(_, contact_ms)| contact_ms).max()
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
            known: Mutex::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Bounds = Vec<(Arc<str>, Duration, Lineage)>;

    fn bounds(seconds: &[(&str, u64, &Lineage)]) -> Bounds {
        let bound = |(name, seconds, lineage): &(&str, u64, &Lineage)| {
            let max = Duration::from_secs(*seconds);
            (Arc::from(*name), max, Lineage::clone(lineage))
        };
        seconds.iter().map(bound).collect()
    }

    #[test]
    fn the_first_bundle_that_is_too_old_counts() {
        let freshness = Freshness::default();
        let (a, b) = (Arc::<str>::from("a"), Arc::<str>::from("b"));
        let (of_a, of_b) = (Lineage::default(), Lineage::default());
        assert!(!freshness.is_stale(|| panic!("the clock is not asked without a bound")));
        freshness.configure(bounds(&[("a", 10, &of_a), ("b", 20, &of_b)]).into_iter());
        assert!(freshness.is_stale(|| 0), "never asked");
        freshness.contact(&a, &of_a, 1_000);
        assert!(freshness.is_stale(|| 1_000), "b was never asked");
        freshness.contact(&b, &of_b, 5_000);
        freshness.contact(&"unbounded".into(), &of_b, 0);
        assert!(!freshness.is_stale(|| 10_999));
        assert!(freshness.is_stale(|| 11_000));
        assert!(freshness.is_bundle_stale("a", 11_000));
        assert!(!freshness.is_bundle_stale("b", 11_000));
        assert!(!freshness.is_bundle_stale("unbounded", 11_000));
        freshness.contact(&a, &of_a, 11_000);
        assert!(!freshness.is_stale(|| 20_999));
        freshness.configure(std::iter::empty());
        assert!(!freshness.is_stale(|| 1 << 40));
    }

    #[test]
    fn what_another_source_says_refreshes_nothing_until_its_bundle_is_served() {
        let freshness = Freshness::default();
        let name = Arc::<str>::from("a");
        let (old, new) = (Lineage::default(), Lineage::default());
        freshness.configure(bounds(&[("a", 10, &old)]).into_iter());
        freshness.contact(&name, &old, 0);
        freshness.contact(&name, &new, 9_000);
        assert!(freshness.is_stale(|| 10_000), "the old one is still served");
        freshness.configure(bounds(&[("a", 10, &new)]).into_iter());
        assert!(!freshness.is_stale(|| 18_999));
        assert!(freshness.is_stale(|| 19_000));
    }

    #[test]
    fn a_bound_that_comes_later_counts_from_the_contacts_before() {
        let freshness = Freshness::default();
        let (name, lineage) = (Arc::<str>::from("a"), Lineage::default());
        freshness.contact(&name, &lineage, 1_000);
        for _ in 0..2 {
            freshness.configure(bounds(&[("a", 10, &lineage)]).into_iter());
            assert!(!freshness.is_stale(|| 10_999));
            assert!(freshness.is_stale(|| 11_000));
            freshness.configure(std::iter::empty());
        }
    }
}
