//! An engine whose policy is a closure: it gives every answer of the engine contract on demand.

use std::sync::Arc;

use opa_core::Value;
use opa_core::engine::{
    Bound, CompileError, CompileErrors, CompileOptions, Engine, Entrypoint, EntrypointPath,
    EvalContext, InputPaths, ModuleSet, Outcome, Policy, Scheduling,
};

type Script = dyn Fn(&Asked<'_>, &mut EvalContext) -> Outcome + Send + Sync;

/// What the policy is asked.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The path below `data`.
    pub path: &'a EntrypointPath,
    /// The input document, with the parts that the entrypoint says it reads.
    pub input: &'a Value,
    /// The data of the bundle.
    pub data: &'a Value,
}

/// The engine. A module that contains the word `broken` does not compile.
#[derive(Clone)]
pub struct Scripted {
    scheduling: Scheduling,
    inputs: InputPaths,
    script: Arc<Script>,
}

impl Scripted {
    /// An engine that can be sliced and reads the whole input.
    pub fn new(
        script: impl Fn(&Asked<'_>, &mut EvalContext) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        let (scheduling, inputs) = (Scheduling::Sliced, InputPaths::all());
        Self {
            scheduling,
            inputs,
            script: Arc::new(script),
        }
    }

    /// An engine that answers the data of its bundle.
    pub fn data() -> Self {
        Self::new(|asked, _| Outcome::Value(asked.data.clone()))
    }

    /// The same engine, always on the pool.
    pub fn pooled(mut self) -> Self {
        self.scheduling = Scheduling::Pooled;
        self
    }

    /// The same engine, which reads only `inputs`.
    pub fn reading(mut self, inputs: InputPaths) -> Self {
        self.inputs = inputs;
        self
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
        if modules
            .iter()
            .any(|module| module.source().contains("broken"))
        {
            return Err(CompileError::new(CompileError::PARSE, "the module is broken").into());
        }
        let logs = modules
            .iter()
            .any(|module| module.source().contains("package system.log"));
        Ok(Arc::new(ScriptedPolicy {
            engine: self.clone(),
            logs,
        }))
    }
}

struct ScriptedPolicy {
    engine: Scripted,
    logs: bool,
}

impl Policy for ScriptedPolicy {
    fn bind(&self, data: &Value) -> Result<Arc<dyn Bound>, CompileErrors> {
        Ok(Arc::new(ScriptedBound {
            engine: self.engine.clone(),
            data: data.clone(),
        }))
    }

    fn defines_system_log(&self) -> bool {
        self.logs
    }
}

struct ScriptedBound {
    engine: Scripted,
    data: Value,
}

impl Bound for ScriptedBound {
    fn prepare(&self, path: &EntrypointPath) -> Result<Entrypoint, CompileError> {
        Ok(Entrypoint::new(
            path.clone(),
            self.engine.inputs.clone(),
            (),
        ))
    }

    fn eval(&self, entrypoint: &Entrypoint, input: &Value, ctx: &mut EvalContext) -> Outcome {
        let asked = Asked {
            path: entrypoint.path(),
            input,
            data: &self.data,
        };
        (self.engine.script)(&asked, ctx)
    }
}
