//! Compiled modules, and their way to get there.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::thread;

use opa_rego::RegoVersion;
use opa_rego::screen::Limits;
use regorus::{Engine as Interpreter, PolicyLengthConfig};

use super::bound::RegorusBound;
use super::check::check;
use super::conversions::Conversions;
use super::guards::Guarded;
use super::rules::Rules;
use super::screening::screen_all;
use super::{fail_if_any, text};
use crate::engine::{
    Bound, CompileError, CompileErrors, CompileOptions, EntrypointPath, ModuleSet, Policy,
};
use crate::{Kind, Value};

/// The stack of a thread that compiles: regorus walks what it has parsed by recursion.
const STACK: usize = 64 << 20;

/// Columns of a query: paths are at most 4,096 bytes long.
const QUERY_COLUMNS: usize = 20_000;

/// Modules that regorus has parsed.
#[derive(Clone)]
pub(super) struct RegorusPolicy(Arc<Compiled>);

/// What all snapshots of a policy share.
pub(super) struct Compiled {
    /// Neither prepared nor with data, so that it takes little beside what the modules take.
    interpreter: Interpreter,
    pub(super) rules: Rules,
    pub(super) guarded: Vec<Guarded>,
    /// The policy asks for the time.
    pub(super) reads_clock: bool,
    pub(super) strict: bool,
    conversions: Arc<Conversions>,
}

impl RegorusPolicy {
    pub(super) fn compile(
        modules: &ModuleSet,
        limits: &Limits,
        options: &CompileOptions,
        conversions: &Arc<Conversions>,
    ) -> Result<Self, CompileErrors> {
        let screened = screen_all(modules, limits)?;
        let calls = |name: &str| screened.iter().any(|module| module.calls(name));
        let (interpreter, rules) = with_stack(|| {
            let mut interpreter = parse(modules, limits)?;
            interpreter.set_strict_builtin_errors(options.strict_builtin_errors);
            let parsed = interpreter.get_modules();
            let rules = Rules::read(parsed).map_err(errors)?;
            check(parsed, &rules).map_err(errors)?;
            prepare(&mut interpreter.clone())?;
            Ok((interpreter, rules))
        })?;
        Ok(Self(Arc::new(Compiled {
            interpreter,
            rules,
            guarded: Guarded::among(calls),
            reads_clock: calls("time.now_ns"),
            strict: options.strict_builtin_errors,
            conversions: Arc::clone(conversions),
        })))
    }
}

impl Policy for RegorusPolicy {
    fn bind(&self, data: &Value) -> Result<Arc<dyn Bound>, CompileErrors> {
        let compiled = &self.0;
        if data.kind() != Kind::Object {
            return Err(CompileError::new(CompileError::COMPILE, "data is not an object").into());
        }
        fail_if_any(compiled.rules.data_conflicts(data))?;
        let converted = compiled.conversions.get(data).map_err(|unsupported| {
            let text = format!("data has {unsupported}, which this engine can't hold");
            CompileError::new(CompileError::COMPILE, text)
        })?;
        let mut interpreter = compiled.interpreter.clone();
        let interpreter = with_stack(|| {
            let added = interpreter.add_data(converted.0.clone());
            added.map_err(|error| text::compile_error(&error.to_string()))?;
            prepare(&mut interpreter)?;
            Ok(interpreter)
        })?;
        Ok(Arc::new(RegorusBound::new(
            Arc::clone(compiled),
            interpreter,
            data.clone(),
            converted,
        )))
    }

    fn defines_system_log(&self) -> bool {
        self.0.rules.defines(&["system", "log"])
    }

    fn defines(&self, path: &EntrypointPath) -> bool {
        let segments: Vec<_> = path.segments().collect();
        self.0.rules.defines(&segments)
    }
}

fn parse(modules: &ModuleSet, limits: &Limits) -> Result<Interpreter, CompileErrors> {
    let mut interpreter = Interpreter::new();
    interpreter.set_policy_length_config(lengths(limits));
    // Otherwise `print` writes to the process' standard error.
    interpreter.set_gather_prints(true);
    let mut errors = Vec::new();
    for module in modules.iter() {
        interpreter.set_rego_v0(module.version() == RegoVersion::V0);
        let added = interpreter.add_policy(module.id().to_owned(), module.source().to_owned());
        errors.extend(
            added
                .err()
                .map(|e| text::parse_error(module.id(), &e.to_string())),
        );
    }
    // Queries are made by this engine and have no keywords.
    interpreter.set_rego_v0(false);
    fail_if_any(errors).map(|()| interpreter)
}

/// regorus' own limits, wide enough for what was screened and for the queries of [`RegorusBound`].
fn lengths(limits: &Limits) -> PolicyLengthConfig {
    let size =
        |bytes: usize| NonZeroUsize::new(bytes.max(QUERY_COLUMNS)).unwrap_or(NonZeroUsize::MAX);
    // A tab counts as four columns.
    let columns = u32::try_from(limits.line_bytes.max(QUERY_COLUMNS).saturating_mul(4));
    PolicyLengthConfig {
        max_col: columns
            .ok()
            .and_then(NonZeroU32::new)
            .unwrap_or(NonZeroU32::MAX),
        max_file_bytes: size(limits.source_bytes),
        max_lines: size(limits.source_bytes),
    }
}

/// Makes regorus order the statements of all rules, which it would do in the first evaluation.
fn prepare(interpreter: &mut Interpreter) -> Result<(), CompileErrors> {
    let prepared = interpreter.eval_query("true".to_owned(), false);
    prepared
        .map(drop)
        .map_err(|error| text::compile_error(&error.to_string()).into())
}

/// Runs `work` on a thread of its own with a large stack. A panic of regorus becomes an error.
fn with_stack<T: Send>(
    work: impl FnOnce() -> Result<T, CompileErrors> + Send,
) -> Result<T, CompileErrors> {
    let internal = |text: &str| CompileError::new(CompileError::COMPILE, text).into();
    thread::scope(|scope| {
        let builder = thread::Builder::new()
            .name("opa-compile".into())
            .stack_size(STACK);
        let Ok(thread) = builder.spawn_scoped(scope, work) else {
            return Err(internal(
                "no thread could be started to compile the modules",
            ));
        };
        thread
            .join()
            .unwrap_or_else(|_| Err(internal("regorus panicked over the modules")))
    })
}

fn errors(errors: Vec<CompileError>) -> CompileErrors {
    match fail_if_any(errors) {
        Err(errors) => errors,
        Ok(()) => CompileError::new(CompileError::COMPILE, "the modules do not compile").into(),
    }
}
