//! Counts of durations.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// How many durations there were, by how long they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds: &'static [u64],
    counts: Box<[u64]>,
    sum_ns: u64,
}

impl Histogram {
    /// `bounds` are in nanoseconds, and ascend.
    pub(crate) fn new(bounds: &'static [u64]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len() + 1].into(),
            sum_ns: 0,
        }
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let ns = nanoseconds(duration);
        if let Some(count) = self.counts.get_mut(bucket(self.bounds, ns)) {
            *count += 1;
        }
        self.sum_ns = self.sum_ns.saturating_add(ns);
    }

    /// The longest duration that each bucket counts, in nanoseconds; there is one more without an
    /// end.
    #[must_use]
    pub fn bounds_ns(&self) -> &'static [u64] {
        self.bounds
    }

    /// How many durations each bucket has, that without an end last. A duration is in one bucket.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many durations there were.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// All durations together, in nanoseconds.
    #[must_use]
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn bucket(bounds: &[u64], ns: u64) -> usize {
    bounds.partition_point(|bound| *bound < ns)
}

/// The upper bounds of the buckets of decisions' durations, in nanoseconds: 10, 25, 50, 100 and
/// 250 µs, 0.5, 1, 2.5, 10, 50 and 250 ms, 1 and 5 s.
pub(crate) const DECISION_BOUNDS: [u64; 13] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    10_000_000,
    50_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// More than the cores of most machines; threads beyond share a shard.
const SHARDS: usize = 32;

/// A histogram that many threads write to: each to cache lines of its own.
pub(crate) struct Sharded(Box<[Shard]>);

/// Two cache lines of most processors, and a pair that is prefetched together.
#[repr(align(128))]
#[derive(Default)]
struct Shard {
    counts: [AtomicU64; DECISION_BOUNDS.len() + 1],
    sum_ns: AtomicU64,
}

impl Default for Sharded {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Shard::default()).collect())
    }
}

impl Sharded {
    pub(crate) fn record(&self, duration: Duration) {
        let Some(shard) = self.0.get(own_shard()) else {
            return;
        };
        let ns = nanoseconds(duration);
        if let Some(count) = shard.counts.get(bucket(&DECISION_BOUNDS, ns)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        shard.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Histogram {
        let mut all = Histogram::new(&DECISION_BOUNDS);
        for shard in &self.0 {
            for (count, counter) in all.counts.iter_mut().zip(&shard.counts) {
                *count += counter.load(Ordering::Relaxed);
            }
            all.sum_ns = all
                .sum_ns
                .saturating_add(shard.sum_ns.load(Ordering::Relaxed));
        }
        all
    }
}

/// Threads take shards in turn, and keep theirs.
fn own_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    OWN.with(|own| {
        if own.get() == usize::MAX {
            own.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        own.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_duration_counts_up_to_the_bound_that_it_does_not_pass() {
        let mut histogram = Histogram::new(&[10, 20]);
        for ns in [0, 10, 11, 20, 21, u64::MAX] {
            histogram.record(Duration::from_nanos(ns));
        }
        assert_eq!(histogram.counts(), [2, 2, 2]);
        assert_eq!((histogram.total(), histogram.sum_ns()), (6, u64::MAX));
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let sharded = Sharded::default();
        std::thread::scope(|scope| {
            for thread in 0..40 {
                let sharded = &sharded;
                scope.spawn(move || {
                    for _ in 0..100 {
                        sharded.record(Duration::from_micros(thread));
                    }
                });
            }
        });
        let read = sharded.read();
        assert_eq!(read.total(), 4_000);
        assert_eq!(read.sum_ns(), (0..40).sum::<u64>() * 100 * 1_000);
        assert_eq!(read.counts().first(), Some(&1_100));
    }

    /// `cargo test --release -p opa-core --lib histogram -- --ignored --nocapture`
    #[test]
    #[ignore = "measures"]
    fn what_a_recorded_duration_costs() {
        const ROUNDS: u32 = 20_000_000;
        let sharded = Sharded::default();
        for threads in [1, 2] {
            let started = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        for round in 0..ROUNDS {
                            let ns = u64::from(std::hint::black_box(round) % 3_000_000);
                            sharded.record(Duration::from_nanos(ns));
                        }
                    });
                }
            });
            let each = started.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS);
            eprintln!("{threads} threads: {each:.1} ns each");
        }
        assert_eq!(sharded.read().total(), u64::from(ROUNDS) * 3);
    }
}
