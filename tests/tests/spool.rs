//! The spool of the decision log: a process that is killed, and disks that are full or read-only.

#![cfg(unix)]

#[path = "spool/crash.rs"]
mod crash;
#[path = "spool/disk.rs"]
mod disk;

use std::time::{Duration, SystemTime};

use opa_core::AppId;
use opa_plugins::decision_logs::spool::{Record, RecordId, Spool, StreamName};

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

fn stream(app: &str) -> StreamName {
    StreamName::new(AppId::new(app).unwrap(), "default")
}

fn record(app: &str, number: u64) -> Record {
    let json = tests::spooling::json(0, number).into();
    let timestamp = SystemTime::UNIX_EPOCH + Duration::from_millis(number);
    Record::new(stream(app), number.to_string().into(), timestamp, json)
}

/// The records of `ids`, all whole.
async fn read(spool: &Spool, ids: &[RecordId]) -> Vec<Record> {
    let read = spool.read(ids.to_vec(), usize::MAX).await.unwrap();
    assert_eq!(read.damaged, []);
    assert_eq!(read.looked_at, ids.len());
    read.records.into_iter().map(|(_, record)| record).collect()
}
