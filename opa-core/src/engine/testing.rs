//! A scripted engine for the tests of this crate: a closure is the policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    Bound, CompileError, CompileErrors, CompileOptions, Engine, Entrypoint, EntrypointPath,
    EvalContext, InputPaths, ModuleSet, Outcome, Policy, Scheduling,
};
use crate::Value;

type Script = dyn Fn(&Value, &Value, &mut EvalContext) -> Outcome + Send + Sync;

/// Answers what the closure answers, which is given data and input. A module that contains
/// `broken` does not compile.
#[derive(Clone)]
pub(crate) struct Scripted {
    scheduling: Scheduling,
    script: Arc<Script>,
    compiled: Arc<AtomicUsize>,
}

impl Scripted {
    pub(crate) fn new(
        scheduling: Scheduling,
        script: impl Fn(&Value, &Value, &mut EvalContext) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        Self {
            scheduling,
            script: Arc::new(script),
            compiled: Arc::default(),
        }
    }

    /// Answers its data.
    pub(crate) fn data() -> Self {
        Self::new(Scheduling::Sliced, |data, _, _| {
            Outcome::Value(data.clone())
        })
    }

    /// How many policies were compiled.
    pub(crate) fn compiled(&self) -> usize {
        self.compiled.load(Ordering::Relaxed)
    }
}

impl Engine for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn scheduling(&self) -> Scheduling {
        self.scheduling
    }

    fn compile(
        &self,
        modules: &ModuleSet,
        _: &CompileOptions,
    ) -> Result<Arc<dyn Policy>, CompileErrors> {
        self.compiled.fetch_add(1, Ordering::Relaxed);
        if modules
            .iter()
            .any(|module| module.source().contains("broken"))
        {
            return Err(CompileError::new(CompileError::PARSE, "broken").into());
        }
        Ok(Arc::new(self.clone()))
    }
}

impl Policy for Scripted {
    fn bind(&self, data: &Value) -> Result<Arc<dyn Bound>, CompileErrors> {
        Ok(Arc::new(WithData {
            script: Arc::clone(&self.script),
            data: data.clone(),
        }))
    }

    fn defines_system_log(&self) -> bool {
        false
    }
}

struct WithData {
    script: Arc<Script>,
    data: Value,
}

impl Bound for WithData {
    fn prepare(&self, path: &EntrypointPath) -> Result<Entrypoint, CompileError> {
        Ok(Entrypoint::new(path.clone(), InputPaths::all(), ()))
    }

    fn eval(&self, _: &Entrypoint, input: &Value, ctx: &mut EvalContext) -> Outcome {
        (self.script)(&self.data, input, ctx)
    }
}
