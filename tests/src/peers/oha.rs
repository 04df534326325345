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
    /// Posts this; without, it is `GET`.
    pub body: Option<&'a str>,
}

/// What was answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Loaded {
    /// Answers with status 200.
    pub ok: u64,
    /// Answers with another status.
    pub others: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// Answers in a second.
    pub rate: f64,
    /// The median of their times, in seconds, from when they were due; NaN without answers.
    pub p50: f64,
    /// What 99 of 100 took at most.
    pub p99: f64,
}

impl Oha {
    pub(super) fn at(program: PathBuf) -> Oha {
        Oha { program }
    }

    /// Sends them, and waits for all answers.
    ///
    /// # Errors
    ///
    /// When the program fails, or prints something else than JSON.
    pub fn send(&self, load: &Load<'_>) -> Result<Loaded, String> {
        let mut command = Command::new(&self.program);
        command.args(["--no-tui", "--no-color", "--output-format", "json"]);
        // What a server has begun to answer when the time is over is waited for: it has decided.
        command.args(["-w", "-z", &format!("{}s", load.seconds)]);
        command.args(["-c", &load.connections.to_string()]);
        if let Some(rate) = load.rate {
            // Times count from when a request was due, not from when there was a connection for it.
            command.args(["-q", &rate.to_string(), "--latency-correction"]);
        }
        for header in load.headers {
            command.args(["-H", header]);
        }
        if let Some(body) = load.body {
            command.args(["-m", "POST", "-d", body]);
        }
        let printed = fetch::run(command.arg(load.url))?;
        loaded(&printed).ok_or_else(|| format!("oha printed {printed}"))
    }
}

/// What a report says.
fn loaded(report: &str) -> Option<Loaded> {
    let report: Value = serde_json::from_str(report).ok()?;
    let percentile = |name: &str| {
        let seconds = report.pointer(&format!("/latencyPercentiles/{name}"));
        seconds.and_then(Value::as_f64).unwrap_or(f64::NAN)
    };
    let counts = |name: &str| {
        let counts = report.get(name)?.as_object()?;
        let counts = counts
            .iter()
            .map(|(key, count)| Some((key, count.as_u64()?)));
        counts.collect::<Option<Vec<_>>>()
    };
    let mut loaded = Loaded {
        rate: report.pointer("/summary/requestsPerSec")?.as_f64()?,
        p50: percentile("p50"),
        p99: percentile("p99"),
        ..Loaded::default()
    };
    for (status, count) in counts("statusCodeDistribution")? {
        match status.as_str() {
            "200" => loaded.ok += count,
            _ => loaded.others += count,
        }
    }
    for (_, count) in counts("errorDistribution")? {
        loaded.failed += count;
    }
    Some(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_counted_by_status_and_error() {
        let report = r#"{
            "summary": {"requestsPerSec": 12.5},
            "latencyPercentiles": {"p50": 0.25, "p99": 0.5},
            "statusCodeDistribution": {"200": 7, "403": 2, "503": 1},
            "errorDistribution": {"connection refused": 3, "timeout": 1}
        }"#;
        let loaded = loaded(report).unwrap();
        assert_eq!((loaded.ok, loaded.others, loaded.failed), (7, 3, 4));
        assert_eq!((loaded.rate, loaded.p50, loaded.p99), (12.5, 0.25, 0.5));
    }

    #[test]
    fn a_report_without_answers_has_no_times_and_an_incomplete_one_is_none() {
        let report = r#"{
            "summary": {"requestsPerSec": 0.0},
            "latencyPercentiles": {"p50": null, "p99": null},
            "statusCodeDistribution": {},
            "errorDistribution": {"connection refused": 3}
        }"#;
        assert!(loaded(report).unwrap().p99.is_nan());
        assert!(loaded("{}").is_none());
        assert!(loaded("oha failed").is_none());
    }
}
