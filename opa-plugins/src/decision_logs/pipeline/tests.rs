//! The pipeline as a whole, under paused time and outputs that fail in every way.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use opa_core::engine::EntrypointPath;
use opa_core::plugin::{Admission, DeferredInput, Event, EventInput, Labels};
use opa_core::{Reason, Value};

use super::super::output::{Batch, Output, OutputError, OutputFuture};
use super::super::outputs::{Further, Policies, Storage};
use super::super::{Audit, Batching, Durability, Lines, WhenFull};
use super::*;

pub(super) const LONG: Duration = Duration::from_secs(3600);

/// A small generator (SplitMix64).
pub(super) struct Random(pub(super) AtomicU64);

impl Random {
    pub(super) fn below(&self, bound: u64) -> u64 {
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Fails at random while it is `moody`, and keeps what it takes.
pub(super) struct Moody {
    random: Random,
    pub(super) moody: AtomicBool,
    taken: Mutex<Vec<Arc<str>>>,
}

impl Moody {
    pub(super) fn new(seed: u64, moody: bool) -> Arc<Self> {
        Arc::new(Self {
            random: Random(AtomicU64::new(seed)),
            moody: AtomicBool::new(moody),
            taken: Mutex::default(),
        })
    }

    pub(super) fn take(&self, batch: &Batch) {
        let ids = batch.events.iter().map(|it| Arc::clone(&it.decision_id));
        self.taken.lock().extend(ids);
    }

    pub(super) fn taken(&self) -> Vec<Arc<str>> {
        self.taken.lock().clone()
    }
}

struct To(Arc<Moody>);

impl Output for To {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
        Box::pin(async move {
            let mood = match self.0.moody.load(Ordering::Relaxed) {
                true => self.0.random.below(8),
                false => 0,
            };
            let mut error = OutputError::new("not now");
            match mood {
                1 | 2 => return Err(error),
                3 => {
                    error.is_permanent = true;
                    return Err(error);
                }
                4 => std::future::pending().await,
                5 => panic!("the output's fault"),
                6 => {
                    error.retry_after = Some(Duration::from_secs(7));
                    return Err(error);
                }
                7 => tokio::time::sleep(Duration::from_secs(3)).await,
                _ => {}
            }
            self.0.take(batch);
            Ok(())
        })
    }
}

pub(super) fn app(name: &str) -> AppId {
    AppId::new(name).unwrap()
}

pub(super) fn pipeline() -> Pipeline {
    Pipeline::new(Arc::new(Console::new(Box::new(Lines::default()))))
}

pub(super) fn route(name: &str, output: &Arc<Moody>, buffer_bytes: Option<usize>) -> Route {
    let path = |path| EntrypointPath::parse(path).unwrap();
    let batching = Batching {
        at_count: 5,
        at_bytes: 2_000,
        at_period: Duration::from_secs(1),
    };
    Route {
        name: name.into(),
        policies: Policies {
            drop_decision: path("drop"),
            mask_decision: path("mask"),
            then: Further::default(),
        },
        transport: Transport::Output {
            output: Arc::new(To(Arc::clone(output))),
            batching,
            buffer_bytes,
            max_retry: None,
            labels: Labels::new([]),
        },
        storage: Storage::Default,
    }
}

pub(super) fn terms(when_full: WhenFull, audit: Audit) -> Terms {
    Terms {
        when_full,
        durability: Durability::Async,
        audit,
        nd_builtin_cache: false,
        instance: "1".to_owned(),
    }
}

pub(super) fn event(id: u64) -> Event {
    let labels = Labels::new([]);
    let at = SystemTime::UNIX_EPOCH;
    Event::new(app("a"), labels, id.to_string().into(), Reason::Decided, at)
}

struct Panics;

impl DeferredInput for Panics {
    fn build(&self) -> Value {
        panic!("the input's fault")
    }
}

fn counts(pipeline: &Pipeline) -> HashMap<(String, String), AppCounts> {
    let counts = pipeline.shared.counts().into_iter();
    counts
        .map(|(app, output, counts)| {
            let waits = counts.spooled + counts.buffered;
            let sum = counts.delivered + counts.dropped_by_policy + counts.lost() + waits;
            assert_eq!(counts.decided, sum, "{app} {output}: {counts:?}");
            ((app.as_str().to_owned(), output.to_string()), counts)
        })
        .collect()
}

pub(super) fn of(pipeline: &Pipeline, output: &str) -> AppCounts {
    let key = ("a".to_owned(), output.to_owned());
    counts(pipeline).get(&key).copied().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_every_event_is_accounted_for() {
    for seed in 0..40 {
        let random = Random(AtomicU64::new(seed));
        let pipeline = pipeline();
        if seed % 3 == 0 {
            pipeline.set_max_bytes(5_000);
        }
        let mut outputs = Vec::new();
        let mut sinks = Vec::new();
        for name in ["a", "b", "c"] {
            let when_full = match random.below(4) {
                0 => WhenFull::DropOldest,
                1 => WhenFull::DropNewest,
                2 => WhenFull::Sample,
                _ => WhenFull::Hold {
                    deadline: Duration::from_secs(2),
                },
            };
            let routes = ["x", "y"].map(|output| {
                let moody = Moody::new(random.below(1 << 40), true);
                outputs.push((name, output, Arc::clone(&moody)));
                let limit = random.below(3_000) as usize + 300;
                route(output, &moody, (random.below(2) == 0).then_some(limit))
            });
            let terms = terms(when_full, Audit::On);
            sinks.push(pipeline.sink(&app(name), routes.into(), terms).unwrap());
        }
        let mut decided = vec![0; sinks.len()];
        let mut admitted = tokio::task::JoinSet::new();
        for step in 0..600 {
            let which = random.below(3) as usize;
            decided[which] += 1;
            let mut event = event(step);
            if random.below(20) == 0 {
                event.input = EventInput::Deferred(Arc::new(Panics));
            }
            match sinks[which].admit(event) {
                Admission::Waits(waits) if random.below(4) > 0 => {
                    admitted.spawn(waits);
                }
                // Dropped: the client is gone.
                _ => {}
            }
            if random.below(10) == 0 {
                tokio::time::sleep(Duration::from_millis(random.below(3_000))).await;
                counts(&pipeline);
            }
        }
        let is_good = random.below(2) == 0;
        for (_, _, moody) in &outputs {
            moody.moody.store(!is_good, Ordering::Relaxed);
        }
        drop(sinks);
        let deadline = if is_good {
            LONG
        } else {
            Duration::from_secs(random.below(20))
        };
        let start = tokio::time::Instant::now();
        pipeline.shutdown(deadline).await;
        // Else something counts as buffered that isn't there.
        assert!(!is_good || start.elapsed() < LONG / 10, "seed {seed}");
        while admitted.join_next().await.is_some() {}
        let counts = counts(&pipeline);
        for (name, output, moody) in outputs {
            let counts = counts[&(name.to_owned(), output.to_owned())];
            let which = ["a", "b", "c"].iter().position(|it| *it == name).unwrap();
            assert_eq!(counts.decided, decided[which], "seed {seed}");
            assert_eq!(counts.buffered, 0, "seed {seed}: {counts:?}");
            let taken = moody.taken();
            assert_eq!(
                counts.delivered,
                taken.len() as u64,
                "seed {seed}: {counts:?}"
            );
            let numbers: Vec<u64> = taken.iter().map(|id| id.parse().unwrap()).collect();
            assert!(
                numbers.is_sorted(),
                "seed {seed} {name} {output}: {numbers:?}"
            );
        }
        assert!(pipeline.shared.totals.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_waits_for_room_and_is_refused_without() {
    let pipeline = pipeline();
    let moody = Moody::new(1, true);
    // It takes nothing.
    moody.random.0.store(0, Ordering::Relaxed);
    let hold = WhenFull::Hold {
        deadline: Duration::from_secs(1),
    };
    struct Never(Arc<AtomicBool>, Arc<Moody>);
    impl Output for Never {
        fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
            match self.0.load(Ordering::Relaxed) {
                true => Box::pin(async { Err(OutputError::new("not now")) }),
                false => {
                    let ids = batch.events.iter().map(|it| Arc::clone(&it.decision_id));
                    self.1.taken.lock().extend(ids);
                    Box::pin(std::future::ready(Ok(())))
                }
            }
        }
    }
    let dead = Arc::new(AtomicBool::new(true));
    let mut route = route("x", &moody, Some(1_000));
    if let Transport::Output { output, .. } = &mut route.transport {
        *output = Arc::new(Never(Arc::clone(&dead), Arc::clone(&moody)));
    }
    let sink = pipeline.sink(&app("a"), vec![route], terms(hold, Audit::On));
    let sink = sink.unwrap();
    let mut id = 0;
    let waits = loop {
        id += 1;
        match sink.admit(event(id)) {
            // They go where they wait meanwhile.
            Admission::Admitted => tokio::time::sleep(Duration::from_millis(2)).await,
            Admission::Waits(waits) => break waits,
            other => panic!("{other:?}"),
        }
    };
    let start = tokio::time::Instant::now();
    assert!(!waits.await);
    assert_eq!(start.elapsed(), Duration::from_secs(1));
    assert_eq!(of(&pipeline, "x").refused, 1);
    let Admission::Waits(waits) = sink.admit(event(id + 1)) else {
        panic!("there is no room");
    };
    dead.store(false, Ordering::Relaxed);
    let taken = tokio::time::timeout(LONG, waits).await.unwrap();
    // Whether the next try comes within the second is chance; nothing is lost either way.
    pipeline.shutdown(LONG).await;
    let counts = of(&pipeline, "x");
    assert_eq!(counts.delivered, id - 1 + u64::from(taken), "{counts:?}");
    assert_eq!(counts.lost(), 2 - u64::from(taken), "{counts:?}");
    assert!(matches!(sink.admit(event(0)), Admission::Refused));
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_is_delivered_when_the_program_says() {
    let pipeline = pipeline();
    let trigger = pipeline.trigger();
    assert_eq!(trigger.all().await, Ok(()));
    let moody = Moody::new(1, false);
    let terms = terms(WhenFull::DropOldest, Audit::Off);
    let sink = pipeline.sink(&app("a"), vec![route("x", &moody, None)], terms);
    let sink = sink.unwrap();
    for round in 1..=3 {
        let start = tokio::time::Instant::now();
        for id in 0..203 {
            sink.record(event(id));
        }
        trigger.app(&app("a")).await.unwrap();
        assert_eq!(moody.taken().len(), 203 * round);
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "no timer was waited for"
        );
        trigger.all().await.unwrap();
    }
    pipeline.shutdown(LONG).await;
    assert!(trigger.all().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn numbers_have_no_gap_but_for_what_is_lost_and_go_on_after_a_change() {
    struct Keeps(Mutex<Vec<Value>>);
    struct Kept(Arc<Keeps>);
    impl Output for Kept {
        fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
            let events = batch.events.iter();
            let events = events.map(|it| Value::from_json(&it.json).unwrap());
            self.0.0.lock().extend(events);
            Box::pin(std::future::ready(Ok(())))
        }
    }
    let keeps = Arc::new(Keeps(Mutex::default()));
    let pipeline = pipeline();
    let sink = || {
        let mut route = route("x", &Moody::new(1, false), None);
        if let Transport::Output { output, .. } = &mut route.transport {
            *output = Arc::new(Kept(Arc::clone(&keeps)));
        }
        let terms = terms(WhenFull::DropOldest, Audit::Required);
        pipeline.sink(&app("a"), vec![route], terms).unwrap()
    };
    let first = sink();
    (0..50).for_each(|id| first.record(event(id)));
    let second = sink();
    drop(first);
    (50..100).for_each(|id| second.record(event(id)));
    assert!(second.is_available());
    pipeline.shutdown(LONG).await;
    assert!(!second.is_available());
    let mut numbers: Vec<_> = keeps
        .0
        .lock()
        .iter()
        .map(|event| {
            let number = event.at(&["custom", "audit", "sequence"]);
            number.and_then(Value::as_i64).unwrap()
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
}

#[test]
fn the_pipeline_is_over_with_its_runtime() {
    let pipeline = pipeline();
    let moody = Moody::new(1, false);
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(1).enable_all().build().unwrap();
    let sink = {
        let _in = runtime.enter();
        let terms = terms(WhenFull::DropOldest, Audit::Required);
        pipeline
            .sink(&app("a"), vec![route("x", &moody, None)], terms)
            .unwrap()
    };
    sink.record(event(1));
    assert!(sink.is_available());
    drop(runtime);
    assert!(!sink.is_available());
    sink.record(event(2));
    let counts = of(&pipeline, "x");
    assert_eq!((counts.decided, counts.buffered), (2, 0));
    assert!(counts.not_delivered >= 1);
}
