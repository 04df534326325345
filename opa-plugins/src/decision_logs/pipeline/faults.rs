//! Outputs that panic, want to be left alone for ever, or are dead, and what of it others feel.

use std::collections::VecDeque;

use super::super::output::{Batch, Output, OutputError, OutputFuture};
use super::super::{Audit, WhenFull};
use super::tests::{LONG, Moody, app, event, of, pipeline, route, terms};
use super::*;

/// What an output does with a batch.
#[derive(Clone, Debug)]
enum Mood {
    PanicsAtOnce,
    PanicsLater,
    WantsAPause(Duration),
}

/// Has its moods one after the other, and takes what comes then; in the last one it stays.
struct Moods(Mutex<VecDeque<Mood>>, Arc<Moody>);

impl Output for Moods {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
        let mood = {
            let mut moods = self.0.lock();
            match moods.front().cloned() {
                Some(mood @ Mood::WantsAPause(_)) => Some(mood),
                _ => moods.pop_front(),
            }
        };
        assert!(
            !matches!(mood, Some(Mood::PanicsAtOnce)),
            "the output's fault"
        );
        Box::pin(async move {
            match mood {
                Some(Mood::WantsAPause(pause)) => {
                    let mut error = OutputError::new("later");
                    error.retry_after = Some(pause);
                    return Err(error);
                }
                Some(_) => panic!("the output's fault"),
                None => self.1.take(batch),
            }
            Ok(())
        })
    }
}

fn moods(moody: &Arc<Moody>, moods: impl IntoIterator<Item = Mood>) -> Route {
    let mut route = route("x", moody, None);
    if let Transport::Output { output, .. } = &mut route.transport {
        let moods = Mutex::new(moods.into_iter().collect());
        *output = Arc::new(Moods(moods, Arc::clone(moody)));
    }
    route
}

#[tokio::test(start_paused = true)]
async fn an_output_that_wants_to_be_left_alone_for_ever_is_no_matter_of_others() {
    let pipeline = pipeline();
    let start = |name, route| {
        let terms = terms(WhenFull::DropOldest, Audit::Off);
        pipeline.sink(&app(name), vec![route], terms).unwrap()
    };
    let mute = Moody::new(1, false);
    let mute = start("b", moods(&mute, [Mood::WantsAPause(Duration::MAX)]));
    mute.record(event(0));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let moody = Moody::new(1, false);
    let sink = start("a", route("x", &moody, None));
    (0..20).for_each(|id| sink.record(event(id)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(moody.taken().len(), 20, "{:?}", of(&pipeline, "x"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_an_output_loses_nothing() {
    let pipeline = pipeline();
    let moody = Moody::new(1, false);
    let faults = [Mood::PanicsAtOnce, Mood::PanicsLater, Mood::PanicsAtOnce];
    let terms = terms(WhenFull::DropOldest, Audit::Off);
    let sink = pipeline.sink(&app("a"), vec![moods(&moody, faults)], terms);
    let sink = sink.unwrap();
    (0..20).for_each(|id| sink.record(event(id)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let counts = of(&pipeline, "x");
    assert_eq!((counts.delivered, counts.lost()), (20, 0), "{counts:?}");
    let numbers = moody.taken();
    let numbers = numbers.iter().map(|id| id.parse::<u64>().unwrap());
    assert!(numbers.eq(0..20));
}

#[tokio::test(start_paused = true)]
async fn a_closed_app_is_given_up_in_time_whatever_its_receiver_wants() {
    let pipeline = pipeline();
    let moody = Moody::new(1, false);
    let mute = [Mood::WantsAPause(Duration::from_secs(3600))];
    let terms = terms(WhenFull::DropOldest, Audit::Off);
    let sink = pipeline.sink(&app("a"), vec![moods(&moody, mute)], terms);
    let sink = sink.unwrap();
    (0..3).for_each(|id| sink.record(event(id)));
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(sink);
    tokio::time::sleep(Duration::from_secs(590)).await;
    assert_eq!(of(&pipeline, "x").buffered, 3);
    tokio::time::sleep(Duration::from_secs(20)).await;
    let counts = of(&pipeline, "x");
    assert_eq!((counts.not_delivered, counts.buffered), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn many_apps_with_an_event_each_lose_nothing_to_one_that_has_many() {
    const APPS: usize = 2_000;
    let pipeline = pipeline();
    // More than the others need, and less than the one has.
    pipeline.set_max_bytes(400 * APPS);
    let moody = Moody::new(1, false);
    let mute = || moods(&moody, [Mood::WantsAPause(LONG)]);
    let terms = || terms(WhenFull::DropOldest, Audit::Off);
    let start = |name: &str| pipeline.sink(&app(name), vec![mute()], terms()).unwrap();
    let noisy = start("a");
    let others: Vec<_> = (0..APPS).map(|id| start(&format!("app-{id}"))).collect();
    for (id, other) in others.iter().enumerate() {
        other.record(event(0));
        (0..5).for_each(|event_of| noisy.record(event((id * 5 + event_of) as u64)));
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (mut noisy_lost, mut decided) = (0, 0);
    for (app, _, counts) in pipeline.shared.counts() {
        decided += counts.decided;
        match app.as_str() {
            "a" => noisy_lost = counts.lost(),
            other => assert_eq!((counts.buffered, counts.lost()), (1, 0), "{other}"),
        }
    }
    assert_eq!(decided, 6 * APPS as u64);
    assert!(noisy_lost > 0);
}

#[tokio::test(start_paused = true)]
async fn receivers_that_hang_leave_others_their_turns() {
    struct Hangs;
    impl Output for Hangs {
        fn deliver<'a>(&'a self, _: &'a Batch) -> OutputFuture<'a> {
            Box::pin(std::future::pending())
        }
    }
    let pipeline = pipeline();
    let moody = Moody::new(1, false);
    let terms = || terms(WhenFull::DropOldest, Audit::Off);
    let mut sinks = Vec::new();
    for id in 0..700 {
        let mut hangs = route(&format!("output-{id}"), &moody, None);
        if let Transport::Output { output, .. } = &mut hangs.transport {
            *output = Arc::new(Hangs);
        }
        let app = app(&format!("app-{id}"));
        sinks.push(pipeline.sink(&app, vec![hangs], terms()).unwrap());
        sinks.last().unwrap().record(event(0));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let sink = pipeline.sink(&app("a"), vec![route("x", &moody, None)], terms());
    let sink = sink.unwrap();
    (0..20).for_each(|id| sink.record(event(id)));
    // A delivery may take a minute.
    tokio::time::sleep(Duration::from_secs(130)).await;
    assert_eq!(moody.taken().len(), 20, "{:?}", of(&pipeline, "x"));
}
