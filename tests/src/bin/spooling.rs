//! A process that appends to a spool until it is killed, and prints the id of each decision once it
//! is durable.
//!
//! Arguments: the directory, the number of the first decision. There are several streams at once, and
//! all but the newest decisions of each are taken for delivered. It ends by itself with its standard
//! input, so that none outlives its test.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime};

use opa_core::AppId;
use opa_plugins::decision_logs::spool::{Record, Spool, SpoolConfig, StreamName};

/// Each waits for its own records.
const STREAMS: u64 = 16;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, first] = arguments.as_slice() else {
        return Err("expected a directory and a number".into());
    };
    let mut config = SpoolConfig::new(directory);
    // So that there are many files, and records are moved.
    config.max_bytes = 1 << 20;
    let spool = Spool::open(config)?;
    let first: u64 = first.parse()?;
    for stream in 0..STREAMS {
        tokio::spawn(append(spool.clone(), stream, first));
    }
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}

/// Prints `stream number` for what is durable, and `stream number gone` before it is removed.
async fn append(spool: Spool, stream: u64, first: u64) {
    let app = AppId::new(&format!("app-{stream}")).expect("an id");
    let name = StreamName::new(app, "default");
    let mut kept = std::collections::VecDeque::new();
    for number in first.. {
        let json = tests::spooling::json(stream, number).into();
        let id = number.to_string().into();
        let timestamp = SystemTime::UNIX_EPOCH + Duration::from_millis(number);
        let appending = spool.append(Record::new(name.clone(), id, timestamp, json));
        let id = appending.expect("room").await.expect("a disk");
        say(&format!("{stream} {number}\n"));
        kept.push_back((id, number));
        // What the first stream keeps for long must be moved.
        let keeps = if stream == 0 { 200 } else { 5 };
        if kept.len() > keeps
            && let Some((id, number)) = kept.pop_front()
        {
            say(&format!("{stream} {number} gone\n"));
            spool.remove(&[id]);
        }
    }
}

/// One write for each line, so that a line is whole or isn't there.
fn say(line: &str) {
    std::io::stdout()
        .write_all(line.as_bytes())
        .expect("a reader");
}
