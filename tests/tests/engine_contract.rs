//! Every answer of the engine contract, through layer, pool and log: the status that the client
//! sees, the reason that is counted, and the event that is written.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use opa_core::bundle::BundleWriter;
use opa_core::bundle::source::Memory;
use opa_core::engine::{
    Budget, EvalContext, EvalError, InputPaths, Interrupt, IoCall, IoFuture, Outcome,
};
use opa_core::{App, AppId, Decision, Manager, Value};
use opa_plugins::decision_logs::Lines;
use opa_tower::{OpaLayer, Reason, RequestBody};
use tests::scripted::{Asked, Scripted};
use tower::{Layer, ServiceExt, service_fn};

const LONG: Duration = Duration::from_secs(30);

struct Stack {
    manager: Manager,
    app: App,
    lines: Lines,
    inner_calls: Arc<AtomicUsize>,
}

/// What became of one request.
struct Seen {
    status: StatusCode,
    decision: Decision,
    event: Value,
}

impl Stack {
    async fn new(engine: Scripted) -> Self {
        Self::with_io(engine, |_: &AppId, call: &IoCall| -> IoFuture {
            let answer = Value::from(format!("answer of {}", call.name()));
            Box::pin(async { Ok(answer) })
        })
        .await
    }

    async fn with_io(
        engine: Scripted,
        io: impl Fn(&AppId, &IoCall) -> IoFuture + Send + Sync + 'static,
    ) -> Self {
        let lines = Lines::default();
        let manager = Manager::builder()
            .config_yaml("decision_logs: {console: true}")
            .source(
                "b",
                Memory::new(BundleWriter::new().revision("r1").to_vec().unwrap()),
            )
            .engine(engine)
            .io(io)
            .budget(Budget::default().time(Duration::from_millis(300)))
            .plugin(opa_plugins::decision_logs().console_to(lines.clone()))
            .build()
            .unwrap();
        let app = manager.app("orders").unwrap();
        app.ready(LONG).await.unwrap();
        Self {
            manager,
            app,
            lines,
            inner_calls: Arc::default(),
        }
    }

    async fn request(&self) -> Response<opa_tower::ResponseBody<Full<Bytes>>> {
        let calls = Arc::clone(&self.inner_calls);
        let inner = service_fn(move |request: Request<RequestBody<Empty<Bytes>>>| {
            calls.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(request.extensions().get::<Decision>().is_some());
                Ok::<_, Infallible>(Response::new(Full::from("inner")))
            }
        });
        let service = OpaLayer::new(self.app.clone())
            .entrypoint("a/b")
            .layer(inner);
        let request = Request::builder()
            .uri("/orders?q=1")
            .header("x-user", "ann");
        service
            .oneshot(request.body(Empty::new()).unwrap())
            .await
            .unwrap()
    }

    /// Sends one request, ends the manager and reads its log.
    async fn seen(self) -> Seen {
        let response = self.request().await;
        self.manager.shutdown(LONG).await;
        let lines = self.lines.take();
        let [line] = &*lines else {
            panic!("one event for one request: {lines:?}")
        };
        let decision = response.extensions().get::<Decision>().unwrap().clone();
        let event = Value::from_json(line.as_bytes()).unwrap();
        let id = event.get("decision_id").and_then(Value::as_str);
        assert_eq!(id, Some(decision.id()));
        let allowed = usize::from(decision.is_allowed());
        assert_eq!(
            self.inner_calls.load(Ordering::Relaxed),
            allowed,
            "{:?}",
            decision.reason()
        );
        assert_eq!(self.app.decision_counts().of(decision.reason()), 1);
        Seen {
            status: response.status(),
            decision,
            event,
        }
    }
}

fn text<'a>(event: &'a Value, path: &[&str]) -> Option<&'a str> {
    event.at(path).and_then(Value::as_str)
}

type Script = fn(&Asked<'_>, &mut EvalContext) -> Outcome;

fn json(text: &str) -> Outcome {
    Outcome::Value(Value::from_json(text.as_bytes()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_outcome_has_its_status_its_reason_and_its_event() {
    let cases: [(Script, u16, Reason); 14] = [
        (|_, _| json("true"), 200, Reason::Allowed),
        (|_, _| json("false"), 403, Reason::Denied),
        (
            |_, _| json(r#"{"allowed": true, "headers": {"x-a": "b"}}"#),
            200,
            Reason::Allowed,
        ),
        (
            |_, _| json(r#"{"allowed": false, "http_status": 401}"#),
            401,
            Reason::Denied,
        ),
        (
            |_, _| json(r#"{"allowed": false, "http_status": 200}"#),
            500,
            Reason::InvalidDecision,
        ),
        (
            |_, _| json(r#"{"allowed": "yes"}"#),
            500,
            Reason::InvalidDecision,
        ),
        (|_, _| json("[]"), 500, Reason::InvalidDecision),
        (|_, _| Outcome::Undefined, 500, Reason::Undefined),
        (
            |_, _| Outcome::Error(EvalError::new(EvalError::CONFLICT, "two values")),
            500,
            Reason::EvalError,
        ),
        (
            |_, _| Outcome::Interrupted(Interrupt::Steps),
            500,
            Reason::StepBudget,
        ),
        (
            |_, _| Outcome::Interrupted(Interrupt::Memory),
            500,
            Reason::MemoryBudget,
        ),
        (
            |_, _| Outcome::Interrupted(Interrupt::Depth),
            500,
            Reason::DepthBudget,
        ),
        (
            |_, ctx| {
                while ctx.check().is_ok() {
                    std::thread::yield_now();
                }
                Outcome::Interrupted(ctx.check().unwrap_err())
            },
            500,
            Reason::TimeBudget,
        ),
        (
            |_, _| panic!("the engine is wrong"),
            500,
            Reason::EnginePanic,
        ),
    ];
    for (script, status, reason) in cases {
        for engine in [Scripted::new(script), Scripted::new(script).pooled()] {
            let seen = Stack::new(engine).await.seen().await;
            assert_eq!(seen.decision.reason(), reason);
            assert_eq!(seen.status.as_u16(), status, "{reason}");
            assert_eq!(seen.decision.revision(), Some("r1"));
            assert_eq!(text(&seen.event, &["path"]), Some("a/b"));
            assert_eq!(text(&seen.event, &["bundles", "b", "revision"]), Some("r1"));
            assert_eq!(seen.event.get("result"), seen.decision.result(), "{reason}");
            let user = [
                "input",
                "attributes",
                "request",
                "http",
                "headers",
                "x-user",
            ];
            assert_eq!(text(&seen.event, &user), Some("ann"), "{reason}");
            match reason {
                Reason::Allowed | Reason::Denied => assert_eq!(seen.event.get("error"), None),
                Reason::EvalError => {
                    let error = text(&seen.event, &["error"]).unwrap();
                    assert!(error.starts_with("eval_conflict_error: "), "{error}");
                }
                _ => {
                    let error = text(&seen.event, &["error"]).unwrap();
                    assert!(error.starts_with(&format!("{reason}: ")), "{error}");
                    assert_eq!(
                        text(&seen.event, &["custom", "reason"]),
                        Some(reason.as_str())
                    );
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_needs_io_waits_for_it_and_is_evaluated_again() {
    let script: Script = |_, ctx| {
        let call = IoCall::new("http.send", [Value::from("http://peer")]);
        match ctx.memo().answer(&call).cloned() {
            None => Outcome::NeedsIo(vec![call.clone(), call]),
            Some(Ok(answer)) => {
                let allowed = answer.as_str() == Some("answer of http.send");
                Outcome::Value(Value::from(allowed))
            }
            Some(Err(_)) => Outcome::Undefined,
        }
    };
    for engine in [Scripted::new(script), Scripted::new(script).pooled()] {
        let seen = Stack::new(engine.clone()).await.seen().await;
        assert_eq!(
            (seen.status.as_u16(), seen.decision.reason()),
            (200, Reason::Allowed)
        );

        let refusing = |_: &AppId, _: &IoCall| -> IoFuture {
            Box::pin(async { Err("no host is granted".into()) })
        };
        let seen = Stack::with_io(engine.clone(), refusing).await.seen().await;
        assert_eq!(
            (seen.status.as_u16(), seen.decision.reason()),
            (500, Reason::Undefined)
        );

        let silent = |_: &AppId, _: &IoCall| -> IoFuture { Box::pin(std::future::pending()) };
        let seen = Stack::with_io(engine, silent).await.seen().await;
        assert_eq!(
            (seen.status.as_u16(), seen.decision.reason()),
            (500, Reason::TimeBudget)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_asks_for_io_again_and_again_is_ended() {
    let script: Script = |_, ctx| {
        let round = ctx.memo().answers().count();
        Outcome::NeedsIo(vec![IoCall::new("http.send", [Value::from(round)])])
    };
    let seen = Stack::new(Scripted::new(script)).await.seen().await;
    assert_eq!(
        (seen.status.as_u16(), seen.decision.reason()),
        (500, Reason::IoRounds)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_longer_than_a_slice_is_decided_on_the_pool() {
    let inline = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&inline);
    let engine = Scripted::new(move |_, ctx| {
        if std::thread::current().name() != Some("opa-eval") {
            counter.fetch_add(1, Ordering::Relaxed);
            loop {
                if let Err(interrupt) = ctx.step(1) {
                    return Outcome::Interrupted(interrupt);
                }
            }
        }
        Outcome::Value(Value::from(true))
    });
    let stack = Stack::new(engine).await;
    for _ in 0..5 {
        assert_eq!(stack.request().await.status(), 200);
    }
    assert_eq!(
        inline.load(Ordering::Relaxed),
        1,
        "the entrypoint is known to be slow"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_parts_that_the_entrypoint_reads_are_built_and_the_log_has_the_whole() {
    let engine = Scripted::new(|asked, _| {
        let built = asked.input.to_json();
        let expected = r#"{"attributes":{"request":{"http":{"method":"GET"}}}}"#;
        assert_eq!(built, expected);
        Outcome::Value(Value::from(true))
    })
    .reading(InputPaths::only([[
        "attributes",
        "request",
        "http",
        "method",
    ]]));
    let seen = Stack::new(engine).await.seen().await;
    assert_eq!(seen.status, 200);
    let query = seen
        .event
        .at(&["input", "parsed_query", "q"])
        .map(Value::to_json);
    assert_eq!(query.as_deref(), Some(r#"["1"]"#));
    let user = [
        "input",
        "attributes",
        "request",
        "http",
        "headers",
        "x-user",
    ];
    assert_eq!(text(&seen.event, &user), Some("ann"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_given_up_counts_as_cancelled_and_has_no_event() {
    let engine = Scripted::new(|_, ctx| {
        while ctx.check().is_ok() {
            std::thread::yield_now();
        }
        Outcome::Interrupted(ctx.check().unwrap_err())
    });
    let stack = Stack::new(engine.pooled()).await;
    let given_up = tokio::time::timeout(Duration::from_millis(20), stack.request()).await;
    assert!(given_up.is_err());
    assert_eq!(stack.app.decision_counts().of(Reason::Cancelled), 1);
    stack.manager.shutdown(LONG).await;
    assert_eq!(stack.lines.take(), [""; 0]);
}
