//! An HTTP bundle service whose faults can be chosen, one path at a time, while it runs.
//!
//! Real servers don't hang in the middle of a body on request, so this one is ours; what real ones
//! can show is tested with nginx.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// What the server does with a request.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The bundle, with a strong ETag; 304 to whoever has it.
    Bundle(Vec<u8>),
    /// As [`Bundle`](Self::Bundle), held until the ETag differs when the client asks to wait.
    LongPoll(Vec<u8>),
    /// A status without a body, and more header lines.
    Status(u16, &'static str),
    /// 200 with these header lines and this body.
    With(String, Vec<u8>),
    /// 304 whatever the client has.
    NotModified,
    /// Nothing, ever.
    Hang,
    /// The headers and the first half of the body, then nothing.
    HangInBody(Vec<u8>),
    /// One byte of the body every so often.
    Trickle(Vec<u8>, Duration),
    /// The headers and the first half of the body, then the connection is closed.
    BreakOff(Vec<u8>),
    /// The connection is closed without an answer.
    Close,
    /// These bytes, head and all; the connection goes on.
    Raw(Vec<u8>),
    /// These bytes, and a moment later the connection is reset (RST).
    Reset(Vec<u8>),
}

/// So long the client has for what comes before a reset: it throws away what isn't read by then.
const BEFORE_RESET: Duration = Duration::from_millis(20);

/// The server, until it is dropped.
pub struct BundleServer {
    state: Arc<State>,
    addr: SocketAddr,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct State {
    answers: Mutex<HashMap<String, Answer>>,
    requests: Mutex<Vec<Request>>,
    counted: AtomicUsize,
    connections: AtomicUsize,
    changed: Notify,
    keep_requests: bool,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// The path.
    pub path: String,
    /// The headers, with lower-cased names, in order.
    pub headers: Vec<(String, String)>,
    /// When it was read. Its answer comes later, and so does whatever the client does then.
    pub at: Instant,
}

impl Request {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(header, _)| header == name)
            .map(|(_, value)| &**value)
    }
}

impl BundleServer {
    /// A server on a free loopback port that answers 404.
    pub async fn start() -> Self {
        Self::start_with(true).await
    }

    /// As [`start`](Self::start), which counts requests but does not keep them.
    pub async fn start_counting() -> Self {
        Self::start_with(false).await
    }

    /// As [`start`](Self::start), at an address that nobody listens at.
    ///
    /// # Errors
    /// When somebody does.
    pub async fn start_at(addr: SocketAddr) -> io::Result<Self> {
        Ok(Self::serving(TcpListener::bind(addr).await?, true))
    }

    async fn start_with(keep_requests: bool) -> Self {
        Self::serving(
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            keep_requests,
        )
    }

    fn serving(listener: TcpListener, keep_requests: bool) -> Self {
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(State {
            keep_requests,
            ..State::default()
        });
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(Arc::clone(&shared), stream));
            }
        });
        Self {
            state,
            addr,
            accepting,
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// From now on requests for `path` are answered so.
    pub fn answer(&self, path: &str, answer: Answer) {
        self.state
            .answers
            .lock()
            .unwrap()
            .insert(path.to_owned(), answer);
        self.state.changed.notify_waiters();
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap().clone()
    }

    /// The requests for `path` so far.
    pub fn requests_for(&self, path: &str) -> Vec<Request> {
        let requests = self.state.requests.lock().unwrap();
        let of_path = requests.iter().filter(|request| request.path == path);
        of_path.cloned().collect()
    }

    /// The last request for `path`.
    pub fn last_request_for(&self, path: &str) -> Option<Request> {
        let requests = self.state.requests.lock().unwrap();
        let last = requests.iter().rfind(|request| request.path == path);
        last.cloned()
    }

    /// How many requests came.
    pub fn request_count(&self) -> usize {
        self.state.counted.load(Ordering::Relaxed)
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::Relaxed)
    }
}

impl Drop for BundleServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(state: Arc<State>, stream: TcpStream) {
    state.connections.fetch_add(1, Ordering::Relaxed);
    let (read, mut write) = stream.into_split();
    let mut read = BufReader::new(read);
    while let Some(request) = read_request(&mut read).await {
        state.counted.fetch_add(1, Ordering::Relaxed);
        if state.keep_requests {
            state.requests.lock().unwrap().push(request.clone());
        }
        if !answer(&state, &request, &mut read, &mut write).await {
            break;
        }
    }
    // Closed as a whole: a shutdown first would be an orderly end also where a reset is wanted.
    write.forget();
    drop(read);
    state.connections.fetch_sub(1, Ordering::Relaxed);
}

async fn read_request(read: &mut BufReader<OwnedReadHalf>) -> Option<Request> {
    let mut line = String::new();
    if read.read_line(&mut line).await.ok()? == 0 {
        return None;
    }
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = Vec::new();
    loop {
        line.clear();
        read.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    Some(Request {
        path,
        headers,
        at: Instant::now(),
    })
}

/// Whether the connection goes on.
async fn answer(
    state: &State,
    request: &Request,
    read: &mut BufReader<OwnedReadHalf>,
    write: &mut OwnedWriteHalf,
) -> bool {
    loop {
        let changed = state.changed.notified();
        let chosen = state.answers.lock().unwrap().get(&request.path).cloned();
        match chosen.unwrap_or(Answer::Status(404, "")) {
            Answer::LongPoll(bundle) if waits(request, &bundle) => {
                // Whichever comes first: news, or the client's end of the connection.
                let mut end = String::new();
                tokio::select! {
                    () = changed => {}
                    _ = read.read_line(&mut end) => return false,
                }
            }
            Answer::LongPoll(bundle) => {
                let kind = "content-type: application/vnd.openpolicyagent.bundles\r\n";
                return write
                    .write_all(&whole(request, &bundle, kind))
                    .await
                    .is_ok();
            }
            Answer::Bundle(bundle) => {
                let kind = "content-type: application/gzip\r\n";
                return write
                    .write_all(&whole(request, &bundle, kind))
                    .await
                    .is_ok();
            }
            Answer::Status(status, headers) => {
                let head = format!("HTTP/1.1 {status} x\r\n{headers}content-length: 0\r\n\r\n");
                return write.write_all(head.as_bytes()).await.is_ok();
            }
            Answer::With(headers, body) => {
                let length = body.len();
                let head = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\n\r\n");
                return write
                    .write_all(&[head.as_bytes(), &body].concat())
                    .await
                    .is_ok();
            }
            Answer::NotModified => {
                return write
                    .write_all(b"HTTP/1.1 304 Not Modified\r\n\r\n")
                    .await
                    .is_ok();
            }
            Answer::Hang => changed.await,
            Answer::Close => return false,
            Answer::Raw(bytes) => return write.write_all(&bytes).await.is_ok(),
            Answer::Reset(bytes) => {
                // Reset, whether or not this was written.
                let _ = write.write_all(&bytes).await;
                tokio::time::sleep(BEFORE_RESET).await;
                write.as_ref().set_zero_linger().unwrap();
                return false;
            }
            Answer::HangInBody(bundle) => {
                if write.write_all(&half(&bundle)).await.is_err() {
                    return false;
                }
                std::future::pending::<()>().await;
            }
            Answer::BreakOff(bundle) => {
                // The client sees the end of the connection, whether or not this was written.
                let _ = write.write_all(&half(&bundle)).await;
                return false;
            }
            Answer::Trickle(bundle, pause) => {
                let head = format!(
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                    bundle.len()
                );
                if write.write_all(head.as_bytes()).await.is_err() {
                    return false;
                }
                for byte in bundle {
                    tokio::time::sleep(pause).await;
                    if write.write_all(&[byte]).await.is_err() {
                        return false;
                    }
                }
                return true;
            }
        }
    }
}

fn waits(request: &Request, bundle: &[u8]) -> bool {
    let asked = request
        .header("prefer")
        .is_some_and(|prefer| prefer.contains("wait="));
    asked && request.header("if-none-match") == Some(&etag(bundle))
}

fn etag(bundle: &[u8]) -> String {
    opa_core::bundle::etag(bundle)
}

fn whole(request: &Request, bundle: &[u8], kind: &str) -> Vec<u8> {
    let etag = etag(bundle);
    if request.header("if-none-match") == Some(&etag) {
        return format!("HTTP/1.1 304 Not Modified\r\netag: {etag}\r\n\r\n").into_bytes();
    }
    let length = bundle.len();
    let head = format!("HTTP/1.1 200 OK\r\n{kind}etag: {etag}\r\ncontent-length: {length}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.extend_from_slice(bundle);
    answer
}

fn half(bundle: &[u8]) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
        bundle.len()
    )
    .into_bytes();
    answer.extend_from_slice(&bundle[..bundle.len() / 2]);
    answer
}
