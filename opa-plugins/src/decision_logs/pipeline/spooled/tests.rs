//! Events that wait in a spool: every one is accounted for, over restarts, without room, and in order.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opa_core::plugin::{Admission, DecisionSink};

use super::super::super::output::{Batch, Output, OutputError, OutputFuture};
use super::super::super::outputs::{Disk, Storage};
use super::super::super::spool::SpoolConfig;
use super::super::super::{Audit, Durability, WhenFull};
use super::super::tests::{LONG, Moody, Random, app, event, of, pipeline, route, terms};
use super::super::{Pipeline, Route, Transport};

pub(super) const HOLD: WhenFull = WhenFull::Hold {
    deadline: Duration::from_secs(1),
};

pub(super) fn spooled(path: &Path, max_bytes: u64) -> Pipeline {
    let pipeline = pipeline();
    let mut config = SpoolConfig::new(path);
    config.max_bytes = max_bytes;
    pipeline.set_spool(config);
    assert_eq!(pipeline.open_spool(), Ok(true));
    pipeline
}

/// Takes nothing as long as it is dead.
struct Mortal(Arc<AtomicBool>, Arc<Moody>);

impl Output for Mortal {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
        Box::pin(async move {
            if self.0.load(Ordering::Relaxed) {
                return Err(OutputError::new("dead"));
            }
            self.1.take(batch);
            Ok(())
        })
    }
}

pub(super) fn mortal(dead: &Arc<AtomicBool>, moody: &Arc<Moody>) -> Route {
    let mut route = route("x", moody, None);
    if let Transport::Output { output, .. } = &mut route.transport {
        *output = Arc::new(Mortal(Arc::clone(dead), Arc::clone(moody)));
    }
    route
}

pub(super) fn sink(
    pipeline: &Pipeline,
    route: Route,
    when_full: WhenFull,
    durability: Durability,
) -> impl DecisionSink + use<> {
    let mut terms = terms(when_full, Audit::Off);
    terms.durability = durability;
    pipeline.sink(&app("a"), vec![route], terms).unwrap()
}

pub(super) fn numbers(moody: &Moody) -> Vec<u64> {
    let taken = moody.taken();
    taken.iter().map(|id| id.parse().unwrap()).collect()
}

/// Waits until something is so.
pub(super) async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, waiting).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_every_event_is_accounted_for_over_restarts() {
    for seed in 0..12 {
        let random = Random(AtomicU64::new(seed));
        let directory = tempfile::tempdir().unwrap();
        let moody = Moody::new(random.below(1 << 40), true);
        let (mut next, mut spooled_before, mut delivered, mut rejected) = (0, 0, 0, 0);
        for run in 0..4 {
            let pipeline = spooled(directory.path(), 1 << 30);
            let mut sinks = Vec::new();
            let is_last = run == 3;
            moody.moody.store(!is_last, Ordering::Relaxed);
            let first = next;
            for _ in 0..200 {
                if sinks.is_empty() || random.below(50) == 0 {
                    // The configuration changes; the old one goes a bit later, or at once.
                    let route = route("x", &moody, None);
                    let durability = Durability::Async;
                    sinks.push(sink(&pipeline, route, WhenFull::DropOldest, durability));
                    if sinks.len() > 2 {
                        drop(sinks.remove(0));
                    }
                }
                sinks.last().unwrap().record(event(next));
                next += 1;
                if random.below(10) == 0 {
                    let millis = random.below(3_000);
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                    of(&pipeline, "x");
                }
            }
            let deadline = match is_last {
                true => LONG,
                false => Duration::from_secs(random.below(5)),
            };
            // What waits in memory is put into the spool.
            tokio::time::sleep(Duration::from_millis(1)).await;
            pipeline.shutdown(deadline).await;
            let counts = of(&pipeline, "x");
            let context = format!("seed {seed}, run {run}: {counts:?}");
            assert_eq!(counts.recovered, spooled_before, "{context}");
            assert_eq!(counts.decided, next - first + spooled_before, "{context}");
            assert_eq!(counts.buffered, 0, "{context}");
            let lost = counts.rejected + counts.not_delivered;
            assert_eq!(counts.lost(), lost, "{context}");
            spooled_before = counts.spooled;
            delivered += counts.delivered;
            rejected += lost;
        }
        assert_eq!(spooled_before, 0, "seed {seed}");
        assert_eq!(delivered + rejected, next, "seed {seed}");
        let taken = numbers(&moody);
        assert!(taken.len() as u64 >= delivered, "seed {seed}");
        let mut once = taken.clone();
        once.dedup();
        once.sort_unstable();
        once.dedup();
        // A delivery that was cut off at the end is done again.
        assert!(once.len() as u64 >= delivered, "seed {seed}");
        assert!(once.len() as u64 + rejected >= next, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_process_left_is_delivered_first_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let dead = Arc::new(AtomicBool::new(true));
    let moody = Moody::new(1, false);
    {
        let pipeline = spooled(directory.path(), 1 << 30);
        let sink = sink(
            &pipeline,
            mortal(&dead, &moody),
            WhenFull::DropOldest,
            Durability::Async,
        );
        (0..500).for_each(|id| sink.record(event(id)));
        pipeline.shutdown(Duration::from_secs(3)).await;
        let counts = of(&pipeline, "x");
        assert_eq!((counts.spooled, counts.lost()), (500, 0), "{counts:?}");
    }
    dead.store(false, Ordering::Relaxed);
    let pipeline = spooled(directory.path(), 1 << 30);
    // The app isn't there yet.
    tokio::time::sleep(LONG).await;
    let counts = of(&pipeline, "x");
    assert_eq!((counts.decided, counts.spooled), (500, 500), "{counts:?}");
    assert!(pipeline.shared.totals.is_empty());
    let sink = sink(
        &pipeline,
        mortal(&dead, &moody),
        WhenFull::DropOldest,
        Durability::Async,
    );
    (500..600).for_each(|id| sink.record(event(id)));
    pipeline.shutdown(LONG).await;
    let counts = of(&pipeline, "x");
    assert_eq!((counts.delivered, counts.spooled), (600, 0), "{counts:?}");
    assert_eq!(numbers(&moody), (0..600).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn the_present_configuration_delivers_what_others_left() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = spooled(directory.path(), 1 << 30);
    let dead = Arc::new(AtomicBool::new(true));
    let alive = Arc::new(AtomicBool::new(false));
    let (there, here) = (Moody::new(1, false), Moody::new(1, false));
    let start = |route| sink(&pipeline, route, WhenFull::DropOldest, Durability::Async);
    let old = start(mortal(&dead, &there));
    (0..50).for_each(|id| old.record(event(id)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    // One that is given up again, since something else of its configuration is wrong.
    drop(start(mortal(&alive, &there)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(numbers(&there).is_empty());
    let new = start(mortal(&alive, &here));
    (50..60).for_each(|id| new.record(event(id)));
    drop(old);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(numbers(&here), (0..60).collect::<Vec<_>>());
    assert!(numbers(&there).is_empty());
    let counts = of(&pipeline, "x");
    assert_eq!((counts.delivered, counts.spooled), (60, 0), "{counts:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_closed_app_leaves_stays_until_it_comes_again() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = spooled(directory.path(), 1 << 30);
    let dead = Arc::new(AtomicBool::new(true));
    let moody = Moody::new(1, false);
    let start = || {
        let route = mortal(&dead, &moody);
        sink(&pipeline, route, WhenFull::DropOldest, Durability::Async)
    };
    let first = start();
    (0..50).for_each(|id| first.record(event(id)));
    drop(first);
    tokio::time::sleep(LONG).await;
    let counts = of(&pipeline, "x");
    assert_eq!((counts.spooled, counts.lost()), (50, 0), "{counts:?}");
    assert!(pipeline.shared.totals.is_empty(), "nobody waits for it");
    dead.store(false, Ordering::Relaxed);
    let _second = start();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(numbers(&moody), (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_spool_does_what_is_configured() {
    for when_full in [WhenFull::DropOldest, WhenFull::DropNewest, WhenFull::Sample] {
        let directory = tempfile::tempdir().unwrap();
        let pipeline = spooled(directory.path(), 20_000);
        let dead = Arc::new(AtomicBool::new(true));
        let moody = Moody::new(1, false);
        let sink = sink(
            &pipeline,
            mortal(&dead, &moody),
            when_full,
            Durability::Async,
        );
        (0..500).for_each(|id| sink.record(event(id)));
        until(|| of(&pipeline, "x").buffered == 0).await;
        let counts = of(&pipeline, "x");
        assert!(counts.spooled > 20, "{when_full:?} {counts:?}");
        assert!(counts.buffer_full + counts.sampled_out > 100, "{counts:?}");
        dead.store(false, Ordering::Relaxed);
        pipeline.shutdown(LONG).await;
        let counts = of(&pipeline, "x");
        let taken = numbers(&moody);
        assert!(taken.is_sorted());
        assert_eq!(taken.len() as u64, counts.delivered, "{counts:?}");
        assert_eq!(counts.delivered + counts.lost(), 500, "{counts:?}");
        match when_full {
            WhenFull::DropNewest => {
                assert_eq!(taken, (0..counts.delivered).collect::<Vec<_>>());
            }
            WhenFull::DropOldest => assert_eq!(taken.last(), Some(&499)),
            _ => assert!(counts.sampled_out > 300, "{counts:?}"),
        }
    }
}

#[tokio::test]
async fn a_full_spool_holds_or_denies_decisions_until_there_is_room() {
    for (when_full, durability) in [
        (HOLD, Durability::Async),
        (HOLD, Durability::BeforeResponse),
        (WhenFull::Deny, Durability::Async),
        (WhenFull::Deny, Durability::BeforeResponse),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let pipeline = spooled(directory.path(), 20_000);
        let dead = Arc::new(AtomicBool::new(true));
        let moody = Moody::new(1, false);
        let sink = sink(&pipeline, mortal(&dead, &moody), when_full, durability);
        let decide = async |id| match sink.admit(event(id)) {
            Admission::Admitted => true,
            Admission::Refused => false,
            Admission::Waits(waits) => waits.await,
            other => panic!("{other:?}"),
        };
        let mut id = 0;
        while decide(id).await {
            id += 1;
            until(|| of(&pipeline, "x").buffered == 0).await;
        }
        assert!(id > 20);
        let counts = of(&pipeline, "x");
        assert_eq!((counts.refused, counts.lost()), (1, 1), "{counts:?}");
        assert_eq!(counts.spooled, id, "{when_full:?} {counts:?}");
        dead.store(false, Ordering::Relaxed);
        // A delivery is tried again after half a minute at most.
        until(|| of(&pipeline, "x").spooled == 0).await;
        assert!(decide(id + 1).await);
        pipeline.shutdown(LONG).await;
        let mut expected: Vec<_> = (0..id).collect();
        expected.push(id + 1);
        assert_eq!(numbers(&moody), expected);
    }
}

#[tokio::test]
async fn a_response_waits_for_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = spooled(directory.path(), 1 << 30);
    let dead = Arc::new(AtomicBool::new(true));
    let moody = Moody::new(1, false);
    let durability = Durability::BeforeResponse;
    let sink = sink(&pipeline, mortal(&dead, &moody), HOLD, durability);
    let mut waiting = tokio::task::JoinSet::new();
    for id in 0..100 {
        let Admission::Waits(waits) = sink.admit(event(id)) else {
            panic!("it is not on the disk yet");
        };
        waiting.spawn(waits);
    }
    while let Some(admitted) = waiting.join_next().await {
        assert!(admitted.unwrap());
    }
    // As after a crash: what was admitted is in the files.
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let after = spooled(copy.path(), 1 << 30);
    assert_eq!(of(&after, "x").recovered, 100);
}

#[tokio::test]
async fn the_app_that_has_most_gives_way_but_not_one_that_holds() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = spooled(directory.path(), 40_000);
    let dead = Arc::new(AtomicBool::new(true));
    let moody = Moody::new(1, false);
    let start = |name: &str, when_full| {
        let route = mortal(&dead, &moody);
        let terms = terms(when_full, Audit::Off);
        pipeline.sink(&app(name), vec![route], terms).unwrap()
    };
    let counts = |name: &str| {
        let all = pipeline.shared.counts().into_iter();
        let mut of_app = all.filter(|(app, _, _)| app.as_str() == name);
        of_app
            .next()
            .map(|(_, _, counts)| counts)
            .unwrap_or_default()
    };
    let settled = async |name: &str| until(|| counts(name).buffered == 0).await;
    let holds = start("holds", HOLD);
    // More than what the others may have together.
    (0..130).for_each(|id| holds.record(event(id)));
    settled("holds").await;
    let large = start("large", WhenFull::DropOldest);
    (0..300).for_each(|id| large.record(event(id)));
    settled("large").await;
    let small = start("small", WhenFull::DropOldest);
    (0..5).for_each(|id| small.record(event(id)));
    settled("small").await;
    assert_eq!((counts("holds").spooled, counts("holds").lost()), (130, 0));
    assert_eq!((counts("small").spooled, counts("small").lost()), (5, 0));
    let large = counts("large");
    assert!(large.buffer_full > 100, "{large:?}");
    assert!(large.spooled < 130, "{large:?}");
    assert_eq!(large.spooled + large.buffer_full, 300);
}

/// Takes its time.
struct Slow(Arc<Moody>);

impl Output for Slow {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_secs(10)).await;
            self.0.take(batch);
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_waits_for_what_the_old_one_is_delivering() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = spooled(directory.path(), 1 << 30);
    let moody = Moody::new(1, false);
    let mut slow = route("x", &moody, None);
    if let Transport::Output { output, .. } = &mut slow.transport {
        *output = Arc::new(Slow(Arc::clone(&moody)));
    }
    let old = sink(&pipeline, slow, WhenFull::DropOldest, Durability::Async);
    (0..5).for_each(|id| old.record(event(id)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let new = route("x", &moody, None);
    let new = sink(&pipeline, new, WhenFull::DropOldest, Durability::Async);
    (5..20).for_each(|id| new.record(event(id)));
    drop(old);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(numbers(&moody).is_empty());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(numbers(&moody), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_damaged_record_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = spooled(directory.path(), 1 << 30);
    let dead = Arc::new(AtomicBool::new(true));
    let moody = Moody::new(1, false);
    let sink = sink(
        &pipeline,
        mortal(&dead, &moody),
        HOLD,
        Durability::BeforeResponse,
    );
    for id in 0..20 {
        if let Admission::Waits(waits) = sink.admit(event(id)) {
            assert!(waits.await);
        }
    }
    let files = std::fs::read_dir(directory.path()).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    let segment = { paths }.find(|path| path.extension().is_some()).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let text = br#""decision_id":"7""#;
    let at = bytes.windows(text.len()).position(|it| it == text).unwrap();
    bytes[at] = b'\'';
    std::fs::write(&segment, bytes).unwrap();
    dead.store(false, Ordering::Relaxed);
    pipeline.shutdown(LONG).await;
    let counts = of(&pipeline, "x");
    assert_eq!((counts.delivered, counts.damaged), (19, 1), "{counts:?}");
    let expected: Vec<_> = (0..20).filter(|id| *id != 7).collect();
    assert_eq!(numbers(&moody), expected);
}

#[tokio::test]
async fn another_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _first = spooled(directory.path(), 1 << 20);
    let second = pipeline();
    second.set_spool(SpoolConfig::new(directory.path()));
    let path = directory.path().display();
    let error = format!("the spool `{path}` is in use");
    assert_eq!(second.open_spool(), Err(error));
}

fn disk(path: &Path, max_bytes: Option<u64>) -> Disk {
    let path = path.to_owned();
    Disk { path, max_bytes }
}

#[tokio::test]
async fn a_spool_that_a_configuration_wants_is_that_of_its_outputs() {
    let directory = tempfile::tempdir().unwrap();
    let wanted = disk(&directory.path().join("a"), None);
    let pipeline = pipeline();
    assert_eq!(pipeline.open_disk(&wanted), Ok(Some(())));
    assert_eq!(pipeline.open_disk(&wanted), Ok(Some(())));
    // For whoever asks for the program's there is none.
    assert_eq!(pipeline.open_spool(), Ok(false));
    let path = wanted.path.display();
    let error = format!(
        "a process has one spool for all apps, and until it ends: it is at `{path}`, of 1073741824 bytes"
    );
    for other in [
        disk(&directory.path().join("b"), None),
        disk(&wanted.path, Some(5)),
    ] {
        assert_eq!(pipeline.open_disk(&other), Err(error.clone()));
    }
    assert!(!directory.path().join("b").exists());

    let dead = Arc::new(AtomicBool::new(true));
    let moody = Moody::new(1, false);
    let routes = ["default", "disk", "none"].map(|name| {
        let mut route = mortal(&dead, &moody);
        route.name = name.into();
        route.storage = match name {
            "disk" => Storage::Disk(wanted.clone()),
            "none" => Storage::Unbuffered,
            _ => Storage::Default,
        };
        route
    });
    let terms = terms(HOLD, Audit::Off);
    let sink = pipeline.sink(&app("a"), routes.into(), terms).unwrap();
    (0..5).for_each(|id| sink.record(event(id)));
    let waiting = |name| {
        let counts = of(&pipeline, name);
        (counts.buffered, counts.spooled)
    };
    until(|| waiting("disk") == (0, 5)).await;
    assert_eq!((waiting("default"), waiting("none")), ((5, 0), (5, 0)));
}

#[tokio::test]
async fn the_programs_spool_wins() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = spooled(&directory.path().join("a"), 1 << 20);
    let other = disk(&directory.path().join("b"), None);
    assert_eq!(pipeline.open_disk(&other), Ok(None));
    let same = disk(&directory.path().join("a"), Some(1 << 20));
    assert_eq!(pipeline.open_disk(&same), Ok(Some(())));
    assert!(!directory.path().join("b").exists());
}

#[tokio::test]
async fn what_nobody_comes_for_gives_way_in_the_end() {
    for (when_full, absence, admitted) in [
        (HOLD, None, false),
        (HOLD, Some(LONG), false),
        (HOLD, Some(Duration::ZERO), true),
        (WhenFull::DropNewest, Some(Duration::ZERO), true),
        (WhenFull::DropOldest, Some(Duration::ZERO), true),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let (dead, moody) = (Arc::new(AtomicBool::new(true)), Moody::new(1, false));
        let first = spooled(directory.path(), 20_000);
        let gone = sink(&first, mortal(&dead, &moody), HOLD, Durability::Async);
        (0..200).for_each(|id| gone.record(event(id)));
        until(|| of(&first, "x").buffered == 0).await;
        first.shutdown(Duration::from_millis(10)).await;

        let pipeline = pipeline();
        let mut config = SpoolConfig::new(directory.path());
        (config.max_bytes, config.max_absence) = (20_000, absence);
        pipeline.set_spool(config);
        assert_eq!(pipeline.open_spool(), Ok(true));
        let recovered = of(&pipeline, "x").spooled;
        assert!(recovered > 10);
        dead.store(false, Ordering::Relaxed);
        let mut there = mortal(&dead, &moody);
        there.name = "y".into();
        let there = sink(&pipeline, there, when_full, Durability::BeforeResponse);
        let taken = match there.admit(event(1000)) {
            Admission::Waits(waits) => waits.await,
            other => panic!("{other:?}"),
        };
        let (left, new) = (of(&pipeline, "x"), of(&pipeline, "y"));
        assert_eq!(
            taken, admitted,
            "{when_full:?} {absence:?}: {left:?} {new:?}"
        );
        assert_eq!(left.abandoned > 0, admitted, "{left:?}");
        assert_eq!(left.abandoned + left.spooled, recovered, "{left:?}");
        assert_eq!(new.lost() == 0, admitted, "{new:?}");
    }
}
