//! A service that is dead for a while: what it doesn't take is on the disk, not in memory.

use opa_core::engine::{Module, Outcome};
use opa_core::{Manager, Value};
use opa_plugins::decision_logs::spool::SpoolConfig;
use tests::log_sink::{Answer, LogSink};
use tests::memory;
use tests::scripted::Scripted;

use super::{LONG, assert_adds_up, events, id, until};

const EVENTS: usize = 4_000;
const EVENT_BYTES: usize = 16 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_service_does_not_take_is_on_the_disk_and_comes_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let sink = LogSink::start().await.unwrap();
    sink.script([], Answer::Status(503));
    let config = format!(
        "services: {{sink: {{url: '{}'}}}}\nbundles: {{}}\n\
         decision_logs: {{service: sink, reporting: {{trigger: immediate, min_delay_seconds: 1, \
           max_delay_seconds: 1}}}}",
        sink.url()
    );
    let plugin = opa_plugins::decision_logs().spool(SpoolConfig::new(directory.path()));
    let counts = plugin.app_counts();
    let counts = || counts().first().map(|it| it.2).unwrap_or_default();
    let manager = Manager::builder()
        .config_yaml(&config)
        .in_memory([Module::v1("a.rego", "package a")], Value::empty_object())
        .unwrap()
        .engine(Scripted::new(|asked, _| match asked.path.as_str() {
            "a/b" => Outcome::Value(Value::from(true)),
            _ => Outcome::Undefined,
        }))
        .plugin(plugin)
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    let mut ids = Vec::new();
    let mut before = 0;
    for number in 0..EVENTS {
        if number == EVENTS / 8 {
            // What is needed for any number of events.
            until("it is spooled", || counts().buffered == 0).await;
            before = memory::resident();
        }
        let text = format!("{number:08}").repeat(EVENT_BYTES / 8);
        let input = Value::object([(Value::from("text"), Value::from(text))]);
        ids.push(app.decide("a/b", input).await.id().to_owned());
        if number % 100 == 0 {
            until("it is spooled", || counts().buffered < 200).await;
        }
    }
    until("it is spooled", || counts().buffered == 0).await;
    let grown = memory::resident().saturating_sub(before) * 1024;
    let held = counts();
    assert_adds_up(&held);
    assert_eq!((held.spooled, held.lost()), (EVENTS as u64, 0), "{held:?}");
    let bytes = (EVENTS - EVENTS / 8) * EVENT_BYTES;
    println!("{bytes} bytes of events, {grown} bytes of memory");
    assert!(grown < bytes as u64 / 3, "{grown} of {bytes}");

    sink.script([], Answer::Status(200));
    let mut taken = Vec::new();
    until("it is delivered", || {
        taken.extend(events(&sink).iter().map(|event| id(event).to_owned()));
        counts().spooled == 0
    })
    .await;
    taken.extend(events(&sink).iter().map(|event| id(event).to_owned()));
    assert!(taken == ids, "{} of {}", taken.len(), ids.len());
    assert_adds_up(&counts());
    assert_eq!(counts().delivered, EVENTS as u64);
    manager.shutdown(LONG).await;
}
