use std::fmt;

/// Why a decision is what it is. Response, log, metric, span and status name the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The policy answered, and the answer was not read as allow or deny ([`App::decide`](crate::App::decide)).
    Decided,
    /// The policy allowed.
    Allowed,
    /// The policy denied.
    Denied,
    /// The policy did not allow, but dry-run let the request pass.
    DryRun,
    /// There is no document at the entrypoint.
    Undefined,
    /// The document is no decision: a wrong type, or a value that HTTP does not permit.
    InvalidDecision,
    /// The policy failed.
    EvalError,
    /// The engine panicked; the panic was contained.
    EnginePanic,
    /// The evaluation exceeded its time budget.
    TimeBudget,
    /// The evaluation exceeded its step budget.
    StepBudget,
    /// The evaluation exceeded its memory budget.
    MemoryBudget,
    /// The evaluation exceeded its depth budget.
    DepthBudget,
    /// The evaluation asked for input or output in more rounds than allowed.
    IoRounds,
    /// No thread for the evaluation was free until the decision's deadline.
    Overloaded,
    /// The caller stopped waiting before there was a decision.
    Cancelled,
    /// The instance has no policy yet.
    NotReady,
    /// A bundle's source has not answered for longer than `max_staleness_seconds`.
    Stale,
    /// The instance or its manager is closed.
    Closed,
    /// The entrypoint is no valid path.
    InvalidEntrypoint,
    /// The request names an app that does not exist.
    UnknownApp,
    /// The request's path or query is not valid UTF-8 or has a bad escape.
    MalformedRequest,
    /// The request has more headers than a policy is shown.
    TooManyHeaders,
    /// The request has a body that the policy was not shown.
    BodyUnseen,
    /// The decision can't be logged as the configuration wants it to be.
    LogUnavailable,
}

impl Reason {
    /// All reasons, in the order of their index.
    pub const ALL: [Self; 24] = [
        Self::Decided,
        Self::Allowed,
        Self::Denied,
        Self::DryRun,
        Self::Undefined,
        Self::InvalidDecision,
        Self::EvalError,
        Self::EnginePanic,
        Self::TimeBudget,
        Self::StepBudget,
        Self::MemoryBudget,
        Self::DepthBudget,
        Self::IoRounds,
        Self::Overloaded,
        Self::Cancelled,
        Self::NotReady,
        Self::Stale,
        Self::Closed,
        Self::InvalidEntrypoint,
        Self::UnknownApp,
        Self::MalformedRequest,
        Self::TooManyHeaders,
        Self::BodyUnseen,
        Self::LogUnavailable,
    ];

    /// The name in logs, metrics, spans and status: lower case with underscores.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decided => "decided",
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::DryRun => "dry_run",
            Self::Undefined => "undefined",
            Self::InvalidDecision => "invalid_decision",
            Self::EvalError => "eval_error",
            Self::EnginePanic => "engine_panic",
            Self::TimeBudget => "time_budget",
            Self::StepBudget => "step_budget",
            Self::MemoryBudget => "memory_budget",
            Self::DepthBudget => "depth_budget",
            Self::IoRounds => "io_rounds",
            Self::Overloaded => "overloaded",
            Self::Cancelled => "cancelled",
            Self::NotReady => "not_ready",
            Self::Stale => "stale",
            Self::Closed => "closed",
            Self::InvalidEntrypoint => "invalid_entrypoint",
            Self::UnknownApp => "unknown_app",
            Self::MalformedRequest => "malformed_request",
            Self::TooManyHeaders => "too_many_headers",
            Self::BodyUnseen => "body_unseen",
            Self::LogUnavailable => "log_unavailable",
        }
    }

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_the_place_in_all() {
        for (at, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), at, "{reason}");
        }
    }

    #[test]
    fn names_are_distinct() {
        let names: std::collections::BTreeSet<_> =
            Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
    }
}
