//! The receiving end of decision logs and status: an HTTP service that keeps what is posted to it.

use std::collections::VecDeque;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{io, mem};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Whoever posts nothing for that long never will.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running sink, stopped when dropped.
#[derive(Debug)]
pub struct LogSink {
    address: SocketAddr,
    state: Arc<State>,
    accept: JoinHandle<()>,
}

/// What the sink does with a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Answers with a status, and keeps the post if it is 200.
    Status(u16),
    /// Answers 503 with a `Retry-After`, in seconds.
    Later(u32),
    /// Answers nothing and keeps the connection.
    Hang,
    /// Closes the connection.
    Reset,
}

#[derive(Debug, Default)]
struct State {
    answers: Mutex<VecDeque<Answer>>,
    otherwise: Mutex<Option<Answer>>,
    asked: Mutex<usize>,
    posts: Mutex<Vec<Post>>,
    came: Notify,
}

/// What was posted.
#[derive(Clone, Debug)]
pub struct Post {
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// How many bytes the body had as it came.
    pub size: usize,
    /// The body, unpacked.
    pub body: Vec<u8>,
}

impl LogSink {
    /// Listens on a free port of loopback, and answers 200 to all.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> io::Result<LogSink> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::default();
        let accept = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(LogSink {
            address,
            state,
            accept,
        })
    }

    /// Answers the next posts so, and those after them `otherwise`.
    pub fn script(&self, next: impl IntoIterator<Item = Answer>, otherwise: Answer) {
        let mut answers = lock(&self.state.answers);
        answers.clear();
        answers.extend(next);
        *lock(&self.state.otherwise) = Some(otherwise);
    }

    /// How many posts came, whatever was answered.
    pub fn asked(&self) -> usize {
        *lock(&self.state.asked)
    }

    /// Takes what was kept so far.
    pub fn take(&self) -> Vec<Post> {
        mem::take(&mut *lock(&self.state.posts))
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for a post that `wanted` answers something for. Those before it are forgotten.
    ///
    /// # Errors
    ///
    /// When there is none for a minute, with what came instead.
    pub async fn wait<T>(&self, mut wanted: impl FnMut(&Post) -> Option<T>) -> io::Result<T> {
        let mut passed_over = Vec::new();
        loop {
            let came = self.state.came.notified();
            let posts = mem::take(
                &mut *self
                    .state
                    .posts
                    .lock()
                    .unwrap_or_else(|poisoned| poisoned.into_inner()),
            );
            if let Some(found) = posts.iter().find_map(&mut wanted) {
                return Ok(found);
            }
            passed_over.extend(posts.into_iter().map(|post| post.path));
            if timeout(PATIENCE, came).await.is_err() {
                let text = format!("not within {PATIENCE:?}, but {passed_over:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Drop for LogSink {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |request| keep(request, Arc::clone(&state)));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A client that breaks off has posted nothing whole.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
    }
}

async fn keep(request: Request<Incoming>, state: Arc<State>) -> io::Result<Response<Full<Bytes>>> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(Response::default());
    };
    *lock(&state.asked) += 1;
    let next = lock(&state.answers).pop_front();
    let answer = next.or(*lock(&state.otherwise));
    match answer.unwrap_or(Answer::Status(200)) {
        Answer::Status(200) => {}
        Answer::Status(status) => return Ok(refusal(status, None)),
        Answer::Later(seconds) => return Ok(refusal(503, Some(seconds))),
        Answer::Hang => std::future::pending().await,
        Answer::Reset => return Err(io::Error::other("reset")),
    }
    let body = body.to_bytes();
    let post = Post {
        method: head.method,
        path: head.uri.path().to_owned(),
        size: body.len(),
        body: unpacked(&head.headers, &body),
        headers: head.headers,
    };
    state
        .posts
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .push(post);
    state.came.notify_one();
    Ok(Response::default())
}

fn refusal(status: u16, retry_after: Option<u32>) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

fn unpacked(headers: &HeaderMap, body: &[u8]) -> Vec<u8> {
    if headers.get(CONTENT_ENCODING).is_none_or(|it| it != "gzip") {
        return body.to_vec();
    }
    let mut text = Vec::new();
    let read = flate2::read::GzDecoder::new(body).read_to_end(&mut text);
    // What isn't gzip is no post of ours or OPA's; the test sees an odd body.
    read.map_or_else(|error| error.to_string().into_bytes(), |_| text)
}
