//! Statuses on their way to a service: as those of the real `opa`, and whatever the service does.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use opa_core::bundle::BundleWriter;
use opa_core::engine::Module;
use opa_core::{Manager, Value};
use opa_plugins::status::DecisionLogsStatus;
use serde_json::{Value as Json, json};
use tests::bundle_server::{Answer, BundleServer};
use tests::log_sink::{self, LogSink, Post};
use tests::scripted::Scripted;
use tests::signing::{self, Key};
use tests::statuses::{differences, series, shape};
use tests::{peers, signing::Files};

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(30);

fn bundle(revision: &str, module: &str) -> Vec<u8> {
    BundleWriter::new()
        .revision(revision)
        .roots(["a"])
        .unwrap()
        .module("a/a.rego", module)
        .unwrap()
        .to_vec()
        .unwrap()
}

fn good(revision: &str) -> Answer {
    Answer::Bundle(bundle(revision, "package a\nx := 1"))
}

fn read(post: &Post) -> Json {
    serde_json::from_slice(&post.body).unwrap()
}

/// A step of a sequence: what the server does from there on, and what status tells that it is
/// over.
struct Step {
    name: &'static str,
    answer: Answer,
    is_over: fn(&Json) -> bool,
    /// What is known to differ.
    known: &'static [&'static str],
}

fn at<'a>(status: &'a Json, place: &str) -> Option<&'a str> {
    status.pointer(place).and_then(Json::as_str)
}

fn is_ready(status: &Json) -> bool {
    at(status, "/plugins/bundle/state") == Some("OK") && at(status, "/bundles/b/code").is_none()
}

fn has_http_code(status: &Json, code: u64) -> bool {
    status.pointer("/bundles/b/http_code") == Some(&json!(code))
}

fn failed_without_answer(status: &Json) -> bool {
    at(status, "/bundles/b/code").is_some() && status.pointer("/bundles/b/http_code").is_none()
}

fn config(server: &BundleServer, sink: &LogSink, signing: &str) -> String {
    format!(
        "services: {{control: {{url: '{}'}}, sink: {{url: '{}', \
           credentials: {{bearer: {{token: t0k3n}}}}}}}}\n\
         keys: {{k: {{key: '{}', algorithm: HS256}}}}\n\
         labels: {{team: red}}\n\
         bundles: {{b: {{service: control, resource: b, \
           polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}{signing}}}}}\n\
         status: {{service: sink, partition_name: eu, prometheus: true}}\n",
        server.url(),
        sink.url(),
        signing::SECRET,
    )
}

/// The status that each step ends with, and its request; with the timers of the first one that tells
/// the end: the next poll has others.
async fn statuses(
    steps: &[Step],
    server: &BundleServer,
    sink: &LogSink,
    posts: usize,
) -> Vec<(Post, Json)> {
    let mut last = Vec::new();
    for step in steps {
        server.answer("/b", step.answer.clone());
        let (mut over, mut seen, mut timers) = (0, Json::Null, Json::Null);
        let post = sink.wait(|post| {
            seen = read(post);
            over += usize::from((step.is_over)(&seen));
            if over == 1 && timers.is_null() {
                timers = seen["bundles"]["b"]["metrics"].clone();
            }
            (over == posts).then(|| post.clone())
        });
        let post = tokio::time::timeout(LONG, post).await;
        seen["metrics"].take();
        let post = post.unwrap_or_else(|_| panic!("{}: {seen}", step.name));
        last.push((post.unwrap(), timers));
    }
    last
}

fn headers(post: &Post) -> HashMap<String, String> {
    let headers = post.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let mut headers: HashMap<_, _> = headers.collect();
    // The length is the body's. Our client says what Go's leaves unsaid.
    assert!(headers.remove("content-length").is_some());
    headers.remove("accept");
    headers
}

/// What OPA's `metrics` have and ours have not: the process' own, and what counts posts.
fn is_left_out(family: &str) -> bool {
    family.starts_with("go_")
        || [
            "bundle_loading_duration_ns",
            "http_request_duration_seconds",
        ]
        .contains(&family)
}

async fn compare_sequence(steps: &[Step], signing: &str) {
    let Some(opa) = peers::opa() else { return };
    let sink = LogSink::start().await.unwrap();
    let server = BundleServer::start().await;
    let config = config(&server, &sink, signing);
    let running = opa.serve_until(&config, "/health").await;
    // OPA's series are those of the status before, and each poll posts one.
    let theirs = statuses(steps, &server, &sink, 2).await;
    drop(running);
    sink.take();
    let manager = Manager::builder()
        .config_yaml(&config)
        .engine(Scripted::data())
        .plugin(opa_plugins::status())
        .build()
        .unwrap();
    let _app = manager.app("shop").unwrap();
    let ours = statuses(steps, &server, &sink, 1).await;
    manager.shutdown(LONG).await;
    let mut wrong = Vec::new();
    for ((step, (ours, timers)), (theirs, their_timers)) in steps.iter().zip(&ours).zip(&theirs) {
        assert_eq!((&ours.method, &ours.path), (&theirs.method, &theirs.path));
        assert_eq!(headers(ours), headers(theirs));
        let (mut ours, mut theirs) = (read(ours), read(theirs));
        assert!(their_timers.is_object(), "{}", step.name);
        ours["bundles"]["b"]["metrics"] = timers.clone();
        theirs["bundles"]["b"]["metrics"] = their_timers.clone();
        let (mut told, mut expected) = (series(&ours), series(&theirs));
        expected.retain(|family, _| !is_left_out(family));
        // OPA's discovery is ready a moment after its start, and its series one status later.
        for families in [&mut told, &mut expected] {
            let states = families.get_mut("plugin_status_gauge").unwrap();
            states.1.retain(|labels| !labels.contains("discovery"));
            // OPA has a failure's text where ours has its class.
            if let Some(failures) = families.get_mut("bundle_failed_load_counter") {
                failures.1.clear();
            }
        }
        assert_eq!(told, expected, "{}", step.name);
        assert_eq!(ours["plugins"]["status"], theirs["plugins"]["status"]);
        let found = differences(&shape(ours), &shape(theirs));
        let unknown = |it: &&String| !step.known.iter().any(|known| it.starts_with(known));
        let found = found.iter().filter(unknown);
        wrong.extend(found.map(|it| format!("{}: {it}", step.name)));
    }
    let discovery =
        |posts: &[(Post, Json)]| read(&posts.last().unwrap().0)["plugins"]["discovery"].clone();
    assert_eq!(discovery(&ours), discovery(&theirs));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// For OPA a download succeeds when the bundle was read and verified, for ours when its bytes came.
const UNREAD: &[&str] = &[
    "/bundles/b/last_successful_download",
    "/bundles/b/last_successful_request",
    "/bundles/b/type",
];

#[tokio::test]
async fn a_bundles_life_is_told_of_as_by_opa() {
    let step = |name, answer, is_over| Step {
        name,
        answer,
        is_over,
        known: &[],
    };
    let broken = Answer::Bundle(bundle("r2", "package a\nx := broken"));
    compare_sequence(
        &[
            step("404", Answer::Status(404, ""), |it| has_http_code(it, 404)),
            step("500", Answer::Status(500, ""), |it| has_http_code(it, 500)),
            step("first", good("r1"), |it| {
                is_ready(it) && at(it, "/bundles/b/active_revision") == Some("r1")
            }),
            Step {
                // The scripted engine has one text and no places.
                known: &["/bundles/b/errors"],
                ..step("compile error", broken, |it| {
                    it.pointer("/bundles/b/errors").is_some()
                })
            },
            step("404 after it", Answer::Status(404, ""), |it| {
                has_http_code(it, 404)
            }),
            step("as before", good("r1"), is_ready),
            step("no answer", Answer::Close, failed_without_answer),
            step("another", good("r3"), |it| {
                is_ready(it) && at(it, "/bundles/b/active_revision") == Some("r3")
            }),
        ],
        "",
    )
    .await;
}

#[tokio::test]
async fn signatures_are_told_of_as_by_opa() {
    let Some(opa) = peers::opa() else { return };
    let key = Key::new("HS256");
    let files = Files::from([("a/a.rego".to_owned(), b"package a\nx := 1".to_vec())]);
    let claims = json!({"keyid": "k"});
    let signed = |revision| signing::build(&opa, &files, revision, &key, &claims);
    let mut spoiled = signing::unpack(&signed("r2"));
    spoiled.insert("a/b.rego".to_owned(), b"package a\ny := 1".to_vec());
    let step = |name, answer, is_over| Step {
        name,
        answer,
        is_over,
        known: UNREAD,
    };
    compare_sequence(
        &[
            step("unsigned", good("r0"), failed_without_answer),
            step("signed", Answer::Bundle(signed("r1")), is_ready),
            step(
                "spoiled",
                Answer::Bundle(signing::pack(&spoiled)),
                failed_without_answer,
            ),
            step("signed again", Answer::Bundle(signed("r3")), |it| {
                is_ready(it) && at(it, "/bundles/b/active_revision") == Some("r3")
            }),
        ],
        ", signing: {keyid: k}",
    )
    .await;
}

/// A configuration with a bundle that is asked for every second, and what `status` says.
fn polling(server: &BundleServer, sink: &LogSink, status: &str) -> String {
    format!(
        "services: {{control: {{url: '{}'}}, \
           sink: {{url: '{}', response_header_timeout_seconds: 1}}}}\n\
         bundles: {{b: {{service: control, resource: b, \
           polling: {{min_delay_seconds: 1, max_delay_seconds: 1}}}}}}\n\
         status: {{service: sink{status}}}\n",
        server.url(),
        sink.url(),
    )
}

fn manager(config: &str) -> Manager {
    Manager::builder()
        .config_yaml(config)
        .engine(Scripted::data())
        .plugin(opa_plugins::status())
        .build()
        .unwrap()
}

async fn ready(sink: &LogSink) -> Post {
    let ready = |post: &Post| is_ready(&read(post)).then(|| post.clone());
    sink.wait(ready).await.unwrap()
}

async fn polls(server: &BundleServer, count: usize) {
    let before = server.requests_for("/b").len();
    let polled = async {
        while server.requests_for("/b").len() < before + count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(LONG, polled).await.unwrap();
}

#[tokio::test]
async fn polls_without_news_wait_for_the_heartbeat() {
    let (server, sink) = (BundleServer::start().await, LogSink::start().await.unwrap());
    server.answer("/b", good("r1"));
    let manager = manager(&polling(&server, &sink, ", heartbeat_seconds: 3600"));
    let app = manager.app("shop").unwrap();
    ready(&sink).await;
    polls(&server, 1).await;
    let before = sink.asked();
    polls(&server, 4).await;
    assert_eq!(sink.asked(), before);
    // The last one has the newest times all the same.
    sink.take();
    let asked = app.status().bundles[0].last_request;
    manager.shutdown(LONG).await;
    let posts = sink.take();
    assert_eq!(posts.len(), 1);
    let last = read(&posts[0]);
    assert_eq!(at(&last, "/plugins/bundle/state"), Some("NOT_READY"));
    assert!(asked.is_some());
    let expected = app.status().bundles[0].last_request.unwrap();
    let told = at(&last, "/bundles/b/last_request").unwrap().to_owned();
    let expected = jiff::Timestamp::try_from(expected).unwrap().to_string();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_heartbeat_comes_without_news_and_per_poll_with_each_poll() {
    for status in [", heartbeat_seconds: 1", ", per_poll: true"] {
        let (server, sink) = (BundleServer::start().await, LogSink::start().await.unwrap());
        server.answer("/b", good("r1"));
        let manager = manager(&polling(&server, &sink, status));
        let _app = manager.app("shop").unwrap();
        ready(&sink).await;
        let mut times = BTreeSet::new();
        let four = sink.wait(|post| {
            let time = at(&read(post), "/bundles/b/last_successful_request")?.to_owned();
            times.insert(time);
            (times.len() == 4).then_some(())
        });
        four.await.unwrap();
        manager.shutdown(LONG).await;
    }
}

#[tokio::test]
async fn whatever_the_service_does_it_gets_the_newest_status_in_the_end() {
    use log_sink::Answer as Sink;
    let (server, sink) = (BundleServer::start().await, LogSink::start().await.unwrap());
    server.answer("/b", good("r1"));
    let faults = [
        Sink::Status(500),
        Sink::Reset,
        Sink::Hang,
        Sink::Later(1),
        Sink::Status(404),
        Sink::Reset,
    ];
    sink.script(faults, Sink::Status(200));
    let manager = manager(&polling(&server, &sink, ""));
    let _app = manager.app("shop").unwrap();
    ready(&sink).await;
    assert!(sink.asked() > faults.len());
    sink.script(faults, Sink::Status(200));
    server.answer("/b", good("r2"));
    let is_newest = |post: &Post| {
        let status = read(post);
        (at(&status, "/bundles/b/active_revision") == Some("r2")).then_some(())
    };
    sink.wait(is_newest).await.unwrap();
    manager.shutdown(LONG).await;
}

#[tokio::test]
async fn many_apps_bother_a_service_that_hangs_with_few_requests() {
    use log_sink::Answer as Sink;
    const APPS: usize = 1_000;
    let sink = LogSink::start().await.unwrap();
    sink.script([], Sink::Hang);
    let config = format!(
        "services: {{sink: {{url: '{}', response_header_timeout_seconds: 5}}}}\n\
         bundles: {{}}\nlabels: {{app: '{{{{ .bundlename }}}}'}}\n\
         status: {{service: sink}}\n",
        sink.url(),
    );
    let manager = Manager::builder()
        .config_yaml(&config)
        .in_memory(
            [Module::v1("a.rego", "package a")],
            opa_core::Value::empty_object(),
        )
        .unwrap()
        .engine(Scripted::data())
        .max_apps(APPS)
        .grace(LONG * 10)
        .plugin(opa_plugins::status())
        .build()
        .unwrap();
    let mut apps = Vec::new();
    for number in 0..APPS {
        let app = manager.app(format!("app{number}")).unwrap();
        app.ready(LONG).await.unwrap();
        apps.push(app);
    }
    let few = async {
        while sink.asked() < 16 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, few).await.unwrap();
    assert_eq!(sink.asked(), 16);
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    assert!(tasks < 150, "{tasks} tasks");
    sink.script([], Sink::Status(200));
    let mut told = BTreeSet::new();
    let all = sink.wait(|post| {
        told.extend(at(&read(post), "/labels/app").map(str::to_owned));
        (told.len() == APPS).then_some(())
    });
    all.await.unwrap();
    drop(apps);
    manager.shutdown(LONG).await;
}

#[tokio::test]
async fn an_app_that_goes_says_so() {
    let (server, sink) = (BundleServer::start().await, LogSink::start().await.unwrap());
    server.answer("/b", good("r1"));
    let manager = Manager::builder()
        .config_yaml(&polling(&server, &sink, ""))
        .engine(Scripted::data())
        .grace(Duration::from_millis(10))
        .plugin(opa_plugins::status())
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    let id = at(&read(&ready(&sink).await), "/labels/id")
        .unwrap()
        .to_owned();
    drop(app);
    let is_last = |post: &Post| {
        let status = read(post);
        let gone = at(&status, "/plugins/bundle/state") == Some("NOT_READY");
        (gone && at(&status, "/labels/id") == Some(&id)).then_some(status)
    };
    let last = sink.wait(is_last).await.unwrap();
    assert_eq!(at(&last, "/bundles/b/active_revision"), Some("r1"));
    // There is nothing left to be said.
    let asked = sink.asked();
    manager.shutdown(LONG).await;
    assert_eq!(sink.asked(), asked);
}

#[tokio::test]
async fn decision_logs_are_told_of_as_they_say_themselves() {
    let sink = LogSink::start().await.unwrap();
    let config = format!(
        "services: {{sink: {{url: '{}'}}}}\nbundles: {{}}\ndecision_logs: {{console: true}}\n\
         status: {{service: sink}}\n",
        sink.url(),
    );
    let plugin = opa_plugins::status().with_decision_logs(|app| {
        let mut status = DecisionLogsStatus::default();
        status.message = Some(format!("of {app}"));
        Some(status)
    });
    let uploaded = plugin.upload_listener();
    let manager = Manager::builder()
        .config_yaml(&config)
        .in_memory([], Value::empty_object())
        .unwrap()
        .engine(Scripted::data())
        .plugin(opa_plugins::decision_logs().console_to(std::io::sink()))
        .plugin(plugin)
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    uploaded(app.id());
    let told = |post: &Post| read(post).get("decision_logs").cloned();
    let told = sink.wait(told).await.unwrap();
    assert_eq!(
        told,
        json!({"code": "decision_log_error", "message": "of shop"})
    );
    manager.shutdown(LONG).await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_told_of() {
    let sink = LogSink::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("opa.yaml");
    let write = |labels: &str| {
        let config = format!(
            "services: {{sink: {{url: '{}'}}}}\nbundles: {{}}\nlabels: {{{labels}}}\n\
             status: {{service: sink, heartbeat_seconds: 3600}}\n",
            sink.url()
        );
        std::fs::write(&file, config).unwrap();
    };
    write("l: old");
    let manager = Manager::builder()
        .config_file(&file)
        .in_memory([], Value::empty_object())
        .unwrap()
        .engine(Scripted::data())
        .plugin(opa_plugins::status())
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    let told = |state: &'static str| {
        move |post: &Post| {
            let status = read(post);
            let discovery = status.pointer("/plugins/discovery")?.clone();
            let label = at(&status, "/labels/l")?.to_owned();
            (discovery["state"] == state).then_some((label, discovery))
        }
    };
    let (label, discovery) = sink.wait(told("OK")).await.unwrap();
    assert_eq!((&*label, discovery), ("old", json!({"state": "OK"})));
    // A key of the app's own name, twice.
    write("l: new, '{{ .bundlename }}': a, shop: b");
    assert_eq!(manager.reload().await.unwrap().failed.len(), 1);
    let (label, discovery) = sink.wait(told("WARN")).await.unwrap();
    assert_eq!(label, "old");
    let message = discovery["message"].as_str().unwrap();
    assert!(message.contains("defined twice"), "{message}");
    write("l: newer");
    assert_eq!(manager.reload().await.unwrap().changed.len(), 1);
    let newer = sink.wait(|post| told("OK")(post).filter(|(label, _)| label == "newer"));
    newer.await.unwrap();
    manager.shutdown(LONG).await;
}
