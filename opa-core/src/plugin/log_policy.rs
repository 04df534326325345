use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::engine::{Budget, EntrypointPath};
use crate::{Reason, Value};

/// A boxed future of [`LogPolicy::evaluate`].
pub type LogPolicyFuture = Pin<Box<dyn Future<Output = LogAnswer> + Send + 'static>>;

/// The policy that made a decision, for whoever logs it: it says what the log may show.
///
/// It is of the snapshot that made the decision, whatever is served since. Clones are the same
/// policy. As long as one exists, the snapshot's memory is held.
#[derive(Clone)]
pub struct LogPolicy(Arc<dyn Asked>);

/// What a snapshot is asked.
pub(crate) trait Asked: Send + Sync {
    fn defines(&self, path: &EntrypointPath) -> bool;

    fn evaluate(
        self: Arc<Self>,
        path: &EntrypointPath,
        input: Value,
        budget: Budget,
    ) -> LogPolicyFuture;
}

/// What a policy answers about a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogAnswer {
    /// The document.
    Value(Value),
    /// There is none.
    Undefined,
    /// It could not be evaluated, or not to its end. No text of the engine is kept: it can carry
    /// values of the event.
    Failed(Reason),
}

impl LogPolicy {
    pub(crate) fn new(asked: Arc<dyn Asked>) -> Self {
        Self(asked)
    }

    /// Whether there may be something at `path`: if not, it is [`Undefined`](LogAnswer::Undefined)
    /// without being asked. Looks up names and evaluates nothing.
    #[must_use]
    pub fn defines(&self, path: &EntrypointPath) -> bool {
        self.0.defines(path)
    }

    /// Evaluates the document at `path`, in the app's share of the evaluation pool and under
    /// `budget`, which includes waiting for a thread. Not for the way of a request.
    ///
    /// An engine that can be sliced first runs for one slice (about 100 µs) where this is called.
    ///
    /// # Panics
    /// Must be called, and the future polled, inside of a Tokio runtime with its timer on.
    pub fn evaluate(&self, path: &EntrypointPath, input: Value, budget: Budget) -> LogPolicyFuture {
        Arc::clone(&self.0).evaluate(path, input, budget)
    }
}

impl fmt::Debug for LogPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<policy of the decision>")
    }
}
