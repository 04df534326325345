//! The receiving end of decision logs, as a process of its own, so that its cost is nobody else's.
//!
//! It is told what to do on standard input, a line at a time, and answers each with a line:
//! `ok`, `slow <ms>` and `dead` say how posts are answered from then on, `seen` tells what came.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// The sink, until it is dropped.
pub(crate) struct Sink {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    url: String,
}

/// What came to a sink.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    /// Events with ids of their own.
    pub(crate) unique: u64,
    /// Events in all.
    pub(crate) events: u64,
    /// Bodies, as they came.
    pub(crate) bytes: u64,
}

impl Sink {
    pub(crate) fn start() -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let child = Command::new(program)
            .arg("sink")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = child.map_err(|error| format!("no sink: {error}"))?;
        let (input, output) = child
            .stdin
            .take()
            .zip(child.stdout.take())
            .ok_or("no pipes")?;
        let mut sink = Self {
            child,
            input,
            output: BufReader::new(output),
            url: String::new(),
        };
        sink.url = sink.answer()?;
        Ok(sink)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How it answers from now on: `ok`, `slow <ms>` or `dead`.
    pub(crate) fn answers(&mut self, how: &str) -> Result<(), String> {
        self.ask(how).map(drop)
    }

    pub(crate) fn seen(&mut self) -> Result<Seen, String> {
        let line = self.ask("seen")?;
        let mut numbers = line.split_whitespace().map(str::parse);
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or_default();
        Ok(Seen {
            unique: next(),
            events: next(),
            bytes: next(),
        })
    }

    /// Waits until so many events came.
    pub(crate) fn until(&mut self, unique: u64) -> Result<(), String> {
        let end = std::time::Instant::now() + Duration::from_secs(60);
        loop {
            let seen = self.seen()?;
            if seen.unique >= unique {
                return Ok(());
            }
            if std::time::Instant::now() > end {
                return Err(format!("{} of {unique} events came", seen.unique));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ask(&mut self, line: &str) -> Result<String, String> {
        writeln!(self.input, "{line}").map_err(|error| format!("the sink is gone: {error}"))?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err("the sink is gone".to_owned()),
            Ok(_) => Ok(line.trim().to_owned()),
            Err(error) => Err(format!("the sink is gone: {error}")),
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // Gone already, if at all.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Clone, Copy, Default)]
enum Answers {
    #[default]
    Ok,
    Slow(Duration),
    Dead,
}

#[derive(Default)]
struct Kept {
    answers: Answers,
    ids: HashSet<String>,
    events: u64,
    bytes: u64,
}

type State = Arc<Mutex<Kept>>;

/// Is the sink, until standard input ends.
pub(crate) fn serve() -> Result<(), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|error| error.to_string())?;
    let state = State::default();
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listener = listener.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    runtime.spawn(accept(listener, Arc::clone(&state)));
    println!("http://{address}");
    for line in std::io::stdin().lines() {
        let line = line.map_err(|error| error.to_string())?;
        println!("{}", told(&line, &state));
    }
    Ok(())
}

fn told(line: &str, state: &State) -> String {
    let mut kept = state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut words = line.split_whitespace();
    kept.answers = match words.next() {
        Some("ok") => Answers::Ok,
        Some("dead") => Answers::Dead,
        Some("slow") => {
            let delay = words.next().and_then(|delay| delay.parse().ok());
            Answers::Slow(Duration::from_millis(delay.unwrap_or_default()))
        }
        _ => return format!("{} {} {}", kept.ids.len(), kept.events, kept.bytes),
    };
    "done".to_owned()
}

async fn accept(listener: TcpListener, state: State) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |request| keep(request, Arc::clone(&state)));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A client that breaks off has posted nothing whole.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
    }
}

async fn keep(
    request: Request<Incoming>,
    state: State,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let is_log = request.uri().path().starts_with("/logs");
    let body = request.into_body().collect().await;
    let body = body.map_err(std::io::Error::other)?.to_bytes();
    let answers = state.lock().unwrap_or_else(PoisonError::into_inner).answers;
    match answers {
        Answers::Ok => {}
        Answers::Slow(delay) => tokio::time::sleep(delay).await,
        Answers::Dead => return Err(std::io::Error::other("dead")),
    }
    if is_log {
        let ids = ids(&body)?;
        let mut kept = state.lock().unwrap_or_else(PoisonError::into_inner);
        kept.bytes += body.len() as u64;
        kept.events += ids.len() as u64;
        kept.ids.extend(ids);
    }
    Ok::<_, std::io::Error>(Response::default())
}

/// The ids of the events of a chunk. Skipper's are no UUIDs.
fn ids(body: &[u8]) -> Result<Vec<String>, std::io::Error> {
    let mut text = String::new();
    MultiGzDecoder::new(body).read_to_string(&mut text)?;
    let events: Vec<serde_json::Value> = serde_json::from_str(&text)?;
    let ids = events.iter().map(|event| {
        let id = event.get("decision_id").and_then(serde_json::Value::as_str);
        id.map(str::to_owned)
            .ok_or_else(|| std::io::Error::other(format!("an event without an id: {event}")))
    });
    ids.collect()
}
