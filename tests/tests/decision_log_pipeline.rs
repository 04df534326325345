//! Decision logs on their way to a service that fails in every way: nothing is lost that isn't
//! counted, and the order stays.

use std::time::Duration;

use opa_core::engine::{EvalError, Module, Outcome};
use opa_core::{App, Manager, Value};
use opa_plugins::decision_logs::{AppCounts, DecisionLogs};
use tests::log_sink::{Answer, LogSink};
use tests::scripted::Scripted;

const LONG: Duration = Duration::from_secs(20);

type Counts = Box<dyn Fn(&str) -> AppCounts + Send + Sync>;

fn counts_of(plugin: &DecisionLogs) -> Counts {
    let counts = plugin.app_counts();
    Box::new(move |app| {
        let counts = counts();
        let (app, output) = app.split_once(' ').unwrap_or((app, "service"));
        let found = counts
            .iter()
            .find(|(id, name, _)| id.as_str() == app && &**name == output);
        found.map(|(_, _, counts)| *counts).unwrap_or_default()
    })
}

fn assert_adds_up(counts: &AppCounts) {
    let sum = counts.delivered + counts.dropped_by_policy + counts.lost() + counts.buffered;
    assert_eq!(counts.decided, sum, "{counts:?}");
}

/// Answers its input; the policies on logs by what the decision was about.
fn engine() -> Scripted {
    Scripted::new(|asked, ctx| {
        let about = asked.input.at(&["input", "about"]).and_then(Value::as_str);
        match (asked.path.as_str(), about) {
            ("system/log/drop", Some("nothing")) => Outcome::Value(Value::from(true)),
            ("system/log/drop", Some("drop error")) => {
                Outcome::Error(EvalError::new(EvalError::BUILTIN, "secret"))
            }
            ("system/log/drop", _) => Outcome::Undefined,
            ("system/log/mask", Some("mask")) => {
                Outcome::Value(Value::array([Value::from("/input/secret")]))
            }
            ("system/log/mask", Some("bad mask")) => {
                Outcome::Value(Value::array([Value::from("secret")]))
            }
            ("system/log/mask", Some("mask panic")) => panic!("the policy's fault"),
            ("system/log/mask", Some("mask loop")) => loop {
                if let Err(interrupt) = ctx.step(1_000_000) {
                    return Outcome::Interrupted(interrupt);
                }
            },
            ("system/log/mask", _) => Outcome::Undefined,
            _ => Outcome::Value(asked.input.clone()),
        }
    })
}

async fn start(config: &str, package: &str) -> (Manager, App, Counts) {
    let plugin = opa_plugins::decision_logs().console_to(std::io::sink());
    start_with(plugin, config, package).await
}

async fn start_with(plugin: DecisionLogs, config: &str, package: &str) -> (Manager, App, Counts) {
    let counts = counts_of(&plugin);
    let module = Module::v1("a.rego", format!("package {package}"));
    let manager = Manager::builder()
        .config_yaml(config)
        .in_memory([module], Value::empty_object())
        .unwrap()
        .engine(engine())
        .plugin(plugin)
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    (manager, app, counts)
}

fn config(sink: &LogSink, reporting: &str) -> String {
    format!(
        "services: {{sink: {{url: '{}', response_header_timeout_seconds: 1}}}}\n\
         bundles: {{}}\n\
         decision_logs: {{service: sink, reporting: {{{reporting}}}}}",
        sink.url()
    )
}

/// The events that were uploaded, in their order.
fn events(sink: &LogSink) -> Vec<Value> {
    let mut events = Vec::new();
    for post in sink.take() {
        assert_eq!(post.path, "/logs");
        assert_eq!(post.headers["content-type"], "application/json");
        let chunk = Value::from_json(&post.body).unwrap();
        events.extend(chunk.as_array().unwrap().iter().cloned());
    }
    events
}

fn ids(events: &[Value]) -> Vec<String> {
    let id = |event: &Value| {
        event
            .get("decision_id")
            .unwrap()
            .as_str()
            .unwrap()
            .to_owned()
    };
    events.iter().map(id).collect()
}

async fn decide(app: &App, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        let input = Value::object([(Value::from("n"), Value::from(number as i64))]);
        ids.push(app.decide("a/b", input).await.id().to_owned());
    }
    ids
}

#[tokio::test]
async fn under_faults_all_is_delivered_once_and_in_order() {
    for buffer in ["size", "event"] {
        let sink = LogSink::start().await.unwrap();
        let faults = [
            Answer::Status(500),
            Answer::Reset,
            Answer::Hang,
            Answer::Status(200),
            Answer::Status(302),
            Answer::Later(1),
            Answer::Status(200),
            Answer::Status(404),
        ];
        sink.script(faults, Answer::Status(200));
        let reporting = format!(
            "trigger: immediate, upload_size_limit_bytes: 1000, buffer_type: {buffer}, \
             min_delay_seconds: 1, max_delay_seconds: 1"
        );
        let (manager, app, counts) = start(&config(&sink, &reporting), "a").await;
        let decided = decide(&app, 300).await;
        assert_adds_up(&counts("shop"));
        manager.shutdown(LONG).await;
        assert_eq!(ids(&events(&sink)), decided, "{buffer}");
        let counts = counts("shop");
        assert_adds_up(&counts);
        assert_eq!((counts.delivered, counts.buffered), (300, 0));
    }
}

/// Text that is hard to compress, and the same each time.
fn noise(seed: usize) -> String {
    let mut state = seed as u64 + 1;
    let mut text = String::new();
    for _ in 0..50 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        text += &format!("{:08x}", state >> 32);
    }
    text
}

#[tokio::test]
async fn what_is_due_is_uploaded_whole() {
    let sink = LogSink::start().await.unwrap();
    // About one event fits in a chunk.
    let reporting = "upload_size_limit_bytes: 800, min_delay_seconds: 2, max_delay_seconds: 2";
    let (manager, app, counts) = start(&config(&sink, reporting), "a").await;
    for number in 0..400 {
        app.decide("a/b", Value::from(noise(number))).await;
    }
    let mut uploaded = 0;
    let all = sink.wait(|post| {
        let chunk = Value::from_json(&post.body).unwrap();
        uploaded += chunk.as_array().unwrap().len();
        (uploaded == 400).then_some(())
    });
    // Some chunks every two seconds would take twice as long.
    tokio::time::timeout(LONG, all).await.unwrap().unwrap();
    manager.shutdown(LONG).await;
    assert_eq!(counts("shop").delivered, 400);
}

#[tokio::test]
async fn what_does_not_fit_is_counted_and_the_newest_stays() {
    for limit in [
        "buffer_size_limit_bytes: 3000, upload_size_limit_bytes: 500",
        "buffer_type: event, buffer_size_limit_events: 20",
        "upload_size_limit_bytes: 500, max_decisions_per_second: 5",
    ] {
        let sink = LogSink::start().await.unwrap();
        sink.script([], Answer::Status(500));
        let (manager, app, counts) = start(&config(&sink, limit), "a").await;
        let decided = decide(&app, 300).await;
        while counts("shop").lost() == 0 {
            assert_adds_up(&counts("shop"));
            tokio::task::yield_now().await;
        }
        sink.script([], Answer::Status(200));
        manager.shutdown(LONG).await;
        let counts = counts("shop");
        assert_adds_up(&counts);
        let delivered = ids(&events(&sink));
        assert_eq!(delivered.len() as u64, counts.delivered, "{counts:?}");
        assert_eq!(counts.decided, 300);
        assert!(counts.delivered > 0 && counts.lost() > 0, "{counts:?}");
        let is_rate = limit.contains("per_second");
        assert_eq!(counts.rate_limited > 0, is_rate, "{counts:?}");
        if is_rate {
            assert_eq!(delivered[..5], decided[..5]);
        } else {
            assert_eq!(delivered.last(), decided.last());
            let place = |id| decided.iter().position(|one| one == id).unwrap();
            assert!(delivered.iter().map(place).is_sorted());
        }
    }
}

#[tokio::test]
async fn what_a_dead_service_never_took_is_counted_at_the_end() {
    for dead in [Answer::Status(500), Answer::Hang, Answer::Reset] {
        let sink = LogSink::start().await.unwrap();
        sink.script([], dead);
        let (manager, app, counts) = start(&config(&sink, ""), "a").await;
        decide(&app, 50).await;
        manager.shutdown(Duration::from_secs(2)).await;
        let counts = counts("shop");
        assert_adds_up(&counts);
        assert_eq!((counts.decided, counts.not_delivered), (50, 50));
        assert!(sink.asked() > 0);
        assert_eq!(
            app.decide("a/b", Value::NULL).await.reason(),
            opa_core::Reason::Closed
        );
    }
}

#[tokio::test]
async fn the_process_has_a_bound_and_the_greediest_pays() {
    let dead = LogSink::start().await.unwrap();
    dead.script([], Answer::Status(500));
    let plugin = opa_plugins::decision_logs().buffer_bytes(20_000);
    let limit = "upload_size_limit_bytes: 1000";
    let (manager, greedy, counts) = start_with(plugin, &config(&dead, limit), "a").await;
    let modest = manager.app("modest").unwrap();
    modest.ready(LONG).await.unwrap();
    decide(&modest, 10).await;
    decide(&greedy, 2_000).await;
    while counts("shop").buffer_full == 0 {
        tokio::task::yield_now().await;
    }
    dead.script([], Answer::Status(200));
    manager.shutdown(LONG).await;
    let (greedy, modest) = (counts("shop"), counts("modest"));
    assert_adds_up(&greedy);
    assert!(greedy.buffer_full > 0 && greedy.delivered > 0, "{greedy:?}");
    assert_eq!((modest.decided, modest.delivered), (10, 10));
}

#[tokio::test]
async fn an_app_whose_service_hangs_delays_no_other() {
    let (dead, good) = (
        LogSink::start().await.unwrap(),
        LogSink::start().await.unwrap(),
    );
    dead.script([], Answer::Hang);
    let reporting = "trigger: immediate, upload_size_limit_bytes: 500";
    let (slow_manager, slow, _) = start(&config(&dead, reporting), "a").await;
    let (manager, app, counts) = start(&config(&good, reporting), "a").await;
    decide(&slow, 100).await;
    decide(&app, 100).await;
    manager.shutdown(LONG).await;
    assert_eq!(counts("shop").delivered, 100);
    slow_manager.shutdown(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn what_a_policy_on_logs_says_is_done_and_what_it_fails_to_say_is_withheld() {
    let sink = LogSink::start().await.unwrap();
    let (manager, app, counts) = start(&config(&sink, ""), "system.log").await;
    for about in [
        "all",
        "mask",
        "nothing",
        "drop error",
        "bad mask",
        "mask panic",
        "mask loop",
    ] {
        let members = [("about", about), ("secret", "s3cr3t")];
        let members = members.map(|(name, value)| (Value::from(name), Value::from(value)));
        app.decide("a/b", Value::object(members)).await;
    }
    manager.shutdown(LONG).await;
    let events = events(&sink);
    let counts = counts("shop");
    assert_adds_up(&counts);
    assert_eq!(
        (counts.decided, counts.delivered, counts.dropped_by_policy),
        (7, 6, 1)
    );
    let shown = |event: &Value| {
        let input = event.get("input").map(Value::to_json).unwrap_or_default();
        (
            input.contains("s3cr3t"),
            event
                .at(&["custom", "withheld"])
                .and_then(Value::as_str)
                .map(str::to_owned),
        )
    };
    let shown: Vec<_> = events.iter().map(shown).collect();
    let withheld = |why: &str| (false, Some(why.to_owned()));
    assert_eq!(
        shown,
        [
            (true, None),
            (false, None),
            withheld("the drop policy failed: eval_error"),
            withheld("mask must be slash-prefixed"),
            withheld("the mask policy failed: engine_panic"),
            withheld("the mask policy failed: step_budget"),
        ]
    );
    for event in &events[2..] {
        assert!(!event.to_json().contains("s3cr3t"), "{event}");
    }
    let erased = events[1].get("erased").unwrap().to_json();
    assert_eq!(erased, r#"["/input/secret"]"#);
}

#[tokio::test]
async fn a_rule_of_a_mask_that_an_error_skips_withholds_the_event() {
    let sink = LogSink::start().await.unwrap();
    let mask = Module::v1(
        "mask.rego",
        "package system.log\n\
         mask contains \"/input/secret\" if to_number(input.input.level) > 1",
    );
    let manager = Manager::builder()
        .config_yaml(&config(&sink, ""))
        .in_memory(
            [mask, Module::v1("a.rego", "package a\nb := 1")],
            Value::empty_object(),
        )
        .unwrap()
        .plugin(opa_plugins::decision_logs())
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    for level in ["1", "2", "many"] {
        let members = [("level", level), ("secret", "s3cr3t")];
        let members = members.map(|(name, value)| (Value::from(name), Value::from(value)));
        app.decide("a/b", Value::object(members)).await;
    }
    manager.shutdown(LONG).await;
    let shown = |event: &Value| {
        let why = event.at(&["custom", "withheld"]).and_then(Value::as_str);
        (event.to_json().contains("s3cr3t"), why.map(str::to_owned))
    };
    let why = "the mask policy failed: eval_error".to_owned();
    assert_eq!(
        events(&sink).iter().map(shown).collect::<Vec<_>>(),
        [(true, None), (false, None), (false, Some(why))]
    );
}

#[tokio::test]
async fn the_program_says_when_and_is_told_what_became_of_it() {
    let sink = LogSink::start().await.unwrap();
    let plugin = opa_plugins::decision_logs();
    let (trigger, status) = (plugin.trigger(), plugin.upload_status());
    let (told, mut tellings) = tokio::sync::mpsc::unbounded_channel();
    plugin.on_upload(move |app| told.send(app.clone()).unwrap());
    let reporting = "trigger: manual, upload_size_limit_bytes: 500, buffer_size_limit_bytes: 2000";
    let (manager, app, counts) = start_with(plugin, &config(&sink, reporting), "a").await;
    // Nothing has failed yet.
    let untried = status(app.id()).unwrap();
    assert_eq!((untried.message, untried.http_code), (None, None));
    let decided = decide(&app, 20).await;
    sink.script([Answer::Status(500)], Answer::Status(200));
    let error = trigger.app(app.id()).await.unwrap_err();
    assert!(
        error.message.contains("server replied with HTTP 500"),
        "{error}"
    );
    assert_eq!(
        (&*error.output, error.app.as_ref()),
        ("service", Some(app.id()))
    );
    assert_eq!(tellings.recv().await.as_ref(), Some(app.id()));
    let failed = status(app.id()).unwrap();
    assert_eq!(
        (failed.message, failed.http_code),
        (Some(error.message), Some(500))
    );
    // Nothing but the program starts another one.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(sink.asked(), 1);
    trigger.all().await.unwrap();
    let delivered = ids(&events(&sink));
    let lost = decided.len() - delivered.len();
    assert_eq!(delivered, decided[lost..]);
    let succeeded = status(app.id()).unwrap();
    assert_eq!((&succeeded.message, succeeded.http_code), (&None, None));
    let counter = "decision_logs_dropped_buffer_size_limit_bytes_exceeded";
    let counted = succeeded.counters.get(counter).copied().unwrap_or_default();
    assert_eq!(
        (counted, counts("shop").buffer_full),
        (lost as u64, lost as u64)
    );
    assert!(
        succeeded
            .counters
            .contains_key("enc_uncompressed_limit_scale_up"),
        "{succeeded:?}"
    );
    manager.shutdown(LONG).await;
    assert_adds_up(&counts("shop"));
}

#[tokio::test]
async fn events_are_numbered_for_an_auditor() {
    let sink = LogSink::start().await.unwrap();
    let text = config(&sink, "").replace("decision_logs: {", "decision_logs: {audit: true, ");
    let (manager, app, _) = start(&text, "a").await;
    decide(&app, 30).await;
    manager.shutdown(LONG).await;
    let number = |event: &Value| {
        event
            .at(&["custom", "audit", "sequence"])
            .and_then(Value::as_i64)
    };
    let numbers: Vec<_> = events(&sink).iter().filter_map(number).collect();
    assert_eq!(numbers, (1..=30).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_dropped_when_there_is_no_room_is_as_the_configuration_says() {
    for when_full in ["drop_newest", "sample", "drop_oldest"] {
        let sink = LogSink::start().await.unwrap();
        sink.script([], Answer::Status(500));
        let reporting = "buffer_type: event, buffer_size_limit_events: 50";
        let text = config(&sink, reporting);
        let text = text.replace(
            "decision_logs: {",
            &format!("decision_logs: {{when_full: {when_full}, "),
        );
        let (manager, app, counts) = start(&text, "a").await;
        let decided = decide(&app, 400).await;
        while counts("shop").buffered > 50 {
            tokio::task::yield_now().await;
        }
        sink.script([], Answer::Status(200));
        manager.shutdown(LONG).await;
        let counts = counts("shop");
        assert_adds_up(&counts);
        let delivered = ids(&events(&sink));
        match when_full {
            "drop_newest" => assert_eq!(delivered, decided[..50]),
            "drop_oldest" => assert_eq!(delivered, decided[350..]),
            _ => {
                let place = |id| decided.iter().position(|one| one == id).unwrap();
                let places: Vec<_> = delivered.iter().map(place).collect();
                assert!(places.is_sorted() && places[49] >= 390, "{places:?}");
                assert!(counts.sampled_out > 200, "{counts:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_app_that_goes_is_flushed() {
    let sink = LogSink::start().await.unwrap();
    let plugin = opa_plugins::decision_logs();
    let counts = counts_of(&plugin);
    let manager = Manager::builder()
        .config_yaml(&config(&sink, ""))
        .in_memory([], Value::empty_object())
        .unwrap()
        .engine(engine())
        .grace(Duration::from_millis(10))
        .plugin(plugin)
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    let decided = decide(&app, 10).await;
    drop(app);
    let post = sink.wait(|post| Some(post.clone())).await.unwrap();
    let chunk = Value::from_json(&post.body).unwrap();
    assert_eq!(ids(chunk.as_array().unwrap()), decided);
    manager.shutdown(LONG).await;
    assert_adds_up(&counts("shop"));
}

#[tokio::test]
async fn the_layer_shows_the_headers_that_are_asked_for() {
    use tower::{Layer, ServiceExt};
    let sink = LogSink::start().await.unwrap();
    let mut text = config(&sink, "");
    text.truncate(text.len() - 1);
    text.push_str(", request_context: {http: {headers: [X-a, x-none]}}}");
    let (manager, app, _) = start(&text, "a").await;
    let inner = tower::service_fn(|_: http::Request<opa_tower::RequestBody<Body>>| async {
        Ok::<_, std::convert::Infallible>(http::Response::new(Body::default()))
    });
    let request = http::Request::get("http://shop.test/")
        .header("x-a", "1")
        .header("x-a", "2")
        .header("x-b", "3")
        .body(Body::default())
        .unwrap();
    let service = opa_tower::OpaLayer::new(app).layer(inner);
    drop(service.oneshot(request).await.unwrap());
    manager.shutdown(LONG).await;
    let events = events(&sink);
    let headers = events[0].at(&["request_context", "http", "headers"]);
    assert_eq!(headers.unwrap().to_json(), r#"{"X-a":["1","2"]}"#);
}

type Body = http_body_util::Full<bytes::Bytes>;
