//! A bundle service for very many apps, over HTTP/1.1 or over TLS with HTTP/2, in a process of its
//! own, so that what its clients cost is theirs alone.
//!
//! Below `/poll` it answers at once; below `/long` it holds the questions of those who have the
//! bundle; below `/hang` it never answers; below `/body` it stops in the middle of the body. The
//! process is `bundle_service` of this crate; [`BundleService`] starts it and asks it what it saw.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opa_core::Value;
use opa_core::bundle::BundleWriter;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The service as a child process, until it is dropped.
pub struct BundleService {
    program: String,
    options: Options,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    address: String,
}

/// How the service is started.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Over TLS with HTTP/2, with `server.pem` and `server.key` of this folder.
    pub certificates: Option<PathBuf>,
    /// How many streams a connection may have (`SETTINGS_MAX_CONCURRENT_STREAMS`); 128 without.
    pub streams: Option<u32>,
}

/// What the service saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// Connections that are open.
    pub connections: usize,
    /// As many as were ever open at a time, since the last reset.
    pub most_connections: usize,
    /// Questions that are not answered to the end.
    pub waiting: usize,
    /// As many as ever waited at a time, since the last reset.
    pub most_waiting: usize,
    /// Requests since the last reset.
    pub requests: usize,
    /// Bundles sent since the last reset.
    pub bundles: usize,
}

impl BundleService {
    /// Starts `program`.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(program: &str, options: Options) -> Self {
        Self::start_at(program, options, "127.0.0.1:0")
    }

    fn start_at(program: &str, options: Options, address: &str) -> Self {
        let mut command = Command::new(program);
        command.arg(address);
        command.arg(options.streams.unwrap_or(128).to_string());
        command.args(&options.certificates);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let scheme = options.certificates.as_ref().map_or("http", |_| "https");
        let mut service = Self {
            program: program.to_owned(),
            options,
            child,
            input,
            output,
            address: String::new(),
        };
        service.address = format!("{scheme}://{}", service.line());
        service
    }

    /// Ends, with all connections. Nobody answers where it was.
    pub fn stop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// A new process in its place, which knows nothing of the old one.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn restart(&mut self) {
        self.stop();
        let (_, address) = self.address.split_once("//").unwrap();
        *self = Self::start_at(&self.program, self.options.clone(), address);
    }

    /// All connections end as HTTP/2 does it (GOAWAY): what is under way goes on, and nothing new
    /// is taken.
    pub fn go_away(&mut self) {
        self.ask("goaway");
    }

    /// All streams that wait are reset (RST_STREAM), or those of one app.
    pub fn reset_streams(&mut self, app: &str) {
        self.ask(&format!("rst {app}"));
    }

    /// `http://127.0.0.1:PORT`, or with `https`.
    pub fn url(&self) -> &str {
        &self.address
    }

    /// From now on `app`, or `all`, has that version.
    pub fn change(&mut self, app: &str, version: u64) {
        self.ask(&format!("change {app} {version}"));
    }

    /// What it saw.
    pub fn seen(&mut self) -> Seen {
        let numbers: Vec<usize> = self
            .ask("seen")
            .split(' ')
            .map(|number| number.parse().unwrap())
            .collect();
        Seen {
            connections: numbers[0],
            most_connections: numbers[1],
            waiting: numbers[2],
            most_waiting: numbers[3],
            requests: numbers[4],
            bundles: numbers[5],
        }
    }

    /// Forgets the requests so far.
    pub fn reset(&mut self) {
        self.ask("reset");
    }

    /// The requests since the last reset: milliseconds and paths, in order.
    pub fn requests(&mut self) -> Vec<(u64, String)> {
        let line = self.ask("requests");
        let each = line.split(' ').filter(|one| !one.is_empty());
        each.map(|one| {
            let (at, path) = one.split_once('=').unwrap();
            (at.parse().unwrap(), path.to_owned())
        })
        .collect()
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        self.line()
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for BundleService {
    fn drop(&mut self) {
        self.stop();
    }
}

struct State {
    versions: Mutex<HashMap<String, u64>>,
    bundles: Mutex<HashMap<u64, Bytes>>,
    changes: watch::Sender<u64>,
    /// How often all were to go away.
    goings: watch::Sender<u64>,
    /// Whose streams are reset, and how often that was said.
    resets: watch::Sender<(u64, String)>,
    connections: Arc<Gauge>,
    waiting: Arc<Gauge>,
    sent: AtomicUsize,
    log: Mutex<Vec<(u64, String)>>,
    started: Instant,
}

/// How many there are, and were at most.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One of those that a gauge counts.
struct Counted(Arc<Gauge>);

impl Gauge {
    fn count(self: &Arc<Self>) -> Counted {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Counted(Arc::clone(self))
    }

    fn reset(&self) {
        self.most
            .store(self.now.load(Ordering::SeqCst), Ordering::SeqCst);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The body of a process that is such a service. It ends with its standard input.
///
/// # Errors
/// When it can't listen, or the certificates can't be used.
pub fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().ok_or("an address, please")?;
    let streams = arguments.next().ok_or("a number of streams, please")?;
    let streams = streams.parse()?;
    let tls = match arguments.next() {
        Some(folder) => Some(acceptor(Path::new(&folder))?),
        None => None,
    };
    let state = Arc::new(State {
        versions: Mutex::default(),
        bundles: Mutex::default(),
        changes: watch::Sender::new(0),
        goings: watch::Sender::new(0),
        resets: watch::Sender::new((0, String::new())),
        connections: Arc::default(),
        waiting: Arc::default(),
        sent: AtomicUsize::new(0),
        log: Mutex::default(),
        started: Instant::now(),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let listener = runtime.block_on(TcpListener::bind(&address))?;
    answer(&listener.local_addr()?.to_string())?;
    runtime.spawn(accept(listener, tls, streams, Arc::clone(&state)));
    for command in std::io::stdin().lock().lines() {
        answer(&state.command(&command?))?;
    }
    Ok(())
}

fn answer(line: &str) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}")?;
    output.flush()
}

fn acceptor(folder: &Path) -> Result<TlsAcceptor, Box<dyn std::error::Error>> {
    let certificates = CertificateDer::pem_file_iter(folder.join("server.pem"))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key"))?;
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, streams: u32, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, state) = (tls.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            let _connection = state.connections.count();
            let service = service_fn(|request| Arc::clone(&state).respond(request));
            // What a client does to its connection is the client's affair.
            let Some(tls) = tls else {
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let _ = connection.await;
                return;
            };
            if let Ok(stream) = tls.accept(stream).await {
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .max_concurrent_streams(streams)
                    .serve_connection(TokioIo::new(stream), service);
                let mut connection = std::pin::pin!(connection);
                let mut goings = state.goings.subscribe();
                tokio::select! {
                    _ = &mut connection => return,
                    _ = goings.changed() => {}
                }
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        });
    }
}

impl State {
    fn command(&self, command: &str) -> String {
        match *command.split(' ').collect::<Vec<_>>() {
            ["change", app, version] => {
                let mut versions = self.versions.lock().unwrap();
                if app == "all" {
                    versions.clear();
                }
                versions.insert(app.to_owned(), version.parse().unwrap());
                drop(versions);
                self.changes.send_modify(|changes| *changes += 1);
                "ok".to_owned()
            }
            ["goaway"] => {
                self.goings.send_modify(|times| *times += 1);
                "ok".to_owned()
            }
            ["rst", app] => {
                self.resets.send_modify(|(times, whose)| {
                    *times += 1;
                    *whose = app.to_owned();
                });
                "ok".to_owned()
            }
            ["reset"] => {
                self.log.lock().unwrap().clear();
                self.sent.store(0, Ordering::SeqCst);
                self.connections.reset();
                self.waiting.reset();
                "ok".to_owned()
            }
            ["seen"] => {
                let of = |gauge: &Gauge| {
                    let (now, most) = (&gauge.now, &gauge.most);
                    format!(
                        "{} {}",
                        now.load(Ordering::SeqCst),
                        most.load(Ordering::SeqCst)
                    )
                };
                let requests = self.log.lock().unwrap().len();
                let sent = self.sent.load(Ordering::SeqCst);
                let (connections, waiting) = (of(&self.connections), of(&self.waiting));
                format!("{connections} {waiting} {requests} {sent}")
            }
            ["requests"] => {
                let log = self.log.lock().unwrap();
                let each = log.iter().map(|(at, path)| format!("{at}={path}"));
                each.collect::<Vec<_>>().join(" ")
            }
            _ => "what?".to_owned(),
        }
    }

    async fn respond(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Part>, Reset> {
        let path = request.uri().path().to_owned();
        let at = self.started.elapsed().as_millis() as u64;
        self.log.lock().unwrap().push((at, path.clone()));
        let text = |name| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let etag = text("if-none-match");
        let waits = text("prefer").is_some_and(|prefer| prefer.contains("wait="));
        let app = path.rsplit('/').next().unwrap_or_default();
        let long = path.starts_with("/long/");
        if path.starts_with("/hang/") {
            let _waiting = self.waiting.count();
            std::future::pending::<()>().await;
        }
        let mut changes = self.changes.subscribe();
        let mut version = self.version(app);
        if long && waits && etag == Some(&*version_etag(version)) {
            let _waiting = self.waiting.count();
            let mut resets = self.resets.subscribe();
            while etag == Some(&*version_etag(version)) {
                tokio::select! {
                    _ = changes.changed() => version = self.version(app),
                    _ = resets.changed() => {
                        let whose = resets.borrow_and_update();
                        if whose.1 == app || whose.1 == "all" {
                            return Err(Reset);
                        }
                    }
                }
            }
        }
        let kind = match long {
            true => "application/vnd.openpolicyagent.bundles",
            false => "application/gzip",
        };
        let response = Response::builder()
            .header(header::ETAG, version_etag(version))
            .header(header::CONTENT_TYPE, kind);
        if etag == Some(&*version_etag(version)) {
            let none = response
                .status(StatusCode::NOT_MODIFIED)
                .body(Part::default());
            return Ok(none.unwrap());
        }
        self.sent.fetch_add(1, Ordering::SeqCst);
        let mut bundle = self.bundle(version);
        let mut part = Part::default();
        if path.starts_with("/body/") {
            bundle.truncate(bundle.len() / 2);
            part.hangs = Some(self.waiting.count());
        }
        part.bytes = Some(bundle);
        Ok(response.body(part).unwrap())
    }

    fn version(&self, app: &str) -> u64 {
        let versions = self.versions.lock().unwrap();
        *versions.get(app).or(versions.get("all")).unwrap_or(&1)
    }

    fn bundle(&self, version: u64) -> Bytes {
        let mut bundles = self.bundles.lock().unwrap();
        let bundle = bundles.entry(version).or_insert_with(|| {
            let data = Value::object([("version".into(), version.to_string().as_str().into())]);
            let bundle = BundleWriter::new().data("", &data).unwrap();
            bundle.to_vec().unwrap().into()
        });
        bundle.clone()
    }
}

/// Ends a stream.
#[derive(Debug)]
struct Reset;

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the stream is reset")
    }
}

impl std::error::Error for Reset {}

fn version_etag(version: u64) -> String {
    format!("\"v{version}\"")
}

/// Bytes, after which the body ends or does not.
#[derive(Default)]
struct Part {
    bytes: Option<Bytes>,
    hangs: Option<Counted>,
}

impl Body for Part {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match (self.bytes.take(), &self.hangs) {
            (Some(bytes), _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (None, Some(_)) => Poll::Pending,
            (None, None) => Poll::Ready(None),
        }
    }
}
