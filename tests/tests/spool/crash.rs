//! A process that is killed while it appends: whatever it said to be durable is there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use opa_plugins::decision_logs::spool::{Spool, SpoolConfig};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::read;

/// The longest time that a process may append before it is killed.
const MAX_LIFE: Duration = Duration::from_millis(150);

struct Spooling(Child);

impl Spooling {
    fn start(directory: &Path, first: u64) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spooling"));
        command.arg(directory).arg(first.to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Spooling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process said: by stream, the last number that is durable, and the last that may be gone.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    durable: Option<u64>,
    gone: Option<u64>,
}

/// Runs a process, kills it at a point drawn, and tells what it said by then.
fn killed(directory: &Path, first: u64, random: &mut StdRng) -> BTreeMap<u64, Said> {
    let mut child = Spooling::start(directory, first);
    let mut lines = BufReader::new(child.0.stdout.take().unwrap());
    let mut line = String::new();
    // The clock starts with the first record.
    lines.read_line(&mut line).unwrap();
    assert!(!line.is_empty(), "the process ended by itself");
    let life = MAX_LIFE.mul_f64(random.random());
    let killer = std::thread::spawn(move || {
        std::thread::sleep(life);
        drop(child);
    });
    let mut said: BTreeMap<u64, Said> = BTreeMap::new();
    // Until the end of what the process wrote before it was killed.
    while line.ends_with('\n') {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (stream, number) = (words[0].parse().unwrap(), words[1].parse().unwrap());
        let said = said.entry(stream).or_default();
        if words.len() == 3 {
            said.gone = Some(number);
        } else {
            assert!(said.durable.is_none_or(|last| last + 1 == number));
            said.durable = Some(number);
        }
        line.clear();
        lines.read_line(&mut line).unwrap();
    }
    killer.join().unwrap();
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_said_to_be_durable_is_there() {
    let kills = if std::env::var("CI").is_ok_and(|ci| ci == "true") {
        200
    } else {
        20
    };
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let (mut first, mut durable, mut more, mut torn) = (0, 0, 0, 0);
    for _ in 0..kills {
        let said = killed(directory.path(), first, &mut random);
        let spool = Spool::open(SpoolConfig::new(directory.path())).unwrap();
        let stats = spool.stats();
        assert_eq!((stats.damaged, stats.damaged_bytes), (0, 0));
        torn += usize::from(stats.torn_bytes > 0);
        let recovered: BTreeMap<_, _> = spool.recovered().into_iter().collect();
        let mut last_of_all = first;
        for (stream, said) in &said {
            let name = super::stream(&format!("app-{stream}"));
            let ids = recovered.get(&name).map_or(&[][..], Vec::as_slice);
            let records = read(&spool, ids).await;
            let mut expected = None;
            for record in &records {
                let number: u64 = record.decision_id.parse().unwrap();
                assert_eq!(record.json, tests::spooling::json(*stream, number));
                let millis = record.timestamp.duration_since(std::time::UNIX_EPOCH);
                assert_eq!(millis.unwrap(), Duration::from_millis(number));
                // In order, none twice and none left out.
                assert!(
                    expected.is_none_or(|expected| number == expected),
                    "{number}"
                );
                expected = Some(number + 1);
            }
            let number = |at: Option<&super::Record>| at.map(|at| at.decision_id.parse().unwrap());
            let (oldest, newest): (Option<u64>, Option<u64>) =
                (number(records.first()), number(records.last()));
            let least = said.gone.map_or(first, |gone| gone + 1);
            if let Some(last) = said.durable {
                // A removal is said before it is done, and may be forgotten.
                assert!(
                    oldest.is_some_and(|oldest| oldest <= least),
                    "{oldest:?} {said:?}"
                );
                assert!(newest >= Some(last), "{newest:?} {said:?}");
                durable += last + 1 - least;
                // Each stream waits for its record before it appends the next.
                let unsaid = newest.unwrap_or(0) - last;
                assert!(unsaid <= 1, "{newest:?} {said:?}");
                more += unsaid;
            }
            last_of_all = last_of_all.max(newest.map_or(0, |newest| newest + 1));
        }
        first = last_of_all;
        // Delivered.
        for ids in recovered.values() {
            spool.remove(ids);
        }
        spool.close().await;
    }
    println!("{durable} were durable, {more} more were there, {torn} files were cut off");
    assert!(durable > 0);
}
