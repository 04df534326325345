//! The reference implementation of an OCI registry, with one user.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::fetch;
use super::ports::Port;
use super::process::{self, Process, StartError};
use crate::http_client;

/// The one who may push and pull.
pub const USER: &str = "opa";

/// What proves it.
pub const PASSWORD: &str = "c0rrect";

/// The installed registry.
#[derive(Clone, Debug)]
pub struct DockerRegistry {
    program: PathBuf,
    htpasswd: PathBuf,
}

impl DockerRegistry {
    pub(super) fn at(program: PathBuf, htpasswd: PathBuf) -> DockerRegistry {
        DockerRegistry { program, htpasswd }
    }

    /// Starts an empty one, which lets [`USER`] in.
    ///
    /// # Panics
    ///
    /// When it doesn't start.
    pub async fn serve(&self) -> RunningRegistry {
        process::start(|| self.attempt())
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(&self) -> Result<RunningRegistry, StartError> {
        let port = Port::reserve().expect("a port of loopback can be reserved");
        let mut process = Process::spawn("docker-registry", |folder| {
            let mut htpasswd = Command::new(&self.htpasswd);
            let users = fetch::run(htpasswd.args(["-Bbn", USER, PASSWORD]));
            let users = users.map_err(std::io::Error::other)?;
            process::write(folder, "users", users)?;
            let text = configuration(folder, port.address());
            let file = process::write(folder, "registry.yml", text)?;
            let mut command = Command::new(&self.program);
            command.arg("serve").arg(file);
            Ok(command)
        })?;
        let probe = async || http_client::get(port.address(), "/v2/").await.ok();
        process.until("answering", probe).await?;
        Ok(RunningRegistry { process, port })
    }
}

/// A running registry, ended when dropped.
#[derive(Debug)]
pub struct RunningRegistry {
    process: Process,
    port: Port,
}

impl RunningRegistry {
    /// Where it listens, which is also how references to its images begin.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The requests that it answered with 200, each as `<method> <path>`, of clients whose
    /// `User-Agent` begins so.
    pub fn accesses(&self, agent: &str) -> Vec<String> {
        let log = self.process.stdout();
        let accesses = log.lines().filter_map(access);
        accesses
            .filter(|(_, by)| by.starts_with(agent))
            .map(|(request, _)| request.to_owned())
            .collect()
    }
}

/// Request and agent, of the log format of Apache: `… "GET /v2/ HTTP/1.1" 200 … "<referer>"
/// "<agent>"`.
fn access(line: &str) -> Option<(&str, &str)> {
    let mut parts = line.split('"');
    let (_, request, status) = (parts.next()?, parts.next()?, parts.next()?);
    let request = request.strip_suffix(" HTTP/1.1")?;
    let agent = parts.nth(2)?;
    status.starts_with(" 200 ").then_some((request, agent))
}

fn configuration(folder: &Path, address: SocketAddr) -> String {
    let folder = folder.display();
    format!(
        "version: 0.1\n\
         storage: {{filesystem: {{rootdirectory: {folder}/data}}}}\n\
         http: {{addr: '{address}'}}\n\
         auth: {{htpasswd: {{realm: test, path: {folder}/users}}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accesses_are_read_from_its_log() {
        let line = r#"127.0.0.1 - - [24/Nov/2026:11:47:06 +0000] "HEAD /v2/a/manifests/1 HTTP/1.1" 200 538 "" "x""#;
        assert_eq!(access(line), Some(("HEAD /v2/a/manifests/1", "x")));
        assert_eq!(access(&line.replace(" 200 ", " 401 ")), None);
        assert_eq!(access("time=\"x\" level=info"), None);
    }
}
