//! How often a source that fails is asked, and a clock of the day that jumps: exactly, under paused
//! time.

use std::time::SystemTime;

use tokio::time::Instant;

use super::*;
use crate::engine::Clock;
use crate::plugin::State;

const SECOND: Duration = Duration::from_secs(1);

/// Paused time stops at whole milliseconds.
const TICK: Duration = Duration::from_millis(2);

/// Ten years.
const DECADE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Never waits for news, and knows when it was asked.
#[derive(Clone)]
struct Timed {
    bytes: Vec<u8>,
    asked: Arc<parking_lot::Mutex<Vec<Instant>>>,
    failing: Arc<parking_lot::Mutex<Option<SourceError>>>,
}

impl Timed {
    fn new(failing: Option<SourceError>) -> Self {
        Self {
            bytes: bundle("1"),
            asked: Arc::default(),
            failing: Arc::new(parking_lot::Mutex::new(failing)),
        }
    }

    fn fail(&self, error: Option<SourceError>) {
        *self.failing.lock() = error;
    }

    /// The pauses between the questions of the next `time`.
    async fn pauses_in(&self, time: Duration) -> Vec<Duration> {
        let before = self.asked.lock().len().saturating_sub(1);
        tokio::time::sleep(time).await;
        let asked = self.asked.lock().split_off(before);
        asked.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

impl Source for Timed {
    fn fetch(&self, _: Fetch) -> SourceFuture<'_> {
        self.asked.lock().push(Instant::now());
        let answer = match self.failing.lock().clone() {
            Some(error) => Err(error),
            None => Ok(SourceAnswer::snapshot(self.bytes.clone().into(), None)),
        };
        Box::pin(std::future::ready(answer))
    }
}

fn manager_of(source: &Timed) -> ManagerBuilder {
    Manager::builder()
        .source("b", source.clone())
        .engine(Scripted::data())
        .blocking_pools()
}

fn busy() -> SourceError {
    SourceError::new("busy").with_http_code(429)
}

#[tokio::test(start_paused = true)]
async fn pauses_before_retries_grow_to_the_interval_and_are_spread() {
    let source = Timed::new(Some(busy()));
    let manager = manager_of(&source).build().unwrap();
    let _app = manager.app("orders").unwrap();
    let pauses = source.pauses_in(600 * SECOND).await;
    let least = Duration::from_millis(50);
    for (failures, pause) in pauses.iter().enumerate() {
        let doubled = Duration::from_millis(100 << failures.min(10));
        let most = doubled.min(SECOND) + TICK;
        assert!((least..=most).contains(pause), "{failures}: {pause:?}");
    }
    // Uniform between them: half a second on average, about 1,140 of them.
    let average = pauses.iter().sum::<Duration>() / u32::try_from(pauses.len()).unwrap();
    let near = Duration::from_millis(475)..Duration::from_millis(575);
    assert!(near.contains(&average), "{average:?}");
}

#[tokio::test(start_paused = true)]
async fn a_servers_own_pause_is_kept_by_those_who_have_a_bundle_and_those_who_have_none() {
    for starts_well in [true, false] {
        let pause = 30 * SECOND;
        let busy = Some(busy().with_retry_after(Some(pause)));
        let source = Timed::new(None);
        let manager = manager_of(&source).build().unwrap();
        if !starts_well {
            source.fail(busy.clone());
        }
        let app = manager.app("orders").unwrap();
        if starts_well {
            app.ready(LONG).await.unwrap();
            source.fail(busy);
        }
        tokio::time::sleep(60 * SECOND).await;
        let pauses = source.pauses_in(600 * SECOND).await;
        assert!(pauses.len() >= 19, "{pauses:?}");
        assert!(
            pauses.iter().all(|it| (pause..=pause + TICK).contains(it)),
            "{pauses:?}"
        );
        let wanted = starts_well.then_some("1");
        assert_eq!(version(&app).await.as_deref(), wanted);
        assert_eq!(app.status().bundles[0].http_code, Some(429));

        source.fail(None);
        tokio::time::sleep(pause + SECOND).await;
        assert_eq!(version(&app).await.as_deref(), Some("1"));
        assert_eq!(app.status().bundles[0].http_code, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_starts_the_backoff_anew() {
    let source = Timed::new(Some(busy()));
    let manager = manager_of(&source).build().unwrap();
    let app = manager.app("orders").unwrap();
    tokio::time::sleep(60 * SECOND).await;
    source.fail(None);
    app.ready(LONG).await.unwrap();
    source.fail(Some(busy()));
    let known = source.asked.lock().len();
    tokio::time::sleep(5 * SECOND).await;
    let asked = source.asked.lock().split_off(known);
    assert!(asked[1] - asked[0] <= Duration::from_millis(100) + TICK);
}

/// A clock of the day that is set by hand; the other one is Tokio's.
#[derive(Clone, Debug)]
struct Set {
    wall: Arc<parking_lot::Mutex<SystemTime>>,
    origin: Instant,
}

impl Set {
    fn new() -> Self {
        let start = SystemTime::UNIX_EPOCH + 5 * DECADE;
        Self {
            wall: Arc::new(parking_lot::Mutex::new(start)),
            origin: Instant::now(),
        }
    }

    fn jump(&self, change: impl FnOnce(SystemTime) -> SystemTime) {
        let mut wall = self.wall.lock();
        *wall = change(*wall);
    }
}

impl Clock for Set {
    fn wall(&self) -> SystemTime {
        *self.wall.lock()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}

/// Ten years to and fro, ten minutes long, while the source answers or fails.
#[tokio::test(start_paused = true)]
async fn a_jump_of_the_clock_changes_timestamps_and_nothing_else() {
    let (source, clock) = (Timed::new(None), Set::new());
    let manager = manager_of(&source).clock(clock.clone()).build().unwrap();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    let labels = app.status().labels;
    for round in 0..60 {
        match round % 4 {
            0 | 3 => clock.jump(|wall| wall + DECADE),
            _ => clock.jump(|wall| wall - DECADE),
        }
        source.fail((round % 3 == 2).then(busy));
        let pauses = source.pauses_in(10 * SECOND).await;
        // The interval is a second, and so is the longest pause before a retry.
        assert!(pauses.iter().all(|it| *it <= SECOND + TICK), "{pauses:?}");
        assert!(pauses.len() >= 9, "{pauses:?}");
        let status = app.status();
        assert_eq!(status.bundles[0].last_request, Some(clock.wall()));
        assert_eq!(status.labels, labels, "the same instance");
        assert_eq!(app.state(), State::Ready);
        assert_eq!(version(&app).await.as_deref(), Some("1"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_try_is_told_by_the_clock_of_the_day_and_made_by_the_other() {
    let pause = 30 * SECOND;
    let source = Timed::new(Some(busy().with_retry_after(Some(pause))));
    let clock = Set::new();
    let manager = manager_of(&source).clock(clock.clone()).build().unwrap();
    let app = manager.app("orders").unwrap();
    for jump in [0, 1, 2] {
        clock.jump(|wall| wall - jump * DECADE);
        let pauses = source.pauses_in(pause + SECOND).await;
        assert!(
            pauses.iter().all(|it| (pause..=pause + TICK).contains(it)),
            "{pauses:?}"
        );
        let State::Failed { retry_at, .. } = app.state() else {
            panic!("{:?}", app.state());
        };
        assert_eq!(retry_at, Some(clock.wall() + pause));
    }
}

/// An unused instance goes by the time that has passed, not by the day.
#[tokio::test(start_paused = true)]
async fn a_jump_of_the_clock_closes_nobody() {
    let (source, clock) = (Timed::new(None), Set::new());
    let manager = manager_of(&source).clock(clock.clone()).build().unwrap();
    let first = manager.app("orders").unwrap();
    first.ready(LONG).await.unwrap();
    let labels = first.status().labels;
    drop(first);
    clock.jump(|wall| wall + DECADE);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(manager.app("orders").unwrap().status().labels, labels);
}

/// Answers the first who asks, and those whom it answered before; hangs for all others until a
/// timeout.
struct HangsForMost {
    taken: std::sync::atomic::AtomicBool,
    /// When it was asked by the one that it answers.
    asked: Arc<parking_lot::Mutex<Vec<Instant>>>,
    hung: Arc<AtomicUsize>,
}

impl Source for HangsForMost {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        let is_first = !self.taken.swap(true, Ordering::Relaxed);
        if is_first || request.etag.is_some() {
            self.asked.lock().push(Instant::now());
        }
        Box::pin(async move {
            if request.etag.is_some() {
                return Ok(SourceAnswer::not_modified());
            }
            if is_first {
                let etag = Some(Arc::from("1"));
                return Ok(SourceAnswer::snapshot(bundle("1").into(), etag));
            }
            tokio::time::sleep(30 * SECOND).await;
            self.hung.fetch_add(1, Ordering::Relaxed);
            Err(SourceError::new("timeout awaiting response headers"))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn those_for_whom_a_server_hangs_leave_room_for_those_that_it_answers() {
    let (asked, hung) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
    let source = HangsForMost {
        taken: false.into(),
        asked: Arc::clone(&asked),
        hung: Arc::clone(&hung),
    };
    let manager = Manager::builder()
        .source("b", source)
        .engine(Scripted::data())
        .blocking_pools()
        .build()
        .unwrap();
    let healthy = manager.app("healthy").unwrap();
    healthy.ready(LONG).await.unwrap();
    let names = (0..40).map(|n| format!("bad-{n}"));
    let bad: Vec<_> = names.map(|name| manager.app(&*name).unwrap()).collect();
    // What was never asked for may still turn out well, and has all of the room.
    tokio::time::sleep(120 * SECOND).await;
    assert!(bad.iter().all(|app| app.status().bundles[0].code.is_some()));
    let (from, hung_before) = (asked.lock().len(), hung.load(Ordering::Relaxed));
    tokio::time::sleep(300 * SECOND).await;
    let questions = asked.lock().split_off(from);
    assert!(questions.len() >= 299, "{}", questions.len());
    for pair in questions.windows(2) {
        assert!(pair[1] - pair[0] <= SECOND + TICK, "{pair:?}");
    }
    // The others go on with half of the room, in turn.
    let retries = hung.load(Ordering::Relaxed) - hung_before;
    assert!((72..=88).contains(&retries), "{retries}");
}

/// Answers what it is told, and remembers which etags it was asked with.
#[derive(Clone, Default)]
struct Told {
    answers: Arc<parking_lot::Mutex<Option<(bool, &'static str)>>>,
    etags: Arc<parking_lot::Mutex<Vec<Option<Arc<str>>>>>,
}

impl Told {
    /// A bundle, or that there is none, with this etag.
    fn answer(&self, is_bundle: bool, etag: &'static str) {
        *self.answers.lock() = Some((is_bundle, etag));
    }

    fn manager(&self) -> Manager {
        let builder = Manager::builder().source("b", self.clone());
        let builder = builder.engine(Scripted::data()).blocking_pools();
        builder.build().unwrap()
    }
}

impl Source for Told {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        self.etags.lock().push(request.etag);
        let (is_bundle, etag) = self.answers.lock().unwrap();
        let mut answer = match is_bundle {
            true => SourceAnswer::snapshot(bundle("1").into(), None),
            false => SourceAnswer::not_modified(),
        };
        answer.etag = Some(etag.into());
        Box::pin(std::future::ready(Ok(answer)))
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_new_for_one_who_has_nothing_is_an_error_that_heals() {
    let source = Told::default();
    source.answer(false, "x");
    let manager = source.manager();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap_err();
    let status = app.status();
    let message = status.bundles[0].message.clone().unwrap_or_default();
    assert!(message.contains("304"), "{message}");
    assert_eq!(status.bundles[0].http_code, Some(304));
    assert!(matches!(app.state(), State::Failed { .. }));
    assert!(source.etags.lock().iter().all(Option::is_none));
    source.answer(true, "x");
    app.ready(LONG).await.unwrap();
    assert_eq!(app.status().bundles[0].message, None);
}

#[tokio::test(start_paused = true)]
async fn an_etag_is_named_for_the_bytes_that_came_with_it_only() {
    let source = Told::default();
    source.answer(true, "1");
    let manager = source.manager();
    let app = manager.app("orders").unwrap();
    app.ready(LONG).await.unwrap();
    source.answer(false, "2");
    tokio::time::sleep(LONG).await;
    let asked = source.etags.lock().clone();
    assert!(asked.len() > 2);
    assert!(asked[1..].iter().all(|etag| etag.as_deref() == Some("1")));
}

/// Waits for news in vain, and fails then; knows when it was asked, and whether to wait.
#[derive(Clone)]
struct CutOff {
    after: Duration,
    asked: Arc<parking_lot::Mutex<Vec<(Instant, bool)>>>,
}

impl Source for CutOff {
    fn fetch(&self, request: Fetch) -> SourceFuture<'_> {
        let waits = request.etag.is_some() && request.wait.is_some();
        self.asked.lock().push((Instant::now(), waits));
        let after = self.after;
        Box::pin(async move {
            if waits {
                tokio::time::sleep(after).await;
                return Err(busy());
            }
            let answer = match request.etag {
                None => SourceAnswer::snapshot(bundle("1").into(), Some("\"1\"".into())),
                Some(_) => SourceAnswer::not_modified(),
            };
            Ok(answer.long_polling(true))
        })
    }
}

/// What was cut off while it waited waits again as soon as it can, but what fails at once would do
/// so without end.
#[tokio::test(start_paused = true)]
async fn a_long_poll_that_was_cut_off_goes_on_after_the_first_success() {
    for (after, at_once) in [(SECOND * 600, true), (SECOND / 2, false)] {
        let source = CutOff {
            after,
            asked: Arc::default(),
        };
        let manager = Manager::builder()
            .source("b", source.clone())
            .engine(Scripted::data())
            .blocking_pools()
            .build()
            .unwrap();
        let _app = manager.app("a").unwrap();
        while source.asked.lock().len() < 4 {
            tokio::time::sleep(TICK).await;
        }
        let asked = source.asked.lock().clone();
        let waits: Vec<_> = asked.iter().map(|(_, waits)| *waits).collect();
        assert_eq!(waits, [false, true, false, true]);
        let pause = asked[3].0 - asked[2].0;
        assert_eq!(pause < SECOND, at_once, "{pause:?}");
    }
}
