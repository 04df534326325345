//! What decision logs and status cost, and what becomes of events when their sink fails.

mod cost;
mod decision;
mod fleet;
mod outage;

pub(crate) use fleet::member as fleet_member;

use std::path::Path;
use std::time::Duration;

use http_body_util::Empty;
use opa_core::engine::{InputPaths, Outcome};
use opa_core::{App, Manager, Value};
use opa_plugins::decision_logs::spool::SpoolConfig;
use opa_tower::{OpaLayer, OpaService, ResponseBody};
use tests::scripted::Scripted;
use tokio::runtime::Runtime;
use tower::Layer;

use self::outage::Plan;

/// How long anything may take that should be there at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs some parts, or all. The only options are those of `outage`.
pub(crate) fn run(arguments: &[&str]) -> Result<(), String> {
    type Part = fn(Plan) -> Result<(), String>;
    let all: [(&str, Part); 4] = [
        ("decision", |_| decision::run()),
        ("cost", |_| cost::run()),
        ("fleet", |_| fleet::run()),
        ("outage", outage::run),
    ];
    let (plan, parts) = Plan::read(arguments)?;
    if let Some(unknown) = parts
        .iter()
        .find(|part| all.iter().all(|(name, _)| name != *part))
    {
        return Err(format!("`logs` has no part `{unknown}`"));
    }
    for (name, part) in all {
        if parts.is_empty() || parts.contains(&name) {
            part(plan)?;
        }
    }
    Ok(())
}

/// An app whose policy allows at once and reads no more than the path, so that what is
/// measured is not an engine.
struct Judged {
    manager: Manager,
    service: OpaService<Inner>,
}

/// The service behind the layer.
#[derive(Clone)]
struct Inner;

type Body = opa_tower::RequestBody<Empty<bytes::Bytes>>;

impl tower::Service<http::Request<Body>> for Inner {
    type Response = http::Response<Empty<bytes::Bytes>>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        std::future::ready(Ok(http::Response::new(Empty::new())))
    }
}

/// A log to a service, in memory or with a spool in a directory.
#[derive(Clone, Copy)]
struct Log<'a> {
    url: &'a str,
    spool: Option<&'a Path>,
}

impl Judged {
    fn start(runtime: &Runtime, log: Option<Log<'_>>) -> Result<Self, String> {
        let manager = manager(log)?;
        let app: App = manager.app("bench").map_err(|error| error.to_string())?;
        let ready = runtime.block_on(app.ready(PATIENCE));
        ready.map_err(|error| error.to_string())?;
        let service = OpaLayer::new(app).layer(Inner);
        Ok(Self { manager, service })
    }

    /// Judges a request, which must pass.
    fn judge(&mut self, request: http::Request<Empty<bytes::Bytes>>) {
        use futures_util::FutureExt;
        use tower::Service;

        // Nothing on this way waits.
        let response = self.service.call(request).now_or_never();
        let answer: Option<Result<http::Response<ResponseBody<_>>, _>> = response;
        let passed = answer.is_some_and(|answer| answer.is_ok_and(|it| it.status().is_success()));
        assert!(passed, "a request did not pass");
    }

    fn stop(self, runtime: &Runtime) {
        runtime.block_on(self.manager.shutdown(PATIENCE));
    }
}

fn manager(log: Option<Log<'_>>) -> Result<Manager, String> {
    let logs = log.map_or(String::new(), |Log { url, .. }| {
        let reporting = "reporting: {min_delay_seconds: 1, max_delay_seconds: 1}";
        format!(
            "bundles: {{}}\nservices: {{logs: {{url: '{url}'}}}}\ndecision_logs: {{service: logs, {reporting}}}\n"
        )
    });
    let path = "plugins: {envoy_ext_authz_grpc: {path: bench/allow}}\n";
    let inputs = InputPaths::only([["attributes", "request", "http", "path"]]);
    let engine = Scripted::new(|_, _| Outcome::Value(Value::from(true))).reading(inputs);
    let plugin = opa_plugins::decision_logs();
    let plugin = match log.and_then(|log| log.spool) {
        Some(path) => plugin.spool(SpoolConfig::new(path)),
        None => plugin,
    };
    let builder = Manager::builder()
        .config_yaml(&format!("{logs}{path}"))
        .engine(engine)
        .plugin(plugin)
        .in_memory([], Value::empty_object());
    let manager = builder.and_then(|builder| builder.build());
    manager.map_err(|error| error.to_string())
}

fn runtime() -> Result<Runtime, String> {
    Runtime::new().map_err(|error| error.to_string())
}
