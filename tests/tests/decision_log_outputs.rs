//! Several outputs of one decision log: each has its own policies, its own pace, and its own
//! account.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opa_core::config::{ConfigError, Section};
use opa_core::engine::{Module, Outcome};
use opa_core::plugin::Scope;
use opa_core::{App, Manager, Value};
use opa_plugins::decision_logs::output::{Batch, Output, OutputError, OutputFuture};
use opa_plugins::decision_logs::{AppCounts, DecisionLogs};
use tests::log_sink::{Answer, LogSink};
use tests::scripted::Scripted;

const LONG: Duration = Duration::from_secs(20);

/// Keeps what it is given, after as many failures as it is told.
#[derive(Default)]
struct Kept {
    faults: Mutex<Vec<Fault>>,
    batches: Mutex<Vec<Vec<Value>>>,
    asked: AtomicUsize,
}

#[derive(Clone, Copy)]
enum Fault {
    Again,
    Never,
    Panic,
}

impl Kept {
    fn events(&self) -> Vec<Value> {
        self.batches.lock().unwrap().concat()
    }

    fn ids(&self) -> Vec<String> {
        let events = self.events();
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
}

/// What the pipeline is given: each app's own.
struct To(Arc<Kept>);

impl Output for To {
    fn deliver<'a>(&'a self, batch: &'a Batch) -> OutputFuture<'a> {
        Box::pin(async move {
            self.0.asked.fetch_add(1, Ordering::Relaxed);
            assert!(!batch.events.is_empty());
            assert!(batch.labels.is_some());
            match self.0.faults.lock().unwrap().pop() {
                Some(Fault::Again) => return Err(OutputError::new("not now")),
                Some(Fault::Never) => {
                    let mut error = OutputError::new("never");
                    error.is_permanent = true;
                    return Err(error);
                }
                Some(Fault::Panic) => panic!("the output's fault"),
                None => {}
            }
            let events = batch.events.iter().map(|event| {
                let value = Value::from_json(&event.json).unwrap();
                let id = value.get("decision_id").and_then(Value::as_str);
                assert_eq!(id, Some(&*event.decision_id));
                value
            });
            self.0.batches.lock().unwrap().push(events.collect());
            Ok(())
        })
    }
}

#[derive(Clone, Default)]
struct Types(Arc<Mutex<BTreeMap<String, Arc<Kept>>>>);

impl Types {
    /// The output of a section that calls itself `to`.
    fn at(&self, to: &str) -> Arc<Kept> {
        Arc::clone(self.0.lock().unwrap().entry(to.to_owned()).or_default())
    }

    fn plugin(&self) -> DecisionLogs {
        let types = self.clone();
        let open = move |section: &Section, _: &Scope<'_>| {
            let mut reader = section.reader()?;
            let to = reader.string("to")?.unwrap_or("there").to_owned();
            let unknown = reader.finish()?;
            assert!(unknown.is_empty(), "{unknown:?}");
            Ok::<_, ConfigError>(Arc::new(To(types.at(&to))) as Arc<dyn Output>)
        };
        opa_plugins::decision_logs()
            .console_to(std::io::sink())
            .output_type("keep", open)
    }
}

/// Masks `/input/secret` at `system/log/mask`, and drops even numbers at `odd/drop`.
fn engine() -> Scripted {
    Scripted::new(|asked, _| match asked.path.as_str() {
        "system/log/mask" => Outcome::Value(Value::array([Value::from("/input/secret")])),
        "odd/drop" => {
            let number = asked.input.at(&["input", "n"]).and_then(Value::as_i64);
            Outcome::Value(Value::from(number.is_some_and(|it| it % 2 == 0)))
        }
        "a/b" => Outcome::Value(Value::from(true)),
        _ => Outcome::Undefined,
    })
}

type Counts = Box<dyn Fn(&str) -> AppCounts + Send + Sync>;

async fn start(plugin: DecisionLogs, config: &str) -> (Manager, App, Counts) {
    let counts = plugin.app_counts();
    let counts = Box::new(move |output: &str| {
        let counts = counts();
        let found = counts.iter().find(|(_, name, _)| &**name == output);
        let counts = found.map(|(_, _, counts)| *counts).unwrap_or_default();
        let sum = counts.delivered + counts.dropped_by_policy + counts.lost() + counts.buffered;
        assert_eq!(counts.decided, sum, "{output}: {counts:?}");
        counts
    });
    let modules = ["system.log", "odd"];
    let modules =
        modules.map(|name| Module::v1(&*format!("{name}.rego"), format!("package {name}")));
    let manager = Manager::builder()
        .config_yaml(config)
        .in_memory(modules, Value::empty_object())
        .unwrap()
        .engine(engine())
        .plugin(plugin)
        .build()
        .unwrap();
    let app = manager.app("shop").unwrap();
    app.ready(LONG).await.unwrap();
    (manager, app, counts)
}

async fn decide(app: &App, count: i64) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..count {
        let input = [
            ("n", Value::from(number)),
            ("secret", Value::from("s3cr3t")),
        ];
        let input = Value::object(input.map(|(name, value)| (Value::from(name), value)));
        ids.push(app.decide("a/b", input).await.id().to_owned());
    }
    ids
}

fn error_of(plugin: DecisionLogs, config: &str) -> String {
    let built = Manager::builder()
        .config_yaml(&format!("bundles: {{}}\n{config}"))
        .in_memory([], Value::empty_object())
        .unwrap()
        .plugin(plugin)
        .build();
    let manager = match built {
        Ok(manager) => manager,
        Err(error) => return error.to_string(),
    };
    manager.app("shop").map(drop).unwrap_err().to_string()
}

#[tokio::test]
async fn each_output_shows_what_its_own_policies_say() {
    let sink = LogSink::start().await.unwrap();
    let types = Types::default();
    let config = format!(
        "services: {{sink: {{url: '{}'}}}}\nbundles: {{}}\n\
         plugins: {{keep: {{to: plugin}}}}\n\
         decision_logs:\n  service: sink\n  plugin: keep\n  console: true\n  outputs:\n  \
         - {{type: keep, name: all, to: all, mask_decision: nothing/mask}}\n  \
         - {{type: keep, name: odd, to: odd, drop_decision: /odd/drop, batching: {{at_count: 3}}}}\n",
        sink.url()
    );
    let (manager, app, counts) = start(types.plugin(), &config).await;
    let decided = decide(&app, 20).await;
    manager.shutdown(LONG).await;
    let uploaded: usize = sink
        .take()
        .iter()
        .map(|post| {
            assert!(!String::from_utf8_lossy(&post.body).contains("s3cr3t"));
            let chunk = Value::from_json(&post.body).unwrap();
            chunk.as_array().unwrap().len()
        })
        .sum();
    assert_eq!(uploaded, 20);
    assert_eq!(types.at("plugin").ids(), decided);
    assert_eq!(types.at("all").ids(), decided);
    let shows = |to: &str| {
        let shown = types.at(to).events();
        let shown = shown.iter().filter(|it| it.to_json().contains("s3cr3t"));
        shown.count()
    };
    assert_eq!((shows("plugin"), shows("all"), shows("odd")), (0, 20, 0));
    let odd: Vec<_> = decided.into_iter().skip(1).step_by(2).collect();
    assert_eq!(types.at("odd").ids(), odd);
    let batches = types.at("odd").batches.lock().unwrap().clone();
    assert!(batches.iter().all(|batch| batch.len() <= 3));
    for output in ["service", "console", "keep", "all"] {
        assert_eq!(
            (counts(output).decided, counts(output).delivered),
            (20, 20),
            "{output}"
        );
    }
    let odd = counts("odd");
    assert_eq!(
        (odd.decided, odd.delivered, odd.dropped_by_policy),
        (20, 10, 10)
    );
}

#[tokio::test]
async fn an_output_that_fails_gets_all_in_order_and_holds_up_no_other() {
    let sink = LogSink::start().await.unwrap();
    sink.script([], Answer::Hang);
    let types = Types::default();
    *types.at("bad").faults.lock().unwrap() = vec![Fault::Again; 5];
    let config = format!(
        "services: {{sink: {{url: '{}', response_header_timeout_seconds: 1}}}}\nbundles: {{}}\n\
         decision_logs:\n  service: sink\n  reporting: {{trigger: immediate, upload_size_limit_bytes: 500}}\n  outputs:\n  \
         - {{type: keep, name: bad, to: bad, batching: {{at_count: 7, at_period: 10ms}}}}\n  \
         - {{type: keep, name: good, to: good, batching: {{at_bytes: 1000}}}}\n",
        sink.url()
    );
    let (manager, app, counts) = start(types.plugin(), &config).await;
    let decided = decide(&app, 100).await;
    for output in ["good", "bad"] {
        while counts(output).delivered < 100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(types.at(output).ids(), decided, "{output}");
    }
    assert_eq!(counts("service").delivered, 0);
    sink.script([], Answer::Status(200));
    manager.shutdown(LONG).await;
    assert_eq!(counts("service").delivered, 100);
}

#[tokio::test]
async fn what_an_output_refuses_for_good_is_counted() {
    let types = Types::default();
    *types.at("there").faults.lock().unwrap() = vec![Fault::Panic, Fault::Again, Fault::Never];
    let config = "decision_logs: {outputs: [{type: keep, batching: {at_count: 10}}]}";
    let (manager, app, counts) = start(types.plugin(), config).await;
    decide(&app, 100).await;
    manager.shutdown(LONG).await;
    let counts = counts("keep");
    let delivered = types.at("there").events().len() as u64;
    assert_eq!(counts.delivered, delivered);
    assert!(
        counts.rejected > 0 && counts.not_delivered > 0,
        "{counts:?}"
    );
    assert_eq!((counts.decided, counts.buffered), (100, 0));
}

#[tokio::test]
async fn the_buffer_of_an_output_has_a_bound() {
    let types = Types::default();
    *types.at("there").faults.lock().unwrap() = vec![Fault::Again; 1_000_000];
    let config = "decision_logs: {outputs: [{type: keep, buffer_size_limit_bytes: 5000}]}";
    let (manager, app, counts) = start(types.plugin(), config).await;
    let decided = decide(&app, 100).await;
    while counts("keep").buffer_full == 0 {
        tokio::task::yield_now().await;
    }
    types.at("there").faults.lock().unwrap().clear();
    manager.shutdown(LONG).await;
    let ids = types.at("there").ids();
    assert_eq!(counts("keep").delivered, ids.len() as u64);
    // A batch that was under way meanwhile may have been taken.
    let place = |id| decided.iter().position(|one| one == id).unwrap();
    assert!(ids.iter().map(place).is_sorted());
    assert_eq!(ids.last(), decided.last());
}

#[tokio::test]
async fn what_is_wrong_is_told() {
    for (config, message) in [
        (
            "decision_logs: {outputs: [{type: other}]}",
            "decision_logs.outputs.0: there is no output type `other`; there are: `keep`",
        ),
        (
            "decision_logs: {outputs: [{}]}",
            "decision_logs.outputs.0.type",
        ),
        (
            "decision_logs: {outputs: [{type: keep}, {type: keep}]}",
            "there is another output called `keep`",
        ),
        (
            "decision_logs: {outputs: [{type: keep, name: service}]}",
            "there is another output called `service`",
        ),
        (
            "decision_logs: {outputs: [{type: keep, batching: {at_period: 5}}]}",
            "decision_logs.outputs.0.batching.at_period: expected a string",
        ),
        (
            "decision_logs: {outputs: [{type: keep, batching: {at_count: 0}}]}",
            "decision_logs.outputs.0.batching.at_count: must be higher than 0",
        ),
        (
            "decision_logs: {plugin: keep}",
            "invalid plugin name \"keep\" in decision_logs",
        ),
        (
            "decision_logs: {plugin: other}\nplugins: {other: {}}",
            "plugin \"other\" not registered",
        ),
        (
            "decision_logs: {console: true}\nplugins: {keep: {}}",
            "plugins.keep: it is an output of decision logs",
        ),
        (
            "plugins: {keep: {}}",
            "plugins.keep: it is an output of decision logs",
        ),
    ] {
        let error = error_of(Types::default().plugin(), config);
        assert!(error.contains(message), "{config}: {error}");
    }
}
