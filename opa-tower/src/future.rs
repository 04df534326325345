use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use opa_core::instance::{Concluded, Evaluation};
use opa_core::{AppId, AppSet, Reason};
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::app::Rejection;
use crate::judge::{Case, Step, judge_named};
use crate::response::Refusal;
use crate::ruling::{Passed, Ruling, Sentence};
use crate::settings::Settings;
use crate::{RequestBody, ResponseBody};

pin_project! {
    /// The future of [`OpaService`](crate::OpaService).
    ///
    /// Dropping it before the decision is final, also while that waits for its log, counts the
    /// decision as cancelled; the inner service is not called then.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B, F, X> {
        #[pin]
        stage: Stage<F, X>,
        held: Option<Held<S, B>>,
    }
}

/// What waits for the decision, as long as that may be an allow.
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
        Concludes {
            #[pin]
            concluded: Concluded,
            sentence: Option<Sentence>,
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

    pub(crate) fn concludes(concluded: Concluded, sentence: Sentence, body: B, inner: S) -> Self {
        // Who can't pass any more holds no place of the inner service.
        let held = sentence.may_pass().then_some(Held { inner, body });
        let stage = Stage::Concludes {
            concluded,
            sentence: Some(sentence),
        };
        Self { stage, held }
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
                    case.rule(evaluated)
                }
                StageProj::Concludes {
                    concluded,
                    sentence,
                } => {
                    let decision = ready!(concluded.poll(cx));
                    let Some(sentence) = sentence.take() else {
                        return Poll::Pending;
                    };
                    Step::Ruled(sentence.rule(decision))
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
                (Step::Evaluates { evaluation, case }, held) => {
                    *this.held = held;
                    Stage::Evaluates {
                        evaluation,
                        case: Some(case),
                    }
                }
                (
                    Step::Concludes {
                        concluded,
                        sentence,
                    },
                    held,
                ) => {
                    *this.held = held.filter(|_| sentence.may_pass());
                    Stage::Concludes {
                        concluded,
                        sentence: Some(sentence),
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
