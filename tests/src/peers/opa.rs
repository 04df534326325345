//! The `opa` command: builds, evaluates and inspects bundles, and runs as a server.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use super::decision_log::decision_logs;
use super::fetch::{self, Recipe};
use super::ports::Port;
use super::process::{self, Process, StartError};
use crate::http_client;

pub(super) const RECIPE: Recipe = Recipe {
    name: "opa",
    version: "v1.22.2",
    install,
};

fn install(folder: &Path) -> Result<PathBuf, String> {
    fetch::require("go", "version")?;
    let module = format!("github.com/open-policy-agent/opa@{}", RECIPE.version);
    fetch::run(
        fetch::step("go")
            .args(["install", &module])
            .env("GOBIN", folder),
    )?;
    Ok(folder.join("opa"))
}

/// The installed `opa` command. Its methods panic, with all that it wrote, where it fails.
#[derive(Clone, Debug)]
pub struct Opa {
    program: PathBuf,
}

impl Opa {
    pub(super) fn at(program: PathBuf) -> Opa {
        Opa { program }
    }

    /// What `opa version` prints.
    pub fn version(&self) -> String {
        text(self.run(&["version"], None))
    }

    /// `opa build -b` of a folder into a bundle file, with a revision.
    pub fn build(&self, folder: &Path, bundle: &Path, revision: &str) {
        self.build_with(folder, bundle, &["--revision", revision]);
    }

    /// `opa build -b` of a folder into a bundle file, with further arguments.
    pub fn build_with(&self, folder: &Path, bundle: &Path, arguments: &[&str]) {
        let mut command = Command::new(&self.program);
        // From within, so that the names in the bundle don't tell where it was built.
        command
            .current_dir(folder)
            .args(["build", "--bundle", ".", "--output"])
            .arg(bundle);
        output(command.args(arguments), None).unwrap_or_else(|error| panic!("{error}"));
    }

    /// `opa sign` of a folder, with further arguments: puts its `.signatures.json` into it.
    pub fn sign(&self, folder: &Path, arguments: &[&str]) {
        let mut command = Command::new(&self.program);
        command.current_dir(folder).args(["sign", "--bundle", "."]);
        command.args(arguments);
        output(&mut command, None).unwrap_or_else(|error| panic!("{error}"));
    }

    /// The value of a query over a bundle (a file or folder); `None` when it is undefined.
    pub fn eval(&self, bundle: &Path, query: &str, input: &Value) -> Option<Value> {
        self.try_eval(bundle, query, input)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`eval`](Opa::eval), with OPA's own words where the bundle or evaluation has an error.
    ///
    /// # Errors
    ///
    /// Whatever `opa eval` refuses or fails at.
    pub fn try_eval(
        &self,
        bundle: &Path,
        query: &str,
        input: &Value,
    ) -> Result<Option<Value>, String> {
        let mut command = Command::new(&self.program);
        command.args(["eval", "--format", "json", "--stdin-input", "--bundle"]);
        let stdout = output(command.arg(bundle).arg(query), Some(&input.to_string()))?;
        let answer: Value = serde_json::from_slice(&stdout).map_err(|error| error.to_string())?;
        Ok(answer.pointer("/result/0/expressions/0/value").cloned())
    }

    /// What `opa inspect` tells about a bundle, as JSON.
    pub fn inspect(&self, bundle: &Path) -> Value {
        let stdout = self.run(
            &["inspect", "--format", "json", &bundle.display().to_string()],
            None,
        );
        serde_json::from_slice(&stdout).expect("`opa inspect` prints JSON")
    }

    /// Runs any other command of it and answers its standard output.
    ///
    /// # Panics
    ///
    /// When it fails, with what it wrote to standard error.
    pub fn run(&self, arguments: &[&str], input: Option<&str>) -> Vec<u8> {
        output(Command::new(&self.program).args(arguments), input)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Starts `opa run --server` with a configuration file (YAML or JSON); ready when all its
    /// bundles are active.
    pub async fn serve(&self, configuration: &str) -> RunningOpa {
        self.serve_until(configuration, "/health?bundles").await
    }

    /// As [`serve`](Opa::serve), ready when `GET target` answers 200: `/health` for a server whose
    /// bundles never become active.
    pub async fn serve_until(&self, configuration: &str, target: &str) -> RunningOpa {
        self.serve_in(&[], configuration, target).await
    }

    /// As [`serve_until`](Opa::serve_until), with further environment variables.
    pub async fn serve_in(
        &self,
        environment: &[(&str, &str)],
        configuration: &str,
        target: &str,
    ) -> RunningOpa {
        process::start(|| self.attempt(environment, configuration, target))
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`serve`](Opa::serve), with all that it wrote if it ends instead of serving.
    ///
    /// # Errors
    ///
    /// When it doesn't accept the configuration.
    pub async fn try_serve(&self, configuration: &str) -> Result<RunningOpa, String> {
        process::start(|| self.attempt(&[], configuration, "/health"))
            .await
            .map_err(|error| error.to_string())
    }

    /// The active configuration (`GET /v1/config`) of a server that is started with a configuration
    /// file, further arguments and environment variables.
    ///
    /// # Errors
    ///
    /// When OPA refuses them, with its own words.
    pub async fn active_configuration(
        &self,
        configuration: &str,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Value, String> {
        let attempt = async || {
            let more = |command: &mut Command| {
                command.args(arguments);
            };
            let server = Server::start_with(
                "opa",
                &self.program,
                env,
                |_| configuration.to_owned(),
                more,
            )
            .await?;
            server.ready("/health").await
        };
        let server = process::start(attempt)
            .await
            .map_err(|error| error.to_string())?;
        let response = http_client::get(server.port.address(), "/v1/config")
            .await
            .map_err(|error| error.to_string())?;
        let answer: Value =
            serde_json::from_slice(response.body()).map_err(|error| error.to_string())?;
        Ok(answer.get("result").cloned().unwrap_or_default())
    }

    async fn attempt(
        &self,
        environment: &[(&str, &str)],
        configuration: &str,
        target: &str,
    ) -> Result<RunningOpa, StartError> {
        let configuration = |_: &Path| configuration.to_owned();
        let server = Server::start("opa", &self.program, environment, configuration).await?;
        Ok(RunningOpa {
            server: server.ready(target).await?,
        })
    }
}

/// A running OPA server, ended when dropped.
#[derive(Debug)]
pub struct RunningOpa {
    server: Server,
}

impl RunningOpa {
    /// Where its REST API listens.
    pub fn address(&self) -> SocketAddr {
        self.server.port.address()
    }

    /// `POST /v1/data/<path>` with an input: the result, `None` when it is undefined.
    ///
    /// # Panics
    ///
    /// When the server doesn't answer 200.
    pub async fn decide(&self, path: &str, input: &Value) -> Option<Value> {
        let body = Bytes::from(json!({ "input": input }).to_string());
        let request = Request::post(format!("/v1/data/{path}"))
            .header("content-type", "application/json")
            .body(body)
            .expect("a path of a reference is a request target");
        let response = http_client::send(self.address(), request)
            .await
            .expect("OPA answers");
        assert_eq!(response.status(), StatusCode::OK, "{:?}", response.body());
        let answer: Value = serde_json::from_slice(response.body()).expect("OPA answers JSON");
        answer.get("result").cloned()
    }

    /// The events that `decision_logs.console` printed so far.
    pub fn decision_logs(&self) -> Vec<Value> {
        decision_logs(&self.server.process.stderr())
    }

    /// The process, for its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.server.process
    }
}

/// `run --server` of OPA or of a program that OPA is part of.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) process: Process,
    port: Port,
}

impl Server {
    /// `configuration` is told the directory of the process.
    pub(super) async fn start(
        name: &str,
        program: &Path,
        environment: &[(&str, &str)],
        configuration: impl FnOnce(&Path) -> String,
    ) -> Result<Server, StartError> {
        Self::start_with(name, program, environment, configuration, |_| {}).await
    }

    /// As [`start`](Self::start); `more` may add to the command.
    async fn start_with(
        name: &str,
        program: &Path,
        environment: &[(&str, &str)],
        configuration: impl FnOnce(&Path) -> String,
        more: impl FnOnce(&mut Command),
    ) -> Result<Server, StartError> {
        let port = Port::reserve().expect("a port of loopback can be reserved");
        let process = Process::spawn(name, |folder| {
            let file = process::write(folder, "opa.yaml", configuration(folder))?;
            let mut command = Command::new(program);
            command.args(["run", "--server", "--skip-version-check", "--addr"]);
            command
                .arg(port.address().to_string())
                .arg("--config-file")
                .arg(file);
            // Its persistence directory is relative to it.
            command
                .current_dir(folder)
                .envs(environment.iter().copied());
            more(&mut command);
            Ok(command)
        })?;
        Ok(Server { process, port })
    }

    /// Waits until `GET target` answers 200.
    pub(super) async fn ready(mut self, target: &str) -> Result<Server, StartError> {
        let address = self.port.address();
        let probe = async || {
            let response = http_client::get(address, target).await.ok()?;
            (response.status() == StatusCode::OK).then_some(())
        };
        self.process
            .until(&format!("ready ({target})"), probe)
            .await?;
        Ok(self)
    }
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

fn output(command: &mut Command, input: Option<&str>) -> Result<Vec<u8>, String> {
    let failed = |error: io::Error| format!("can't run `opa`: {error}");
    let stdin = if input.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input) {
        // A command that fails before it reads its input tells why itself.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(format!("{}\n{}", text(output.stdout), text(output.stderr))),
    }
}
