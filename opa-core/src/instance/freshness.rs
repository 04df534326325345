use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use super::ticket::Lineage;

/// How old the bundles of an instance may become (`max_staleness_seconds`). Times are milliseconds
/// of the manager's clock.
#[derive(Default)]
pub(super) struct Freshness(Mutex<Known>);

/// The first moment at which a bundle of a snapshot is too old.
pub(super) struct StaleFrom(AtomicU64);

struct Known {
    /// Of the newest snapshot. Those before don't become fresh by what is told of this one.
    stale_from: Arc<StaleFrom>,
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
        let mut known = self.0.lock();
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
                known.note_other(name, old.lineage, contact_ms, false);
            }
        }
        known.refresh();
    }

    /// The source of a bundle of that lineage said that it is current, or the current one came.
    pub(super) fn contact(&self, name: &Arc<str>, lineage: &Lineage, now_ms: u64) {
        let mut known = self.0.lock();
        match known.bounds.get_mut(name) {
            Some(bound) if bound.lineage == *lineage => {
                bound.contact_ms = bound.contact_ms.max(Some(now_ms));
                known.refresh();
            }
            _ => known.note_other(Arc::clone(name), lineage.clone(), now_ms, true),
        }
    }

    /// What bounds the next snapshot. From here on contacts count for that one only.
    pub(super) fn renew(&self) -> Arc<StaleFrom> {
        let mut known = self.0.lock();
        known.stale_from = Arc::default();
        known.refresh();
        Arc::clone(&known.stale_from)
    }

    #[cfg(test)]
    fn is_stale(&self, now_ms: impl FnOnce() -> u64) -> bool {
        let stale_from = Arc::clone(&self.0.lock().stale_from);
        stale_from.is_passed(now_ms)
    }

    /// Whether this bundle is too old.
    pub(super) fn is_bundle_stale(&self, name: &str, now_ms: u64) -> bool {
        let known = self.0.lock();
        known
            .bounds
            .get(name)
            .is_some_and(|bound| now_ms >= bound.stale_from())
    }
}

impl StaleFrom {
    /// One load, and the clock only where there is a bound.
    pub(super) fn is_passed(&self, now_ms: impl FnOnce() -> u64) -> bool {
        let stale_from = self.0.load(Ordering::Acquire);
        stale_from != NEVER && now_ms() >= stale_from
    }
}

impl Default for StaleFrom {
    /// Whoever was told nothing is too old.
    fn default() -> Self {
        Self(AtomicU64::new(0))
    }
}

impl Known {
    fn refresh(&self) {
        let first = self.bounds.values().map(Bound::stale_from).min();
        let first = first.unwrap_or(NEVER);
        self.stale_from.0.store(first, Ordering::Release);
    }

    /// Notes a contact of what has no bound; the latest one counts, whatever the order in which they
    /// are told. Another lineage gives way if `displaces` says so.
    fn note_other(&mut self, name: Arc<str>, lineage: Lineage, at_ms: u64, displaces: bool) {
        let other = self.others.entry(name);
        let (of, last_ms) = other.or_insert_with(|| (lineage.clone(), at_ms));
        if *of == lineage {
            *last_ms = at_ms.max(*last_ms);
        } else if displaces {
            (*of, *last_ms) = (lineage, at_ms);
        }
    }

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

impl Default for Known {
    fn default() -> Self {
        Self {
            stale_from: Arc::new(StaleFrom(AtomicU64::new(NEVER))),
            bounds: BTreeMap::new(),
            others: BTreeMap::new(),
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

    #[test]
    fn the_last_contact_counts_whatever_the_order_in_which_they_are_told() {
        let freshness = Freshness::default();
        let (name, lineage) = (Arc::<str>::from("a"), Lineage::default());
        let bound = || bounds(&[("a", 10, &lineage)]).into_iter();
        let told = |times: &[u64]| {
            for time in times {
                freshness.contact(&name, &lineage, *time);
            }
        };
        // While it waits for others it is confirmed; when it is served it is told when it came.
        told(&[9_000, 1_000]);
        freshness.configure(bound());
        assert!(!freshness.is_stale(|| 18_999));
        told(&[20_000, 15_000]);
        assert!(!freshness.is_stale(|| 29_999));
        // What was told while it was bounded is not forgotten when it is not.
        freshness.configure(std::iter::empty());
        freshness.configure(bound());
        assert!(!freshness.is_stale(|| 29_999));
        assert!(freshness.is_stale(|| 30_000));
    }

    #[test]
    fn what_makes_the_next_snapshot_fresh_leaves_the_one_before_stale() {
        let freshness = Freshness::default();
        let (name, lineage) = (Arc::<str>::from("a"), Lineage::default());
        freshness.configure(bounds(&[("a", 10, &lineage)]).into_iter());
        let first = freshness.renew();
        freshness.contact(&name, &lineage, 0);
        assert!(!first.is_passed(|| 9_999) && first.is_passed(|| 10_000));
        let second = freshness.renew();
        freshness.contact(&name, &lineage, 10_000);
        assert!(first.is_passed(|| 10_000) && !second.is_passed(|| 10_000));
        assert!(StaleFrom::default().is_passed(|| 0));
    }
}
