//! The OpenTelemetry collector: receives traces, metrics and logs over OTLP, and writes them to files.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::StatusCode;
use serde_json::{Value, json};

use super::fetch::{self, Recipe};
use super::ports::Port;
use super::process::{self, Process, StartError};
use crate::http_client;

pub(super) const RECIPE: Recipe = Recipe {
    name: "collector",
    version: "v0.162.0",
    install,
};

/// The version of the parts that are stable.
const STABLE: &str = "v1.68.0";

/// What the collector is made of.
fn parts() -> [(&'static str, &'static str, &'static str); 3] {
    let unstable = RECIPE.version;
    [
        (
            "receivers",
            "go.opentelemetry.io/collector/receiver/otlpreceiver",
            unstable,
        ),
        (
            "exporters",
            "github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter",
            unstable,
        ),
        (
            "providers",
            "go.opentelemetry.io/collector/confmap/provider/fileprovider",
            STABLE,
        ),
    ]
}

fn install(folder: &Path) -> Result<PathBuf, String> {
    fetch::require("go", "version")?;
    let written = |error: io::Error| error.to_string();
    let builder = format!(
        "go.opentelemetry.io/collector/cmd/builder@{}",
        RECIPE.version
    );
    fetch::run(
        fetch::step("go")
            .args(["install", &builder])
            .env("GOBIN", folder),
    )?;
    let source = folder.join("source");
    let mut manifest = json!({
        "dist": {"name": RECIPE.name, "output_path": source, "version": RECIPE.version},
        // Otherwise it wants the provider of environment variables too.
        "conf_resolver": {"default_uri_scheme": "file"},
    });
    let mut go_mod = format!(
        "module peers\n\nrequire go.opentelemetry.io/collector/otelcol {}\n",
        RECIPE.version
    );
    for (kind, module, version) in parts() {
        manifest[kind] = json!([{"gomod": format!("{module} {version}")}]);
        go_mod += &format!("require {module} {version}\n");
    }
    // JSON is YAML.
    let manifest_file = folder.join("builder.yaml");
    fs::write(&manifest_file, manifest.to_string()).map_err(written)?;
    // Left to itself it tidies the modules, for which it needs those of all their tests.
    let only_sources = ["--skip-get-modules", "--skip-compilation", "--config"];
    fetch::run(
        fetch::step(&folder.join("builder").display().to_string())
            .args(only_sources)
            .arg(&manifest_file),
    )?;
    fs::write(source.join("go.mod"), go_mod).map_err(written)?;
    let program = folder.join(RECIPE.name);
    fetch::run(
        fetch::step("go")
            .current_dir(&source)
            .envs([("GOWORK", "off"), ("CGO_ENABLED", "0")])
            .args(["build", "-mod=mod", "-trimpath", "-ldflags=-s -w", "-o"])
            .arg(&program)
            .arg("."),
    )?;
    Ok(program)
}

/// The installed collector.
#[derive(Clone, Debug)]
pub struct Collector {
    program: PathBuf,
}

impl Collector {
    pub(super) fn at(program: PathBuf) -> Collector {
        Collector { program }
    }

    /// Starts it, without TLS; ready when it answers over HTTP.
    pub async fn start(&self) -> RunningCollector {
        self.start_with(&Value::Null).await
    }

    /// Starts it so that it answers over TLS only, with a certificate and its key in PEM.
    pub async fn start_tls(&self, certificate: &Path, key: &Path) -> RunningCollector {
        self.start_with(&json!({"cert_file": certificate, "key_file": key}))
            .await
    }

    async fn start_with(&self, tls: &Value) -> RunningCollector {
        process::start(|| self.attempt(tls))
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(&self, tls: &Value) -> Result<RunningCollector, StartError> {
        let reserve = || Port::reserve().expect("a port of loopback can be reserved");
        let (grpc, http) = (reserve(), reserve());
        let mut process = Process::spawn("collector", |folder| {
            let configuration = configuration(folder, grpc.address(), http.address(), tls);
            let file = process::write(folder, "collector.yaml", configuration.to_string())?;
            let mut command = Command::new(&self.program);
            command.arg("--config").arg(file);
            Ok(command)
        })?;
        // gRPC starts first.
        let probe = async || {
            let answer = http_client::get(http.address(), "/v1/logs").await.ok()?;
            let ready = [StatusCode::METHOD_NOT_ALLOWED, StatusCode::BAD_REQUEST];
            ready.contains(&answer.status()).then_some(())
        };
        process.until("answering", probe).await?;
        Ok(RunningCollector {
            process,
            grpc,
            http,
        })
    }
}

const SIGNALS: [&str; 3] = ["traces", "metrics", "logs"];

fn configuration(folder: &Path, grpc: SocketAddr, http: SocketAddr, tls: &Value) -> Value {
    let mut configuration = json!({
        "receivers": {"otlp": {"protocols": {
            "grpc": {"endpoint": grpc, "tls": tls},
            "http": {"endpoint": http, "tls": tls},
        }}},
        "service": {"telemetry": {"metrics": {"level": "none"}}},
    });
    for signal in SIGNALS {
        let exporter = format!("file/{signal}");
        configuration["exporters"][&exporter] = json!({
            "path": file(folder, signal),
            // Far more than a test writes. What may be rotated is written at once, not each second.
            "rotation": {"max_megabytes": 10_000},
        });
        configuration["service"]["pipelines"][signal] =
            json!({"receivers": ["otlp"], "exporters": [exporter]});
    }
    configuration
}

fn file(folder: &Path, signal: &str) -> PathBuf {
    folder.join(format!("{signal}.jsonl"))
}

/// A running collector, ended when dropped. It answers a sender when what it sent stands in a file.
#[derive(Debug)]
pub struct RunningCollector {
    process: Process,
    grpc: Port,
    http: Port,
}

impl RunningCollector {
    /// Where it takes OTLP over gRPC.
    pub fn grpc(&self) -> SocketAddr {
        self.grpc.address()
    }

    /// Where it takes OTLP over HTTP, below `/v1/traces`, `/v1/metrics` and `/v1/logs`.
    pub fn http(&self) -> SocketAddr {
        self.http.address()
    }

    /// The requests with spans that came, each as OTLP's JSON (`resourceSpans`).
    pub fn traces(&self) -> Vec<Value> {
        self.received("traces")
    }

    /// The requests with metrics that came, each as OTLP's JSON (`resourceMetrics`).
    pub fn metrics(&self) -> Vec<Value> {
        self.received("metrics")
    }

    /// The requests with log records that came, each as OTLP's JSON (`resourceLogs`).
    pub fn logs(&self) -> Vec<Value> {
        self.received("logs")
    }

    /// Waits until `wanted` is answered with something.
    ///
    /// # Errors
    ///
    /// When the collector ends before, or after a minute.
    pub async fn until<T>(
        &mut self,
        what: &str,
        wanted: impl Fn(&Received) -> Option<T>,
    ) -> Result<T, StartError> {
        let received = Received(self.process.folder().to_owned());
        let probe = async || wanted(&received);
        self.process.until(what, probe).await
    }

    /// The process, for its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    fn received(&self, signal: &str) -> Vec<Value> {
        read(self.process.folder(), signal)
    }
}

/// What a collector received so far.
#[derive(Debug)]
pub struct Received(PathBuf);

impl Received {
    /// As [`RunningCollector::traces`].
    pub fn traces(&self) -> Vec<Value> {
        read(&self.0, "traces")
    }

    /// As [`RunningCollector::metrics`].
    pub fn metrics(&self) -> Vec<Value> {
        read(&self.0, "metrics")
    }

    /// As [`RunningCollector::logs`].
    pub fn logs(&self) -> Vec<Value> {
        read(&self.0, "logs")
    }
}

/// The whole lines of a file; without the file there are none.
fn read(folder: &Path, signal: &str) -> Vec<Value> {
    let text = fs::read_to_string(file(folder, signal)).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}
