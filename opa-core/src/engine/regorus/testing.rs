//! What the tests of this engine share.

use std::sync::{Arc, Mutex};

use opa_rego::RegoVersion;

use super::Regorus;
use crate::Value;
use crate::engine::{
    Bound, Budget, CompileErrors, CompileOptions, Engine, EntrypointPath, EvalContext, Module,
    ModuleSet, Outcome, Policy, PrintSink,
};

/// One module in Rego v1, called `a.rego`.
pub(super) fn compile(source: &str) -> Result<Arc<dyn Policy>, CompileErrors> {
    compile_all(&[("a.rego", source)])
}

pub(super) fn compile_all(sources: &[(&str, &str)]) -> Result<Arc<dyn Policy>, CompileErrors> {
    let modules = sources.iter().map(|(id, source)| Module::v1(*id, *source));
    Regorus::default().compile(&ModuleSet::new(modules), &CompileOptions::default())
}

pub(super) fn compile_v0(source: &str) -> Result<Arc<dyn Policy>, CompileErrors> {
    let modules = ModuleSet::new([Module::new("a.rego", source, RegoVersion::V0)]);
    Regorus::default().compile(&modules, &CompileOptions::default())
}

/// The first error, as text.
pub(super) fn refusal(source: &str) -> String {
    match compile(source) {
        Ok(_) => panic!("compiles: {source}"),
        Err(errors) => errors.iter().next().unwrap().to_string(),
    }
}

pub(super) fn strict(source: &str) -> Arc<dyn Bound> {
    let options = CompileOptions {
        strict_builtin_errors: true,
    };
    let modules = ModuleSet::new([Module::v1("a.rego", source)]);
    Regorus::default()
        .compile(&modules, &options)
        .unwrap()
        .bind(&Value::empty_object())
        .unwrap()
}

pub(super) fn bind(source: &str, data: &str) -> Arc<dyn Bound> {
    compile(source).unwrap().bind(&json(data)).unwrap()
}

pub(super) fn json(text: &str) -> Value {
    Value::from_json(text.as_bytes()).unwrap()
}

pub(super) fn eval_with(
    bound: &dyn Bound,
    path: &str,
    input: &Value,
    ctx: &mut EvalContext,
) -> Outcome {
    let entrypoint = bound
        .prepare(&EntrypointPath::parse(path).unwrap())
        .unwrap();
    bound.eval(&entrypoint, input, ctx)
}

pub(super) fn eval(bound: &dyn Bound, path: &str) -> Outcome {
    eval_with(
        bound,
        path,
        &Value::empty_object(),
        &mut EvalContext::new(Budget::default()),
    )
}

/// The value as JSON, or what else came out.
pub(super) fn answer(bound: &dyn Bound, path: &str) -> String {
    show(eval(bound, path))
}

pub(super) fn show(outcome: Outcome) -> String {
    match outcome {
        Outcome::Value(value) => value.to_json(),
        Outcome::Undefined => "undefined".to_owned(),
        Outcome::Error(error) => error.to_string(),
        other => format!("{other:?}"),
    }
}

#[derive(Debug, Default)]
pub(super) struct Lines(pub(super) Mutex<Vec<(String, String)>>);

impl PrintSink for Lines {
    fn print(&self, location: &str, text: &str) {
        self.0
            .lock()
            .unwrap()
            .push((location.to_owned(), text.to_owned()));
    }
}
