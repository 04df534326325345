//! The load generator oha: requests at a fixed rate, whatever the server does.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::fetch::{self, Recipe};

pub(super) const RECIPE: Recipe = Recipe {
    name: "oha",
    version: "1.16.0",
    install,
};

fn install(folder: &Path) -> Result<PathBuf, String> {
    fetch::require("cargo", "--version")?;
    let mut command = fetch::step("cargo");
    command.args(["install", "oha", "--locked", "--version", RECIPE.version]);
    command.arg("--root").arg(folder);
    // Not where this workspace is built.
    command.arg("--target-dir").arg(folder.join("build"));
    fetch::run(&mut command)?;
    // Half a gigabyte that nobody needs any more.
    std::fs::remove_dir_all(folder.join("build")).map_err(|error| error.to_string())?;
    Ok(folder.join("bin/oha"))
}

/// The installed program.
#[derive(Clone, Debug)]
pub struct Oha {
    program: PathBuf,
}

/// What is sent.
#[derive(Clone, Debug)]
pub struct Load<'a> {
    /// Where to.
    pub url: &'a str,
    /// Headers, as `name: value`.
    pub headers: &'a [&'a str],
    /// For how many seconds.
    pub seconds: u32,
    /// How many requests each second; as many as possible without.
    pub rate: Option<u32>,
    /// On how many connections.
    pub connections: u32,
}

/// What was answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// Answers with status 200.
    pub ok: u64,
    /// Answers with another status.
    pub others: u64,
    /// Answers in a second.
    pub rate: f64,
    /// The median of their times, in seconds, from when they were due.
    pub p50: f64,
    /// What 99 of 100 took at most.
    pub p99: f64,
}

impl Oha {
    pub(super) fn at(program: PathBuf) -> Oha {
        Oha { program }
    }

    /// Sends them, and waits for the end.
    ///
    /// # Errors
    ///
    /// When the program fails, or prints something else than JSON.
    pub fn send(&self, load: &Load<'_>) -> Result<Loaded, String> {
        let mut command = Command::new(&self.program);
        command.args(["--no-tui", "--output-format", "json", "--disable-color"]);
        command.args([
            "-z",
            &format!("{}s", load.seconds),
            "-c",
            &load.connections.to_string(),
        ]);
        if let Some(rate) = load.rate {
            // Times count from when a request was due, not from when there was a connection for it.
            command.args(["-q", &rate.to_string(), "--latency-correction"]);
        }
        for header in load.headers {
            command.args(["-H", header]);
        }
        let printed = fetch::run(command.arg(load.url))?;
        let report: Value = serde_json::from_str(&printed)
            .map_err(|error| format!("oha printed {printed}: {error}"))?;
        let number = |path: &str| {
            report
                .pointer(path)
                .and_then(Value::as_f64)
                .unwrap_or_default()
        };
        let statuses = report
            .pointer("/statusCodeDistribution")
            .and_then(Value::as_object);
        let statuses = statuses.into_iter().flatten();
        let mut loaded = Loaded {
            rate: number("/summary/requestsPerSec"),
            p50: number("/latencyPercentiles/p50"),
            p99: number("/latencyPercentiles/p99"),
            ..Loaded::default()
        };
        for (status, count) in statuses {
            let count = count.as_u64().unwrap_or_default();
            match status.as_str() {
                "200" => loaded.ok += count,
                _ => loaded.others += count,
            }
        }
        Ok(loaded)
    }
}
