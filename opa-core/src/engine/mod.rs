//! The one contract between the product and an engine that runs Rego.
//!
//! ```text
//! Engine::compile(ModuleSet, CompileOptions) -> Arc<dyn Policy>    once for all apps with equal modules
//! Policy::bind(data)                         -> Arc<dyn Bound>     once per snapshot
//! Bound::prepare(path)                       -> Entrypoint         with the input paths that it can read
//! Bound::eval(entrypoint, input, context)    -> Outcome            from any thread
//! ```
//!
//! Paths are references ([`EntrypointPath`]), never query text (CVE-2025-46569). Everything that is
//! per decision or per app comes with the [`EvalContext`].
//!
//! ```
//! use opa_core::engine::{CompileOptions, EntrypointPath, Engine, ModuleSet, Module, Regorus};
//! use opa_core::engine::{Budget, EvalContext, Outcome};
//! use opa_core::Value;
//!
//! let modules = ModuleSet::new([Module::v1("a.rego", "package a\nallow if input.user == \"eve\"")]);
//! let policy = Regorus::default().compile(&modules, &CompileOptions::default())?;
//! let bound = policy.bind(&Value::empty_object())?;
//! let allow = bound.prepare(&EntrypointPath::parse("a/allow")?)?;
//! let input = Value::from_json(br#"{"user": "eve"}"#)?;
//! let outcome = bound.eval(&allow, &input, &mut EvalContext::new(Budget::default()));
//! assert_eq!(outcome, Outcome::Value(Value::from(true)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod entrypoint;
mod error;
mod input_paths;
mod io;
mod modules;
pub mod pool;
#[cfg(feature = "regorus")]
mod regorus;
mod run;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::sync::Arc;

pub use entrypoint::Entrypoint;
pub use error::{CompileError, CompileErrors};
pub use input_paths::InputPaths;
pub use io::{IoDriver, IoFuture, NoIo};
pub use modules::{Module, ModuleSet};
pub use opa_rego::eval::{
    AppCaches, Budget, CancelFlag, Clock, EvalContext, EvalError, Interrupt, IoAnswer, IoCall,
    Location, Memo, Outcome, PrintSink, SystemClock,
};
#[cfg(feature = "regorus")]
pub use regorus::{Limits as RegorusLimits, Regorus};
pub(crate) use run::{Run, RunEnd, Runner, Task};

use crate::Value;
pub use crate::entrypoint_path::{EntrypointPath, InvalidPath};

/// An engine that runs Rego.
pub trait Engine: Send + Sync + 'static {
    /// The engine's name in logs and in the key of shared policies.
    fn name(&self) -> &'static str;

    /// Where evaluations of this engine may run.
    fn scheduling(&self) -> Scheduling;

    /// Compiles modules. Called on a thread that may block.
    ///
    /// # Errors
    /// What is wrong with the modules, with file and place.
    fn compile(
        &self,
        modules: &ModuleSet,
        options: &CompileOptions,
    ) -> Result<Arc<dyn Policy>, CompileErrors>;
}

impl fmt::Debug for dyn Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Engine({})", self.name())
    }
}

/// Where evaluations of an engine may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduling {
    /// The engine obeys [`Interrupt::Slice`]: it starts inline, on the caller's thread, and goes to
    /// a pool when the slice is over.
    Sliced,
    /// The engine can't be sliced: it always runs on a pool of its own.
    Pooled,
}

/// How modules are compiled; part of the key of a shared policy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CompileOptions {
    /// Errors of built-ins end the evaluation instead of being undefined. Default: off, as OPA.
    pub strict_builtin_errors: bool,
}

/// Compiled modules, shared by all apps whose modules are equal.
pub trait Policy: Send + Sync + 'static {
    /// Joins the policy with a snapshot's data. Called on a thread that may block.
    ///
    /// # Errors
    /// When data and rules collide, or the engine can't hold the data.
    fn bind(&self, data: &Value) -> Result<Arc<dyn Bound>, CompileErrors>;

    /// Whether the modules define something under `data.system.log`: the policy on what a decision
    /// log may show.
    fn defines_system_log(&self) -> bool;

    /// Whether the modules may define something at `path`, above it or below it. Default: unless
    /// [`defines_system_log`](Self::defines_system_log) says no, they may.
    fn defines(&self, path: &EntrypointPath) -> bool {
        let mut segments = path.segments();
        let is_system_log = segments.next() == Some("system") && segments.next() == Some("log");
        !is_system_log || self.defines_system_log()
    }
}

/// A policy with its data: what decisions are made with.
pub trait Bound: Send + Sync + 'static {
    /// Looks up a path once, so that evaluations need not.
    ///
    /// A path that no rule defines is no error: it evaluates to [`Outcome::Undefined`] or to data.
    ///
    /// # Errors
    /// When the engine can't evaluate the path at all.
    fn prepare(&self, path: &EntrypointPath) -> Result<Entrypoint, CompileError>;

    /// Evaluates `entrypoint`, which must come from this value's [`prepare`](Self::prepare).
    fn eval(&self, entrypoint: &Entrypoint, input: &Value, ctx: &mut EvalContext) -> Outcome;
}
