//! What a decision takes on its own thread, with a decision log and without one.

use std::time::Duration;

use super::{Judged, Log, runtime};
use crate::figures::{Figures, heading, line};
use crate::measure;
use crate::requests::Requests;
use crate::sink::Sink;

const ROUNDS: usize = 15;

/// Fewer than wait to be encoded, so that none is dropped.
const DECISIONS: u32 = 4_000;

pub(super) fn run() -> Result<(), String> {
    heading("A decision through the layer, 15 headers, engine and service that take nothing");
    let mut sink = Sink::start()?;
    let runtime = runtime()?;
    let _inside = runtime.enter();
    let mut plain = Judged::start(&runtime, None)?;
    let log = Log {
        url: sink.url(),
        spool: None,
    };
    let mut logged = Judged::start(&runtime, Some(log))?;
    let (mut without, mut with) = (Taken::default(), Taken::default());
    let mut sent = 0;
    for round in 0..=ROUNDS {
        let plain = Round::of(&mut plain, round as u64);
        let logged = Round::of(&mut logged, round as u64);
        sent += u64::from(DECISIONS);
        sink.until(sent)?;
        // The first one warms up.
        if round > 0 {
            without.add(&plain);
            with.add(&logged);
        }
    }
    plain.stop(&runtime);
    logged.stop(&runtime);
    without.show("without a log");
    with.show("with a log to a service");
    line(
        "the log adds",
        format!("{:.3}", with.time.median() - without.time.median()),
        "µs of the thread's time (bound: 1)",
    );
    line(
        "the log adds",
        format!(
            "{:.2}",
            with.allocations.median() - without.allocations.median()
        ),
        "allocations (bound: 4)",
    );
    Ok(())
}

#[derive(Default)]
struct Taken {
    time: Figures,
    allocations: Figures,
    bytes: Figures,
}

impl Taken {
    fn add(&mut self, round: &Round) {
        let per = f64::from(DECISIONS);
        self.time.add(round.time.as_secs_f64() * 1e6 / per);
        self.allocations.add(round.allocations as f64 / per);
        self.bytes.add(round.bytes as f64 / per);
    }

    fn show(&self, what: &str) {
        line(what, &self.time, "µs of the thread's time");
        line(what, &self.allocations, "allocations");
        line(what, &self.bytes, "bytes allocated");
    }
}

struct Round {
    time: Duration,
    allocations: u64,
    bytes: u64,
}

impl Round {
    fn of(judged: &mut Judged, seed: u64) -> Self {
        let mut requests = Requests::seeded(seed);
        let requests: Vec<_> = (0..DECISIONS).map(|_| requests.make()).collect();
        let mut time = Duration::ZERO;
        let taken = allocation_counter::measure(|| {
            let start = measure::thread();
            for request in requests {
                judged.judge(request);
            }
            time = measure::thread() - start;
        });
        Self {
            time,
            allocations: taken.count_total,
            bytes: taken.bytes_total,
        }
    }
}
