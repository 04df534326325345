//! Drives one evaluation through all of its rounds: inline, on the pool, and waiting for I/O.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::pool::{Pool, PoolKey, Ticket};
use super::{
    Bound, CancelFlag, Entrypoint, EvalContext, EvalError, Interrupt, IoAnswer, IoCall, IoDriver,
    IoFuture, Outcome, Scheduling,
};
use crate::{AppId, Value};

/// How many times an evaluation may ask for input or output.
const MAX_IO_ROUNDS: u32 = 64;

/// How long a running evaluation may take to notice by itself that its deadline has passed, before
/// its thread is taken for stuck.
const STUCK_AFTER: Duration = Duration::from_millis(50);

/// Where evaluations of one manager run.
pub(crate) struct Runner {
    pub(crate) scheduling: Scheduling,
    pub(crate) pool: Pool,
    pub(crate) slice: Duration,
    pub(crate) io: Arc<dyn IoDriver>,
}

/// What is evaluated, the same in every round.
#[derive(Clone)]
pub(crate) struct Task {
    pub(crate) runner: Arc<Runner>,
    pub(crate) app: AppId,
    pub(crate) key: PoolKey,
    pub(crate) bound: Arc<dyn Bound>,
    pub(crate) entrypoint: Entrypoint,
    pub(crate) input: Value,
    /// What the policy is part of. As long as a task has it, nobody else frees it, so that the task
    /// is never the one who does. Goes last.
    #[expect(dead_code, reason = "only held")]
    pub(crate) owner: Arc<dyn Any + Send + Sync>,
}

/// How an evaluation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunEnd {
    Value(Value),
    Undefined,
    Interrupted(Interrupt),
    Error(EvalError),
    Panicked,
    /// No thread was free until the deadline.
    Overloaded,
    /// The pool is closed.
    Closed,
    TooManyRounds,
}

/// One run of the engine.
struct Round {
    outcome: Option<Outcome>,
    ctx: Box<EvalContext>,
    time: Duration,
    /// No thread was free before the deadline.
    late: bool,
}

pin_project! {
    /// An evaluation under way. Dropping it ends its work at the engine's next budget check.
    #[must_use = "futures do nothing unless polled"]
    pub(crate) struct Run {
        task: Task,
        cancel: CancelFlag,
        io_rounds: u32,
        time: Duration,
        #[pin]
        stage: Stage,
    }

    impl PinnedDrop for Run {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            match this.stage.project() {
                StageProj::Ended { .. } => {}
                StageProj::Pooled { ticket, .. } => {
                    this.cancel.cancel();
                    this.task.runner.pool.abandon(*ticket, false);
                }
                StageProj::Io { .. } => this.cancel.cancel(),
            }
        }
    }
}

pin_project! {
    #[project = StageProj]
    enum Stage {
        Ended { end: Option<RunEnd> },
        Pooled {
            round: oneshot::Receiver<Round>,
            ticket: Ticket,
            overdue: bool,
            #[pin]
            deadline: Sleep,
        },
        Io {
            calls: Calls,
            ctx: Option<Box<EvalContext>>,
            #[pin]
            deadline: Sleep,
        },
    }
}

impl Run {
    /// Evaluates inline as long as a slice, if the engine can be sliced, and goes to the pool else.
    pub(crate) fn start(task: Task, ctx: Box<EvalContext>) -> Self {
        let cancel = ctx.cancel_flag().clone();
        let mut time = Duration::ZERO;
        let mut io_rounds = 0;
        let stage = task.next_round(ctx, &mut time, &mut io_rounds);
        Self {
            task,
            cancel,
            io_rounds,
            time,
            stage,
        }
    }

    /// The end, if there is one already.
    pub(crate) fn try_end(&mut self) -> Option<(RunEnd, Duration)> {
        match &mut self.stage {
            Stage::Ended { end } => end.take().map(|end| (end, self.time)),
            _ => None,
        }
    }
}

impl Future for Run {
    type Output = (RunEnd, Duration);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                StageProj::Ended { end } => {
                    let end = end.take().unwrap_or(RunEnd::Closed);
                    return Poll::Ready((end, *this.time));
                }
                StageProj::Pooled {
                    round,
                    ticket,
                    overdue,
                    mut deadline,
                } => {
                    match Pin::new(round).poll(cx) {
                        Poll::Ready(Ok(round)) => {
                            this.task.after_round(round, this.time, this.io_rounds)
                        }
                        Poll::Ready(Err(_)) => Stage::ended(RunEnd::Closed),
                        Poll::Pending => {
                            ready!(deadline.as_mut().poll(cx));
                            let pool = &this.task.runner.pool;
                            if pool.abandon(*ticket, *overdue) {
                                Stage::ended(RunEnd::Overloaded)
                            } else if *overdue {
                                this.cancel.cancel();
                                Stage::ended(RunEnd::Interrupted(Interrupt::Time))
                            } else {
                                // It runs, and its own clock should end it about now.
                                *overdue = true;
                                deadline.reset(tokio::time::Instant::now() + STUCK_AFTER);
                                continue;
                            }
                        }
                    }
                }
                StageProj::Io {
                    calls,
                    ctx,
                    deadline,
                } => {
                    // The driver is the user's code: the decision fails, not the request's task.
                    let polled = catch_unwind(AssertUnwindSafe(|| calls.poll(cx)));
                    if polled.is_err() {
                        Stage::ended(RunEnd::Panicked)
                    } else if polled.is_ok_and(|polled| polled.is_pending()) {
                        ready!(deadline.poll(cx));
                        Stage::ended(RunEnd::Interrupted(Interrupt::Time))
                    } else if let Some(mut ctx) = ctx.take() {
                        for (call, answer) in calls.answers.drain(..) {
                            ctx.memo_mut().remember(call, answer);
                        }
                        this.task.next_round(ctx, this.time, this.io_rounds)
                    } else {
                        Stage::ended(RunEnd::Closed)
                    }
                }
            };
            this.stage.set(next);
        }
    }
}

impl Stage {
    fn ended(end: RunEnd) -> Self {
        Self::Ended { end: Some(end) }
    }
}

impl Task {
    fn next_round(
        &self,
        mut ctx: Box<EvalContext>,
        time: &mut Duration,
        io_rounds: &mut u32,
    ) -> Stage {
        if self.runner.scheduling == Scheduling::Pooled || self.entrypoint.is_slow() {
            ctx.set_slice(None);
            return self.submit(ctx);
        }
        ctx.set_slice(Some(self.runner.slice));
        let round = self.run(ctx);
        self.after_round(round, time, io_rounds)
    }

    fn after_round(&self, round: Round, time: &mut Duration, io_rounds: &mut u32) -> Stage {
        *time += round.time;
        let mut ctx = round.ctx;
        let end = match round.outcome {
            _ if round.late => RunEnd::Overloaded,
            None => RunEnd::Panicked,
            Some(Outcome::Value(value)) => RunEnd::Value(value),
            Some(Outcome::Undefined) => RunEnd::Undefined,
            Some(Outcome::Error(error)) => RunEnd::Error(error),
            Some(Outcome::Interrupted(Interrupt::Slice)) => {
                self.entrypoint.mark_slow();
                ctx.discard_prints();
                ctx.set_slice(None);
                return self.submit(ctx);
            }
            Some(Outcome::Interrupted(interrupt)) => RunEnd::Interrupted(interrupt),
            Some(Outcome::NeedsIo(calls)) => {
                *io_rounds += 1;
                if *io_rounds > MAX_IO_ROUNDS {
                    RunEnd::TooManyRounds
                } else {
                    ctx.discard_prints();
                    let made = AssertUnwindSafe(|| self.make_calls(calls, ctx));
                    return catch_unwind(made).unwrap_or_else(|_| Stage::ended(RunEnd::Panicked));
                }
            }
        };
        // The sink is the user's code: its panic must not take the decision with it.
        if catch_unwind(AssertUnwindSafe(|| ctx.flush_prints())).is_err() {
            tracing::error!(target: "opa::instance", app = %self.app, "a print sink panicked");
        }
        Stage::ended(end)
    }

    fn submit(&self, ctx: Box<EvalContext>) -> Stage {
        let (send, round) = oneshot::channel();
        let deadline = tokio::time::sleep(ctx.remaining());
        let task = self.clone();
        let job = move || {
            let late = ctx.remaining().is_zero();
            let round = Round {
                late,
                ..task.run(ctx)
            };
            // Nobody may wait any more: then the round is dropped here, on the pool.
            let _ = send.send(round);
        };
        match self.runner.pool.submit(self.key, job) {
            Ok(ticket) => Stage::Pooled {
                round,
                ticket,
                overdue: false,
                deadline,
            },
            Err(_) => Stage::ended(RunEnd::Overloaded),
        }
    }

    fn run(&self, mut ctx: Box<EvalContext>) -> Round {
        if ctx.remaining().is_zero() {
            return Round {
                outcome: Some(Outcome::Interrupted(Interrupt::Time)),
                ctx,
                time: Duration::ZERO,
                late: false,
            };
        }
        let started = Instant::now();
        let eval = || self.bound.eval(&self.entrypoint, &self.input, &mut ctx);
        let outcome = catch_unwind(AssertUnwindSafe(eval)).ok();
        Round {
            outcome,
            ctx,
            time: started.elapsed(),
            late: false,
        }
    }

    fn make_calls(&self, calls: Vec<IoCall>, ctx: Box<EvalContext>) -> Stage {
        let mut futures: Vec<(IoCall, IoFuture)> = Vec::with_capacity(calls.len());
        for call in calls {
            let known = ctx.memo().answer(&call).is_some();
            if !known && !futures.iter().any(|(made, _)| *made == call) {
                let future = self.runner.io.call(&self.app, &call);
                futures.push((call, future));
            }
        }
        let deadline = tokio::time::sleep(ctx.remaining());
        Stage::Io {
            calls: Calls {
                futures,
                answers: Vec::new(),
            },
            ctx: Some(ctx),
            deadline,
        }
    }
}

/// The calls of one round and the answers so far.
struct Calls {
    futures: Vec<(IoCall, IoFuture)>,
    answers: Vec<(IoCall, IoAnswer)>,
}

impl Calls {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pending = Vec::with_capacity(self.futures.len());
        for (call, mut future) in self.futures.drain(..) {
            match future.as_mut().poll(cx) {
                Poll::Ready(answer) => self.answers.push((call, answer)),
                Poll::Pending => pending.push((call, future)),
            }
        }
        self.futures = pending;
        if self.futures.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
