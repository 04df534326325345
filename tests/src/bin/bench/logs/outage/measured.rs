//! One server through all phases.

use std::time::{Duration, Instant};

use super::Bench;
use super::account::{Account, Answers};
use super::contender::Running;
use super::plan::Phase;
use crate::figures::Figures;
use crate::measure;
use crate::sink::{Seen, Sink};

/// A peer from which nothing has come for so long is done.
const QUIET: Duration = Duration::from_secs(10);

/// How long the last events may take after the load has ended.
const REST: Duration = Duration::from_secs(180);

/// What was measured.
pub(super) struct Measured {
    phases: Vec<(Phase, Slices)>,
    cpu: Duration,
    answers: Answers,
    pub(super) peak_kib: u64,
    accounted: Accounted,
}

#[derive(Default)]
struct Slices {
    rate: Figures,
    cpu_us: Figures,
    p50_ms: Figures,
    p99_ms: Figures,
    not_ok: u64,
}

/// Measures it; without a sink in the first phase only.
pub(super) fn measured(
    bench: &Bench,
    mut running: Running,
    mut sink: Option<Sink>,
    rate: u32,
) -> Result<Measured, String> {
    let before = match &mut sink {
        // What made it ready may have been decisions.
        Some(sink) => quiet(sink, Duration::from_secs(3), u64::MAX)?,
        None => Seen::default(),
    };
    let phases = bench.plan.phases();
    let phases = match sink {
        Some(_) => &phases[..],
        None => &phases[..1],
    };
    let pid = running.process().id();
    let start = measure::of_process(pid)?;
    let mut answers = Answers::default();
    let mut all = Vec::new();
    for phase in phases {
        if let Some(sink) = &mut sink {
            sink.answers(phase.answers)?;
        }
        let slices = slices(bench, &running, pid, *phase, rate, &mut answers)?;
        all.push((*phase, slices));
    }
    let accounted = match &mut sink {
        Some(sink) => Accounted::of(bench, &running, sink, before, answers)?,
        None => Accounted::unlogged(answers),
    };
    Ok(Measured {
        phases: all,
        cpu: measure::of_process(pid)? - start,
        answers,
        peak_kib: measure::peak_of_process(pid)?,
        accounted,
    })
}

fn slices(
    bench: &Bench,
    running: &Running,
    pid: u32,
    phase: Phase,
    rate: u32,
    answers: &mut Answers,
) -> Result<Slices, String> {
    let mut slices = Slices::default();
    for seconds in phase.slices() {
        let before = measure::of_process(pid)?;
        let loaded = running.load(&bench.oha, seconds, Some(rate))?;
        let cpu = measure::of_process(pid)? - before;
        slices.rate.add(loaded.rate);
        slices.cpu_us.add(per(cpu, loaded.ok + loaded.others));
        slices.p50_ms.add(loaded.p50 * 1e3);
        slices.p99_ms.add(loaded.p99 * 1e3);
        slices.not_ok += loaded.others + loaded.failed;
        answers.ok += loaded.ok;
        answers.others += loaded.others;
        answers.failed += loaded.failed;
    }
    Ok(slices)
}

/// In µs.
fn per(cpu: Duration, answers: u64) -> f64 {
    cpu.as_secs_f64() * 1e6 / answers as f64
}

/// What has come when so many events did, or none for a time.
fn quiet(sink: &mut Sink, time: Duration, unique: u64) -> Result<Seen, String> {
    let end = Instant::now() + REST;
    let mut last = (sink.seen()?, Instant::now());
    loop {
        let seen = sink.seen()?;
        if seen.events > last.0.events {
            last = (seen, Instant::now());
        }
        let is_done = seen.unique >= unique || last.1.elapsed() > time;
        if is_done || Instant::now() > end {
            return Ok(seen);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Where the decisions are.
struct Accounted {
    words: String,
    lost: u64,
    wrong: Option<String>,
}

impl Accounted {
    fn unlogged(answers: Answers) -> Self {
        Self {
            words: format!("{} answered", answers.all()),
            lost: 0,
            wrong: None,
        }
    }

    fn of(
        bench: &Bench,
        running: &Running,
        sink: &mut Sink,
        before: Seen,
        answers: Answers,
    ) -> Result<Self, String> {
        if let Some(account) = settled(bench, running)? {
            let seen = sink.seen()?;
            return Ok(Self {
                words: format!("{account}; {}", came(seen, before)),
                lost: account.lost(),
                wrong: account.check(answers, seen, running.has_spool()).err(),
            });
        }
        let seen = quiet(sink, QUIET, before.unique + answers.all())?;
        let lost = answers.all().saturating_sub(seen.unique - before.unique);
        Ok(Self {
            words: format!(
                "{} answered, {lost} lost; {}",
                answers.all(),
                came(seen, before)
            ),
            lost,
            wrong: None,
        })
    }
}

fn came(seen: Seen, before: Seen) -> String {
    let unique = seen.unique - before.unique;
    let again = seen.events - before.events - unique;
    format!("{unique} at the sink, {again} of them again")
}

/// What `serve` tells when no event waits any more, or for too long; `None` of others.
fn settled(bench: &Bench, running: &Running) -> Result<Option<Account>, String> {
    let end = Instant::now() + REST;
    while let Some(metrics) = running.metrics(&bench.runtime) {
        let account = Account::read(&metrics?)?;
        if account.waiting() == 0 || Instant::now() > end {
            return Ok(Some(account));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(None)
}

impl Measured {
    pub(super) fn lost(&self) -> u64 {
        self.accounted.lost
    }

    /// What must not be.
    pub(super) fn wrong(&self) -> Option<&str> {
        self.accounted.wrong.as_deref()
    }

    /// Processor time for an answer, all in, in µs.
    pub(super) fn cpu(&self) -> f64 {
        per(self.cpu, self.answers.all())
    }

    /// The same in each phase.
    pub(super) fn phases(&self) -> impl Iterator<Item = f64> {
        self.phases.iter().map(|(_, slices)| slices.cpu_us.median())
    }

    pub(super) fn show(&self) {
        println!(
            "{:<10} {:>24} {:>24} {:>22} {:>26} {:>8}",
            "sink", "per second", "CPU µs", "p50 ms", "p99 ms", "not 200"
        );
        for (phase, slices) in &self.phases {
            println!(
                "{:<10} {:>24} {:>24} {:>22} {:>26} {:>8}",
                phase.name,
                format!("{:.0}", slices.rate),
                format!("{:.1}", slices.cpu_us),
                slices.p50_ms.to_string(),
                slices.p99_ms.to_string(),
                slices.not_ok,
            );
        }
        println!(
            "CPU µs, all: {:.1}; peak {} MiB; {}",
            self.cpu(),
            self.peak_kib / 1024,
            self.accounted.words
        );
    }
}
