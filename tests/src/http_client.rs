//! A small HTTP/1.1 client: one connection per request, nothing added but `Host`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A server that doesn't answer within this time hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends one request and reads the whole response.
///
/// # Errors
///
/// When the server can't be reached, breaks off, or hangs for a minute.
pub async fn send(address: SocketAddr, request: Request<Bytes>) -> io::Result<Response<Bytes>> {
    timeout(PATIENCE, exchange(address, request))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("{address} hangs")))?
}

/// Sends `GET` with no headers of its own.
///
/// # Errors
///
/// As [`send`], and when `target` isn't a request target.
pub async fn get(address: SocketAddr, target: &str) -> io::Result<Response<Bytes>> {
    let request = Request::get(target)
        .body(Bytes::new())
        .map_err(io::Error::other)?;
    send(address, request).await
}

async fn exchange(address: SocketAddr, mut request: Request<Bytes>) -> io::Result<Response<Bytes>> {
    if !request.headers().contains_key(HOST) {
        let host = HeaderValue::try_from(address.to_string()).map_err(io::Error::other)?;
        request.headers_mut().insert(HOST, host);
    }
    let stream = TokioIo::new(TcpStream::connect(address).await?);
    let (mut sender, connection) = http1::Builder::new()
        // So that each comparison also shows that names are read in any case.
        .title_case_headers(true)
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    let exchange = async {
        let response = sender.send_request(request.map(Full::new)).await?;
        let (head, body) = response.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    };
    tokio::pin!(exchange);
    // The connection moves the bytes. It may end first, with the response already read.
    tokio::select! {
        outcome = &mut exchange => outcome,
        _ = connection => exchange.await,
    }
    .map_err(|error: hyper::Error| io::Error::other(error))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    async fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
        });
        address
    }

    #[tokio::test]
    async fn reads_a_body_that_ends_with_the_connection() {
        let address = server(b"HTTP/1.1 200 OK\r\nx-a: 1\r\nx-a: 2\r\n\r\nhello").await;
        let response = get(address, "/").await.unwrap();
        assert_eq!(response.body(), "hello");
        assert_eq!(response.headers().get_all("x-a").iter().count(), 2);
    }

    #[tokio::test]
    async fn a_broken_off_response_is_an_error() {
        let address = server(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello").await;
        assert!(get(address, "/").await.is_err());
        let address = server(b"").await;
        assert!(get(address, "/").await.is_err());
    }

    #[tokio::test]
    async fn an_unreachable_server_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(get(address, "/").await.is_err());
    }
}
