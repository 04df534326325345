//! Prometheus: what scrapes metrics and answers queries, and what checks their names.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use http::StatusCode;
use serde_json::Value;

use super::ports::Port;
use super::process::{self, Process, StartError};
use crate::http_client;

/// The installed server and its tool.
#[derive(Clone, Debug)]
pub struct Prometheus {
    program: PathBuf,
    promtool: PathBuf,
}

impl Prometheus {
    pub(super) fn at(program: PathBuf, promtool: PathBuf) -> Prometheus {
        Prometheus { program, promtool }
    }

    /// What `promtool check metrics` complains about, line by line.
    ///
    /// # Panics
    ///
    /// When it can't be run, or can't parse the text at all.
    pub fn complaints(&self, metrics: &str) -> Vec<String> {
        let mut child = Command::new(&self.promtool)
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`promtool` can be run");
        let mut stdin = child.stdin.take().expect("it is piped");
        let text = metrics.to_owned();
        let writing = std::thread::spawn(move || stdin.write_all(text.as_bytes()));
        let output = child.wait_with_output().expect("`promtool` ends");
        writing.join().expect("no panic").expect("it reads all");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // 3: it can be read, but is not as it should be.
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 3)), "{code:?}: {said}");
        said.lines().map(str::to_owned).collect()
    }

    /// Scrapes `/metrics` of `target` each `interval`; ready when it answers.
    pub async fn scrape(&self, target: SocketAddr, interval: Duration) -> RunningPrometheus {
        process::start(|| self.attempt(target, interval))
            .await
            .unwrap_or_else(|error| panic!("{error}"))
    }

    async fn attempt(
        &self,
        target: SocketAddr,
        interval: Duration,
    ) -> Result<RunningPrometheus, StartError> {
        let port = Port::reserve().expect("a port of loopback can be reserved");
        let seconds = interval.as_secs();
        let configuration = format!(
            "global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s}}\n\
             scrape_configs: [{{job_name: opa, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        let mut process = Process::spawn("prometheus", |folder| {
            let file = process::write(folder, "prometheus.yml", configuration)?;
            let mut command = Command::new(&self.program);
            command
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}/data", folder.display()))
                .arg(format!("--web.listen-address={}", port.address()));
            Ok(command)
        })?;
        let probe = async || {
            let response = http_client::get(port.address(), "/-/ready").await.ok()?;
            (response.status() == StatusCode::OK).then_some(())
        };
        process.until("ready", probe).await?;
        Ok(RunningPrometheus { process, port })
    }
}

/// A running server, ended when dropped.
#[derive(Debug)]
pub struct RunningPrometheus {
    process: Process,
    port: Port,
}

impl RunningPrometheus {
    /// The value of an instant query whose answer is one number; `None` if it is empty.
    ///
    /// # Panics
    ///
    /// When the query is refused, or has several answers.
    pub async fn number(&self, query: &str) -> Option<f64> {
        let result = self.query(query).await;
        let series = result.as_array().expect("a vector");
        assert!(series.len() <= 1, "{query}: {result}");
        series.first()?["value"][1].as_str()?.parse().ok()
    }

    /// The `result` of an instant query.
    ///
    /// # Panics
    ///
    /// When the query is refused.
    pub async fn query(&self, query: &str) -> Value {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let target = format!("/api/v1/query?query={encoded}");
        let response = http_client::get(self.port.address(), &target).await;
        let response = response.expect("Prometheus answers");
        let answer: Value = serde_json::from_slice(response.body()).expect("JSON");
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].clone()
    }

    /// The process, for its output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}
