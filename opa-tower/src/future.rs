use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use opa_core::instance::Evaluation;
use opa_core::{AppId, AppSet, Reason};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::app::Rejection;
use crate::judge::{Case, Passed, Ruling, Step, judge_named};
use crate::response::Refusal;
use crate::settings::Settings;
use crate::{RequestBody, ResponseBody};

pin_project! {
    /// The future of [`OpaService`](crate::OpaService).
    ///
    /// Dropping it before there is a decision counts the decision as cancelled; the inner service
    /// is not called then.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F, X> {
        #[pin]
        stage: Stage<F, X>,
        held: Option<Held<S, B>>,
    }
}

/// What waits for the decision.
struct Held<S, B> {
    /// Ready to be called once.
    inner: S,
    body: B,
}

pin_project! {
    #[project = StageProj]
    enum Stage<F, X> {
        Extracts {
            #[pin]
            app: X,
            named: Option<Unnamed>,
        },
        Evaluates {
            #[pin]
            evaluation: Evaluation,
            case: Option<Case>,
        },
        Passes {
            #[pin]
            response: F,
            passed: Option<Passed>,
        },
        Refuses { response: Option<Response<Bytes>> },
    }
}

/// A request whose app is not known yet.
struct Unnamed {
    settings: Arc<Settings>,
    set: AppSet,
    parts: Parts,
    has_body: bool,
}

impl<S, B, F, X> ResponseFuture<S, B, F, X> {
    pub(crate) fn extracts(
        app: X,
        settings: Arc<Settings>,
        set: AppSet,
        parts: Parts,
        has_body: bool,
        body: B,
        inner: S,
    ) -> Self {
        let named = Some(Unnamed {
            settings,
            set,
            parts,
            has_body,
        });
        Self {
            stage: Stage::Extracts { app, named },
            held: Some(Held { inner, body }),
        }
    }

    pub(crate) fn evaluates(evaluation: Evaluation, case: Case, body: B, inner: S) -> Self {
        let stage = Stage::Evaluates {
            evaluation,
            case: Some(case),
        };
        Self {
            stage,
            held: Some(Held { inner, body }),
        }
    }

    pub(crate) fn passes(response: F, passed: Option<Passed>) -> Self {
        Self {
            stage: Stage::Passes { response, passed },
            held: None,
        }
    }

    pub(crate) fn refuses(response: Response<Bytes>) -> Self {
        Self {
            stage: Stage::Refuses {
                response: Some(response),
            },
            held: None,
        }
    }
}

impl<S, B, F, X, R> Future for ResponseFuture<S, B, F, X>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>, Future = F>,
    F: Future<Output = Result<Response<R>, S::Error>>,
    X: Future<Output = Result<AppId, Rejection>>,
{
    type Output = Result<Response<ResponseBody<R>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let step = match this.stage.as_mut().project() {
                StageProj::Extracts { app, named } => {
                    let app = ready!(app.poll(cx));
                    let Some(unnamed) = named.take() else {
                        return Poll::Pending;
                    };
                    let Unnamed {
                        settings,
                        set,
                        parts,
                        has_body,
                    } = unnamed;
                    judge_named(&settings, &set, app, parts, has_body)
                }
                StageProj::Evaluates { evaluation, case } => {
                    let evaluated = ready!(evaluation.poll(cx));
                    let Some(case) = case.take() else {
                        return Poll::Pending;
                    };
                    Step::Ruled(case.rule(evaluated))
                }
                StageProj::Passes { response, passed } => {
                    let response = ready!(response.poll(cx))?.map(ResponseBody::inner);
                    return Poll::Ready(Ok(match passed.take() {
                        Some(passed) => passed.finish(response),
                        None => response,
                    }));
                }
                // A future that is polled after its end, against the contract of `Future`, waits.
                StageProj::Refuses { response } => match response.take() {
                    Some(response) => return Poll::Ready(Ok(response.map(ResponseBody::own))),
                    None => return Poll::Pending,
                },
            };
            let next = match (step, this.held.take()) {
                (Step::Waits { evaluation, case }, held) => {
                    *this.held = held;
                    Stage::Evaluates {
                        evaluation,
                        case: Some(case),
                    }
                }
                (Step::Ruled(Ruling::Pass { parts, passed }), Some(Held { mut inner, body })) => {
                    let request = Request::from_parts(parts, RequestBody::new(body));
                    Stage::Passes {
                        response: inner.call(request),
                        passed: Some(passed),
                    }
                }
                (Step::Ruled(Ruling::Refuse(response)), _) => Stage::Refuses {
                    response: Some(response),
                },
                (Step::Ruled(Ruling::Pass { .. }), None) => return Poll::Pending,
            };
            this.stage.set(next);
        }
    }
}

impl Passed {
    /// Completes the inner service's response.
    fn finish<R>(self, mut response: Response<ResponseBody<R>>) -> Response<ResponseBody<R>> {
        let Self {
            decision,
            add_to_response,
        } = self;
        if append(response.headers_mut(), add_to_response).is_err() {
            tracing::error!(
                target: "opa::layer",
                decision_id = decision.id(),
                "the response has no room for the policy's headers",
            );
            let fault = Refusal::fault(Reason::InvalidDecision, Some(decision.clone()));
            response = fault.into_response().map(ResponseBody::own);
        }
        response.extensions_mut().insert(decision);
        response
    }
}

fn append(to: &mut HeaderMap, headers: HeaderMap) -> Result<(), http::header::MaxSizeReached> {
    for (name, value) in &headers {
        to.try_append(name, value.clone())?;
    }
    Ok(())
}
