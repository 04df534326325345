use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::app::{AppExtractor, NoExtractor};
use crate::judge::{Step, judge, judge_named};
use crate::layer::{Gate, Judge};
use crate::ruling::Ruling;
use crate::{RequestBody, ResponseBody, ResponseFuture};

/// The service that [`OpaLayer`](crate::OpaLayer) makes.
///
/// It is ready when the inner service is, and its error is the inner service's: denials and faults
/// are responses. The inner service is called only after an allow; when the policy or the decision
/// log must be waited for, a clone of it is left behind.
///
/// # Panics
/// `call` must run inside of a Tokio runtime with its timer on.
pub struct OpaService<S, E = NoExtractor> {
    inner: S,
    gate: Option<Arc<Gate<E>>>,
}

impl<S, E> OpaService<S, E> {
    pub(crate) fn new(inner: S, gate: Option<Arc<Gate<E>>>) -> Self {
        Self { inner, gate }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, E> OpaService<S, E> {
    /// Takes out the inner service that is ready, and leaves a clone, which need not be. See
    /// <https://docs.rs/tower/latest/tower/trait.Service.html#be-careful-when-cloning-inner-services>.
    fn take_ready(&mut self) -> S {
        let not_ready = self.inner.clone();
        std::mem::replace(&mut self.inner, not_ready)
    }
}

impl<S, E, B, R> Service<Request<B>> for OpaService<S, E>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Clone,
    E: AppExtractor,
    B: Body<Data = Bytes>,
    R: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<R>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, S::Future, E::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(gate) = &self.gate else {
            return ResponseFuture::passes(self.inner.call(request.map(RequestBody::new)), None);
        };
        let (mut parts, body) = request.into_parts();
        let has_body = has_body(&parts, &body);
        let settings = &gate.settings;
        let step = match &gate.judge {
            Judge::Fixed(app) => judge(settings, app, parts, has_body),
            Judge::Named { set, extractor } => match extractor.extract_now(&mut parts) {
                Some(named) => judge_named(settings, set, named, parts, has_body),
                None => {
                    let app = extractor.extract(&mut parts);
                    let (settings, set) = (Arc::clone(settings), set.clone());
                    let inner = self.take_ready();
                    return ResponseFuture::extracts(
                        app, settings, set, parts, has_body, body, inner,
                    );
                }
            },
        };
        match step {
            Step::Ruled(Ruling::Pass { parts, passed }) => {
                let request = Request::from_parts(parts, RequestBody::new(body));
                ResponseFuture::passes(self.inner.call(request), Some(passed))
            }
            Step::Ruled(Ruling::Refuse(response)) => {
                // What the inner service reserved for the call that does not come, such as a place
                // below a concurrency limit, is given back.
                drop(self.take_ready());
                ResponseFuture::refuses(response)
            }
            Step::Evaluates { evaluation, case } => {
                ResponseFuture::evaluates(evaluation, case, body, self.take_ready())
            }
            Step::Concludes {
                concluded,
                sentence,
            } => ResponseFuture::concludes(concluded, sentence, body, self.take_ready()),
        }
    }
}

/// Whether there may be a body: its length need not be known (GHSA-659f-rgp5-w4wf).
fn has_body(parts: &Parts, body: &impl Body) -> bool {
    let lengths = parts.headers.get_all(CONTENT_LENGTH);
    !body.is_end_stream()
        || parts.headers.contains_key(TRANSFER_ENCODING)
        || lengths.iter().any(|length| length != "0")
}

impl<S: Clone, E> Clone for OpaService<S, E> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            gate: self.gate.clone(),
        }
    }
}

impl<S: fmt::Debug, E> fmt::Debug for OpaService<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpaService")
            .field("inner", &self.inner)
            .field("gate", &self.gate)
            .finish()
    }
}
