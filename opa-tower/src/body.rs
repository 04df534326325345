//! The bodies that a layered service is given and answers with.
//!
//! Both are thin: they forward frames, size and end of the body that they wrap. They exist so that
//! a layer's type does not change when it begins to read bodies or to answer in other ways.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The request's body, as the inner service reads it.
    #[derive(Debug, Default)]
    pub struct RequestBody<B> {
        #[pin]
        inner: B,
    }
}

impl<B> RequestBody<B> {
    pub(crate) fn new(inner: B) -> Self {
        Self { inner }
    }

    /// The body that the server handed to the layer.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

impl<B: Body<Data = Bytes>> Body for RequestBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    /// The response's body: the inner service's, or that of a denial or fault.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    #[derive(Debug)]
    enum Kind<B> {
        Inner {
            #[pin]
            body: B,
        },
        Own { bytes: Option<Bytes> },
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn inner(body: B) -> Self {
        Self {
            kind: Kind::Inner { body },
        }
    }

    pub(crate) fn own(bytes: Bytes) -> Self {
        let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
        Self {
            kind: Kind::Own { bytes },
        }
    }
}

/// The empty body.
impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::own(Bytes::new())
    }
}

impl<B: Body<Data = Bytes>> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Inner { body } => body.poll_frame(cx),
            KindProj::Own { bytes } => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Own { bytes } => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Own { bytes } => {
                let len = bytes.as_ref().map_or(0, Bytes::len);
                SizeHint::with_exact(u64::try_from(len).unwrap_or(u64::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;
    use http_body_util::{BodyExt, Empty, Full, StreamBody};

    type Frames = Vec<Result<Frame<Bytes>, std::io::Error>>;

    fn frames() -> Frames {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        vec![Ok(Frame::data("ab".into())), Ok(Frame::trailers(trailers))]
    }

    fn stream() -> impl Body<Data = Bytes, Error = std::io::Error> + Unpin {
        StreamBody::new(futures_util::stream::iter(frames()))
    }

    #[tokio::test]
    async fn frames_and_trailers_of_wrapped_bodies_pass() {
        let request = RequestBody::new(stream()).collect().await.unwrap();
        let response = ResponseBody::inner(stream()).collect().await.unwrap();
        for collected in [request, response] {
            assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
            assert_eq!(collected.to_bytes(), "ab");
        }
    }

    #[tokio::test]
    async fn errors_of_wrapped_bodies_pass() {
        let broken: Frames = vec![Err(std::io::Error::other("broken"))];
        let body = ResponseBody::inner(StreamBody::new(futures_util::stream::iter(broken)));
        assert_eq!(body.collect().await.unwrap_err().to_string(), "broken");
    }

    #[test]
    fn size_and_end_are_forwarded() {
        let full = || Full::new(Bytes::from_static(b"abc"));
        assert_eq!(RequestBody::new(full()).size_hint().exact(), Some(3));
        assert_eq!(ResponseBody::inner(full()).size_hint().exact(), Some(3));
        assert!(!RequestBody::new(full()).is_end_stream());
        assert!(RequestBody::new(Empty::<Bytes>::new()).is_end_stream());
        assert!(ResponseBody::inner(Empty::<Bytes>::new()).is_end_stream());
    }

    #[tokio::test]
    async fn own_bodies_have_their_size_and_end() {
        let body = ResponseBody::<Empty<Bytes>>::own("denied".into());
        assert_eq!(body.size_hint().exact(), Some(6));
        assert!(!body.is_end_stream());
        assert_eq!(body.collect().await.unwrap().to_bytes(), "denied");
        assert!(ResponseBody::<Empty<Bytes>>::default().is_end_stream());
    }
}
