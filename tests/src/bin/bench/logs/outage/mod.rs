//! What becomes of events, and of requests, when the sink is slow, then dead, then back.
//!
//! ```not_rust
//! cargo build --release -p examples --bin serve
//! cargo run --release -p tests --bin bench -- logs outage [--steady SECONDS] [--dead SECONDS]
//! ```
//!
//! Requests come at a fixed rate, open-loop, from [oha](tests::peers::Oha): half of what `serve` can do
//! without a log, which is measured first. Who can't do half as many again, with its log and a healthy
//! sink, gets half of what it can, and the report says so (a lower rate makes each request dearer:
//! fewer share a wake-up). The sink is healthy, answers uploads after
//! 300 ms, breaks every connection off, and is healthy again: 9 s each (`--steady`) but the third,
//! 60 s (`--dead`). All takes 13 minutes; `--steady 3 --dead 5` four.
//!
//! A phase is measured in slices of about 3 s. Columns, with median (least..most) of the slices:
//!
//! - `per second`: answers. Fewer than the rate: the server was behind.
//! - `CPU µs`: user and system time of the server's process for each answer, all work on logs
//!   included.
//! - `p50 ms`, `p99 ms`: from when a request was due until its answer.
//! - `not 200`: other answers and none.
//!
//! Below the phases stands where the decisions are. Those of `serve` must be accounted for to the
//! last one: as many answers as decisions, each delivered or dropped for a counted reason, as many
//! different events at the sink as were delivered, and with a spool none lost. Otherwise the benchmark
//! fails, when all is measured. For the peers an event is lost when it isn't there 10 s after the last one that came.
//! The generator sends one request again and again, so events compress better than elsewhere; that
//! some are dropped is seen with a buffer of 2 MiB (`buffer_size_limit_bytes`).
//! `CPU µs, all` is all processor time from the first request until the last event was delivered,
//! for each answer.

mod account;
mod contender;
mod measured;
mod plan;

use tests::bundle_server::BundleServer;
use tests::peers::{self, Oha};
use tokio::runtime::Runtime;

pub(crate) use self::plan::Plan;

use self::contender::{Contender, Keeping, Running};
use self::measured::{Measured, measured};
use super::runtime;
use crate::figures::{heading, line};
use crate::peer::control;
use crate::sink::Sink;

/// Each program first without a log.
const CONTENDERS: [(&str, Contender, bool); 10] = [
    ("serve, no log", Contender::Serve(Keeping::Memory), false),
    ("serve, async", Contender::Serve(Keeping::Memory), true),
    (
        "serve, async, 2 MiB",
        Contender::Serve(Keeping::LittleMemory),
        true,
    ),
    ("serve, spool", Contender::Serve(Keeping::Spool), true),
    (
        "serve, before_response",
        Contender::Serve(Keeping::SpoolBeforeResponse),
        true,
    ),
    ("Skipper, no log", SKIPPER, false),
    ("Skipper, sync", SKIPPER, true),
    (
        "Skipper, async",
        Contender::Skipper { is_async: true },
        true,
    ),
    ("opa run, no log", Contender::Opa, false),
    ("opa run", Contender::Opa, true),
];

const SKIPPER: Contender = Contender::Skipper { is_async: false };

const CAPACITY_SECONDS: u32 = 5;

pub(super) fn run(plan: Plan) -> Result<(), String> {
    heading("A sink that is slow, then dead, then back; requests at a fixed rate");
    let Some(oha) = peers::oha() else {
        line("outage", "not measured", ": the load generator is missing");
        return Ok(());
    };
    let runtime = runtime()?;
    let control = runtime.block_on(control())?;
    let bench = Bench {
        oha,
        runtime,
        control,
        plan,
    };
    bench.run()
}

struct Bench {
    oha: Oha,
    runtime: Runtime,
    control: BundleServer,
    plan: Plan,
}

impl Bench {
    fn run(&self) -> Result<(), String> {
        let mut rate = None;
        let mut all = Vec::new();
        for (name, contender, has_log) in CONTENDERS {
            let Some(capacity) = self.capacity(contender, has_log)? else {
                line(name, "not measured", ": the peer is missing");
                continue;
            };
            let wanted = *rate.get_or_insert(capacity / 2);
            let given = if capacity < wanted {
                capacity / 2
            } else {
                wanted
            };
            println!("\n{name}: can do {capacity} requests per second, gets {given}");
            let measured = self.measured(contender, has_log, given)?;
            measured.show();
            all.push((name, contender, has_log, measured));
        }
        summary(&all);
        let wrong = all
            .iter()
            .filter_map(|(name, .., measured)| Some(format!("{name}: {}", measured.wrong()?)));
        let wrong: Vec<_> = wrong.collect();
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(wrong.join("\n")),
        }
    }

    fn start(&self, contender: Contender, sink: Option<&Sink>) -> Result<Option<Running>, String> {
        contender.start(&self.runtime, &self.control, sink.map(Sink::url))
    }

    /// Answers per second, at most; `None` when the peer is missing.
    fn capacity(&self, contender: Contender, has_log: bool) -> Result<Option<u32>, String> {
        let sink = has_log.then(Sink::start).transpose()?;
        let Some(running) = self.start(contender, sink.as_ref())? else {
            return Ok(None);
        };
        let loaded = running.load(&self.oha, CAPACITY_SECONDS, None)?;
        match loaded.ok {
            0 => Err(format!("nothing was answered well: {loaded:?}")),
            _ => Ok(Some(loaded.rate as u32)),
        }
    }

    fn measured(&self, contender: Contender, has_log: bool, rate: u32) -> Result<Measured, String> {
        let sink = has_log.then(Sink::start).transpose()?;
        let running = self.start(contender, sink.as_ref())?;
        let running = running.ok_or("a peer has gone missing")?;
        measured(self, running, sink, rate)
    }
}

/// What a log adds, beside what it loses.
fn summary(all: &[(&str, Contender, bool, Measured)]) {
    println!(
        "\n{:<24} {:>34} {:>14} {:>10} {:>10}",
        "what a log adds", "CPU µs: healthy, slow, dead, back", "CPU µs, all", "lost", "peak MiB"
    );
    let mut without = None;
    for (name, _, has_log, measured) in all {
        if !has_log {
            without = Some(measured);
        } else if let Some(without) = without {
            let base = without.cpu();
            let phases = measured.phases().map(|cpu| format!("{:.1}", cpu - base));
            println!(
                "{name:<24} {:>34} {:>14.1} {:>10} {:>10}",
                phases.collect::<Vec<_>>().join(", "),
                measured.cpu() - base,
                measured.lost(),
                measured.peak_kib / 1024,
            );
        }
    }
}
