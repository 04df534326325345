use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::digest::Digest;
use super::manifest::Layer;
use crate::bundle::source::{ByteStream, SourceError};

/// The bytes of a blob, which end well only if they are those that the manifest names.
pub(super) struct Verified<S> {
    stream: S,
    wanted: Layer,
    seen: u64,
    hasher: Sha256,
}

impl<S> Verified<S> {
    pub(super) fn new(stream: S, wanted: Layer) -> Self {
        Self {
            stream,
            wanted,
            seen: 0,
            hasher: Sha256::new(),
        }
    }

    fn take(&mut self, chunk: &Bytes) -> Result<(), SourceError> {
        self.seen = self.seen.saturating_add(chunk.len() as u64);
        if self.seen > self.wanted.size {
            return Err(self.error(&format!("it has more than {} bytes", self.wanted.size)));
        }
        self.hasher.update(chunk);
        Ok(())
    }

    fn check(&mut self) -> Result<(), SourceError> {
        let Layer { digest, size } = self.wanted;
        if self.seen != size {
            let text = format!("it has {} bytes where the manifest says {size}", self.seen);
            return Err(self.error(&text));
        }
        if Digest::from_bytes(self.hasher.finalize_reset().into()) != digest {
            return Err(self.error("its bytes have another digest"));
        }
        Ok(())
    }

    fn error(&self, problem: &str) -> SourceError {
        SourceError::new(format!("blob `{}`: {problem}", self.wanted.digest))
    }
}

impl<S: ByteStream + Unpin> ByteStream for Verified<S> {
    fn poll_chunk(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, SourceError>>> {
        let chunk = ready!(Pin::new(&mut self.stream).poll_chunk(cx));
        Poll::Ready(match chunk {
            Some(Ok(chunk)) => Some(self.take(&chunk).map(|()| chunk)),
            Some(Err(error)) => Some(Err(error)),
            None => self.check().err().map(Err),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::source::Body;

    struct Chunks(std::slice::Iter<'static, &'static str>);

    impl ByteStream for Chunks {
        fn poll_chunk(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Bytes, SourceError>>> {
            Poll::Ready(self.0.next().map(|chunk| Ok(Bytes::from(*chunk))))
        }
    }

    async fn read(
        chunks: &'static [&'static str],
        size: u64,
        content: &str,
    ) -> Result<Vec<u8>, String> {
        let wanted = Layer {
            digest: Digest::of(content.as_bytes()),
            size,
        };
        let stream = Verified::new(Chunks(chunks.iter()), wanted);
        let read = Body::new(stream).read(u64::MAX).await;
        read.map(|bytes| bytes.to_vec())
            .map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn only_the_named_bytes_end_well() {
        assert_eq!(read(&["ab", "", "c"], 3, "abc").await.unwrap(), b"abc");
        assert_eq!(read(&[], 0, "").await.unwrap(), b"");
        for (chunks, problem) in [
            (&["ab"][..], "it has 2 bytes where the manifest says 3"),
            (&[], "it has 0 bytes where the manifest says 3"),
            (&["ab", "cd"], "it has more than 3 bytes"),
            (&["abc", "d"], "it has more than 3 bytes"),
            (&["abd"], "its bytes have another digest"),
        ] {
            let error = read(chunks, 3, "abc").await.unwrap_err();
            assert!(error.ends_with(problem), "{error}");
            assert!(error.starts_with("blob `sha256:ba7816bf"), "{error}");
        }
    }
}
