//! Toxiproxy: TCP connections with faults on demand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use super::fetch::{self, Recipe};
use super::ports::Port;
use super::process::{self, Process, StartError};
use crate::http_client;

pub(super) const RECIPE: Recipe = Recipe {
    name: "toxiproxy",
    version: "v2.5.0",
    install,
};

fn install(folder: &Path) -> Result<PathBuf, String> {
    fetch::require("go", "version")?;
    let module = format!(
        "github.com/Shopify/toxiproxy/v2/cmd/server@{}",
        RECIPE.version
    );
    fetch::run(
        fetch::step("go")
            .args(["install", &module])
            .env("GOBIN", folder),
    )?;
    Ok(folder.join("server"))
}

/// The installed server.
#[derive(Clone, Debug)]
pub struct Toxiproxy {
    program: PathBuf,
}

impl Toxiproxy {
    pub(super) fn at(program: PathBuf) -> Toxiproxy {
        Toxiproxy { program }
    }

    /// Starts it without proxies; ready when it answers.
    pub async fn start(&self) -> RunningToxiproxy {
        process::start(|| self.attempt())
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(&self) -> Result<RunningToxiproxy, StartError> {
        let port = Port::reserve().expect("a port of loopback can be reserved");
        let mut process = Process::spawn("toxiproxy", |_| {
            let mut command = Command::new(&self.program);
            command
                .args(["-host", "127.0.0.1", "-port"])
                .arg(port.address().port().to_string());
            Ok(command)
        })?;
        let probe = async || http_client::get(port.address(), "/version").await.ok();
        process.until("answering", probe).await?;
        Ok(RunningToxiproxy {
            _process: process,
            port,
        })
    }
}

/// A running server, ended when dropped. Its methods panic when it refuses.
#[derive(Debug)]
pub struct RunningToxiproxy {
    _process: Process,
    port: Port,
}

impl RunningToxiproxy {
    /// A proxy by that name to `upstream`. Answers where it listens.
    pub async fn proxy(&self, name: &str, upstream: SocketAddr) -> SocketAddr {
        let proxy = json!({
            "name": name, "listen": "127.0.0.1:0", "upstream": upstream, "enabled": true,
        });
        let created = self.call(Method::POST, "/proxies", Some(proxy)).await;
        let listen = created["listen"].as_str().expect("an address");
        listen.parse().expect("an address")
    }

    /// Stops a proxy listening, and ends its connections; or lets it listen again.
    pub async fn enable(&self, proxy: &str, enabled: bool) {
        let change = json!({ "enabled": enabled });
        self.call(Method::POST, &format!("/proxies/{proxy}"), Some(change))
            .await;
    }

    /// Adds a toxic to what comes from upstream: `latency`, `reset_peer`, `limit_data`, `timeout`…
    /// with its attributes. It is known by its type.
    pub async fn poison(&self, proxy: &str, toxic: &str, attributes: Value) {
        let toxic = json!({
            "name": toxic, "type": toxic, "stream": "downstream", "attributes": attributes,
        });
        let path = format!("/proxies/{proxy}/toxics");
        self.call(Method::POST, &path, Some(toxic)).await;
    }

    /// Removes a toxic.
    pub async fn cure(&self, proxy: &str, toxic: &str) {
        let path = format!("/proxies/{proxy}/toxics/{toxic}");
        self.call(Method::DELETE, &path, None).await;
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = Request::builder().method(method).uri(path).body(body);
        let request = request.expect("a request");
        let response = http_client::send(self.port.address(), request).await;
        let response = response.unwrap_or_else(|error| panic!("toxiproxy {path}: {error}"));
        let text = String::from_utf8_lossy(response.body());
        assert!(response.status().is_success(), "toxiproxy {path}: {text}");
        if response.status() == StatusCode::NO_CONTENT {
            return Value::Null;
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("toxiproxy {path}: {error}"))
    }
}
