//! What becomes of events, and of requests, when the sink is slow, then dead, then back.
//!
//! Requests come at a fixed rate: half of what `serve` can do without a log.

use std::path::Path;
use std::time::Duration;

use tests::bundle_server::BundleServer;
use tests::peers::{self, Load, Loaded, Oha, RunningOpa, RunningSkipper};
use tests::serve::Serve;
use tokio::runtime::Runtime;

use super::runtime;
use crate::figures::{heading, line};
use crate::measure;
use crate::peer::{configuration, control};
use crate::sink::Sink;

const CONNECTIONS: u32 = 32;

/// How the sink answers, and for how many seconds.
const PHASES: [(&str, u32); 4] = [("ok", 10), ("slow 300", 20), ("dead", 60), ("ok", 30)];

/// How long the last events may take after the load has ended.
const REST: Duration = Duration::from_secs(30);

pub(super) fn run() -> Result<(), String> {
    heading("A sink that is slow, then dead for 60 s, then back; requests at a fixed rate");
    let Some(oha) = peers::oha() else {
        line(
            "outage",
            "not measured",
            ": the load generator oha is missing",
        );
        return Ok(());
    };
    let runtime = runtime()?;
    let control = runtime.block_on(control())?;
    let capacity = Contender::serve(&runtime, &control, None, &[])?.load(&oha, 5, None)?;
    line(
        "serve without a log, as many as it can",
        format!("{:.0}", capacity.rate),
        "requests per second",
    );
    let rate = (capacity.rate / 2.0) as u32;
    line("the fixed rate", rate, "requests per second");

    measured(&oha, rate, "serve, no log", None, |_| {
        Contender::serve(&runtime, &control, None, &[])
    })?;
    measured(&oha, rate, "serve, async", Some(Sink::start()?), |url| {
        Contender::serve(&runtime, &control, url, &[])
    })?;
    if let Some(skipper) = peers::skipper() {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let start = |url: Option<&str>, is_async| {
            let file = folder.path().join("opa.yaml");
            let written = std::fs::write(&file, configuration(&control, url));
            written.map_err(|error| error.to_string())?;
            Contender::skipper(&runtime, &skipper, &file, is_async)
        };
        measured(&oha, rate, "Skipper, no log", None, |url| start(url, false))?;
        measured(&oha, rate, "Skipper, sync", Some(Sink::start()?), |url| {
            start(url, false)
        })?;
        measured(&oha, rate, "Skipper, async", Some(Sink::start()?), |url| {
            start(url, true)
        })?;
    }
    if let Some(opa) = peers::opa() {
        let start = |url: Option<&str>| Contender::opa(&runtime, &opa, &control, url);
        measured(&oha, rate, "opa run, no log", None, start)?;
        measured(&oha, rate, "opa run", Some(Sink::start()?), start)?;
    }
    Ok(())
}

fn measured(
    oha: &Oha,
    rate: u32,
    what: &str,
    mut sink: Option<Sink>,
    start: impl FnOnce(Option<&str>) -> Result<Contender, String>,
) -> Result<(), String> {
    let url = sink.as_ref().map(|sink| sink.url().to_owned());
    let mut contender = start(url.as_deref())?;
    let mut answered = 0;
    let phases = match sink {
        Some(_) => &PHASES[..],
        None => &PHASES[..1],
    };
    for (answers, seconds) in phases {
        if let Some(sink) = &mut sink {
            sink.answers(answers)?;
        }
        let before = measure::of_process(contender.id())?;
        let loaded = contender.load(oha, *seconds, Some(rate))?;
        let cpu = measure::of_process(contender.id())? - before;
        answered += loaded.ok;
        let all = (loaded.ok + loaded.others).max(1) as f64;
        let figures = format!(
            "{:.1} µs of processor time per request, p50 {:.2} ms, p99 {:.2} ms, {:.0} rps, {} refused",
            cpu.as_secs_f64() * 1e6 / all,
            loaded.p50 * 1e3,
            loaded.p99 * 1e3,
            loaded.rate,
            loaded.others,
        );
        let phase = sink.as_ref().map_or("", |_| answers);
        line(&format!("{what}: {phase}"), figures, "");
    }
    if let Some(sink) = &mut sink {
        let delivered = settled(sink, answered)?;
        let lost = answered.saturating_sub(delivered);
        line(
            what,
            format!("{answered} answered, {delivered} delivered, {lost} lost"),
            "",
        );
    }
    Ok(())
}

/// What has come when all has, or nothing more comes.
fn settled(sink: &mut Sink, wanted: u64) -> Result<u64, String> {
    let end = std::time::Instant::now() + REST;
    loop {
        let seen = sink.seen()?;
        if seen.unique >= wanted || std::time::Instant::now() > end {
            return Ok(seen.unique);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A server under load.
enum Contender {
    Serve(Serve),
    Skipper(RunningSkipper),
    Opa(RunningOpa),
}

impl Contender {
    fn serve(
        runtime: &Runtime,
        control: &BundleServer,
        sink: Option<&str>,
        more: &[&str],
    ) -> Result<Self, String> {
        let configuration = configuration(control, sink);
        let arguments: Vec<_> = ["--app", "bench"].iter().chain(more).copied().collect();
        let serve = runtime.block_on(async {
            let mut serve = Serve::start(&configuration, &arguments).await;
            serve.ready().await;
            serve
        });
        Ok(Self::Serve(serve))
    }

    fn skipper(
        runtime: &Runtime,
        skipper: &peers::Skipper,
        file: &Path,
        is_async: bool,
    ) -> Result<Self, String> {
        let header = ("x-user", "alice");
        let running = runtime.block_on(skipper.serve(file, "bench", is_async, TARGET, header));
        Ok(Self::Skipper(running))
    }

    fn opa(
        runtime: &Runtime,
        opa: &peers::Opa,
        control: &BundleServer,
        sink: Option<&str>,
    ) -> Result<Self, String> {
        // Without its plugin for Envoy there is nobody who reads that section.
        let configuration = configuration(control, sink);
        let configuration: Vec<_> = configuration
            .lines()
            .filter(|line| !line.starts_with("plugins:"))
            .collect();
        Ok(Self::Opa(
            runtime.block_on(opa.serve(&configuration.join("\n"))),
        ))
    }

    fn id(&mut self) -> u32 {
        match self {
            Self::Serve(serve) => serve.process().id(),
            Self::Skipper(skipper) => skipper.process().id(),
            Self::Opa(opa) => opa.process().id(),
        }
    }

    fn load(&mut self, oha: &Oha, seconds: u32, rate: Option<u32>) -> Result<Loaded, String> {
        let (address, target) = match self {
            Self::Serve(serve) => (serve.address(), TARGET),
            Self::Skipper(skipper) => (skipper.address(), TARGET),
            // Its data API answers what the policy says, which is as many decisions.
            Self::Opa(opa) => (opa.address(), "/v1/data/bench/allow"),
        };
        oha.send(&Load {
            url: &format!("http://{address}{target}"),
            headers: &[
                "x-user: alice",
                "accept: application/json",
                "x-request-id: 4f2c1d9e-8b7a-4c3d-9e8f-7a6b5c4d3e2f",
                "authorization: Bearer 0123456789abcdef0123456789abcdef",
            ],
            seconds,
            rate,
            connections: CONNECTIONS,
        })
    }
}

const TARGET: &str = "/orders/17/items/4?page=2";
