//! Docs follow.

mod bound;
mod check;
mod convert;
mod graph;
mod guards;
mod paths;
mod policy;
mod rules;
mod screening;
mod text;
mod uses;

use std::sync::Arc;

pub use opa_rego::screen::Limits;

use super::{
    CompileError, CompileErrors, CompileOptions, Engine, ModuleSet, Policy, Scheduling,
};
use policy::RegorusPolicy;

/// The engine.
#[derive(Clone, Debug, Default)]
pub struct Regorus {
    limits: Limits,
}

impl Regorus {
    /// With limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits }
    }
}

impl Engine for Regorus {
    fn name(&self) -> &'static str {
        "regorus"
    }

    fn scheduling(&self) -> Scheduling {
        Scheduling::Pooled
    }

    fn compile(
        &self,
        modules: &ModuleSet,
        options: &CompileOptions,
    ) -> Result<Arc<dyn Policy>, CompileErrors> {
        Ok(Arc::new(RegorusPolicy::compile(modules, &self.limits, options)?))
    }
}

fn fail_if_any(errors: Vec<CompileError>) -> Result<(), CompileErrors> {
    let mut errors = errors.into_iter();
    match errors.next() {
        Some(first) => Err(CompileErrors::new(first, errors.collect())),
        None => Ok(()),
    }
}
