//! Evaluations.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{Engine as Interpreter, Value as Theirs};

use super::conversions::Converted;
use super::convert::{BadResult, Use, descend, descend_data, from_regorus, to_regorus};
use super::paths::{query, rule_name};
use super::policy::Compiled;
use super::rules::Found;
use super::text;
use crate::Value;
use crate::engine::{
    Bound, CompileError, Entrypoint, EntrypointPath, EvalContext, EvalError, InputPaths, Interrupt,
    Outcome,
};

/// After how many steps of regorus its timer looks at the clock: about every 20 µs.
const CLOCK_EVERY: std::num::NonZeroU32 = std::num::NonZeroU32::MIN.saturating_add(99);

/// A policy with its data.
pub(super) struct RegorusBound {
    compiled: Arc<Compiled>,
    /// Prepared; each evaluation runs on a clone.
    interpreter: Interpreter,
    /// Its like, for evaluations that errors of built-ins end.
    strict: OnceLock<Interpreter>,
    data: Value,
    /// Kept so that other policies find it.
    _converted: Arc<Converted>,
}

/// What lies at an entrypoint.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// What a rule or query gives, and the rest of the path within it.
    Virtual {
        question: Question,
        rest: Vec<String>,
    },
    /// A part of the data that no rule can change.
    Data(Value),
    Nothing,
}

/// How regorus is asked.
#[derive(Debug, PartialEq, Eq)]
enum Question {
    Rule(String),
    Query(String),
}

/// Why an evaluation has no value.
enum Stop {
    Interrupted(Interrupt),
    Failed(EvalError),
}

impl RegorusBound {
    pub(super) fn new(
        compiled: Arc<Compiled>,
        interpreter: Interpreter,
        data: Value,
        converted: Arc<Converted>,
    ) -> Self {
        Self {
            compiled,
            interpreter,
            strict: OnceLock::new(),
            data,
            _converted: converted,
        }
    }

    fn place(&self, path: &[&str]) -> Place {
        match self.compiled.rules.find(path) {
            Found::Rule { names, direct } => {
                let (rule, rest) = path.split_at_checked(names).unwrap_or((path, &[]));
                let rule = rule.iter().copied();
                let question = if direct {
                    Question::Rule(rule_name(rule))
                } else {
                    Question::Query(query(rule))
                };
                let rest = rest.iter().map(|name| (*name).to_owned()).collect();
                Place::Virtual { question, rest }
            }
            Found::Document => {
                let question = Question::Query(query(path.iter().copied()));
                Place::Virtual {
                    question,
                    rest: Vec::new(),
                }
            }
            Found::Nothing => match descend_data(&self.data, path.iter().copied()) {
                Some(value) => Place::Data(value.clone()),
                None => Place::Nothing,
            },
        }
    }

    fn interpreter(&self, strict: bool) -> &Interpreter {
        if strict == self.compiled.strict {
            return &self.interpreter;
        }
        self.strict.get_or_init(|| {
            let mut interpreter = self.interpreter.clone();
            interpreter.set_strict_builtin_errors(strict);
            interpreter
        })
    }

    fn run(
        &self,
        question: &Question,
        rest: &[String],
        input: &Value,
        ctx: &mut EvalContext,
    ) -> Result<Option<Value>, Stop> {
        ctx.check()?;
        let input = to_regorus(input, Use::Input).map_err(|unsupported| {
            internal(format!(
                "the input has {unsupported}, which this engine can't hold"
            ))
        })?;
        let exhausted = Arc::new(AtomicBool::new(false));
        let strict = self.compiled.strict || ctx.strict_builtin_errors();
        let mut interpreter = self.interpreter(strict).clone();
        self.extend(&mut interpreter, &exhausted, strict, ctx)?;
        interpreter.set_execution_timer_config(ExecutionTimerConfig {
            limit: ctx.remaining(),
            check_interval: CLOCK_EVERY,
        });
        interpreter.set_input(input);
        let answer = question.ask(&mut interpreter);
        if ctx.wants_prints() {
            hand_on_prints(&mut interpreter, ctx);
        }
        if exhausted.load(Ordering::Relaxed) {
            return Err(Stop::Interrupted(Interrupt::Memory));
        }
        // regorus can lose the error of its timer: in a function of which another definition has
        // a value.
        ctx.check()?;
        let value = answer.map_err(|text| stop(&text, strict))?;
        match descend(&value, rest.iter().map(String::as_str)) {
            None | Some(Theirs::Undefined) => Ok(None),
            Some(value) => Ok(Some(from_regorus(value, ctx)?)),
        }
    }

    /// Puts what is per decision in the place of built-ins.
    fn extend(
        &self,
        interpreter: &mut Interpreter,
        exhausted: &Arc<AtomicBool>,
        strict: bool,
        ctx: &EvalContext,
    ) -> Result<(), Stop> {
        for &guarded in &self.compiled.guarded {
            let exhausted = Arc::clone(exhausted);
            let call = move |args: Vec<Theirs>| Ok(guarded.call(&args, strict, &exhausted)?);
            let added =
                interpreter.add_extension(guarded.name().into(), guarded.arity(), Box::new(call));
            added.map_err(|error| internal(error.to_string()))?;
        }
        if self.compiled.reads_clock {
            let since = ctx
                .memo()
                .now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            let now = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
            let clock = move |_: Vec<Theirs>| Ok(Theirs::from(now));
            let added = interpreter.add_extension("time.now_ns".into(), 0, Box::new(clock));
            added.map_err(|error| internal(error.to_string()))?;
        }
        Ok(())
    }
}

impl Bound for RegorusBound {
    fn prepare(&self, path: &EntrypointPath) -> Result<Entrypoint, CompileError> {
        let names: Vec<_> = path.segments().collect();
        Ok(Entrypoint::new(
            path.clone(),
            InputPaths::all(),
            self.place(&names),
        ))
    }

    fn eval(&self, entrypoint: &Entrypoint, input: &Value, ctx: &mut EvalContext) -> Outcome {
        let outcome = match entrypoint.handle::<Place>() {
            Some(Place::Virtual { question, rest }) => self.run(question, rest, input, ctx),
            Some(Place::Data(value)) => Ok(Some(value.clone())),
            Some(Place::Nothing) => Ok(None),
            None => Err(internal("the entrypoint belongs to another engine")),
        };
        match outcome {
            Ok(Some(value)) => Outcome::Value(value),
            Ok(None) => Outcome::Undefined,
            Err(Stop::Interrupted(interrupt)) => Outcome::Interrupted(interrupt),
            Err(Stop::Failed(error)) => Outcome::Error(error),
        }
    }
}

impl Question {
    fn ask(&self, interpreter: &mut Interpreter) -> Result<Theirs, String> {
        let answer = match self {
            Self::Rule(rule) => interpreter.eval_rule(rule.clone()),
            Self::Query(query) => interpreter.eval_query(query.clone(), false).map(|results| {
                let expressions = results
                    .result
                    .into_iter()
                    .next()
                    .map(|result| result.expressions);
                let value = expressions.and_then(|expressions| expressions.into_iter().next());
                value.map_or(Theirs::Undefined, |expression| expression.value)
            }),
        };
        answer.map_err(|error| error.to_string())
    }
}

/// regorus writes `file:row: text`.
fn hand_on_prints(interpreter: &mut Interpreter, ctx: &mut EvalContext) {
    for line in interpreter.take_prints().unwrap_or_default() {
        let ends = line.match_indices(": ").map(|(at, _)| at);
        let is_place = |at: &usize| {
            let row = line
                .get(..*at)
                .and_then(|place| place.rsplit_once(':'))
                .map(|(_, row)| row);
            row.is_some_and(|row| !row.is_empty() && row.bytes().all(|byte| byte.is_ascii_digit()))
        };
        match { ends }
            .find(is_place)
            .and_then(|at| line.split_at_checked(at))
        {
            Some((place, text)) => ctx.print(place, text.strip_prefix(": ").unwrap_or(text)),
            None => ctx.print("", line),
        }
    }
}

fn stop(text: &str, strict: bool) -> Stop {
    if text::is_time_out(text) {
        Stop::Interrupted(Interrupt::Time)
    } else {
        Stop::Failed(text::eval_error(text, strict))
    }
}

fn internal(text: impl Into<Arc<str>>) -> Stop {
    Stop::Failed(EvalError::new(EvalError::INTERNAL, text))
}

impl From<Interrupt> for Stop {
    fn from(interrupt: Interrupt) -> Self {
        Self::Interrupted(interrupt)
    }
}

impl From<BadResult> for Stop {
    fn from(result: BadResult) -> Self {
        match result {
            BadResult::Interrupted(interrupt) => Self::Interrupted(interrupt),
            other => internal(other.to_string()),
        }
    }
}
