//! A `serve` that is killed under load, again and again, on one spool.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use opa_core::Value;
use opa_core::bundle::BundleWriter;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tests::bundle_server::{Answer, BundleServer};
use tests::http_client::send;
use tests::log_sink::{self, LogSink};
use tests::serve::Serve;
use tokio::task::JoinSet;

use super::{LONG, events, id, until};

/// The longest time under load before a kill.
const MAX_LIFE: Duration = Duration::from_millis(200);

/// How many clients ask at once, each one request after the other.
const CLIENTS: u64 = 4;

/// How long a client rests between two requests where nothing waits for the log, so that it keeps up:
/// policies on logs are asked by a thread that the others leave little to in a debug build.
const REST: Duration = Duration::from_millis(10);

/// What `async` may lose: what was answered so long before the kill. It says 10 ms where log and disk
/// keep up; the rest is for a machine that is busy with other tests.
const WINDOW: Duration = Duration::from_millis(100);

const POLICY: &str = r#"package envoy.authz

default allow := false

allow if not endswith(input.attributes.request.http.path, "denied")
"#;

const LOG: &str = r#"package system.log

mask contains "/input/attributes/request/http/headers/x-secret"

drop if endswith(input.input.attributes.request.http.path, "dropped")
"#;

/// What no file may have.
const MASKED: &str = "canary-of-a-secret";
const DROPPED: &str = "canary-of-the-dropped";

fn bundle() -> Vec<u8> {
    BundleWriter::new()
        .roots(["envoy", "system"])
        .unwrap()
        .module("envoy/authz.rego", POLICY)
        .unwrap()
        .module("system/log.rego", LOG)
        .unwrap()
        .to_vec()
        .unwrap()
}

fn config(sink: &LogSink, bundles: &BundleServer, durability: &str) -> String {
    format!(
        "services: {{sink: {{url: '{}'}}, control: {{url: '{}'}}}}\n\
         bundles: {{b: {{service: control, resource: b}}}}\n\
         decision_logs:\n  service: sink\n  durability: {durability}\n  hold_deadline_ms: 30000\n  \
           when_full: hold\n  reporting: {{trigger: immediate, upload_size_limit_bytes: 2000, \
           min_delay_seconds: 1, max_delay_seconds: 1}}\n",
        sink.url(),
        bundles.url()
    )
}

/// A decision that a client saw.
struct Seen {
    number: u64,
    client: u64,
    at: Instant,
    /// Which process answered, and how long before its end.
    life: (u64, Duration),
}

async fn start(spool: &Path, config: &str) -> Serve {
    let spool = spool.to_str().unwrap();
    let mut serve = Serve::start(config, &["--spool", spool, "--spool-bytes", "100000000"]).await;
    serve.ready().await;
    serve
}

/// Asks until there is no answer, and tells which there were.
async fn ask(
    address: SocketAddr,
    client: u64,
    rest: Duration,
    next: Arc<AtomicU64>,
    is_killed: Arc<AtomicBool>,
) -> Vec<Seen> {
    let mut seen = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        let kind = ["allowed", "denied", "dropped"][(number % 7 / 3) as usize];
        let request = Request::get(format!("/{number}/{client}/{kind}"))
            .header("x-secret", MASKED)
            .header("x-kind", if kind == "dropped" { DROPPED } else { "other" })
            .body(Bytes::new())
            .unwrap();
        let Ok(response) = send(address, request).await else {
            assert!(is_killed.load(Ordering::SeqCst), "no answer to {number}");
            return seen;
        };
        let at = Instant::now();
        tokio::time::sleep(rest).await;
        let expected = if kind == "denied" { 403 } else { 200 };
        assert_eq!(response.status(), expected, "{number}: {response:?}");
        if kind != "dropped" {
            let life = (0, Duration::ZERO);
            seen.push(Seen {
                number,
                client,
                at,
                life,
            });
        }
    }
}

/// Whether a file of the directory has the text.
fn has(directory: &Path, text: &str) -> bool {
    std::fs::read_dir(directory).unwrap().any(|file| {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        bytes.windows(text.len()).any(|it| it == text.as_bytes())
    })
}

/// Number, client and place of an event.
fn asked(event: &Value) -> (u64, u64) {
    let path = event.at(&["input", "attributes", "request", "http", "path"]);
    let path = path.and_then(Value::as_str).unwrap();
    let mut parts = path.split('/').skip(1);
    let mut number = || parts.next().unwrap().parse().unwrap();
    (number(), number())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_decision_that_a_client_saw_is_accounted_for_when_the_process_is_killed() {
    let kills = match std::env::var("CI").is_ok_and(|ci| ci == "true") {
        true => 200,
        false => 20,
    };
    let seed = rand::random();
    println!("seed {seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let sink = LogSink::start().await.unwrap();
    let bundles = BundleServer::start().await;
    bundles.answer("/b", Answer::Bundle(bundle()));
    let next = Arc::new(AtomicU64::new(0));
    let (mut must, mut may) = (Vec::new(), Vec::new());
    let (mut uploaded, mut was_there) = (Vec::new(), false);
    for kill in 0..kills {
        let durability = match kill % 2 {
            0 => "before_response",
            _ => "async",
        };
        // So that many are left, or few.
        let answer = match random.random_range(0..3) {
            0 => log_sink::Answer::Status(503),
            _ => log_sink::Answer::Status(200),
        };
        sink.script([], answer);
        let serve = start(directory.path(), &config(&sink, &bundles, durability)).await;
        let is_killed = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let (next, is_killed) = (Arc::clone(&next), Arc::clone(&is_killed));
            let rest = if kill % 2 == 0 { Duration::ZERO } else { REST };
            clients.spawn(ask(serve.address(), client, rest, next, is_killed));
        }
        tokio::time::sleep(MAX_LIFE.mul_f64(random.random())).await;
        is_killed.store(true, Ordering::SeqCst);
        let killed_at = Instant::now();
        drop(serve);
        let mut seen: Vec<Seen> = clients.join_all().await.into_iter().flatten().collect();
        for seen in &mut seen {
            seen.life = (kill, killed_at.saturating_duration_since(seen.at));
        }
        let seen = seen.into_iter();
        let is_safe = |seen: &Seen| kill % 2 == 0 || seen.life.1 > WINDOW;
        let (safe, unsafe_) = seen.partition::<Vec<_>, _>(is_safe);
        must.extend(safe);
        may.extend(unsafe_);
        uploaded.extend(events(&sink));
        for text in [MASKED, DROPPED] {
            assert!(!has(directory.path(), text), "{text} is on the disk");
        }
        was_there |= has(directory.path(), "allowed");
    }
    assert!(was_there, "no event was ever on the disk");
    sink.script([], log_sink::Answer::Status(200));
    let serve = start(directory.path(), &config(&sink, &bundles, "async")).await;
    let mut numbers: BTreeMap<u64, String> = BTreeMap::new();
    let mut checked = 0;
    let mut by_id: HashMap<String, Value> = HashMap::new();
    let mut last: HashMap<u64, u64> = HashMap::new();
    let mut twice = 0;
    let start = Instant::now();
    until("the rest is delivered", || {
        uploaded.extend(events(&sink));
        for event in &uploaded[checked..] {
            let (number, client) = asked(event);
            let id = id(event).to_owned();
            match by_id.get(&id) {
                Some(first) => {
                    assert_eq!(first, event, "two events of one decision");
                    twice += 1;
                }
                None => {
                    // For the first time: in the order in which the client was answered.
                    let last = last.insert(client, number);
                    assert!(last < Some(number), "{last:?} before {number} of {client}");
                    by_id.insert(id.clone(), event.clone());
                }
            }
            let first = numbers.entry(number).or_insert_with(|| id.clone());
            assert_eq!(*first, id, "two decisions about {number}");
        }
        checked = uploaded.len();
        let missing = must.iter().filter(|it| !numbers.contains_key(&it.number));
        let missing: Vec<_> = missing.map(|it| (it.number, it.life)).collect();
        assert!(start.elapsed() < LONG / 2, "missing: {missing:?}");
        missing.is_empty()
    })
    .await;
    drop(serve);
    let lost = may.iter().filter(|it| !numbers.contains_key(&it.number));
    println!(
        "{} seen, of which {} within the window; {} of these are lost, {twice} came twice",
        must.len() + may.len(),
        may.len(),
        lost.count(),
    );
    assert!(must.iter().map(|seen| seen.client).max() > Some(0));
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let sink = LogSink::start().await.unwrap();
    let bundles = BundleServer::start().await;
    bundles.answer("/b", Answer::Bundle(bundle()));
    let config = config(&sink, &bundles, "async");
    let _first = start(directory.path(), &config).await;
    let spool = directory.path().to_str().unwrap();
    let error = Serve::try_start(&config, &["--spool", spool]).await;
    let error = error.unwrap_err().to_string();
    let text = format!("decision_logs: the spool `{spool}` is in use");
    assert!(error.contains(&text), "{error}");

    let without = config.replace("durability: async", "durability: before_response");
    let error = Serve::try_start(&without, &[]).await.unwrap_err();
    let error = error.to_string();
    let text = "decision_logs.durability: `before_response` needs a spool";
    assert!(error.contains(text), "{error}");
}
