//! opa-envoy-plugin: OPA that answers Envoy's external authorization checks over gRPC.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::decision_log::Events;
use super::fetch::{self, Recipe};
use super::opa::Server;
use super::process::{self, Process, StartError};

pub(super) const RECIPE: Recipe = Recipe {
    name: "opa-envoy-plugin",
    version: "v1.15.2-envoy",
    install,
};

fn install(folder: &Path) -> Result<PathBuf, String> {
    fetch::require("go", "version")?;
    let module = "github.com/open-policy-agent/opa-envoy-plugin";
    let program = folder.join(RECIPE.name);
    // Its own `go.mod` has replacements, so `go install module@version` refuses it.
    let text = format!("module peers\n\nrequire {module} {}\n", RECIPE.version);
    fs::write(folder.join("go.mod"), text).map_err(|error| error.to_string())?;
    let mut command = fetch::step("go");
    command
        .current_dir(folder)
        .env("GOWORK", "off")
        .args(["build", "-mod=mod", "-o"]);
    fetch::run(
        command
            .arg(&program)
            .arg(format!("{module}/cmd/opa-envoy-plugin")),
    )?;
    Ok(program)
}

/// The installed plugin.
#[derive(Clone, Debug)]
pub struct EnvoyPlugin {
    program: PathBuf,
}

impl EnvoyPlugin {
    pub(super) fn at(program: PathBuf) -> EnvoyPlugin {
        EnvoyPlugin { program }
    }

    /// Starts it with the decision `path` (as `orders/allow`) of a bundle file, its decision log on
    /// the console; ready when it listens and the bundle is active.
    pub async fn start(&self, bundle: &Path, path: &str) -> RunningEnvoyPlugin {
        process::start(|| self.attempt(bundle, path))
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(&self, bundle: &Path, path: &str) -> Result<RunningEnvoyPlugin, StartError> {
        let configuration = |folder: &Path| {
            serde_json::json!({
                "bundles": {"authz": {"resource": format!("file://{}", bundle.display())}},
                "decision_logs": {"console": true},
                "plugins": {"envoy_ext_authz_grpc": {
                    "addr": format!("unix://{}", socket(folder).display()),
                    "path": path,
                }},
            })
            .to_string()
        };
        let server = Server::start("opa-envoy-plugin", &self.program, &[], configuration).await?;
        let server = server.ready("/health?bundles&plugins").await?;
        let events = Events::of(server.process.stderr_file());
        Ok(RunningEnvoyPlugin { server, events })
    }
}

/// A running plugin, ended when dropped.
#[derive(Debug)]
pub struct RunningEnvoyPlugin {
    server: Server,
    events: Events,
}

impl RunningEnvoyPlugin {
    /// The Unix socket where it answers checks.
    pub fn socket(&self) -> PathBuf {
        socket(self.server.process.folder())
    }

    /// Waits for events of its decision log beyond those already taken.
    ///
    /// # Errors
    ///
    /// When it ends before, or logs none for a minute.
    pub async fn next_events(&mut self) -> Result<Vec<Value>, StartError> {
        self.events.next(&mut self.server.process).await
    }

    /// The process, for its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.server.process
    }
}

/// A Unix socket can't collide as a port can.
fn socket(folder: &Path) -> PathBuf {
    folder.join("grpc.sock")
}
