use std::future::Future;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use opa_core::plugin::Event;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::encode;

/// How many events wait for the writer.
const QUEUE: usize = 8_192;

/// How many events are written at a time.
const BATCH: usize = 256;

/// The console of decision logs.
pub(super) type Console = LineWriter<Event>;

/// What makes a line of a console.
pub(crate) trait Line: Send + 'static {
    /// What the lines are, in the program's own log.
    const LOG: &'static str;
    /// The name of the writer's thread.
    const THREAD: &'static str;

    /// Appends the line, if it can be written. `redacted` it tells no secret headers.
    fn write(&self, redacted: bool, out: &mut Vec<u8>) -> bool;
}

impl Line for Event {
    const LOG: &'static str = "decision log";
    const THREAD: &'static str = "opa-decision-log";

    fn write(&self, redacted: bool, out: &mut Vec<u8>) -> bool {
        encode::console_line(self, SystemTime::now(), redacted, out)
    }
}

/// Writes lines, on a thread of its own that is started with the first one.
pub(crate) struct LineWriter<T> {
    writer: Mutex<Option<Box<dyn Write + Send>>>,
    thread: OnceLock<SyncSender<Message<T>>>,
    counters: Arc<Counters>,
    warned: AtomicBool,
    /// Headers that are secret are not told.
    redacts: Arc<AtomicBool>,
}

enum Message<T> {
    /// Whoever waits for it is told when it is written; without that it is lost.
    Event(Box<T>, Option<oneshot::Sender<()>>),
    /// Answered when everything before it is written.
    Flush(oneshot::Sender<()>),
}

#[derive(Default)]
struct Counters {
    recorded: AtomicU64,
    written: AtomicU64,
    queue_full: AtomicU64,
    write_failed: AtomicU64,
    encode_failed: AtomicU64,
}

/// What became of the events so far: `recorded` is the sum of the others and of what still waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Events handed over by instances.
    pub recorded: u64,
    /// Events written.
    pub written: u64,
    /// Events dropped because the queue was full, or no writer thread could be started.
    pub queue_full: u64,
    /// Events lost because writing failed.
    pub write_failed: u64,
    /// Events lost because a panic ended their encoding (the deferred input is a layer's code), or
    /// they are larger than [`MAX_EVENT_BYTES`](super::MAX_EVENT_BYTES).
    pub encode_failed: u64,
}

impl<T: Line> LineWriter<T> {
    pub(crate) fn new(writer: Box<dyn Write + Send>) -> Self {
        Self {
            writer: Mutex::new(Some(writer)),
            thread: OnceLock::new(),
            counters: Arc::default(),
            warned: AtomicBool::new(false),
            redacts: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Whether headers that are secret are not told.
    pub(super) fn redacts(&self) -> bool {
        self.redacts.load(Ordering::Relaxed)
    }

    pub(super) fn set_redacts(&self, redacts: bool) {
        self.redacts.store(redacts, Ordering::Relaxed);
    }

    /// Whether the event is taken.
    pub(crate) fn record(&self, event: T) -> bool {
        self.record_for(event, None)
    }

    /// Whether the event is written, if it is taken.
    pub(super) fn record_awaited(
        &self,
        event: T,
    ) -> Option<Pin<Box<dyn Future<Output = bool> + Send>>> {
        let (written, answer) = oneshot::channel();
        let is_taken = self.record_for(event, Some(written));
        is_taken.then(|| Box::pin(async { answer.await.is_ok() }) as Pin<Box<_>>)
    }

    fn record_for(&self, event: T, waiting: Option<oneshot::Sender<()>>) -> bool {
        self.counters.recorded.fetch_add(1, Ordering::Relaxed);
        let message = Message::Event(Box::new(event), waiting);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.sender().try_send(message)
        {
            self.counters.queue_full.fetch_add(1, Ordering::Relaxed);
            if !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!("{}: the console is too slow, events are dropped", T::LOG);
            }
            return false;
        }
        true
    }

    /// Waits until all that was recorded before is written.
    pub(crate) async fn flush(&self) {
        if self.thread.get().is_none() {
            return;
        }
        let (send, written) = oneshot::channel();
        let mut message = Message::Flush(send);
        // The queue can be full: the writer makes room.
        while let Err(TrySendError::Full(back)) = self.sender().try_send(message) {
            message = back;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        // An error means that the writer's thread is gone, and so is what it held.
        let _ = written.await;
        let counts = self.counts();
        let lost = counts.queue_full + counts.write_failed + counts.encode_failed;
        if lost > 0 {
            tracing::error!(lost, ?counts, "{}: not all events were written", T::LOG);
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            written: read(&self.counters.written),
            queue_full: read(&self.counters.queue_full),
            write_failed: read(&self.counters.write_failed),
            encode_failed: read(&self.counters.encode_failed),
            recorded: read(&self.counters.recorded),
        }
    }

    fn sender(&self) -> &SyncSender<Message<T>> {
        self.thread.get_or_init(|| {
            let (sender, receiver) = sync_channel(QUEUE);
            let counters = Arc::clone(&self.counters);
            let redacts = Arc::clone(&self.redacts);
            if let Some(writer) = self.writer.lock().take() {
                let thread = std::thread::Builder::new().name(T::THREAD.into());
                let started =
                    thread.spawn(move || write_all(&receiver, writer, &counters, &redacts));
                if let Err(error) = started {
                    // The receiver is gone: every event is counted as dropped.
                    tracing::error!(%error, "{}: no thread could be started", T::LOG);
                }
            }
            sender
        })
    }
}

fn write_all<T: Line>(
    queue: &Receiver<Message<T>>,
    mut writer: Box<dyn Write + Send>,
    counters: &Counters,
    redacts: &AtomicBool,
) {
    let mut lines = Vec::new();
    while let Ok(first) = queue.recv() {
        let mut events = 0;
        let mut flush = None;
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Event(event, waits) => {
                    if encode(&*event, redacts.load(Ordering::Relaxed), &mut lines) {
                        events += 1;
                        waiting.extend(waits);
                    } else {
                        counters.encode_failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                Message::Flush(done) => {
                    flush = Some(done);
                    break;
                }
            }
            next = if events < BATCH {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        let written = writer.write_all(&lines).and_then(|()| writer.flush());
        lines.clear();
        let counter = match written {
            Ok(()) => {
                for waits in waiting {
                    // Whoever waited may be gone.
                    let _ = waits.send(());
                }
                &counters.written
            }
            Err(error) => {
                tracing::error!(%error, events, "{}: events could not be written", T::LOG);
                &counters.write_failed
            }
        };
        counter.fetch_add(events as u64, Ordering::Relaxed);
        if let Some(done) = flush {
            // Nobody may wait any more.
            let _ = done.send(());
        }
    }
}

/// Adds the event's line. A panic leaves `lines` as it was.
fn encode<T: Line>(event: &T, redacted: bool, lines: &mut Vec<u8>) -> bool {
    let start = lines.len();
    let line = || event.write(redacted, lines);
    let encoded = catch_unwind(AssertUnwindSafe(line)).unwrap_or_default();
    if !encoded {
        lines.truncate(start);
        tracing::error!("{}: an event could not be encoded", T::LOG);
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::super::{Lines, decision_logs};
    use super::*;
    use opa_core::engine::{
        Bound, CompileError, CompileErrors, CompileOptions, Engine, Entrypoint, EntrypointPath,
        EvalContext, EvalError, InputPaths, ModuleSet, Outcome, Policy, Scheduling,
    };
    use opa_core::{Manager, Reason, Value};
    use std::time::Duration;

    /// Answers its input.
    struct Echo;

    impl Engine for Echo {
        fn name(&self) -> &'static str {
            "echo"
        }
        fn scheduling(&self) -> Scheduling {
            Scheduling::Sliced
        }
        fn compile(
            &self,
            modules: &ModuleSet,
            _: &CompileOptions,
        ) -> Result<Arc<dyn Policy>, CompileErrors> {
            Ok(Arc::new(EchoPolicy(
                modules.iter().any(|m| m.source().contains("system.log")),
            )))
        }
    }

    #[derive(Clone)]
    struct EchoPolicy(bool);

    impl Policy for EchoPolicy {
        fn bind(&self, _: &Value) -> Result<Arc<dyn Bound>, CompileErrors> {
            Ok(Arc::new(self.clone()))
        }
        fn defines_system_log(&self) -> bool {
            self.0
        }
    }

    impl Bound for EchoPolicy {
        fn prepare(&self, path: &EntrypointPath) -> Result<Entrypoint, CompileError> {
            Ok(Entrypoint::new(path.clone(), InputPaths::all(), ()))
        }
        fn eval(&self, _: &Entrypoint, input: &Value, _: &mut EvalContext) -> Outcome {
            match input.as_str() {
                _ if input.is_null() => Outcome::Undefined,
                // As errors of built-ins, it tells what it was given.
                Some("fail secret") => {
                    let text = format!("bad operand {input}");
                    Outcome::Error(EvalError::new(EvalError::BUILTIN, text))
                }
                _ => Outcome::Value(input.clone()),
            }
        }
    }

    async fn logged(rego: &str, config: &str, inputs: &[Value]) -> Vec<Value> {
        let lines = Lines::default();
        let plugin = decision_logs().console_to(lines.clone());
        let counts = plugin.counts();
        let manager = Manager::builder()
            .config_yaml(config)
            .in_memory(
                [opa_core::engine::Module::v1("a.rego", rego)],
                Value::empty_object(),
            )
            .unwrap()
            .engine(Echo)
            .plugin(plugin)
            .build()
            .unwrap();
        let app = manager.app("shop").unwrap();
        app.ready(Duration::from_secs(10)).await.unwrap();
        for input in inputs {
            app.decide("a/b", input).await;
        }
        manager.shutdown(Duration::from_secs(10)).await;
        assert_eq!(counts().recorded, counts().written);
        lines
            .take()
            .iter()
            .map(|line| Value::from_json(line.as_bytes()).unwrap())
            .collect()
    }

    const CONSOLE: &str = "labels: {team: red}\ndecision_logs: {console: true}";

    #[tokio::test]
    async fn an_event_has_the_members_of_opas_console() {
        let input = Value::from_json(br#"{"user":"ann"}"#).unwrap();
        let events = logged("package a", CONSOLE, std::slice::from_ref(&input)).await;
        let [event] = &*events else {
            panic!("{events:?}")
        };
        let names: Vec<_> = event
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, _)| name.as_str().unwrap())
            .collect();
        let expected = [
            "bundles",
            "decision_id",
            "input",
            "labels",
            "level",
            "metrics",
            "msg",
            "path",
            "req_id",
            "result",
            "time",
            "timestamp",
            "type",
        ];
        assert_eq!(names, expected);
        assert_eq!(event.get("msg").unwrap().as_str(), Some("Decision Log"));
        assert_eq!(event.get("path").unwrap().as_str(), Some("a/b"));
        assert_eq!(event.get("req_id"), Some(&Value::from(1)));
        assert_eq!(event.get("input"), Some(&input));
        assert_eq!(event.get("result"), Some(&input));
        assert_eq!(event.at(&["labels", "team"]).unwrap().as_str(), Some("red"));
        assert_eq!(
            event.at(&["labels", "version"]).unwrap().as_str(),
            Some("1.22.2")
        );
        assert_eq!(
            event.at(&["labels", "id"]).unwrap().as_str().unwrap().len(),
            36
        );
    }

    #[tokio::test]
    async fn an_undefined_decision_has_no_result_and_says_why() {
        let events = logged("package a", CONSOLE, &[Value::NULL]).await;
        assert_eq!(events[0].get("result"), None);
        let reason = events[0].at(&["custom", "reason"]).and_then(Value::as_str);
        assert_eq!(reason, Some(Reason::Undefined.as_str()));
        let error = events[0].get("error").and_then(Value::as_str);
        assert_eq!(error, Some("undefined: a/b decision was undefined"));
    }

    #[tokio::test]
    async fn a_policy_on_logs_withholds_input_result_and_the_text_of_errors() {
        let inputs = [Value::from("secret"), Value::from("fail secret")];
        let events = logged("package system.log", CONSOLE, &inputs).await;
        for event in &events {
            assert!(!event.to_json().contains("secret"), "{event}");
            assert!(event.at(&["custom", "withheld"]).is_some());
        }
        let error = events[1].get("error").and_then(Value::as_str);
        assert_eq!(error, Some("eval_builtin_error: withheld"));
    }

    #[tokio::test]
    async fn no_section_no_log() {
        assert_eq!(
            logged("package a", "labels: {}", &[Value::from(1)]).await,
            []
        );
    }

    #[tokio::test]
    async fn what_is_not_done_is_an_error_that_names_the_key() {
        for (section, path) in [
            ("{console: true, service: s}", "decision_logs.service"),
            (
                "{console: true, outputs: [{type: kafka}]}",
                "decision_logs.outputs.0",
            ),
            ("{}", "decision_logs"),
            ("{console: 1}", "decision_logs.console"),
        ] {
            let error = Manager::builder()
                .config_yaml(&format!("decision_logs: {section}"))
                .in_memory([], Value::empty_object())
                .unwrap()
                .engine(Echo)
                .plugin(decision_logs().console_to(Lines::default()))
                .build()
                .unwrap_err();
            assert_eq!(error.path(), path, "{error}");
        }
    }

    /// An input whose building is wrong.
    struct Panics;

    impl opa_core::plugin::DeferredInput for Panics {
        fn build(&self) -> Value {
            panic!("the layer is wrong")
        }
    }

    #[tokio::test]
    async fn a_panic_in_a_deferred_input_costs_only_the_input() {
        let lines = Lines::default();
        let plugin = decision_logs().console_to(lines.clone());
        let counts = plugin.counts();
        let manager = Manager::builder()
            .config_yaml(CONSOLE)
            .in_memory([], Value::empty_object())
            .unwrap()
            .engine(Echo)
            .plugin(plugin)
            .build()
            .unwrap();
        let app = manager.app("shop").unwrap();
        app.ready(Duration::from_secs(10)).await.unwrap();
        let evaluated = app
            .ask()
            .prepare(None)
            .unwrap()
            .evaluate(Value::from(1))
            .await;
        let input = opa_core::plugin::EventInput::Deferred(Arc::new(Panics));
        let entry = opa_core::instance::LogEntry {
            input,
            requested_by: None,
            ..opa_core::instance::LogEntry::default()
        };
        evaluated.conclude(Reason::Decided, None, entry).await;
        app.decide("a/b", Value::from(1)).await;
        manager.shutdown(Duration::from_secs(10)).await;
        let counts = counts();
        assert_eq!(
            (counts.recorded, counts.written, counts.encode_failed),
            (2, 2, 0)
        );
        let lines = lines.take();
        assert!(lines[0].contains("a panic ended the building of the input"));
        assert_eq!(lines.len(), 2);
    }

    /// Blocks in its first write until it is let go.
    struct Stuck(std::sync::mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_stuck_console_blocks_nobody_and_every_dropped_event_is_counted() {
        let (go, wait) = std::sync::mpsc::channel();
        let plugin = decision_logs().console_to(Stuck(wait));
        let counts = plugin.counts();
        let app_counts = plugin.app_counts();
        let manager = Manager::builder()
            .config_yaml(CONSOLE)
            .in_memory([], Value::empty_object())
            .unwrap()
            .engine(Echo)
            .plugin(plugin)
            .build()
            .unwrap();
        let app = manager.app("shop").unwrap();
        app.ready(Duration::from_secs(10)).await.unwrap();
        let decisions = 4 * QUEUE as u64;
        for _ in 0..decisions {
            app.decide("a/b", Value::from(1)).await;
        }
        drop(go);
        manager.shutdown(Duration::from_secs(10)).await;
        let counts = counts();
        assert_eq!(counts.written + counts.queue_full, counts.recorded);
        let (_, _, of_app) = app_counts()[0].clone();
        assert_eq!(of_app.decided, decisions);
        assert_eq!(of_app.delivered, counts.written);
        assert_eq!(of_app.delivered + of_app.queue_full, decisions);
        assert!(of_app.queue_full > 0);
    }
}
