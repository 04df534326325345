//! Outputs that are dead, and what others feel of it; configurations that come and go meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use opa_core::plugin::{Admission, DecisionSink};

use super::super::super::{Audit, Durability, WhenFull};
use super::super::tests::{LONG, Moody, Random, app, event, of, route, terms};
use super::super::{AppCounts, Pipeline, Route};
use super::tests::{HOLD, mortal, numbers, sink, spooled, until};

fn named(name: &str, dead: &Arc<AtomicBool>, moody: &Arc<Moody>) -> Route {
    let mut route = mortal(dead, moody);
    route.name = name.into();
    route
}

fn start(
    pipeline: &Pipeline,
    name: &str,
    routes: Vec<Route>,
    when_full: WhenFull,
) -> impl DecisionSink + use<> {
    let terms = terms(when_full, Audit::Off);
    pipeline.sink(&app(name), routes, terms).unwrap()
}

fn counts(pipeline: &Pipeline, name: &str) -> AppCounts {
    let all = pipeline.shared.counts().into_iter();
    let mut of_app = all.filter(|(app, _, _)| app.as_str() == name);
    of_app
        .next()
        .map(|(_, _, counts)| counts)
        .unwrap_or_default()
}

async fn is_admitted(sink: &impl DecisionSink, id: u64) -> bool {
    match sink.admit(event(id)) {
        Admission::Admitted => true,
        Admission::Refused => false,
        Admission::Waits(waits) => waits.await,
        other => panic!("{other:?}"),
    }
}

/// A pipeline whose spool has as much of app `large` as it may, of a receiver that is dead.
async fn occupied(path: &Path, when_full: WhenFull) -> (Pipeline, impl DecisionSink + use<>) {
    let pipeline = spooled(path, 40_000);
    let dead = Arc::new(AtomicBool::new(true));
    let moody = Moody::new(1, false);
    let large = start(&pipeline, "large", vec![mortal(&dead, &moody)], when_full);
    for id in 0..600 {
        large.record(event(id));
        if id % 50 == 49 || when_full.holds() {
            until(|| counts(&pipeline, "large").buffered == 0).await;
        }
    }
    let counts = counts(&pipeline, "large");
    assert!(counts.lost() > 100 && counts.spooled > 50, "{counts:?}");
    (pipeline, large)
}

#[tokio::test]
async fn a_receiver_that_is_dead_takes_no_room_from_the_others() {
    let moods = [
        WhenFull::DropNewest,
        WhenFull::Deny,
        HOLD,
        WhenFull::DropOldest,
    ];
    for (large, small) in moods.iter().flat_map(|it| moods.map(|small| (*it, small))) {
        let directory = tempfile::tempdir().unwrap();
        let (pipeline, _large) = occupied(directory.path(), large).await;
        let context = format!("{large:?} {small:?}");
        let alive = Arc::new(AtomicBool::new(false));
        let moody = Moody::new(1, false);
        let sink = start(&pipeline, "a", vec![mortal(&alive, &moody)], small);
        for id in 0..200 {
            assert!(is_admitted(&sink, id).await, "{context}, {id}");
            if id % 10 == 9 {
                until(|| counts(&pipeline, "a").buffered == 0).await;
                let counts = counts(&pipeline, "a");
                assert_eq!(counts.lost(), 0, "{context}, {id}: {counts:?}");
                until(|| moody.taken().len() as u64 == id + 1).await;
            }
        }
        assert_eq!(numbers(&moody), (0..200).collect::<Vec<_>>(), "{context}");
    }
}

#[tokio::test]
async fn what_rests_gives_way_to_an_app_that_holds() {
    let directory = tempfile::tempdir().unwrap();
    let (pipeline, _large) = occupied(directory.path(), WhenFull::DropOldest).await;
    let dead = Arc::new(AtomicBool::new(true));
    let moody = Moody::new(1, false);
    let sink = start(&pipeline, "a", vec![mortal(&dead, &moody)], WhenFull::Deny);
    for id in 0..40 {
        assert!(is_admitted(&sink, id).await, "{id}");
        until(|| counts(&pipeline, "a").buffered == 0).await;
    }
    assert_eq!(counts(&pipeline, "a").spooled, 40);
    let large = counts(&pipeline, "large");
    assert_eq!(large.spooled + large.buffer_full, 600, "{large:?}");
}

#[tokio::test]
async fn of_two_outputs_one_that_is_dead_is_no_matter_of_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = spooled(directory.path(), 40_000);
    let (dead, alive) = (AtomicBool::new(true), AtomicBool::new(false));
    let (there, here) = (Moody::new(1, false), Moody::new(1, false));
    let routes = vec![
        named("dead", &Arc::new(dead), &there),
        named("alive", &Arc::new(alive), &here),
    ];
    let sink = start(&pipeline, "a", routes, WhenFull::DropOldest);
    for id in 0..600 {
        sink.record(event(id));
        if id % 20 == 19 {
            until(|| here.taken().len() as u64 == id + 1).await;
        }
    }
    assert_eq!(numbers(&here), (0..600).collect::<Vec<_>>());
    until(|| of(&pipeline, "alive").spooled == 0).await;
    let counts = of(&pipeline, "alive");
    assert_eq!((counts.delivered, counts.lost()), (600, 0), "{counts:?}");
    let counts = of(&pipeline, "dead");
    assert_eq!(counts.spooled + counts.buffer_full, 600, "{counts:?}");
    assert!(counts.buffer_full > 0 && there.taken().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_is_only_tried_delivers_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let dead = Arc::new(AtomicBool::new(true));
    let moody = Moody::new(1, false);
    {
        let pipeline = spooled(directory.path(), 1 << 20);
        let sink = sink(
            &pipeline,
            mortal(&dead, &moody),
            WhenFull::DropOldest,
            Durability::Async,
        );
        (0..20).for_each(|id| sink.record(event(id)));
        pipeline.shutdown(Duration::from_secs(3)).await;
        assert_eq!(of(&pipeline, "x").spooled, 20);
    }
    dead.store(false, Ordering::Relaxed);
    let pipeline = spooled(directory.path(), 1 << 20);
    let mut tried = terms(WhenFull::DropOldest, Audit::Off);
    tried.instance = String::new();
    let tried = pipeline.sink(&app("a"), vec![mortal(&dead, &moody)], tried);
    drop(tried.unwrap());
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(moody.taken().is_empty());
    assert_eq!(of(&pipeline, "x").spooled, 20);
    let start = tokio::time::Instant::now();
    pipeline.shutdown(LONG).await;
    assert!(start.elapsed() < Duration::from_secs(60), "nobody waits");
    assert_eq!(of(&pipeline, "x").spooled, 20);
}

#[tokio::test(start_paused = true)]
async fn outputs_come_and_go_while_others_fail_and_nothing_is_lost() {
    for seed in 0..10 {
        let random = Random(AtomicU64::new(seed));
        let directory = tempfile::tempdir().unwrap();
        let outputs = ["x", "y", "z"].map(|name| (name, Moody::new(random.below(1 << 40), true)));
        let mut expected = [Vec::new(), Vec::new(), Vec::new()];
        let mut given_up = [0; 3];
        let mut next = 0;
        for run in 0..3 {
            let pipeline = spooled(directory.path(), 1 << 30);
            let mut present = [true; 3];
            let configure = |present: &[bool; 3]| {
                let routes = outputs.iter().zip(present).filter(|(_, there)| **there);
                let routes = routes.map(|((name, moody), _)| route(name, moody, None));
                start(&pipeline, "a", routes.collect(), WhenFull::DropOldest)
            };
            let mut sink = configure(&present);
            for _ in 0..200 {
                if random.below(20) == 0 {
                    let which = random.below(3) as usize;
                    present[which] = !present[which];
                    // The app may be closed in between, or the old configuration go later.
                    let before = sink;
                    if random.below(2) == 0 {
                        drop(before);
                        sink = configure(&present);
                    } else {
                        sink = configure(&present);
                        drop(before);
                    }
                }
                sink.record(event(next));
                for (expected, _) in expected.iter_mut().zip(present).filter(|(_, it)| *it) {
                    expected.push(next);
                }
                next += 1;
                if random.below(8) == 0 {
                    tokio::time::sleep(Duration::from_millis(random.below(3_000))).await;
                }
                for (name, _) in &outputs {
                    of(&pipeline, name);
                }
            }
            let is_last = run == 2;
            for (_, moody) in &outputs {
                moody.moody.store(!is_last, Ordering::Relaxed);
            }
            if is_last {
                present = [true; 3];
                let before = sink;
                sink = configure(&present);
                drop(before);
            }
            // What waits in memory is put into the spool.
            tokio::time::sleep(Duration::from_millis(50)).await;
            pipeline
                .shutdown(if is_last {
                    LONG
                } else {
                    Duration::from_secs(2)
                })
                .await;
            drop(sink);
            for ((name, _), given_up) in outputs.iter().zip(&mut given_up) {
                let counts = of(&pipeline, name);
                let context = format!("seed {seed}, run {run}, {name}: {counts:?}");
                assert_eq!(counts.buffered, 0, "{context}");
                assert_eq!(counts.lost(), counts.rejected, "{context}");
                assert!(!is_last || counts.spooled == 0, "{context}");
                *given_up += counts.rejected;
            }
        }
        for (((name, moody), expected), given_up) in outputs.iter().zip(expected).zip(given_up) {
            let mut seen = std::collections::HashSet::new();
            let taken = numbers(moody);
            // What was delivered when a run ended is delivered again.
            let once: Vec<_> = taken.into_iter().filter(|id| seen.insert(*id)).collect();
            assert!(once.is_sorted(), "seed {seed} {name}: {once:?}");
            let missing = expected.iter().filter(|id| !seen.contains(id)).count();
            assert!(missing as u64 <= given_up, "seed {seed} {name}");
            let known: std::collections::HashSet<_> = expected.into_iter().collect();
            assert!(seen.is_subset(&known), "seed {seed} {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_decided_before_a_change_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = spooled(directory.path(), 1 << 30);
    let alive = Arc::new(AtomicBool::new(false));
    let moody = Moody::new(1, false);
    let configure = || {
        let route = mortal(&alive, &moody);
        start(&pipeline, "a", vec![route], WhenFull::DropOldest)
    };
    let mut sink = configure();
    for change in 0..5 {
        (0..300).for_each(|id| sink.record(event(change * 300 + id)));
        sink = configure();
    }
    pipeline.shutdown(LONG).await;
    assert_eq!(numbers(&moody), (0..1500).collect::<Vec<_>>());
}

#[tokio::test]
async fn many_apps_with_an_event_each_keep_it_beside_one_that_has_many() {
    for when_full in [WhenFull::DropNewest, WhenFull::Deny, WhenFull::DropOldest] {
        const APPS: usize = 80;
        let directory = tempfile::tempdir().unwrap();
        let pipeline = spooled(directory.path(), 100_000);
        let dead = Arc::new(AtomicBool::new(true));
        let moody = Moody::new(1, false);
        let noisy = start(&pipeline, "large", vec![mortal(&dead, &moody)], when_full);
        let mut others = Vec::new();
        for id in 0..APPS {
            let name = format!("app-{id}");
            let other = start(&pipeline, &name, vec![mortal(&dead, &moody)], when_full);
            for id in 0..10 {
                noisy.record(event(id));
            }
            until(|| counts(&pipeline, "large").buffered == 0).await;
            assert!(is_admitted(&other, 0).await, "{when_full:?} {id}");
            until(|| counts(&pipeline, &name).buffered == 0).await;
            others.push((name, other));
        }
        for (name, _) in &others {
            let counts = counts(&pipeline, name);
            assert_eq!(
                (counts.spooled, counts.lost()),
                (1, 0),
                "{when_full:?} {name}"
            );
        }
        let large = counts(&pipeline, "large");
        assert_eq!(large.spooled + large.lost(), 10 * APPS as u64);
        assert!(large.lost() > 100, "{large:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_takes_no_event_and_no_place_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let pipeline = spooled(directory.path(), 1 << 20);
    let alive = Arc::new(AtomicBool::new(false));
    let moody = Moody::new(1, false);
    let durability = Durability::BeforeResponse;
    let sink = sink(&pipeline, mortal(&alive, &moody), HOLD, durability);
    for id in 0..200 {
        let Admission::Waits(waits) = sink.admit(event(id)) else {
            panic!("it is not on the disk yet");
        };
        if id % 3 == 0 {
            // It was polled once, perhaps.
            let waits = tokio::time::timeout(Duration::ZERO, waits);
            let _ = waits.await;
        } else if id % 3 == 1 {
            assert!(waits.await);
        }
    }
    pipeline.shutdown(LONG).await;
    let counts = of(&pipeline, "x");
    assert_eq!((counts.delivered, counts.lost()), (200, 0), "{counts:?}");
    assert_eq!(numbers(&moody), (0..200).collect::<Vec<_>>());
}
