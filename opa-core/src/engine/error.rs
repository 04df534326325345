use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::Location;

/// One thing that is wrong with a policy, with OPA's code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileError {
    code: Cow<'static, str>,
    message: Arc<str>,
    location: Option<Location>,
}

impl CompileError {
    /// OPA's code of a text that is no Rego.
    pub const PARSE: &'static str = "rego_parse_error";
    /// OPA's code of Rego that does not compile.
    pub const COMPILE: &'static str = "rego_compile_error";
    /// OPA's code of a name that cannot be resolved.
    pub const TYPE: &'static str = "rego_type_error";

    /// An error with one of OPA's codes.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<Arc<str>>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            location: None,
        }
    }

    /// The same error at a place.
    #[must_use]
    pub fn at(mut self, location: Location) -> Self {
        self.location = Some(location);
        self
    }

    /// OPA's code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.code
    }

    /// What is wrong.
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

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Location { file, row, .. }) = &self.location {
            write!(f, "{file}:{row}: ")?;
        }
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for CompileError {}

/// All that is wrong with a policy, in OPA's order; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompileErrors {
    first: CompileError,
    rest: Vec<CompileError>,
}

impl CompileErrors {
    /// The errors, in order.
    pub fn iter(&self) -> impl Iterator<Item = &CompileError> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The error and those that follow it.
    #[must_use]
    pub fn new(first: CompileError, rest: Vec<CompileError>) -> Self {
        Self { first, rest }
    }
}

impl From<CompileError> for CompileErrors {
    fn from(first: CompileError) -> Self {
        Self {
            first,
            rest: Vec::new(),
        }
    }
}

impl fmt::Display for CompileErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.rest.is_empty() {
            return write!(f, "1 error occurred: {}", self.first);
        }
        write!(f, "{} errors occurred:", self.rest.len() + 1)?;
        for error in self.iter() {
            write!(f, "\n{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CompileErrors {}
