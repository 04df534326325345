use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::SourceError;
use crate::FailureClass;
use crate::bundle::ArchiveBytes;
use crate::bundle::archive_bytes::Collector;

/// A body must bring at least this many bytes in each [`RATE_WINDOW`], or end.
const MIN_BYTES: u64 = 8 * 1024;

/// How long a body may take for [`MIN_BYTES`].
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// Bytes that come in pieces.
pub trait ByteStream: Send {
    /// The next piece; `None` at the end.
    fn poll_chunk(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, SourceError>>>;
}

/// The bytes of a bundle as they come.
pub struct Body(Inner);

enum Inner {
    Coming(Pin<Box<dyn ByteStream>>),
    /// They came already.
    Whole(ArchiveBytes),
}

impl Body {
    /// A body from a stream.
    pub fn new(stream: impl ByteStream + 'static) -> Self {
        Self(Inner::Coming(Box::pin(stream)))
    }

    /// Reads all, at most `limit` bytes, from a peer that must not trickle: at least 8 KiB in ten
    /// seconds, unless the end comes.
    ///
    /// # Errors
    /// What the stream reports, or that it is too long or too slow.
    pub async fn read(self, limit: u64) -> Result<ArchiveBytes, SourceError> {
        self.read_as("the bundle", limit).await
    }

    /// As [`read`](Self::read), of what `name` says.
    pub(super) async fn read_as(self, name: &str, limit: u64) -> Result<ArchiveBytes, SourceError> {
        let too_long = || {
            SourceError::new(format!("{name} is larger than {limit} bytes"))
                .with_class(FailureClass::Limit)
        };
        let mut stream = match self.0 {
            Inner::Coming(stream) => stream,
            Inner::Whole(archive) if archive.len() > limit => return Err(too_long()),
            Inner::Whole(archive) => return Ok(archive),
        };
        let mut all = Collector::default();
        let mut in_window = 0;
        let mut window_end = Instant::now() + RATE_WINDOW;
        loop {
            let chunk = poll_fn(|cx| stream.as_mut().poll_chunk(cx));
            let Ok(chunk) = tokio::time::timeout_at(window_end, chunk).await else {
                let text =
                    format!("the body came slower than {MIN_BYTES} bytes in {RATE_WINDOW:?}");
                return Err(SourceError::new(text).with_class(FailureClass::Timeout));
            };
            let Some(chunk) = chunk.transpose()? else {
                return Ok(all.finish());
            };
            if all.len() + chunk.len() as u64 > limit {
                return Err(too_long());
            }
            in_window += chunk.len() as u64;
            all.push(chunk);
            if in_window >= MIN_BYTES {
                in_window = 0;
                window_end = Instant::now() + RATE_WINDOW;
            }
        }
    }
}

impl From<ArchiveBytes> for Body {
    fn from(archive: ArchiveBytes) -> Self {
        Self(Inner::Whole(archive))
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        ArchiveBytes::from(bytes).into()
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Sleep;

    /// Gives `chunk` every `pause`, `left` times.
    struct Trickle {
        chunk: Bytes,
        pause: Duration,
        left: usize,
        sleep: Pin<Box<Sleep>>,
    }

    fn trickle(bytes: usize, pause: Duration, left: usize) -> Body {
        let chunk = Bytes::from(vec![0; bytes]);
        Body::new(Trickle {
            chunk,
            pause,
            left,
            sleep: Box::pin(tokio::time::sleep(pause)),
        })
    }

    impl ByteStream for Trickle {
        fn poll_chunk(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Bytes, SourceError>>> {
            if self.left == 0 {
                return Poll::Ready(None);
            }
            std::task::ready!(self.sleep.as_mut().poll(cx));
            let next = Instant::now() + self.pause;
            self.sleep.as_mut().reset(next);
            self.left -= 1;
            Poll::Ready(Some(Ok(self.chunk.clone())))
        }
    }

    use std::future::Future;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_given_up() {
        let body = trickle(1, Duration::from_secs(1), usize::MAX);
        let error = body.read(u64::MAX).await.unwrap_err();
        assert!(error.to_string().contains("slower than"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_above_the_minimum_rate_is_read_to_its_end() {
        let body = trickle(1024, Duration::from_secs(1), 100);
        assert_eq!(body.read(u64::MAX).await.unwrap().len(), 100 * 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_over_the_limit_is_not_read_further() {
        let body = trickle(1000, Duration::ZERO, usize::MAX);
        let error = body.read(10_000).await.unwrap_err();
        assert_eq!(error.to_string(), "the bundle is larger than 10000 bytes");
        let error = Body::from(vec![0; 10_001]).read(10_000).await.unwrap_err();
        assert_eq!(error.to_string(), "the bundle is larger than 10000 bytes");
    }
}
