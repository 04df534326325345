use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::question::{Ends, Prepared};
use super::{Concluded, LogEntry};
use crate::engine::{Interrupt, Run, RunEnd};
use crate::plugin::EventError;
use crate::{Reason, Value};

pin_project! {
    /// An evaluation under way: a future of [`Evaluated`].
    ///
    /// Dropping it before it is ready counts the decision as cancelled, ends its work at the
    /// engine's next budget check and records no event.
    ///
    /// # Panics
    /// Must be polled inside a Tokio runtime with its timer on. Polling it again after it was
    /// ready gives an evaluation that was `closed`.
    #[must_use = "futures do nothing unless polled"]
    pub struct Evaluation {
        prepared: Option<Prepared>,
        #[pin]
        run: Run,
    }
}

impl Evaluation {
    pub(super) fn new(prepared: Prepared, run: Run) -> Self {
        Self {
            prepared: Some(prepared),
            run,
        }
    }

    /// What was evaluated, if it is known already, as it is when the evaluation was short enough
    /// to run inline.
    ///
    /// # Errors
    /// Gives the evaluation back, to be awaited.
    #[expect(
        clippy::result_large_err,
        reason = "the future is given back, not boxed"
    )]
    pub fn now(mut self) -> Result<Evaluated, Self> {
        match self.run.try_end() {
            Some(end) => match self.prepared.take() {
                Some(prepared) => Ok(Evaluated::new(prepared, end)),
                None => Err(self),
            },
            None => Err(self),
        }
    }
}

impl Future for Evaluation {
    type Output = Evaluated;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Evaluated> {
        let this = self.project();
        let span = this.prepared.as_ref().map(|it| &it.question.traced.span);
        let entered = span.map(tracing::Span::enter);
        let end = ready!(this.run.poll(cx));
        drop(entered);
        match this.prepared.take() {
            Some(prepared) => Poll::Ready(Evaluated::new(prepared, end)),
            // A future that is polled after its end, against the contract of `Future`.
            None => Poll::Pending,
        }
    }
}

/// A policy's answer, not yet read as a decision.
#[must_use = "an answer that is dropped counts as cancelled"]
pub struct Evaluated {
    prepared: Prepared,
    result: Option<Value>,
    fault: Option<(Reason, EventError)>,
    eval: Duration,
}

impl Evaluated {
    fn new(prepared: Prepared, (end, eval): (RunEnd, Duration)) -> Self {
        let (result, fault) = match end {
            RunEnd::Value(value) => (Some(value), None),
            RunEnd::Undefined => {
                let path = prepared.entrypoint.path();
                (
                    None,
                    Some(fault(
                        Reason::Undefined,
                        format!("{path} decision was undefined"),
                    )),
                )
            }
            RunEnd::Error(error) => {
                let code: Arc<str> = error.code().into();
                let message = error.to_string().into();
                (
                    None,
                    Some((Reason::EvalError, EventError { code, message })),
                )
            }
            RunEnd::Interrupted(interrupt) => (
                None,
                Some(fault(reason_of(interrupt), interrupt.to_string())),
            ),
            RunEnd::Panicked => (
                None,
                Some(fault(Reason::EnginePanic, "the engine panicked")),
            ),
            RunEnd::Overloaded => (
                None,
                Some(fault(
                    Reason::Overloaded,
                    "no thread was free until the deadline",
                )),
            ),
            RunEnd::Closed => (None, Some(fault(Reason::Closed, "the manager is closed"))),
            RunEnd::TooManyRounds => (
                None,
                Some(fault(
                    Reason::IoRounds,
                    "the policy asked for input too many times",
                )),
            ),
        };
        Self {
            prepared,
            result,
            fault,
            eval,
        }
    }

    /// The policy's whole answer, unless there is a [`fault`](Self::fault).
    #[must_use]
    pub fn result(&self) -> Option<&Value> {
        self.result.as_ref()
    }

    /// Why there is no answer.
    #[must_use]
    pub fn fault(&self) -> Option<Reason> {
        self.fault.as_ref().map(|(reason, _)| *reason)
    }

    /// Whether the configuration asks for dry-run and the program permits it.
    #[must_use]
    pub fn is_dry_run(&self) -> bool {
        self.prepared.is_dry_run()
    }

    /// The id of the decision to come.
    #[must_use]
    pub fn id(&self) -> &str {
        self.prepared.question.id()
    }

    /// Makes the decision and hands its event over. It is final, and counted, when the sinks admit it.
    ///
    /// `reason` is what the asker reads from the answer; a [`fault`](Self::fault) stands above it,
    /// unless the asker lets the request pass in dry-run. `problem` tells what is wrong with the
    /// answer, if something is.
    pub fn conclude(self, reason: Reason, problem: Option<&str>, entry: LogEntry) -> Concluded {
        let (reason, error) = match self.fault {
            Some((_, error)) if reason == Reason::DryRun => (reason, Some(error)),
            Some((reason, error)) => (reason, Some(error)),
            None => {
                // Also in dry-run the log names what is wrong.
                let code = Reason::InvalidDecision.as_str().into();
                (
                    reason,
                    problem.map(|problem| EventError {
                        code,
                        message: problem.into(),
                    }),
                )
            }
        };
        let ends = Ends {
            reason,
            result: self.result,
            error,
            eval: self.eval,
            path: None,
        };
        let Prepared {
            question,
            snapshot,
            entrypoint,
        } = self.prepared;
        question.conclude(ends, entry, Some((&snapshot, &entrypoint)))
    }
}

fn fault(reason: Reason, message: impl Into<Arc<str>>) -> (Reason, EventError) {
    (
        reason,
        EventError {
            code: reason.as_str().into(),
            message: message.into(),
        },
    )
}

pub(super) fn reason_of(interrupt: Interrupt) -> Reason {
    match interrupt {
        // A slice only ends an inline round, which then goes to the pool.
        Interrupt::Time | Interrupt::Slice => Reason::TimeBudget,
        Interrupt::Steps => Reason::StepBudget,
        Interrupt::Memory => Reason::MemoryBudget,
        Interrupt::Depth => Reason::DepthBudget,
        Interrupt::Cancelled => Reason::Cancelled,
    }
}
