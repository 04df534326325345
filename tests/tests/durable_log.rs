//! Decision logs with a spool: a `serve` that is killed under load, a service that is dead for a while,
//! and disks that are full. Every decision that a client saw is accounted for.

#![cfg(unix)]

#[path = "durable_log/crash.rs"]
mod crash;
#[path = "durable_log/dead_sink.rs"]
mod dead_sink;
#[path = "durable_log/full_disk.rs"]
mod full_disk;

use std::time::Duration;

use opa_core::Value;
use opa_plugins::decision_logs::AppCounts;
use tests::log_sink::LogSink;

/// Longer than anything here takes; a test that waits for it fails.
const LONG: Duration = Duration::from_secs(60);

/// The events that were uploaded since this was last asked, in their order.
fn events(sink: &LogSink) -> Vec<Value> {
    let mut events = Vec::new();
    for post in sink.take() {
        let chunk = Value::from_json(&post.body).unwrap();
        events.extend(chunk.as_array().unwrap().iter().cloned());
    }
    events
}

fn id(event: &Value) -> &str {
    event.get("decision_id").and_then(Value::as_str).unwrap()
}

fn assert_adds_up(counts: &AppCounts) {
    let waits = counts.spooled + counts.buffered;
    let sum = counts.delivered + counts.dropped_by_policy + counts.lost() + waits;
    assert_eq!(counts.decided, sum, "{counts:?}");
}

/// Waits until something is so.
async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.expect(what);
}
