//! nginx as a static bundle server: strong ETags, 304, ranges.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::ports::Port;
use super::process::{self, Process, StartError};
use crate::http_client;

/// The installed server.
#[derive(Clone, Debug)]
pub struct Nginx {
    program: PathBuf,
}

impl Nginx {
    pub(super) fn at(program: PathBuf) -> Nginx {
        Nginx { program }
    }

    /// Serves the files of a directory; ready when it answers.
    pub async fn serve(&self, root: &Path) -> RunningNginx {
        self.serve_with(root, "").await
    }

    /// As [`serve`](Nginx::serve), with further directives for its `server` block.
    pub async fn serve_with(&self, root: &Path, directives: &str) -> RunningNginx {
        process::start(|| self.attempt(root, directives))
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// As [`serve_with`](Nginx::serve_with), over TLS as well: see [`RunningNginx::secure_url`].
    pub async fn serve_tls(&self, root: &Path, directives: &str) -> RunningNginx {
        let attempt = async || {
            let secure = Port::reserve().expect("a port of loopback can be reserved");
            let listen = format!("listen {} ssl;\n    {directives}", secure.address());
            let mut running = self.attempt(root, &listen).await?;
            running.secure = Some(secure);
            Ok(running)
        };
        process::start(attempt)
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(&self, root: &Path, directives: &str) -> Result<RunningNginx, StartError> {
        let port = Port::reserve().expect("a port of loopback can be reserved");
        let mut process = Process::spawn("nginx", |folder| {
            let text = configuration(folder, root, port.address(), directives);
            let file = process::write(folder, "nginx.conf", text)?;
            let mut command = Command::new(&self.program);
            // `-e`: it would open the system's log before it reads the configuration.
            command
                .arg("-e")
                .arg("stderr")
                .arg("-p")
                .arg(folder)
                .arg("-c")
                .arg(file);
            Ok(command)
        })?;
        let probe = async || http_client::get(port.address(), "/").await.ok();
        process.until("answering", probe).await?;
        Ok(RunningNginx {
            process,
            port,
            secure: None,
        })
    }
}

/// A running server, ended when dropped.
#[derive(Debug)]
pub struct RunningNginx {
    process: Process,
    port: Port,
    secure: Option<Port>,
}

impl RunningNginx {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Its URL for TLS, without a slash at the end.
    pub fn secure_url(&self) -> String {
        let secure = self.secure.as_ref().expect("it serves TLS");
        format!("https://{}", secure.address())
    }

    /// The lines of its access log so far: `<method> <target> <status> "<If-None-Match>"`.
    pub fn accesses(&self) -> Vec<String> {
        self.process.stdout().lines().map(str::to_owned).collect()
    }

    /// The process, for its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

/// One process in the foreground, so that ending it leaves no worker behind.
fn configuration(folder: &Path, root: &Path, address: SocketAddr, directives: &str) -> String {
    let (folder, root) = (folder.display(), root.display());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
        .collect();
    format!(
        r#"daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
  log_format accesses '$request_method $request_uri $status "$http_if_none_match"';
  access_log /dev/stdout accesses;
  default_type application/octet-stream;
{temporary}  server {{
    listen {address};
    root {root};
    {directives}
  }}
}}
"#
    )
}

/// Gives a file that is about to be published a time of modification that no other one has: nginx
/// makes its etags of sizes and of times in seconds, and two bundles can have the same of both.
pub fn renew(file: &Path) {
    static SECONDS: AtomicU64 = AtomicU64::new(1_000_000_000);
    let seconds = SECONDS.fetch_add(1, Ordering::Relaxed);
    let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let file = File::options().write(true).open(file).expect("a file");
    file.set_modified(modified).expect("its time can be set");
}
