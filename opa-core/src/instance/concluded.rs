use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::decision::Inner;
use super::question::Question;
use super::{Decision, Instance};
use crate::Reason;
use crate::plugin::{Admission, AdmissionFuture, EventError};

/// How long a decision waits for its sinks at most. It has no deadline of its own any more.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A decision that is made, and takes effect when its sinks [admit](crate::plugin::DecisionSink::admit)
/// it: a future of the final [`Decision`].
///
/// If one of them refuses, or has not told within 30 s of Tokio's clock, the decision is
/// [`LogUnavailable`](Reason::LogUnavailable) and has no result, whatever the policy said: nobody
/// must act on what has no record. The decision is counted when it is final. Dropping this before
/// counts it as [cancelled](Reason::Cancelled); its event may be in the log or not.
///
/// # Panics
/// When a sink lets it wait, it must be polled inside of a Tokio runtime with its timer on.
#[must_use = "futures do nothing unless polled"]
pub struct Concluded(Stage);

enum Stage {
    /// `None` after the end.
    Final(Option<Decision>),
    Held(Pin<Box<Held>>),
}

impl Concluded {
    pub(super) fn new(question: Question, made: Inner, admissions: Admissions) -> Self {
        let Admissions { refused, waits } = admissions;
        Self(if refused {
            let refused = made.unlogged("a decision log did not admit the decision".into());
            Stage::Final(Some(question.settle(refused)))
        } else if waits.is_empty() {
            Stage::Final(Some(question.settle(made)))
        } else {
            Stage::Held(Box::pin(Held {
                made: Some((question, made)),
                waits,
                until: Instant::now() + LONGEST_WAIT,
                bound: None,
            }))
        })
    }

    /// The decision, if no sink lets it wait.
    ///
    /// # Errors
    /// Gives the future back, to be awaited.
    pub fn now(self) -> Result<Decision, Self> {
        match self.0 {
            Stage::Final(Some(decision)) => Ok(decision),
            waiting => Err(Self(waiting)),
        }
    }
}

impl Future for Concluded {
    type Output = Decision;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Decision> {
        let decision = match &mut self.0 {
            Stage::Final(decision) => match decision.take() {
                Some(decision) => decision,
                // A future that is polled after its end, against the contract of `Future`.
                None => return Poll::Pending,
            },
            Stage::Held(held) => ready!(held.as_mut().poll(cx)),
        };
        self.0 = Stage::Final(None);
        Poll::Ready(decision)
    }
}

impl fmt::Debug for Concluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut concluded = f.debug_tuple("Concluded");
        match &self.0 {
            Stage::Final(decision) => concluded.field(decision).finish(),
            Stage::Held(_) => concluded.finish_non_exhaustive(),
        }
    }
}

pin_project! {
    /// A decision that waits for its sinks.
    struct Held {
        made: Option<(Question, Inner)>,
        waits: Vec<AdmissionFuture>,
        until: Instant,
        // Made when it is polled first, since only then there must be a runtime.
        #[pin]
        bound: Option<Sleep>,
    }
}

impl Future for Held {
    type Output = Decision;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Decision> {
        let mut this = self.project();
        let Some((question, _)) = this.made.as_ref() else {
            return Poll::Pending;
        };
        let problem = match poll_all(question.instance(), this.waits, cx) {
            Poll::Ready(true) => None,
            Poll::Ready(false) => Some("a decision log did not admit the decision".to_owned()),
            Poll::Pending => {
                if this.bound.is_none() {
                    let bound = tokio::time::sleep_until(*this.until);
                    this.bound.set(Some(bound));
                }
                if let Some(bound) = this.bound.as_mut().as_pin_mut() {
                    ready!(bound.poll(cx));
                }
                let bound = LONGEST_WAIT.as_secs();
                Some(format!(
                    "no decision log admitted the decision in {bound} s"
                ))
            }
        };
        match this.made.take() {
            Some((question, made)) => Poll::Ready(question.settle(match problem {
                Some(problem) => made.unlogged(problem.into()),
                None => made,
            })),
            None => Poll::Pending,
        }
    }
}

/// Whether all admit; one that refuses is enough to know.
fn poll_all(
    instance: &Instance,
    waits: &mut Vec<AdmissionFuture>,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    let mut refused = false;
    waits.retain_mut(|wait| {
        let admitted = instance.contain("decision", || wait.as_mut().poll(cx));
        match admitted.unwrap_or(Poll::Ready(false)) {
            Poll::Ready(admitted) => {
                refused |= !admitted;
                false
            }
            Poll::Pending => true,
        }
    });
    if refused {
        Poll::Ready(false)
    } else if waits.is_empty() {
        Poll::Ready(true)
    } else {
        Poll::Pending
    }
}

/// What the sinks of one decision said.
#[derive(Default)]
pub(super) struct Admissions {
    refused: bool,
    waits: Vec<AdmissionFuture>,
}

impl Admissions {
    /// `None` of a sink that panicked: whether it has the event, nobody knows.
    pub(super) fn add(&mut self, admission: Option<Admission>) {
        match admission {
            Some(Admission::Admitted) => {}
            Some(Admission::Refused) | None => self.refused = true,
            Some(Admission::Waits(wait)) => self.waits.push(wait),
        }
    }
}

impl Inner {
    /// What becomes of the decision when it can't be logged.
    fn unlogged(mut self, message: Arc<str>) -> Self {
        self.reason = Reason::LogUnavailable;
        self.result = None;
        self.error = Some(EventError {
            code: Reason::LogUnavailable.as_str().into(),
            message,
        });
        self
    }
}

#[cfg(test)]
mod tests;
