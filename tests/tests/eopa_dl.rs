//! `decision_logs.plugin: eopa_dl`: all of its outputs at once, against real receivers.

use std::io::Read;
use std::time::Duration;

use opa_core::config::ConfigError;
use opa_core::engine::{Module, Outcome};
use opa_core::{App, Manager, Reason, Value};
use opa_plugins::decision_logs::{AppCounts, DecisionLogs, Lines};
use serde_json::Value as Json;
use tests::log_sink::{Answer, LogSink, Post};
use tests::peers::{self, S3_REGION};
use tests::scripted::Scripted;

const LONG: Duration = Duration::from_secs(60);

/// Drops every fifth event and hides `secret` for all; of an output alone hides `user`, or drops
/// odd numbers.
fn engine() -> Scripted {
    Scripted::new(|asked, _| {
        let input = |name: &str| asked.input.at(&["input", name]);
        let number = input("n").and_then(Value::as_i64).unwrap_or_default();
        match asked.path.as_str() {
            "system/log/drop" => Outcome::Value(Value::from(number % 5 == 0)),
            "system/log/mask" => Outcome::Value(Value::array([Value::from("/input/secret")])),
            "audit/drop" => Outcome::Value(Value::from(number % 2 == 1)),
            // It is asked about what is left, else this is no mask.
            "audit/mask" if input("secret").is_some() => Outcome::Value(Value::from(1)),
            "audit/mask" => Outcome::Value(Value::array([Value::from("/input/user")])),
            "a/b" => Outcome::Value(Value::from(true)),
            _ => Outcome::Undefined,
        }
    })
}

struct World {
    manager: Manager,
    app: App,
    counts: Box<dyn Fn(&str) -> AppCounts>,
}

impl World {
    async fn new(plugin: DecisionLogs, config: &str) -> Self {
        Self::try_new(plugin, config).await.unwrap()
    }

    async fn try_new(plugin: DecisionLogs, config: &str) -> Result<Self, ConfigError> {
        let counts = plugin.app_counts();
        let modules = ["system.log", "audit"];
        let modules =
            modules.map(|name| Module::v1(&*format!("{name}.rego"), format!("package {name}")));
        let manager = Manager::builder()
            .config_yaml(config)
            .in_memory(modules, Value::empty_object())
            .unwrap()
            .engine(engine())
            .plugin(plugin)
            .build()?;
        let app = manager.app("shop").unwrap();
        app.ready(LONG).await.unwrap();
        let counts = Box::new(move |output: &str| {
            let counts = counts();
            let found = counts.iter().find(|(_, name, _)| &**name == output);
            let counts = found.map(|(_, _, counts)| *counts).unwrap_or_default();
            let waits = counts.buffered + counts.spooled;
            let sum = counts.delivered + counts.dropped_by_policy + counts.lost() + waits;
            assert_eq!(counts.decided, sum, "{output}: {counts:?}");
            counts
        });
        Ok(Self {
            manager,
            app,
            counts,
        })
    }

    async fn decide_one(&self, number: i64) -> Reason {
        let input = Value::object([(Value::from("n"), Value::from(number))]);
        self.app.decide("a/b", input).await.reason()
    }

    async fn decide(&self, numbers: std::ops::Range<i64>) {
        for number in numbers {
            let input = [
                ("n", Value::from(number)),
                ("user", Value::from("ann")),
                ("secret", Value::from("s3cr3t")),
            ];
            let input = Value::object(input.map(|(name, value)| (Value::from(name), value)));
            self.app.decide("a/b", input).await;
        }
    }

    async fn until(&self, output: &str, done: impl Fn(&AppCounts) -> bool) {
        let waiting = async {
            while !done(&(self.counts)(output)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(LONG, waiting).await;
        waited.unwrap_or_else(|_| panic!("{output}: {:?}", (self.counts)(output)));
    }
}

fn parsed(text: &[u8]) -> Vec<Json> {
    match text.first() {
        Some(b'[') => serde_json::from_slice(text).unwrap(),
        _ => {
            let lines = text.split(|byte| *byte == b'\n');
            lines
                .map(|line| serde_json::from_slice(line).unwrap())
                .collect()
        }
    }
}

fn posted(posts: &[Post]) -> Vec<Json> {
    posts.iter().flat_map(|post| parsed(&post.body)).collect()
}

fn numbers(events: &[Json]) -> Vec<i64> {
    let number = |event: &Json| event["input"]["n"].as_i64().unwrap();
    events.iter().map(number).collect()
}

/// What is left of 0 to 99 for all outputs.
fn kept() -> Vec<i64> {
    (0..100).filter(|number| number % 5 != 0).collect()
}

fn assert_all(events: &[Json], output: &str) {
    assert_eq!(numbers(events), kept(), "{output}");
    for event in events {
        assert_eq!(event["input"]["user"], "ann", "{output}");
        assert!(event["input"].get("secret").is_none(), "{output}: {event}");
        assert_eq!(event["erased"], serde_json::json!(["/input/secret"]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_outputs_at_once_get_what_they_may_see_and_one_that_fails_delays_none() {
    let (kafka, s3) = (peers::kafka(), peers::versitygw());
    let kafka = match &kafka {
        Some(kafka) => Some(kafka.start().await),
        None => None,
    };
    let s3 = match &s3 {
        Some(s3) => Some(s3.start().await),
        None => None,
    };
    let sinks = [(); 4].map(|()| LogSink::start());
    let [control, plain, splunk, dead] = sinks;
    let (control, plain) = (control.await.unwrap(), plain.await.unwrap());
    let (splunk, dead) = (splunk.await.unwrap(), dead.await.unwrap());
    dead.script([], Answer::Status(500));

    let mut outputs = vec![
        "{type: console}".to_owned(),
        "{type: service, service: control, resource: audit/log}".to_owned(),
        format!(
            "{{type: http, url: '{}/in/?a=b', headers: {{X-Own: c}}, mask_decision: audit/mask}}",
            plain.url()
        ),
        format!(
            "{{type: splunk, url: '{}/services/collector', token: t0k3n, drop_decision: audit/drop, \
             batching: {{at_count: 10, at_period: 50ms, compress: true}}}}",
            splunk.url()
        ),
        format!("{{type: http, url: '{}'}}", dead.url()),
    ];
    if let Some(kafka) = &kafka {
        kafka.create_topic("log", 1, &[]).await;
        outputs.push(format!(
            "{{type: kafka, urls: ['{}'], topic: log}}",
            kafka.plain()
        ));
    }
    if let Some(s3) = &s3 {
        let variables = s3.environment();
        let of = |name: &str| variables.iter().find(|(it, _)| *it == name).unwrap().1;
        let common = format!(
            "type: s3, endpoint: 'http://{}', region: {S3_REGION}, bucket: bundles, \
             force_path: true, access_key_id: '{}', access_secret: '{}'",
            s3.address(),
            of("AWS_ACCESS_KEY_ID"),
            of("AWS_SECRET_ACCESS_KEY"),
        );
        let batching = "{at_count: 30, at_period: 50ms, format: array, compress: true}";
        outputs.push(format!("{{{common}, batching: {batching}}}"));
        outputs.push(format!("{{{common}, drop_decision: audit/drop}}"));
    }
    let config = format!(
        "services: {{control: {{url: '{}'}}}}\nbundles: {{}}\n\
         decision_logs: {{plugin: eopa_dl}}\n\
         plugins:\n  eopa_dl:\n    output:\n    - {}\n",
        control.url(),
        outputs.join("\n    - ")
    );
    let lines = Lines::default();
    let plugin = opa_plugins::decision_logs().console_to(lines.clone());
    let world = World::new(plugin, &config).await;
    world.decide(0..100).await;

    let mut names = vec!["console", "service", "http"];
    names.extend(kafka.iter().map(|_| "kafka"));
    names.extend(s3.iter().map(|_| "s3"));
    for name in names {
        let name = format!("eopa_dl.{name}");
        world
            .until(&name, |it| it.delivered == 80 && it.dropped_by_policy == 20)
            .await;
    }
    let halved = |it: &AppCounts| it.delivered == 40 && it.dropped_by_policy == 60;
    world.until("eopa_dl.splunk", halved).await;
    if s3.is_some() {
        world.until("eopa_dl.s3.2", halved).await;
    }
    // All others have all; this one waits.
    let waiting = (world.counts)("eopa_dl.http.2");
    assert_eq!(
        (waiting.delivered, waiting.buffered),
        (0, 80),
        "{waiting:?}"
    );

    let uploads = control.take();
    assert!(uploads.iter().all(|post| post.path == "/audit/log"));
    assert!(
        uploads
            .iter()
            .all(|post| post.headers["content-encoding"] == "gzip")
    );
    assert_all(&posted(&uploads), "service");

    let posts = plain.take();
    assert_eq!(posts.len(), 80);
    assert!(posts.iter().all(|post| post.headers["x-own"] == "c"));
    assert!(
        posts.iter().all(|post| post.path.starts_with("/in/")),
        "{:?}",
        posts[0]
    );
    let own = posted(&posts);
    assert_eq!(numbers(&own), kept());
    for event in &own {
        let erased = serde_json::json!(["/input/secret", "/input/user"]);
        assert_eq!(event["erased"], erased, "{event}");
        assert!(event["input"].get("user").is_none() && event["custom"].is_null());
    }

    let posts = splunk.take();
    assert!(
        posts
            .iter()
            .all(|post| post.headers["authorization"] == "Splunk t0k3n")
    );
    let wrapped = posted(&posts);
    assert!(
        wrapped
            .iter()
            .all(|it| it["time"].as_i64().unwrap() > 1_700_000_000)
    );
    let events: Vec<_> = wrapped.iter().map(|it| it["event"].clone()).collect();
    let even = || kept().into_iter().filter(|number| number % 2 == 0);
    assert_eq!(numbers(&events), even().collect::<Vec<_>>());

    if let Some(kafka) = &kafka {
        let messages = kafka.messages("log").await;
        assert!(messages.iter().all(|message| message.key == "shop"));
        let events: Vec<_> = messages
            .iter()
            .flat_map(|it| parsed(it.value.as_bytes()))
            .collect();
        assert_eq!(events.len(), messages.len());
        assert_all(&events, "kafka");
    }
    if let Some(s3) = &s3 {
        let id = own[0]["labels"]["id"].as_str().unwrap();
        let mut batches = Vec::new();
        for key in s3.keys(&format!("eopa={id}/first_ts=")).await {
            assert!(
                key.contains("/batch_id=") && key.ends_with(".json.gz"),
                "{key}"
            );
            let packed = s3.get(&key.replace('=', "%3D")).await;
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(&*packed)
                .read_to_end(&mut text)
                .unwrap();
            batches.push(parsed(&text));
        }
        assert!(batches.iter().all(|batch| batch.len() <= 30));
        batches.sort_by_key(|batch| numbers(batch)[0]);
        assert_all(&batches.concat(), "s3");
        let single = s3.keys(&format!("eopa={id}/ts=")).await;
        assert_eq!(single.len(), 40);
        assert!(
            single.iter().all(|key| key.contains("/decision_id=")),
            "{single:?}"
        );
    }

    dead.script([], Answer::Status(200));
    world.manager.shutdown(LONG).await;
    assert_all(&posted(&dead.take()), "http.2");
    let console: Vec<Json> = lines
        .take()
        .iter()
        .map(|it| serde_json::from_str(it).unwrap())
        .collect();
    assert_all(&console, "console");
}

fn one(url: &str, options: &str) -> String {
    format!(
        "decision_logs: {{plugin: eopa_dl}}\nplugins:\n  eopa_dl:\n    output: \
         {{type: http, url: '{url}', {options}}}\n"
    )
}

fn silent() -> DecisionLogs {
    opa_plugins::decision_logs().console_to(std::io::sink())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_mean_what_is_configured_and_nothing_that_was_taken_is_sent_again() {
    let sink = LogSink::start().await.unwrap();
    let options = "retry: {period: 1ms, max_attempts: 2, max_backoff: 60ms, drop_on: [400], \
                   successful_on: [409]}";
    let refused = Answer::Status(500);
    // The first is taken; the second in the second try; the third is given up after two; the
    // fourth at once; the fifth counts as taken.
    let answers = [
        Answer::Status(200),
        refused,
        Answer::Status(200),
        refused,
        refused,
        Answer::Status(400),
        Answer::Status(409),
    ];
    sink.script(answers, Answer::Status(200));
    let world = World::new(silent(), &one(&sink.url(), options)).await;
    world.decide(1..5).await;
    world.decide(6..8).await;
    world.manager.shutdown(LONG).await;
    let counts = (world.counts)("eopa_dl.http");
    assert_eq!((counts.delivered, counts.rejected), (4, 2), "{counts:?}");
    assert_eq!(numbers(&posted(&sink.take())), [1, 2, 7]);
    assert_eq!(sink.asked(), 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rate_of_requests_is_limited() {
    let sink = LogSink::start().await.unwrap();
    let options = "rate_limit: {count: 2, interval: 1h}";
    let world = World::new(silent(), &one(&sink.url(), options)).await;
    world.decide(1..5).await;
    world.until("eopa_dl.http", |it| it.buffered > 0).await;
    let waiting = async {
        while sink.asked() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap();
    world.manager.shutdown(Duration::from_millis(200)).await;
    assert_eq!(sink.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buffer_that_is_full_holds_decisions() {
    let sink = LogSink::start().await.unwrap();
    sink.script([], Answer::Status(500));
    let config = format!(
        "decision_logs: {{plugin: eopa_dl}}\nplugins:\n  eopa_dl:\n    buffer: {{max_bytes: 1}}\n    \
         output: {{type: http, url: '{}'}}\n",
        sink.url()
    );
    let world = World::new(silent(), &config).await;
    let refused = async {
        loop {
            let input = Value::object([(Value::from("n"), Value::from(1))]);
            let decided = world.app.decide("a/b", input).await;
            if decided.reason() == Reason::LogUnavailable {
                break;
            }
        }
    };
    tokio::time::timeout(LONG, refused).await.unwrap();
    let counts = (world.counts)("eopa_dl.http");
    assert_eq!(counts.lost(), counts.refused, "{counts:?}");
}

fn buffered(buffer: &str, outputs: &[String], more: &str) -> String {
    format!(
        "decision_logs: {{plugin: eopa_dl{more}}}\nplugins:\n  eopa_dl:\n    buffer: {buffer}\n    \
         output:\n    - {}\n",
        outputs.join("\n    - ")
    )
}

fn http(sink: &LogSink) -> String {
    format!("{{type: http, url: '{}'}}", sink.url())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_buffer_a_decision_takes_effect_when_all_outputs_have_its_event() {
    let (one, other) = (
        LogSink::start().await.unwrap(),
        LogSink::start().await.unwrap(),
    );
    // The third is taken with the third try.
    let answers = [200, 200, 500, 500].map(Answer::Status);
    other.script(answers, Answer::Status(200));
    let lines = Lines::default();
    let plugin = opa_plugins::decision_logs().console_to(lines.clone());
    let outputs = [
        "{type: console}".to_owned(),
        http(&one),
        format!(
            "{{type: http, url: '{}', batching: {{at_count: 10, at_period: 20ms}}}}",
            other.url()
        ),
    ];
    let config = buffered(
        "{type: unbuffered}",
        &outputs,
        ", when_full: hold, hold_deadline_ms: 30000",
    );
    let world = World::new(plugin, &config).await;
    for number in [1, 2, 3, 4, 6] {
        assert_eq!(world.decide_one(number).await, Reason::Decided);
        // No waiting: it is there.
        assert_eq!(numbers(&posted(&one.take())), [number]);
        assert_eq!(numbers(&posted(&other.take())), [number]);
        let console: Vec<Json> = lines
            .take()
            .iter()
            .map(|it| serde_json::from_str(it).unwrap())
            .collect();
        assert_eq!(numbers(&console), [number]);
    }
    assert_eq!(other.asked(), 7);
    // What a policy drops is waited for by nobody.
    assert_eq!(world.decide_one(5).await, Reason::Decided);
    assert_eq!(one.asked(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_buffer_an_output_that_is_dead_refuses_decisions_until_it_is_back() {
    let (alive, dead) = (
        LogSink::start().await.unwrap(),
        LogSink::start().await.unwrap(),
    );
    for death in [Answer::Status(500), Answer::Hang, Answer::Reset] {
        dead.script([], death);
        let options = ", when_full: hold, hold_deadline_ms: 100";
        let config = buffered("{type: unbuffered}", &[http(&alive), http(&dead)], options);
        let world = World::new(silent(), &config).await;
        assert_eq!(
            world.decide_one(1).await,
            Reason::LogUnavailable,
            "{death:?}"
        );
        if death != Answer::Hang {
            dead.script([], Answer::Status(200));
            let decided = async { while world.decide_one(2).await != Reason::Decided {} };
            tokio::time::timeout(LONG, decided).await.unwrap();
            // That of the decision that was refused is there as well.
            assert_eq!(numbers(&posted(&dead.take()))[..2], [1, 2]);
        }
        world.manager.shutdown(Duration::from_millis(200)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_buffer_an_event_that_an_output_refuses_refuses_its_decision() {
    let sink = LogSink::start().await.unwrap();
    sink.script([Answer::Status(400)], Answer::Status(200));
    let output = format!(
        "{{type: http, url: '{}', retry: {{drop_on: [400]}}}}",
        sink.url()
    );
    let config = buffered("{type: unbuffered}", &[output], "");
    let world = World::new(silent(), &config).await;
    assert_eq!(world.decide_one(1).await, Reason::LogUnavailable);
    assert_eq!(world.decide_one(2).await, Reason::Decided);
    let counts = (world.counts)("eopa_dl.http");
    assert_eq!((counts.delivered, counts.rejected), (1, 1), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_buffer_decisions_at_once_are_all_waited_for() {
    let sink = LogSink::start().await.unwrap();
    let config = buffered(
        "{type: unbuffered}",
        &[http(&sink)],
        ", when_full: hold, hold_deadline_ms: 30000",
    );
    let world = World::new(silent(), &config).await;
    let all = (0..200).map(|number| world.decide_one(number * 5 + 1));
    let reasons = futures_util::future::join_all(all).await;
    assert!(reasons.iter().all(|reason| *reason == Reason::Decided));
    assert_eq!(posted(&sink.take()).len(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_buffer_on_the_disk_outlives_the_process_and_is_that_of_its_outputs_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dl.db");
    let (alive, dead) = (
        LogSink::start().await.unwrap(),
        LogSink::start().await.unwrap(),
    );
    dead.script([], Answer::Status(500));
    let buffer = format!("{{type: disk, path: '{}'}}", path.display());
    let config = buffered(&buffer, &[http(&alive), http(&dead)], "");
    let world = World::new(silent(), &config).await;
    for number in [1, 2, 3, 4] {
        assert_eq!(world.decide_one(number).await, Reason::Decided);
        assert_eq!(
            (world.counts)("eopa_dl.http.2").spooled,
            number.unsigned_abs()
        );
    }
    world.manager.shutdown(Duration::from_millis(300)).await;
    assert_eq!(numbers(&posted(&alive.take())), [1, 2, 3, 4]);

    dead.script([], Answer::Status(200));
    let world = World::new(silent(), &config).await;
    world.until("eopa_dl.http.2", |it| it.delivered == 4).await;
    assert_eq!((world.counts)("eopa_dl.http.2").recovered, 4);
    assert_eq!(numbers(&posted(&dead.take())), [1, 2, 3, 4]);
    world.manager.shutdown(LONG).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_contradicts_the_buffer_is_an_error_that_names_it() {
    let sink = LogSink::start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dl.db");
    std::fs::write(&file, "SQLite format 3").unwrap();
    let disk = format!("{{type: disk, path: '{}'}}", file.display());
    for (buffer, more, wanted) in [
        (
            "{type: unbuffered}",
            ", durability: async",
            "decision_logs.durability: `async` contradicts",
        ),
        (
            "{type: unbuffered}",
            ", when_full: drop_oldest",
            "decision_logs.when_full: a log without a buffer",
        ),
        (
            &disk,
            "",
            "can't be used for a spool: a symbolic link, or no directory",
        ),
    ] {
        let config = buffered(buffer, &[http(&sink)], more);
        let error = World::try_new(silent(), &config).await.err().unwrap();
        assert!(error.to_string().contains(wanted), "{error}");
    }
    let error = World::try_new(silent(), &buffered(&disk, &[http(&sink)], "")).await;
    assert_eq!(error.err().unwrap().path(), "plugins.eopa_dl.buffer.path");
    // Nothing is changed.
    assert_eq!(std::fs::read(&file).unwrap(), b"SQLite format 3");
}
