//! What a logged decision takes of the processor, all in: handed over, its input built, encoded,
//! compressed, uploaded; with a spool also written to the disk, read back and removed.

use std::path::Path;
use std::time::Duration;

use super::{Judged, Log, runtime};
use crate::figures::{Figures, heading, line};
use crate::measure;
use crate::peer::{Mode, Skipper};
use crate::requests::Requests;
use crate::sink::Sink;

const ROUNDS: usize = 5;

/// Fewer than wait to be encoded, so that none is dropped.
const BURST: u32 = 4_000;
const BURSTS: u32 = 5;

pub(super) fn run() -> Result<(), String> {
    heading("A logged decision, all in: processor time of the whole process");
    let runtime = runtime()?;
    let _inside = runtime.enter();
    let mut sink = Sink::start()?;
    let url = sink.url().to_owned();
    let (mut without, mut with, mut ours) = <(Figures, Figures, Figures)>::default();
    let (mut with_spool, mut spooled) = <(Figures, Figures)>::default();
    let mut sent = 0;
    for round in 0..ROUNDS as u64 {
        let plain = Judged::start(&runtime, None)?;
        let plain = burn(plain, &runtime, round, |_| Ok(()))?;
        let mut logged = |spool: Option<&Path>| {
            let log = Log { url: &url, spool };
            let logged = Judged::start(&runtime, Some(log))?;
            burn(logged, &runtime, round, |events| {
                sent += events;
                sink.until(sent)
            })
        };
        let in_memory = logged(None)?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let in_spool = logged(Some(folder.path()))?;
        without.add(plain);
        with.add(in_memory);
        ours.add(in_memory - plain);
        with_spool.add(in_spool);
        spooled.add(in_spool - plain);
    }
    let seen = sink.seen()?;
    line("ours, without a log", &without, "µs");
    line("ours, with a log", &with, "µs");
    line("ours, with a log and a spool", &with_spool, "µs");
    line("ours, a logged event", &ours, "µs (bound: 25)");
    line("ours, a logged event with a spool", &spooled, "µs");
    let size = seen.bytes as f64 / seen.events as f64;
    line("ours, an event as uploaded", format!("{size:.0}"), "bytes");
    peers(&runtime, ours.median())
}

fn peers(runtime: &tokio::runtime::Runtime, ours: f64) -> Result<(), String> {
    let Some(skipper) = Skipper::start(runtime)? else {
        line("Skipper", "not measured", ": the peer is missing");
        return Ok(());
    };
    for mode in [Mode::Sync, Mode::Async] {
        let mut theirs = Figures::default();
        for round in 0..ROUNDS as u64 {
            let plain = skipper.decide(mode, false, round)?;
            let logged = skipper.decide(mode, true, round)?;
            theirs.add((logged.cpu_ns - plain.cpu_ns) / 1e3);
        }
        line(&format!("Skipper, {mode}, a logged event"), &theirs, "µs");
        line(
            &format!("Skipper, {mode}, to ours"),
            format!("{:.1}", theirs.median() / ours),
            "times",
        );
    }
    Ok(())
}

/// Processor time of the process for a decision, in µs.
fn burn(
    mut judged: Judged,
    runtime: &tokio::runtime::Runtime,
    seed: u64,
    mut done: impl FnMut(u64) -> Result<(), String>,
) -> Result<f64, String> {
    let mut requests = Requests::seeded(seed);
    let mut taken = Duration::ZERO;
    for _ in 0..BURSTS {
        let burst: Vec<_> = (0..BURST).map(|_| requests.make()).collect();
        let start = measure::process();
        for request in burst {
            judged.judge(request);
        }
        done(BURST.into())?;
        taken += measure::process() - start;
    }
    judged.stop(runtime);
    Ok(taken.as_secs_f64() * 1e6 / f64::from(BURST * BURSTS))
}
