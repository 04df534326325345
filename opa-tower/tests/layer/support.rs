//! What the tests share: a scripted engine, a recording plugin and requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use opa_core::Value;
use opa_core::config::ConfigError;
use opa_core::engine::{
    Bound, Budget, CancelFlag, CompileError, CompileErrors, CompileOptions, Engine, Entrypoint,
    EntrypointPath, EvalContext, InputPaths, Module, ModuleSet, Outcome, Policy, Scheduling,
};
use opa_core::plugin::{Attached, Event, Plugin, Scope};
use opa_tower::{App, Manager};

type Script = dyn Fn(&EntrypointPath, &Value, &mut EvalContext) -> Outcome + Send + Sync;

/// An engine whose policy is a closure.
#[derive(Clone)]
pub(crate) struct Scripted {
    script: Arc<Script>,
    inputs: InputPaths,
}

impl Scripted {
    pub(crate) fn new(
        script: impl Fn(&EntrypointPath, &Value, &mut EvalContext) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Arc::new(script),
            inputs: InputPaths::all(),
        }
    }

    /// Answers the same, whatever the input.
    pub(crate) fn answering(answer: &str) -> Self {
        let answer = value(answer);
        Self::new(move |_, _, _| Outcome::Value(answer.clone()))
    }

    /// Allows and shows the client's side the input: the answer has it as `input`.
    pub(crate) fn showing() -> Self {
        Self::new(|_, input, _| {
            let members = [("allowed", Value::from(true)), ("input", input.clone())];
            Outcome::Value(Value::object(
                members.map(|(name, value)| (Value::from(name), value)),
            ))
        })
    }

    /// Says that it reads these paths only.
    pub(crate) fn reading(mut self, inputs: InputPaths) -> Self {
        self.inputs = inputs;
        self
    }

    /// Goes from its slice to the pool, and waits there for what the gate lets through.
    pub(crate) fn gated() -> (Self, Gate) {
        let (send, receive) = mpsc::channel();
        let receive = Mutex::new(receive);
        let inline = AtomicBool::new(true);
        let cancel: Arc<Mutex<Option<CancelFlag>>> = Arc::default();
        let seen = Arc::clone(&cancel);
        let engine = Self::new(move |_, _, ctx| {
            *seen.lock().unwrap() = Some(ctx.cancel_flag().clone());
            if inline.swap(false, Ordering::Relaxed) {
                return Outcome::Interrupted(opa_core::engine::Interrupt::Slice);
            }
            // The test is over when the gate is gone.
            receive.lock().unwrap().recv().unwrap_or(Outcome::Undefined)
        });
        (engine, Gate { send, cancel })
    }
}

/// Opens the way of an evaluation that waits on the pool.
pub(crate) struct Gate {
    send: mpsc::Sender<Outcome>,
    cancel: Arc<Mutex<Option<CancelFlag>>>,
}

impl Gate {
    pub(crate) fn answer(&self, answer: &str) {
        self.send.send(Outcome::Value(value(answer))).unwrap();
    }

    /// Whether the evaluation was asked to end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel
            .lock()
            .unwrap()
            .as_ref()
            .is_some_and(CancelFlag::is_cancelled)
    }
}

impl Engine for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn scheduling(&self) -> Scheduling {
        Scheduling::Sliced
    }

    fn compile(&self, _: &ModuleSet, _: &CompileOptions) -> Result<Arc<dyn Policy>, CompileErrors> {
        Ok(Arc::new(self.clone()))
    }
}

impl Policy for Scripted {
    fn bind(&self, _: &Value) -> Result<Arc<dyn Bound>, CompileErrors> {
        Ok(Arc::new(self.clone()))
    }

    fn defines_system_log(&self) -> bool {
        false
    }
}

impl Bound for Scripted {
    fn prepare(&self, path: &EntrypointPath) -> Result<Entrypoint, CompileError> {
        Ok(Entrypoint::new(path.clone(), self.inputs.clone(), ()))
    }

    fn eval(&self, entrypoint: &Entrypoint, input: &Value, ctx: &mut EvalContext) -> Outcome {
        (self.script)(entrypoint.path(), input, ctx)
    }
}

/// The decision log.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Event>>>);

impl Log {
    /// The events since the last look.
    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The only event since the last look.
    pub(crate) fn only(&self) -> Event {
        let [event] = <[Event; 1]>::try_from(self.take()).expect("one decision, one event");
        event
    }
}

impl Plugin for Log {
    fn name(&self) -> &str {
        "record"
    }

    fn attach(&self, _: &Scope<'_>) -> Result<Attached, ConfigError> {
        let events = Arc::clone(&self.0);
        Ok(Attached::default().decisions(move |event: Event| events.lock().unwrap().push(event)))
    }
}

/// A manager whose apps all run `engine`.
pub(crate) fn manager(engine: Scripted) -> Manager {
    builder(engine).build().unwrap()
}

pub(crate) fn builder(engine: Scripted) -> opa_core::ManagerBuilder {
    Manager::builder()
        .engine(engine)
        // No test shall depend on how fast the machine is.
        .budget(Budget::default().time(Duration::from_secs(300)))
        .in_memory([Module::v1("p.rego", "package p\n")], Value::empty_object())
        .unwrap()
}

/// A manager and a ready app of it.
pub(crate) async fn serving(engine: Scripted) -> (Manager, App) {
    let manager = manager(engine);
    let app = ready_app(&manager, "orders").await;
    (manager, app)
}

pub(crate) async fn ready_app(manager: &Manager, id: &str) -> App {
    let app = manager.app(id).unwrap();
    app.ready(Duration::from_secs(60)).await.unwrap();
    app
}

/// With a decision log.
pub(crate) async fn logged(engine: Scripted) -> (Manager, App, Log) {
    let log = Log::default();
    let manager = builder(engine).plugin(log.clone()).build().unwrap();
    let app = ready_app(&manager, "orders").await;
    (manager, app, log)
}

pub(crate) fn value(json: &str) -> Value {
    Value::from_json(json.as_bytes()).unwrap()
}

pub(crate) fn get(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).unwrap()
}
