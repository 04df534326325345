//! A snapshot is asked what a decision log may show.

use std::sync::Arc;
use std::time::SystemTime;

use super::evaluation::reason_of;
use super::{Instance, Shared, Snapshot};
use crate::engine::pool::PoolKey;
use crate::engine::{
    AppCaches, Budget, EntrypointPath, EvalContext, Memo, Run, RunEnd, Runner, Task,
};
use crate::plugin::{Asked, LogAnswer, LogPolicyFuture};
use crate::{AppId, Reason, Value};

/// Where a snapshot's policy on logs is evaluated: as the app's decisions are.
pub(crate) struct Desk {
    app: AppId,
    key: PoolKey,
    runner: Arc<Runner>,
    clock: Arc<dyn crate::engine::Clock>,
    caches: Arc<AppCaches>,
}

impl Desk {
    pub(crate) fn new(instance: &Instance) -> Self {
        let Shared { runner, clock, .. } = &*instance.shared;
        Self {
            app: instance.id.clone(),
            key: instance.key,
            runner: Arc::clone(runner),
            clock: Arc::clone(clock),
            caches: Arc::clone(&instance.caches),
        }
    }

    fn now(&self) -> SystemTime {
        self.clock.wall()
    }
}

impl Asked for Snapshot {
    fn defines(&self, path: &EntrypointPath) -> bool {
        let segments: Vec<_> = path.segments().collect();
        self.policy.defines(path) || self.data.at(&segments).is_some()
    }

    fn evaluate(
        self: Arc<Self>,
        path: &EntrypointPath,
        input: Value,
        budget: Budget,
    ) -> LogPolicyFuture {
        let Ok(entrypoint) = self.entrypoint(Some(path)) else {
            let failed = LogAnswer::Failed(Reason::InvalidEntrypoint);
            return Box::pin(std::future::ready(failed));
        };
        let desk = &self.desk;
        // Prints of these evaluations would show what a mask is to hide: they go nowhere.
        let ctx = EvalContext::with_clock(budget, Arc::clone(&desk.clock))
            .with_memo(Memo::new(desk.now(), rand::random()))
            .with_caches(Arc::clone(&desk.caches))
            // A rule that an error skips may be the one that hides something.
            .with_strict_builtin_errors();
        let task = Task {
            runner: Arc::clone(&desk.runner),
            app: desk.app.clone(),
            key: desk.key,
            bound: Arc::clone(&self.bound),
            entrypoint,
            input,
            // Nothing large is freed by whoever asked.
            owner: self,
        };
        let run = Run::start(task, Box::new(ctx));
        Box::pin(async move { answer(run.await.0) })
    }
}

fn answer(end: RunEnd) -> LogAnswer {
    LogAnswer::Failed(match end {
        RunEnd::Value(value) => return LogAnswer::Value(value),
        RunEnd::Undefined => return LogAnswer::Undefined,
        RunEnd::Interrupted(interrupt) => reason_of(interrupt),
        RunEnd::Error(_) => Reason::EvalError,
        RunEnd::Panicked => Reason::EnginePanic,
        RunEnd::Overloaded => Reason::Overloaded,
        RunEnd::Closed => Reason::Closed,
        RunEnd::TooManyRounds => Reason::IoRounds,
    })
}
