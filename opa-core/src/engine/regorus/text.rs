//! What regorus' error texts say, without the excerpts of the source and the values of variables
//! that they carry.

use std::sync::Arc;

use crate::engine::{CompileError, EvalError, Location};

/// The longest message that is handed on, in characters.
const MAX_MESSAGE: usize = 200;

/// A text of regorus', taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) message: String,
    pub(super) location: Option<Location>,
}

/// Takes a text apart: `\n--> file:row:column\n  |\n1 | source\n  | ^\nerror: message`, or a bare
/// message.
pub(super) fn read(text: &str) -> Report {
    let location = text
        .lines()
        .find_map(|line| line.strip_prefix("--> "))
        .and_then(read_location);
    let marked = text.lines().find_map(|line| line.strip_prefix("error: "));
    let first = || {
        text.lines()
            .find(|line| !line.trim().is_empty() && !line.starts_with("--> "))
    };
    let message = marked.or_else(first).unwrap_or("regorus gave no reason");
    Report {
        message: shorten(message),
        location,
    }
}

fn read_location(place: &str) -> Option<Location> {
    let mut parts = place.rsplitn(3, ':');
    let column = parts.next()?.trim().parse().ok()?;
    let row = parts.next()?.parse().ok()?;
    Some(Location {
        file: Arc::from(parts.next()?),
        row,
        column,
    })
}

fn shorten(message: &str) -> String {
    // `var x is unsafe (path […], scopes […])`: the scopes hold the values of all variables.
    let message = message.split(" (path [").next().unwrap_or(message);
    // "`union` expects set argument. Got `…` instead"
    let message = message.split(". Got `").next().unwrap_or(message).trim();
    message.chars().take(MAX_MESSAGE).collect()
}

/// What went wrong while a module was parsed.
pub(super) fn parse_error(file: &str, text: &str) -> CompileError {
    let Report { message, location } = read(text);
    let location = location.unwrap_or_else(|| Location {
        file: Arc::from(file),
        row: 1,
        column: 1,
    });
    CompileError::new(CompileError::PARSE, message).at(location)
}

/// What went wrong while parsed modules were put together.
pub(super) fn compile_error(text: &str) -> CompileError {
    let Report { message, location } = read(text);
    let error = match unsafe_variable(&message) {
        Some(name) => CompileError::new("rego_unsafe_var_error", format!("var {name} is unsafe")),
        None if message.contains("multiple default rules") => {
            CompileError::new(CompileError::TYPE, message)
        }
        None => CompileError::new(CompileError::COMPILE, message),
    };
    match location {
        Some(location) => error.at(location),
        None => error,
    }
}

fn unsafe_variable(message: &str) -> Option<&str> {
    let name = message.strip_prefix("use of undefined variable `")?;
    name.strip_suffix("` is unsafe")
}

/// Whether the evaluation was ended by its timer.
pub(super) fn is_time_out(text: &str) -> bool {
    text.contains("execution exceeded time limit")
}

/// What went wrong during an evaluation. `strict`: errors of built-ins end it.
pub(super) fn eval_error(text: &str, strict: bool) -> EvalError {
    let Report { message, location } = read(text);
    let (code, message) = classify(message, strict);
    let error = EvalError::new(code, message);
    match location {
        Some(location) => error.at(location),
        None => error,
    }
}

fn classify(message: String, strict: bool) -> (&'static str, String) {
    let says = |text: &str| message.contains(text);
    if says("functions must not produce multiple outputs")
        || says("function produced multiple outputs")
    {
        let text = "functions must not produce multiple outputs for same inputs";
        (EvalError::CONFLICT, text.to_owned())
    } else if says("produce multiple outputs") {
        (
            EvalError::CONFLICT,
            "complete rules must not produce multiple outputs".to_owned(),
        )
    } else if says("rule conflicts with rule at") {
        (EvalError::CONFLICT, message)
    } else if says("value for key") {
        (EvalError::CONFLICT, "object keys must be unique".to_owned())
    } else if !strict || is_of_the_evaluator(&message) {
        (EvalError::INTERNAL, message)
    } else {
        (EvalError::BUILTIN, message)
    }
}

fn is_of_the_evaluator(message: &str) -> bool {
    message.starts_with("internal error")
        || message.starts_with("recursion detected")
        || message.starts_with("could not find function")
        || message.starts_with("not a valid rule path")
        || message.ends_with("is unsafe")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(file: &str, row: u32, column: u32) -> Option<Location> {
        Some(Location {
            file: file.into(),
            row,
            column,
        })
    }

    #[test]
    fn the_excerpt_of_the_source_is_left_out() {
        let text = "\n--> b/c:d.rego:3:7\n  |\n3 | secret := input.x {\n  |        ^\nerror: expecting `{`\n";
        let expected = Report {
            message: "expecting `{`".into(),
            location: at("b/c:d.rego", 3, 7),
        };
        assert_eq!(read(text), expected);
    }

    #[test]
    fn a_bare_text_is_its_own_message() {
        let expected = Report {
            message: "not a valid rule path".into(),
            location: None,
        };
        assert_eq!(read("not a valid rule path"), expected);
        assert_eq!(read("\n\n").message, "regorus gave no reason");
    }

    #[test]
    fn values_of_variables_are_left_out() {
        let text =
            "\n--> a:1:1\nerror: var y is unsafe (path [\"a\"], scopes [{\"x\": \"secret\"}])";
        assert_eq!(read(text).message, "var y is unsafe");
        let text = "\n--> a:1:1\nerror: function produced multiple outputs {\"secret\", \"token\"}";
        let error = eval_error(text, false);
        let message = "functions must not produce multiple outputs for same inputs";
        assert_eq!(
            (error.code(), error.message()),
            (EvalError::CONFLICT, message)
        );
        let text = "\n--> a:1:1\nerror: `union` expects set argument. Got `{\"a\":1}` instead";
        assert_eq!(read(text).message, "`union` expects set argument");
        assert!(read(&"x".repeat(1000)).message.len() <= MAX_MESSAGE);
    }

    #[test]
    fn errors_have_the_codes_of_opa() {
        let code = |text: &str, strict| eval_error(text, strict).code().to_owned();
        assert_eq!(
            code("error: `count` expects a collection", true),
            EvalError::BUILTIN
        );
        assert_eq!(
            code("error: `count` expects a collection", false),
            EvalError::INTERNAL
        );
        assert_eq!(
            code("error: internal error: no scope", true),
            EvalError::INTERNAL
        );
        let conflict = "error: complete rules should not produce multiple outputs";
        assert_eq!(code(conflict, false), EvalError::CONFLICT);
        let unsafe_variable = compile_error("error: use of undefined variable `x` is unsafe");
        assert_eq!(
            unsafe_variable.to_string(),
            "rego_unsafe_var_error: var x is unsafe"
        );
    }
}
