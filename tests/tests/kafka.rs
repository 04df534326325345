//! The output `kafka` of the decision log against a real broker, read with Kafka's own consumer.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use opa_core::config::{ConfigError, Section};
use opa_core::engine::Outcome;
use opa_core::plugin::{Attached, Plugin, Scope};
use opa_core::{App, Manager, Value};
use opa_plugins::decision_logs::AppCounts;
use opa_plugins::decision_logs::output::{Batch, LoggedEvent, Output, OutputError, OutputType};
use opa_plugins::decision_logs::outputs::Kafka;
use tests::certificates::Authority;
use tests::peers::{self, KAFKA_PASSWORD, KAFKA_USER, KafkaMessage, RunningKafka};
use tests::scripted::Scripted;

const LONG: Duration = Duration::from_secs(60);

/// A manager whose decisions go to a topic.
struct World {
    manager: Manager,
    counts: Box<dyn Fn(&str) -> AppCounts>,
}

impl World {
    fn new(options: &str) -> Self {
        let plugin = opa_plugins::decision_logs().output_type("kafka", Kafka::default());
        let counts = plugin.app_counts();
        let engine = Scripted::new(|asked, _| match asked.path.as_str() {
            "a/b" => Outcome::Value(Value::from(true)),
            _ => Outcome::Undefined,
        });
        let config = format!(
            "decision_logs: {{outputs: [{{type: kafka, batching: {{at_count: 50, at_period: 20ms}}, \
             {options}}}]}}"
        );
        let manager = Manager::builder()
            .config_yaml(&config)
            .in_memory([], Value::empty_object())
            .unwrap()
            .engine(engine)
            .plugin(plugin)
            .build()
            .unwrap();
        let counts = Box::new(move |app: &str| {
            let counts = counts();
            let found = counts.iter().find(|(id, ..)| id.as_str() == app);
            found.map(|(_, _, counts)| *counts).unwrap_or_default()
        });
        Self { manager, counts }
    }

    async fn app(&self, name: &str) -> App {
        let app = self.manager.app(name).unwrap();
        app.ready(LONG).await.unwrap();
        app
    }

    async fn until(&self, app: &str, done: impl Fn(&AppCounts) -> bool) {
        let waiting = async {
            while !done(&(self.counts)(app)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = tokio::time::timeout(LONG, waiting).await;
        waited.unwrap_or_else(|_| panic!("{app}: {:?}", (self.counts)(app)));
    }
}

/// The decision ids.
async fn decide(app: &App, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        let decision = app.decide("a/b", Value::empty_object()).await;
        ids.push(decision.id().to_owned());
    }
    ids
}

fn ids(value: &str) -> Vec<String> {
    let events: Vec<serde_json::Value> = match value.starts_with('[') {
        true => serde_json::from_str(value).unwrap(),
        false => value
            .lines()
            .map(|it| serde_json::from_str(it).unwrap())
            .collect(),
    };
    let id = |event: &serde_json::Value| event["decision_id"].as_str().unwrap().to_owned();
    events.iter().map(id).collect()
}

/// The decision ids of each key, in order; a key's messages are in one partition.
fn by_key(messages: &[KafkaMessage]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    let mut places = BTreeMap::new();
    for message in messages {
        let place = *places.entry(&message.key).or_insert(message.partition);
        assert_eq!(place, message.partition, "{message:?}");
        found
            .entry(message.key.clone())
            .or_default()
            .extend(ids(&message.value));
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_in_the_topic_in_the_order_of_their_app() {
    let Some(kafka) = peers::kafka() else { return };
    let kafka = kafka.start().await;
    let broker = kafka.plain();
    for (topic, format) in [("each", "none"), ("packed", "lines"), ("packed2", "array")] {
        let options =
            format!("brokers: ['{broker}'], topic: {topic}, format: {format}, compression: gzip");
        let world = World::new(&options);
        let mut decided = BTreeMap::new();
        let mut apps = Vec::new();
        for name in ["shop", "blue", "red", "green"] {
            apps.push((name, world.app(name).await));
        }
        for (name, app) in &apps {
            decided.insert((*name).to_owned(), decide(app, 120).await);
        }
        // Before there is a topic nothing is given up.
        if topic == "each" {
            world
                .until("shop", |it| it.decided == 120 && it.delivered == 0)
                .await;
        }
        kafka.create_topic(topic, 3, &[]).await;
        world.manager.shutdown(LONG).await;
        let messages = kafka.messages(topic).await;
        assert_eq!(by_key(&messages), decided, "{topic}");
        assert_eq!((world.counts)("red").delivered, 120);
        if topic == "each" {
            assert_eq!(messages.len(), 480);
            let used: HashSet<_> = messages.iter().map(|it| it.partition).collect();
            assert!(used.len() > 1, "{used:?}");
        } else {
            assert!(messages.len() < 480);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_and_back_loses_nothing() {
    let Some(kafka) = peers::kafka() else { return };
    let mut kafka = kafka.start().await;
    kafka.create_topic("log", 1, &[]).await;
    let options = format!(
        "brokers: ['{}'], topic: log, timeout_seconds: 5",
        kafka.plain()
    );
    let world = World::new(&options);
    let app = world.app("shop").await;
    let mut decided = decide(&app, 500).await;
    world.until("shop", |it| it.delivered > 0).await;
    kafka.stop();
    decided.extend(decide(&app, 500).await);
    assert!((world.counts)("shop").delivered < 1000);
    kafka.start_again().await;
    decided.extend(decide(&app, 500).await);
    world.manager.shutdown(LONG).await;
    let counts = (world.counts)("shop");
    assert_eq!(
        (counts.decided, counts.delivered),
        (1500, 1500),
        "{counts:?}"
    );

    let found = by_key(&kafka.messages("log").await).remove("shop").unwrap();
    // What is there twice is there first in its place.
    let mut seen = HashSet::new();
    let first: Vec<_> = found
        .iter()
        .filter(|id| seen.insert(*id))
        .cloned()
        .collect();
    assert_eq!(first, decided);
}

/// Opens an output in the place of the decision log.
struct Opener(
    Section,
    std::sync::mpsc::Sender<Result<Arc<dyn Output>, ConfigError>>,
);

impl Plugin for Opener {
    fn name(&self) -> &str {
        "opener"
    }

    fn attach(&self, scope: &Scope<'_>) -> Result<Attached, ConfigError> {
        let _ = self.1.send(Kafka::default().open(&self.0, scope));
        Ok(Attached::default())
    }
}

fn open(options: serde_json::Value) -> Result<Arc<dyn Output>, ConfigError> {
    let (sender, opened) = std::sync::mpsc::channel();
    let opener = Opener(Section::from_json("output", &options), sender);
    let manager = Manager::builder()
        .config_yaml("services: {none: {url: 'http://127.0.0.1:1'}}")
        .engine(Scripted::data())
        .plugin(opener)
        .build()
        .unwrap();
    let _app = manager.app("shop").unwrap();
    opened.recv_timeout(LONG).unwrap()
}

fn batch(texts: &[(&str, usize)]) -> Batch {
    let event = |(id, size): &(&str, usize)| {
        let json = serde_json::json!({"decision_id": id, "fill": "x".repeat(*size)});
        let at = std::time::UNIX_EPOCH + Duration::from_secs(1_798_808_399);
        LoggedEvent::new((*id).into(), at, json.to_string().into())
    };
    let app = opa_core::AppId::new("shop").unwrap();
    Batch::new(app, None, texts.iter().map(event).collect())
}

async fn deliver(options: serde_json::Value, events: &[(&str, usize)]) -> Result<(), OutputError> {
    open(options).unwrap().deliver(&batch(events)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_asks_for_is_needed_and_enough() {
    let Some(kafka) = peers::kafka() else { return };
    let kafka = kafka.start().await;
    kafka.create_topic("log", 1, &[]).await;
    kafka
        .create_topic("small", 1, &["max.message.bytes=2000"])
        .await;
    let mut wanted = passwords(&kafka).await;
    wanted.extend(certificates(&kafka).await);
    let found = by_key(&kafka.messages("log").await).remove("shop").unwrap();
    assert_eq!(found, wanted);
    sizes(&kafka).await;
}

async fn passwords(kafka: &RunningKafka) -> Vec<String> {
    let options = |mechanism: &str, password: &str| {
        serde_json::json!({
            "brokers": [kafka.sasl().to_string()], "topic": "log", "timeout_seconds": 5,
            "sasl": {"mechanism": mechanism, "username": KAFKA_USER, "password": password},
        })
    };
    let mut delivered = Vec::new();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let wrong = deliver(options(mechanism, "s3cr3t"), &[("wrong", 1)])
            .await
            .unwrap_err();
        assert!(!wrong.is_permanent, "{mechanism}: {wrong}");
        assert!(wrong.message.contains("Sasl"), "{mechanism}: {wrong}");
        assert!(!wrong.message.contains("s3cr3t"), "{mechanism}: {wrong}");
        let right = deliver(options(mechanism, KAFKA_PASSWORD), &[(mechanism, 1)]).await;
        assert_eq!(right, Ok(()), "{mechanism}");
        delivered.push(mechanism.to_owned());
    }
    let none = serde_json::json!({
        "brokers": [kafka.sasl().to_string()], "topic": "log", "timeout_seconds": 2,
    });
    assert!(
        !deliver(none, &[("none", 1)])
            .await
            .unwrap_err()
            .is_permanent
    );
    delivered
}

async fn certificates(kafka: &RunningKafka) -> Vec<String> {
    let options = |tls: serde_json::Value| {
        serde_json::json!({
            "brokers": [kafka.tls().to_string()], "topic": "log", "tls": tls, "timeout_seconds": 5,
        })
    };
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other.pem");
    std::fs::write(&other, Authority::new("kafka authority").pem()).unwrap();
    for tls in [serde_json::json!({"ca_cert": other}), serde_json::json!({})] {
        let wrong = deliver(options(tls.clone()), &[("wrong", 1)])
            .await
            .unwrap_err();
        assert!(!wrong.is_permanent, "{tls}: {wrong}");
        assert!(wrong.message.contains("certificate"), "{tls}: {wrong}");
    }
    let tls = serde_json::json!({"ca_cert": kafka.authority()});
    assert_eq!(deliver(options(tls), &[("authority", 1)]).await, Ok(()));
    let tls = serde_json::json!({"skip_cert_verify": true});
    assert_eq!(deliver(options(tls), &[("unchecked", 1)]).await, Ok(()));
    vec!["authority".to_owned(), "unchecked".to_owned()]
}

async fn sizes(kafka: &RunningKafka) {
    let options = |format: &str| {
        serde_json::json!({
            "brokers": [kafka.plain().to_string()], "topic": "small", "format": format,
        })
    };
    for format in ["none", "lines"] {
        let events = [("1", 900), ("2", 900), ("3", 5000), ("4", 900)];
        let error = deliver(options(format), &events).await.unwrap_err();
        assert_eq!(
            (error.is_permanent, error.lost),
            (true, Some(1)),
            "{format}: {error}"
        );
    }
    let found = by_key(&kafka.messages("small").await)
        .remove("shop")
        .unwrap();
    assert_eq!(found, ["1", "2", "4", "1", "2", "4"]);
}
