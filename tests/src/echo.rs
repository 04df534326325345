//! An upstream in this process: answers 200 with what reached it, and remembers it.
//!
//! The format is that of the `serve` example, so that both sides of a comparison read the same:
//! `{"method", "path", "headers": {name: [values]}, "body"}`, `path` with the query, a body that
//! isn't UTF-8 as `body_base64`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::{io, mem};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A running echo server, stopped when dropped.
#[derive(Debug)]
pub struct Echo {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Value>>>,
    accept: JoinHandle<()>,
}

impl Echo {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    ///
    /// When no port can be bound.
    pub async fn start() -> io::Result<Echo> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::default();
        let accept = tokio::spawn(accept(listener, Arc::clone(&seen)));
        Ok(Echo {
            address,
            seen,
            accept,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What reached it since the last call, in the order of arrival.
    pub fn take(&self) -> Vec<Value> {
        mem::take(
            &mut self
                .seen
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        )
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn accept(listener: TcpListener, seen: Arc<Mutex<Vec<Value>>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        let service = service_fn(move |request| remember(request, Arc::clone(&seen)));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        // A peer that breaks off is a peer that saw no response.
        tokio::spawn(async move { connection.await.unwrap_or_default() });
    }
}

async fn remember(
    request: Request<impl Body>,
    seen: Arc<Mutex<Vec<Value>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let Some(document) = document(request).await else {
        // The client is gone: nothing whole has reached us.
        return Ok(Response::default());
    };
    let response = response(&document);
    seen.lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .push(document);
    Ok(response)
}

/// The same answer as a service of its own, which remembers nothing.
///
/// # Errors
///
/// None.
pub async fn answer(request: Request<impl Body>) -> Result<Response<Full<Bytes>>, Infallible> {
    Ok(document(request)
        .await
        .as_ref()
        .map_or_else(Response::default, response))
}

fn response(document: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(document.to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

async fn document(request: Request<impl Body>) -> Option<Value> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.ok()?;
    let (name, body) = text(&body.to_bytes());
    Some(json!({
        "method": head.method.as_str(),
        "path": head.uri.to_string(),
        "headers": lists(&head.headers),
        name: body,
    }))
}

fn text(body: &[u8]) -> (&'static str, String) {
    match str::from_utf8(body) {
        Ok(text) => ("body", text.to_owned()),
        Err(_) => ("body_base64", base64(body)),
    }
}

/// The standard alphabet with padding, RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|chunk| {
        let bits = (0..3).fold(0_u32, |bits, i| {
            bits << 8 | u32::from(*chunk.get(i).unwrap_or(&0))
        });
        (0..4).map(move |i| match i <= chunk.len() {
            true => char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize]),
            false => '=',
        })
    });
    digits.collect()
}

/// All values of each header, by name.
pub fn lists(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        lists
            .entry(name.as_str().to_owned())
            .or_default()
            .push(value);
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http_client::send;

    #[tokio::test]
    async fn answers_and_remembers_what_reached_it() {
        let echo = Echo::start().await.unwrap();
        let request = Request::put("/a?b=1")
            .header("host", "example")
            .header("x-a", "1")
            .header("x-a", "2")
            .body(Bytes::from("hi"))
            .unwrap();
        let response = send(echo.address(), request).await.unwrap();
        assert_eq!(response.status(), 200);
        let expected = json!({
            "method": "PUT",
            "path": "/a?b=1",
            "headers": {"host": ["example"], "x-a": ["1", "2"], "content-length": ["2"]},
            "body": "hi",
        });
        assert_eq!(
            serde_json::from_slice::<Value>(response.body()).unwrap(),
            expected
        );
        assert_eq!(echo.take(), [expected]);
        assert!(echo.take().is_empty());
    }

    #[test]
    fn a_body_that_is_not_utf8_is_base64() {
        assert_eq!(text(b"\xff\xfe"), ("body_base64", "//4=".to_owned()));
        // RFC 4648 section 10.
        let vectors = [
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ];
        for (plain, encoded) in vectors {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
    }
}
