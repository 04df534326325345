use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::{Interrupt, IoCall};
use crate::Value;

/// What an evaluation answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The document at the entrypoint's path.
    Value(Value),
    /// There is no document at the path.
    Undefined,
    /// The evaluation cannot go on without these answers; it starts again when they are in the
    /// [`Memo`](super::Memo).
    NeedsIo(Vec<IoCall>),
    /// A budget or the caller ended it.
    Interrupted(Interrupt),
    /// The policy failed.
    Error(EvalError),
}

/// An error of the policy under evaluation, with OPA's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvalError {
    code: Cow<'static, str>,
    message: Arc<str>,
    location: Option<Location>,
}

impl EvalError {
    /// OPA's code of an error inside a built-in.
    pub const BUILTIN: &'static str = "eval_builtin_error";
    /// OPA's code of conflicting rule values.
    pub const CONFLICT: &'static str = "eval_conflict_error";
    /// OPA's code of an error of the evaluator itself.
    pub const INTERNAL: &'static str = "eval_internal_error";
    /// OPA's code of a type error at run time.
    pub const TYPE: &'static str = "eval_type_error";

    /// An error with one of OPA's codes.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<Arc<str>>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            location: None,
        }
    }

    /// The same error at a place in the policy.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }

    /// OPA's code, such as `eval_conflict_error`.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What happened. The text can carry values of the policy's input.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where, if the engine knows.
    #[must_use]
    pub fn location(&self) -> Option<&Location> {
        self.location.as_ref()
    }
}

impl fmt::Display for EvalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Location {
            file,
            row,
            column: _,
        }) = &self.location
        {
            write!(f, "{file}:{row}: ")?;
        }
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for EvalError {}

/// A place in a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The module's path in its bundle.
    pub file: Arc<str>,
    /// The line, from 1.
    pub row: u32,
    /// The column, from 1.
    pub column: u32,
}
