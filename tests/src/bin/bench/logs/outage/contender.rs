//! The servers that are compared, and the one request that all of them judge.

use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use tests::bundle_server::BundleServer;
use tests::http_client;
use tests::peers::{self, Load, Loaded, Oha, Process, RunningOpa, RunningSkipper};
use tests::serve::Serve;
use tokio::runtime::Runtime;

use crate::peer::configuration;
use crate::requests::Requests;

const CONNECTIONS: u32 = 32;

/// Of memory and disk; more than an outage can bring.
const SPOOL_BYTES: &str = "8589934592";

const TARGET: &str = "/orders/17/items/4?page=2";
const PATH: [&str; 4] = ["orders", "17", "items", "4"];

/// A program with its way to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contender {
    Serve(Keeping),
    Skipper { is_async: bool },
    Opa,
}

/// Where `serve` keeps events until they are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keeping {
    Memory,
    /// In at most 2 MiB of it.
    LittleMemory,
    Spool,
    /// And no response before an event is there.
    SpoolBeforeResponse,
}

impl Keeping {
    /// What is said at the end of the section `decision_logs`.
    fn configured(self) -> &'static str {
        match self {
            Self::Memory | Self::Spool => "",
            Self::LittleMemory => "    buffer_size_limit_bytes: 2097152\n",
            Self::SpoolBeforeResponse => "  durability: before_response\n",
        }
    }

    fn is_spooled(self) -> bool {
        matches!(self, Self::Spool | Self::SpoolBeforeResponse)
    }
}

/// A contender that runs, ended when dropped.
pub(super) struct Running {
    server: Server,
    spool: Option<TempDir>,
}

enum Server {
    Serve(Serve),
    Skipper(RunningSkipper),
    Opa(RunningOpa),
}

impl Contender {
    /// Starts it with a log to `sink`, or without one; `None` when it is a peer that is missing.
    pub(super) fn start(
        self,
        runtime: &Runtime,
        control: &BundleServer,
        sink: Option<&str>,
    ) -> Result<Option<Running>, String> {
        let configuration = configuration(control, sink);
        let running = |server, spool| Running { server, spool };
        Ok(match self {
            Self::Serve(keeping) => {
                let configuration = match sink {
                    Some(_) => configuration + keeping.configured(),
                    None => configuration,
                };
                let spool = keeping.is_spooled().then(folder).transpose()?;
                let serve = serve(runtime, &configuration, spool.as_ref().map(TempDir::path));
                Some(running(Server::Serve(serve), spool))
            }
            Self::Skipper { is_async } => {
                let Some(skipper) = peers::skipper() else {
                    return Ok(None);
                };
                let folder = folder()?;
                let file = folder.path().join("opa.yaml");
                std::fs::write(&file, configuration).map_err(|error| error.to_string())?;
                let header = ("x-user", "alice");
                let started = skipper.serve(&file, "bench", is_async, TARGET, header);
                let skipper = runtime.block_on(started);
                Some(running(Server::Skipper(skipper), None))
            }
            Self::Opa => {
                let Some(opa) = peers::opa() else {
                    return Ok(None);
                };
                // Without its plugin for Envoy there is nobody who reads that section.
                let lines = configuration.lines();
                let lines: Vec<_> = lines.filter(|line| !line.starts_with("plugins:")).collect();
                let opa = runtime.block_on(opa.serve(&lines.join("\n")));
                Some(running(Server::Opa(opa), None))
            }
        })
    }
}

fn folder() -> Result<TempDir, String> {
    tempfile::tempdir().map_err(|error| error.to_string())
}

fn serve(runtime: &Runtime, configuration: &str, spool: Option<&Path>) -> Serve {
    let spool = spool.map(|spool| spool.display().to_string());
    let mut arguments = vec!["--app", "bench"];
    if let Some(spool) = &spool {
        arguments.extend(["--spool", spool, "--spool-bytes", SPOOL_BYTES]);
    }
    runtime.block_on(async {
        let mut serve = Serve::start(configuration, &arguments).await;
        serve.ready().await;
        serve
    })
}

impl Running {
    pub(super) fn process(&mut self) -> &mut Process {
        match &mut self.server {
            Server::Serve(serve) => serve.process(),
            Server::Skipper(skipper) => skipper.process(),
            Server::Opa(opa) => opa.process(),
        }
    }

    pub(super) fn has_spool(&self) -> bool {
        self.spool.is_some()
    }

    /// What it tells to Prometheus, if it is ours.
    pub(super) fn metrics(&self, runtime: &Runtime) -> Option<Result<String, String>> {
        let Server::Serve(serve) = &self.server else {
            return None;
        };
        let response = runtime.block_on(http_client::get(serve.admin(), "/metrics"));
        let text = response.map(|response| String::from_utf8_lossy(response.body()).into_owned());
        Some(text.map_err(|error| error.to_string()))
    }

    /// Sends requests, as many as it can take if no rate is given.
    pub(super) fn load(
        &self,
        oha: &Oha,
        seconds: u32,
        rate: Option<u32>,
    ) -> Result<Loaded, String> {
        let headers = headers();
        let (address, target, body) = match &self.server {
            Server::Serve(serve) => (serve.address(), TARGET, None),
            Server::Skipper(skipper) => (skipper.address(), TARGET, None),
            // Its data API answers what the policy says, which is as many decisions.
            Server::Opa(opa) => (opa.address(), "/v1/data/bench/allow", Some(input(&headers))),
        };
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        oha.send(&Load {
            url: &format!("http://{address}{target}"),
            headers: &headers,
            seconds,
            rate,
            connections: CONNECTIONS,
            body: body.as_deref(),
        })
    }
}

fn headers() -> Vec<(String, String)> {
    let request = Requests::seeded(1).make();
    let headers = request.headers().iter();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect()
}

/// The input that the others make of the request themselves, for OPA.
fn input(headers: &[(String, String)]) -> String {
    let headers: serde_json::Map<_, _> = headers
        .iter()
        .map(|(name, value)| (name.clone(), json!(value)))
        .collect();
    let http = json!({
        "method": "GET", "path": TARGET, "host": "shop.example.com", "protocol": "HTTP/1.1",
        "scheme": "http", "headers": headers,
    });
    let input = json!({
        "attributes": {"request": {"http": http}, "metadataContext": {}},
        "parsed_path": PATH, "parsed_query": {"page": ["2"]},
        "parsed_body": null, "truncated_body": false, "version": {"encoding": "protojson", "ext_authz": "v3"},
    });
    json!({"input": input}).to_string()
}
