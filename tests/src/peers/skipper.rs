//! Skipper, with Open Policy Agent inside, as proxy and as a program that only decides.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::fetch::{self, Recipe};
use super::ports::Port;
use super::process::{self, Process, StartError};
use crate::http_client;

pub(super) const RECIPE: Recipe = Recipe {
    name: "skipper",
    version: "v0.27.0",
    install,
};

/// Our program on Skipper's modules.
const DECIDE: &str = include_str!("skipper/decide.go");

/// One that Skipper's own modules don't agree on without being told.
const VALKEY: &str = "github.com/valkey-io/valkey-go";

fn install(folder: &Path) -> Result<PathBuf, String> {
    fetch::require("go", "version")?;
    let skipper = "github.com/zalando/skipper";
    let valkey = ["", "/valkeyotel", "/valkeyhook"];
    let valkey = valkey.map(|part| format!("require {VALKEY}{part} v1.0.76\n"));
    let module = format!(
        "module peers\n\ngo 1.26\n\nrequire {skipper} {}\n{}",
        RECIPE.version,
        valkey.concat()
    );
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).map_err(|error| error.to_string())
    };
    write("go.mod", &module)?;
    write("decide.go", DECIDE)?;
    let go = |arguments: &[&str]| {
        let mut command = fetch::step("go");
        command.current_dir(folder).env("GOWORK", "off");
        fetch::run(command.args(arguments))
    };
    go(&["build", "-mod=mod", "-o", "decide", "."])?;
    go(&[
        "build",
        "-mod=mod",
        "-o",
        "skipper",
        &format!("{skipper}/cmd/skipper"),
    ])?;
    Ok(folder.join("skipper"))
}

/// The installed programs.
#[derive(Clone, Debug)]
pub struct Skipper {
    program: PathBuf,
}

impl Skipper {
    pub(super) fn at(program: PathBuf) -> Skipper {
        Skipper { program }
    }

    /// Makes decisions for `app` without HTTP, logged `sync` or `async` where the configuration wants
    /// it, and answers what they took: `wall_ns`, `allocs` and `bytes` of a decision, `cpu_ns` of the
    /// process for a decision with all that follows from it.
    ///
    /// # Errors
    ///
    /// When the program fails, or prints something else.
    pub fn decide(
        &self,
        configuration: &Path,
        app: &str,
        mode: &str,
        decisions: u32,
        seed: u64,
    ) -> Result<Value, String> {
        let mut command = Command::new(self.program.with_file_name("decide"));
        command.arg(configuration).args([app, mode]);
        command.args([decisions.to_string(), seed.to_string()]);
        let printed = fetch::run(&mut command)?;
        let last = printed.lines().last().unwrap_or_default();
        serde_json::from_str(last).map_err(|error| format!("`decide` printed {last}: {error}"))
    }

    /// Starts the proxy with one route, which judges each request by the policy of `app` and answers
    /// 200 by itself; ready when it lets `target` pass, with this header.
    pub async fn serve(
        &self,
        configuration: &Path,
        app: &str,
        is_async: bool,
        target: &str,
        header: (&str, &str),
    ) -> RunningSkipper {
        process::start(|| self.attempt(configuration, app, is_async, target, header))
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(
        &self,
        configuration: &Path,
        app: &str,
        is_async: bool,
        target: &str,
        (name, value): (&str, &str),
    ) -> Result<RunningSkipper, StartError> {
        let reserve = || Port::reserve().expect("a port of loopback can be reserved");
        let (port, support) = (reserve(), reserve());
        let address = port.address();
        let mut process = Process::spawn("skipper", |_| {
            let mut command = Command::new(&self.program);
            let route = format!("r: * -> opaAuthorizeRequest(\"{app}\") -> status(200) -> <shunt>");
            command
                .args(["-inline-routes", &route])
                .args(["-address", &address.to_string()])
                .args(["-support-listener", &support.address().to_string()])
                .args(["-access-log-disabled", "-enable-open-policy-agent"])
                .arg("-open-policy-agent-config-template")
                .arg(configuration);
            if is_async {
                command.arg("-enable-open-policy-agent-async-decision-logging");
            }
            Ok(command)
        })?;
        let probe = async || {
            let request = http::Request::get(target).header(name, value);
            let request = request.body(bytes::Bytes::new()).ok()?;
            let response = http_client::send(address, request).await.ok()?;
            response.status().is_success().then_some(())
        };
        process.until("lets a request pass", probe).await?;
        Ok(RunningSkipper {
            process,
            port,
            _support: support,
        })
    }
}

/// The proxy while it runs, ended when dropped.
#[derive(Debug)]
pub struct RunningSkipper {
    process: Process,
    port: Port,
    _support: Port,
}

impl RunningSkipper {
    /// Where it listens.
    pub fn address(&self) -> std::net::SocketAddr {
        self.port.address()
    }

    /// Its process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
