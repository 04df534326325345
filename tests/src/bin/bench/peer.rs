//! The peers of the benchmarks.

use std::fmt;
use std::path::PathBuf;

use opa_core::Value;
use opa_core::bundle::BundleWriter;
use tempfile::TempDir;
use tests::bundle_server::{Answer, BundleServer};
use tests::peers;
use tokio::runtime::Runtime;

use crate::sink::Sink;

/// The policy of the peers: as small as one that looks at a request can be.
pub(crate) const POLICY: &str = r#"package bench

import rego.v1

default allow := false

allow if input.attributes.request.http.headers["x-user"] in data.users
"#;

/// How Skipper logs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Sync,
    Async,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sync => "sync",
            Self::Async => "async",
        })
    }
}

/// Skipper's filter, with what it needs.
pub(crate) struct Skipper {
    peer: peers::Skipper,
    folder: TempDir,
    _control: BundleServer,
    _sink: Sink,
}

/// What a decision of it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decided {
    pub(crate) cpu_ns: f64,
}

const DECISIONS: u32 = 20_000;

impl Skipper {
    pub(crate) fn start(runtime: &Runtime) -> Result<Option<Self>, String> {
        let Some(peer) = peers::skipper() else {
            return Ok(None);
        };
        let control = runtime.block_on(control())?;
        let sink = Sink::start()?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let skipper = Self {
            peer,
            folder,
            _control: control,
            _sink: sink,
        };
        for logs in [false, true] {
            let text = configuration(&skipper._control, logs.then(|| skipper._sink.url()));
            let written = std::fs::write(skipper.configuration(logs), text);
            written.map_err(|error| error.to_string())?;
        }
        Ok(Some(skipper))
    }

    fn configuration(&self, logs: bool) -> PathBuf {
        self.folder
            .path()
            .join(if logs { "logs.yaml" } else { "plain.yaml" })
    }

    pub(crate) fn decide(&self, mode: Mode, logs: bool, seed: u64) -> Result<Decided, String> {
        let file = self.configuration(logs);
        let figures = self
            .peer
            .decide(&file, "bench", &mode.to_string(), DECISIONS, seed)?;
        let cpu_ns = figures.get("cpu_ns").and_then(serde_json::Value::as_f64);
        let cpu_ns = cpu_ns.ok_or("Skipper tells no `cpu_ns`")?;
        Ok(Decided { cpu_ns })
    }
}

/// A server of the bundle `bench`.
pub(crate) async fn control() -> Result<BundleServer, String> {
    let users = ["alice", "bob", "carol", "dave", "erin"].map(Value::from);
    let data = Value::object([(Value::from("users"), Value::array(users))]);
    let bundle = BundleWriter::new()
        .data("", &data)
        .and_then(|bundle| bundle.module("bench.rego", POLICY))
        .and_then(|bundle| bundle.to_vec());
    let bundle = bundle.map_err(|error| error.to_string())?;
    let server = BundleServer::start().await;
    server.answer("/bundles/bench", Answer::Bundle(bundle));
    Ok(server)
}

/// A configuration for OPA, Skipper and ours alike.
pub(crate) fn configuration(control: &BundleServer, sink: Option<&str>) -> String {
    let logs = sink.map_or(String::new(), |_| {
        "decision_logs:\n  service: logs\n  reporting:\n    min_delay_seconds: 1\n    max_delay_seconds: 2\n".to_owned()
    });
    let sink = sink.unwrap_or("http://127.0.0.1:1");
    format!(
        "services:\n  control: {{url: '{}'}}\n  logs: {{url: '{sink}'}}\n\
         bundles: {{bench: {{service: control, resource: bundles/bench}}}}\n\
         plugins: {{envoy_ext_authz_grpc: {{path: bench/allow}}}}\n{logs}",
        control.url(),
    )
}
