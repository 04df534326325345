use std::collections::HashMap;
use std::time::SystemTime;

use bytes::Bytes;
use opa_core::config::Section;
use opa_core::plugin::{BundleStatus, InstanceStatus, State, StatusSink};
use opa_core::{AppId, Value};
use parking_lot::Mutex;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::super::lane::LaneSink;
use super::super::target::{Target, TargetFuture};
use super::super::{DecisionLogsStatus, Plugin, Status, StatusConfig, status};
use super::*;

/// Longer than anything waits here.
const LONG: Duration = Duration::from_secs(3_600);

/// A service in memory.
#[derive(Default)]
struct Service {
    posts: Mutex<Vec<(Instant, Value)>>,
    answers: Mutex<VecDeque<Answer>>,
    takes: Duration,
    active: Mutex<usize>,
    most: Mutex<usize>,
}

enum Answer {
    Refuse(Option<Duration>),
    Hang,
}

impl Target for Service {
    fn url(&self) -> &str {
        "memory:"
    }

    fn post<'a>(&'a self, path: &'a str, body: Bytes) -> TargetFuture<'a> {
        assert_eq!(path, "/status");
        Box::pin(async move {
            self.begin();
            sleep(self.takes).await;
            let answer = self.answers.lock().pop_front();
            if matches!(answer, Some(Answer::Hang)) {
                std::future::pending::<()>().await;
            }
            *self.active.lock() -= 1;
            let body = Value::from_json(&body).unwrap();
            self.posts.lock().push((Instant::now(), body));
            match answer {
                Some(Answer::Refuse(retry_after)) => Err(Refused {
                    problem: "no".to_owned(),
                    retry_after,
                }),
                _ => Ok(()),
            }
        })
    }
}

impl Service {
    fn begin(&self) {
        let mut active = self.active.lock();
        *active += 1;
        let mut most = self.most.lock();
        *most = (*active).max(*most);
    }

    fn take(&self) -> Vec<(Instant, Value)> {
        std::mem::take(&mut *self.posts.lock())
    }

    /// The revisions that were posted since.
    fn revisions(&self) -> Vec<String> {
        let revision = |(_, body): (Instant, Value)| {
            let revision = body.at(&["bundles", "b", "active_revision"]);
            revision.and_then(Value::as_str).unwrap_or("-").to_owned()
        };
        self.take().into_iter().map(revision).collect()
    }
}

fn config(section: &serde_json::Value) -> StatusConfig {
    let section = Section::from_json("status", section);
    let read = StatusConfig::read(&section, &["s"], &[], &mut vec![]);
    read.unwrap().unwrap()
}

/// The sink of an app, as the plugin makes it.
fn sink(
    plugin: &Status,
    service: &Arc<Service>,
    app: &str,
    section: serde_json::Value,
) -> LaneSink {
    plugin.start().unwrap();
    let id = plugin
        .next_lane
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let app = AppId::new(app).unwrap();
    let target: Arc<dyn Target> = Arc::<Service>::clone(service);
    let config = config(&section);
    LaneSink(Arc::new(Lane::new(
        &plugin.shared,
        (id, &app),
        config,
        Some(target),
        true,
    )))
}

/// A status; the times of polls are `polled` seconds.
fn revision(revision: &str, polled: u64) -> InstanceStatus {
    let at = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(polled));
    let mut bundle = BundleStatus::default();
    bundle.name = "b".into();
    bundle.active_revision = Some(revision.into());
    bundle.last_request = at;
    bundle.last_successful_request = at;
    let app = AppId::new("shop").unwrap();
    InstanceStatus::new(app, None, State::Ready, None, vec![bundle])
}

fn closed() -> InstanceStatus {
    let mut status = revision("last", 0);
    status.state = State::Closed;
    status
}

/// A poll that brings nothing new: it begins, and is answered.
fn poll(sink: &LaneSink, name: &str, at: u64) {
    let mut begun = revision(name, at);
    begun.bundles[0].last_successful_request = revision(name, at - 1).bundles[0].last_request;
    sink.update(Arc::new(begun));
    sink.update(Arc::new(revision(name, at)));
}

#[tokio::test(start_paused = true)]
async fn polls_that_change_nothing_are_told_of_by_the_heartbeat() {
    let (plugin, service) = (status(), Arc::default());
    let sink = sink(&plugin, &service, "shop", json!({"heartbeat_seconds": 100}));
    sink.update(Arc::new(revision("r1", 0)));
    sleep(GATHER * 2).await;
    assert_eq!(service.take().len(), 1);
    for second in 1..=1_000 {
        sleep(Duration::from_secs(1)).await;
        poll(&sink, "r1", second);
    }
    let posts = service.take();
    // A wait is 50 to 100 seconds.
    assert!((10..=20).contains(&posts.len()), "{}", posts.len());
    // With the newest times.
    for (_, body) in &posts {
        let last = body.at(&["bundles", "b", "last_request"]);
        assert_ne!(last.and_then(Value::as_str), Some("1970-01-01T00:00:00Z"));
    }
}

#[tokio::test(start_paused = true)]
async fn per_poll_tells_of_every_outcome_once() {
    let (plugin, service) = (status(), Arc::default());
    let section = json!({"per_poll": true, "heartbeat_seconds": 10_000});
    let sink = sink(&plugin, &service, "shop", section);
    sink.update(Arc::new(revision("r1", 0)));
    for second in 1..=20 {
        sleep(Duration::from_secs(5)).await;
        poll(&sink, "r1", second);
    }
    // The same failure again changes not even a time when its outcome is known.
    for second in 21..=30 {
        sleep(Duration::from_secs(5)).await;
        let mut failed = revision("r1", 20);
        failed.bundles[0].code = Some("bundle_error");
        failed.bundles[0].last_request = revision("", second).bundles[0].last_request;
        sink.update(Arc::new(failed.clone()));
        sleep(Duration::from_millis(10)).await;
        sink.update(Arc::new(failed));
    }
    sleep(Duration::from_secs(5)).await;
    assert_eq!(service.take().len(), 31);
}

#[tokio::test(start_paused = true)]
async fn news_are_gathered_and_the_newest_wins() {
    let (plugin, service) = (status(), Arc::default());
    let sink = sink(&plugin, &service, "shop", json!({}));
    for name in ["r1", "r2", "r3"] {
        sink.update(Arc::new(revision(name, 0)));
    }
    sleep(GATHER * 2).await;
    assert_eq!(service.revisions(), ["r3"]);
    let start = Instant::now();
    for count in 0..100 {
        sleep(Duration::from_millis(100)).await;
        sink.update(Arc::new(revision(&format!("x{count}"), 0)));
    }
    sleep(INTERVAL * 2).await;
    let posts = service.take();
    assert!((9..=12).contains(&posts.len()), "{}", posts.len());
    for two in posts.windows(2) {
        assert!(two[1].0 - two[0].0 >= INTERVAL);
    }
    let (_, last) = posts.last().unwrap();
    assert!(start.elapsed() >= INTERVAL * 10);
    let revision = last.at(&["bundles", "b", "active_revision"]);
    assert_eq!(revision.and_then(Value::as_str), Some("x99"));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_tried_again_with_the_newest() {
    let (plugin, service) = (status(), Arc::<Service>::default());
    let refusals = || std::iter::repeat_with(|| Answer::Refuse(None)).take(8);
    service.answers.lock().extend(refusals());
    let sink = sink(&plugin, &service, "shop", json!({"heartbeat_seconds": 5}));
    sink.update(Arc::new(revision("r1", 0)));
    while service.posts.lock().len() < 6 {
        sleep(Duration::from_millis(10)).await;
    }
    sink.update(Arc::new(revision("r2", 0)));
    while service.posts.lock().len() < 9 {
        sleep(Duration::from_millis(10)).await;
    }
    let posts = service.take();
    for (failures, two) in posts.windows(2).enumerate() {
        let wait = two[1].0 - two[0].0;
        let cap = (FIRST_RETRY * 2_u32.pow(failures as u32 + 1)).min(Duration::from_secs(5));
        // The clock has milliseconds.
        let slack = Duration::from_millis(2);
        assert!(
            wait >= LEAST_RETRY && wait <= cap + slack,
            "{failures}: {wait:?}"
        );
    }
    let last = posts[8].1.at(&["bundles", "b", "active_revision"]);
    assert_eq!(last.and_then(Value::as_str), Some("r2"));
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured() {
    let (plugin, service) = (status(), Arc::<Service>::default());
    let wait = Duration::from_secs(1_234);
    service.answers.lock().push_back(Answer::Refuse(Some(wait)));
    let sink = sink(&plugin, &service, "shop", json!({}));
    sink.update(Arc::new(revision("r1", 0)));
    sleep(Duration::from_secs(10)).await;
    // News don't shorten it.
    sink.update(Arc::new(revision("r2", 0)));
    sleep(wait).await;
    let posts = service.take();
    assert_eq!(posts.len(), 2);
    assert!(posts[1].0 - posts[0].0 >= wait);
}

#[tokio::test(start_paused = true)]
async fn a_post_without_an_answer_ends_and_is_tried_again() {
    let (plugin, service) = (status(), Arc::<Service>::default());
    service.answers.lock().push_back(Answer::Hang);
    let sink = sink(&plugin, &service, "shop", json!({}));
    sink.update(Arc::new(revision("r1", 0)));
    sleep(Duration::from_secs(30)).await;
    sink.update(Arc::new(revision("r2", 0)));
    sleep(Duration::from_secs(29)).await;
    assert_eq!(*service.active.lock(), 1, "one is under way, and no other");
    assert_eq!(service.revisions(), [""; 0]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(service.revisions(), ["r2"]);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_goes_sends_its_last_and_leaves_nothing() {
    let (plugin, service) = (status(), Arc::<Service>::default());
    let sink = sink(&plugin, &service, "shop", json!({}));
    let lane = Arc::downgrade(&sink.0);
    sink.update(Arc::new(revision("r1", 0)));
    sleep(Duration::from_secs(5)).await;
    service.take();
    service.answers.lock().push_back(Answer::Refuse(None));
    let start = Instant::now();
    sink.update(Arc::new(closed()));
    drop(sink);
    sleep(Duration::from_secs(5)).await;
    let posts = service.take();
    assert_eq!(posts.len(), 2, "once refused");
    assert!(posts[1].0 - start < Duration::from_secs(1));
    for name in ["bundle", "decision_logs"] {
        let state = posts[1].1.at(&["plugins", name, "state"]);
        assert_eq!(state.and_then(Value::as_str), Some("NOT_READY"), "{name}");
    }
    assert!(lane.upgrade().is_none());
    sleep(LONG).await;
    assert_eq!(service.take().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_last_status_of_a_dead_service_is_given_up() {
    let (plugin, service) = (status(), Arc::<Service>::default());
    let refusals = std::iter::repeat_with(|| Answer::Refuse(None)).take(1_000);
    service.answers.lock().extend(refusals);
    let sink = sink(&plugin, &service, "shop", json!({}));
    let lane = Arc::downgrade(&sink.0);
    sink.update(Arc::new(closed()));
    drop(sink);
    sleep(PATIENCE - Duration::from_secs(1)).await;
    assert!(lane.upgrade().is_some());
    sleep(MAX_RETRY * 2).await;
    assert!(lane.upgrade().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_another_configuration_replaces_is_not_sent_any_more() {
    let (plugin, service) = (status(), Arc::<Service>::default());
    service.answers.lock().push_back(Answer::Hang);
    let old = sink(&plugin, &service, "shop", json!({}));
    old.update(Arc::new(revision("old", 0)));
    sleep(Duration::from_secs(5)).await;
    let new = sink(&plugin, &service, "shop", json!({}));
    let lane = Arc::downgrade(&old.0);
    drop(old);
    new.update(Arc::new(revision("new", 0)));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(service.revisions(), ["new"]);
    assert!(lane.upgrade().is_none());
    plugin.trigger()(&AppId::new("shop").unwrap());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(service.revisions(), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn by_hand_it_is_sent_when_asked_for_only() {
    let (plugin, service) = (status(), Arc::<Service>::default());
    let trigger = plugin.trigger();
    let sink = sink(&plugin, &service, "shop", json!({"trigger": "manual"}));
    let app = AppId::new("shop").unwrap();
    sink.update(Arc::new(revision("r1", 0)));
    sink.update(Arc::new(revision("r2", 0)));
    sleep(LONG).await;
    assert_eq!(service.revisions(), [""; 0]);
    trigger(&app);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(service.revisions(), ["r2"]);
    trigger(&AppId::new("nobody").unwrap());
    sink.update(Arc::new(closed()));
    drop(sink);
    sleep(LONG).await;
    assert_eq!(service.revisions(), [""; 0]);
    trigger(&app);
    sleep(LONG).await;
    assert_eq!(service.revisions(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn uploads_of_decisions_are_told_of_when_they_tell_something() {
    let logs: Arc<Mutex<HashMap<AppId, DecisionLogsStatus>>> = Arc::default();
    let read = Arc::clone(&logs);
    let plugin = status().with_decision_logs(move |app| read.lock().get(app).cloned());
    let uploaded = plugin.upload_listener();
    let service = Arc::<Service>::default();
    let sink = sink(
        &plugin,
        &service,
        "shop",
        json!({"heartbeat_seconds": 100_000}),
    );
    let app = AppId::new("shop").unwrap();
    sink.update(Arc::new(revision("r1", 0)));
    sleep(Duration::from_secs(5)).await;
    let told = || {
        let posts = service.take().into_iter();
        let logs = posts.map(|(_, body)| body.get("decision_logs").map(Value::to_json));
        logs.collect::<Vec<_>>()
    };
    assert_eq!(told(), [None]);
    let failed = |message: Option<&str>| DecisionLogsStatus {
        message: message.map(str::to_owned),
        ..DecisionLogsStatus::default()
    };
    let failure = r#"{"code":"decision_log_error","message":"m"}"#;
    let steps = [
        (None, vec![Some("{}")]),
        (None, vec![]),
        (Some("m"), vec![Some(failure)]),
        (Some("m"), vec![]),
        (None, vec![Some("{}")]),
    ];
    for (message, expected) in steps {
        logs.lock().insert(app.clone(), failed(message));
        uploaded(&app);
        uploaded(&AppId::new("nobody").unwrap());
        sleep(Duration::from_secs(5)).await;
        let expected: Vec<_> = expected
            .into_iter()
            .map(|it| it.map(str::to_owned))
            .collect();
        assert_eq!(told(), expected, "{message:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_apps_have_one_task_few_posts_and_no_common_moment() {
    const APPS: usize = 1_000;
    let plugin = status();
    let service = Arc::new(Service {
        takes: Duration::from_millis(10),
        ..Service::default()
    });
    let sinks: Vec<_> = (0..APPS)
        .map(|app| sink(&plugin, &service, &format!("app{app}"), json!({})))
        .collect();
    for sink in &sinks {
        sink.update(Arc::new(revision("r1", 0)));
    }
    sleep(Duration::from_secs(10)).await;
    assert_eq!(service.take().len(), APPS);
    assert_eq!(*service.most.lock(), POSTS);
    // The driver, and nothing for an app.
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 1);
    let start = Instant::now();
    sleep(Duration::from_secs(120)).await;
    let posts = service.take();
    assert!(posts.len() >= APPS, "{}", posts.len());
    let mut of_seconds = vec![0; 121];
    for (at, _) in &posts {
        of_seconds[at.duration_since(start).as_secs() as usize] += 1;
    }
    // Were they drawn alike, 17 would be the mean.
    let most = of_seconds.iter().max().unwrap();
    assert!(*most < 60, "{of_seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_waits_for_the_last_ones_as_long_as_it_may() {
    let (plugin, service) = (status(), Arc::<Service>::default());
    let sinks: Vec<_> = (0..100)
        .map(|app| sink(&plugin, &service, &format!("app{app}"), json!({})))
        .collect();
    for sink in &sinks {
        sink.update(Arc::new(revision("r1", 0)));
    }
    sleep(Duration::from_secs(10)).await;
    service.take();
    let refusals = std::iter::repeat_with(|| Answer::Refuse(Some(LONG))).take(50);
    service.answers.lock().extend(refusals);
    for sink in &sinks {
        sink.update(Arc::new(closed()));
    }
    drop(sinks);
    let start = Instant::now();
    plugin.shutdown(Duration::from_secs(60)).await;
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(service.take().len(), 150);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_keeps_its_deadline() {
    let (plugin, service) = (status(), Arc::<Service>::default());
    let sink = sink(&plugin, &service, "shop", json!({}));
    service.answers.lock().push_back(Answer::Hang);
    sink.update(Arc::new(closed()));
    let start = Instant::now();
    plugin.shutdown(Duration::from_secs(10)).await;
    assert!(start.elapsed() <= Duration::from_secs(10));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), 0);
}
