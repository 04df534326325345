//! An OCI registry that answers what a test wants, faults included: real ones don't serve blobs
//! that don't match their digests.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The type of an image's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The type of a list of manifests.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The type of a layer that is a bundle.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What decides about a request before its path does: an answer, or nothing.
pub type Gate = dyn Fn(&Seen) -> Option<Response<Bytes>> + Send + Sync;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
}

impl Seen {
    /// A header, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The registry, until it is dropped.
pub struct OciRegistry {
    state: Arc<State>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    contents: Mutex<HashMap<String, Content>>,
    seen: Mutex<Vec<Seen>>,
    gate: Mutex<Option<Arc<Gate>>>,
}

#[derive(Clone)]
struct Content {
    headers: Vec<(&'static str, String)>,
    bytes: Bytes,
    /// How many of the bytes come before silence.
    hangs_after: Option<usize>,
}

impl OciRegistry {
    /// An empty one, on a free port of loopback.
    ///
    /// # Panics
    /// When no port can be bound.
    pub async fn start() -> OciRegistry {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::<State>::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        OciRegistry {
            state,
            address,
            accepting,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on the gate is asked first.
    pub fn gate(&self, gate: impl Fn(&Seen) -> Option<Response<Bytes>> + Send + Sync + 'static) {
        *self.state.gate.lock().unwrap() = Some(Arc::new(gate));
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// As if no request had come so far.
    pub fn forget(&self) {
        self.state.seen.lock().unwrap().clear();
    }

    /// How many requests so far had a path that contains `text`.
    pub fn count(&self, method: &Method, text: &str) -> usize {
        let seen = self.seen();
        let counted = seen.iter().filter(|one| one.method == method);
        counted.filter(|one| one.path.contains(text)).count()
    }

    /// Puts a bundle there as an image with this tag.
    pub fn publish(&self, repository: &str, tag: &str, bundle: &[u8]) {
        self.blob(repository, bundle, bundle.to_vec());
        self.manifest(repository, Some(tag), MANIFEST, &image(bundle));
    }

    /// Puts a manifest there, under its digest and a tag. Answers its digest.
    pub fn manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        kind: &str,
        manifest: &Value,
    ) -> String {
        let bytes = Bytes::from(manifest.to_string());
        let digest = digest(&bytes);
        self.manifest_as(repository, &digest, kind, &digest, bytes.clone());
        if let Some(tag) = tag {
            self.manifest_as(repository, tag, kind, &digest, bytes);
        }
        digest
    }

    /// Puts any bytes there as a manifest with this name, which are said to have a digest.
    pub fn manifest_as(
        &self,
        repository: &str,
        name: &str,
        kind: &str,
        digest: &str,
        bytes: impl Into<Bytes>,
    ) {
        let mut headers = vec![("content-type", kind.to_owned())];
        if !digest.is_empty() {
            headers.push(("docker-content-digest", digest.to_owned()));
        }
        let content = Content {
            headers,
            bytes: bytes.into(),
            hangs_after: None,
        };
        self.put(format!("/v2/{repository}/manifests/{name}"), content);
    }

    /// From now on the blob with the digest of `named` has these bytes.
    pub fn blob(&self, repository: &str, named: &[u8], bytes: impl Into<Bytes>) {
        self.put_blob(repository, named, bytes.into(), None);
    }

    /// From now on the blob stops in its middle.
    pub fn hang_in_blob(&self, repository: &str, named: &[u8]) {
        let bytes = Bytes::copy_from_slice(named);
        self.put_blob(repository, named, bytes, Some(named.len() / 2));
    }

    fn put_blob(&self, repository: &str, named: &[u8], bytes: Bytes, hangs_after: Option<usize>) {
        let content = Content {
            headers: Vec::new(),
            bytes,
            hangs_after,
        };
        let path = format!("/v2/{repository}/blobs/{}", digest(named));
        self.put(path, content);
    }

    fn put(&self, path: String, content: Content) {
        self.state.contents.lock().unwrap().insert(path, content);
    }
}

impl Drop for OciRegistry {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The manifest of an image whose only layer is the bundle.
pub fn image(bundle: &[u8]) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(b"{}"), "size": 2},
        "layers": [{"mediaType": LAYER, "digest": digest(bundle), "size": bundle.len()}],
    })
}

/// `sha256:<hex>`.
pub fn digest(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hex: String = digest.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        let service = service_fn(move |request| {
            let response = answer(&state, &request);
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A client may go whenever it wants.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
    }
}

fn answer(state: &State, request: &Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
    let path = request.uri().path_and_query();
    let seen = Seen {
        method: request.method().clone(),
        path: path.map(ToString::to_string).unwrap_or_default(),
        headers: request.headers().clone(),
    };
    state.seen.lock().unwrap().push(seen.clone());
    let gate = state.gate.lock().unwrap().clone();
    if let Some(response) = gate.and_then(|gate| gate(&seen)) {
        return response.map(|bytes| Full::new(bytes).boxed());
    }
    let content = state.contents.lock().unwrap().get(&seen.path).cloned();
    let Some(content) = content else {
        return status(404).map(|bytes| Full::new(bytes).boxed());
    };
    let mut response = Response::builder();
    for (name, value) in content.headers {
        response = response.header(name, value);
    }
    let body = match content.hangs_after {
        None => Full::new(content.bytes).boxed(),
        Some(end) => Hanging {
            first: Some(content.bytes.slice(..end)),
            promised: content.bytes.len() as u64,
        }
        .boxed(),
    };
    response.body(body).unwrap()
}

/// An answer with nothing but a status.
pub fn status(status: u16) -> Response<Bytes> {
    let response = Response::builder().status(status);
    response.body(Bytes::new()).unwrap()
}

/// A body whose end never comes.
struct Hanging {
    first: Option<Bytes>,
    promised: u64,
}

impl Body for Hanging {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.first.take() {
            Some(bytes) => std::task::Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => std::task::Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised)
    }
}
