//! What is refused before regorus sees it.

use std::sync::Arc;

use opa_rego::screen::{Limits, ScreenError, Screened, screen};
use opa_rego::token::{TokenKind, tokens};

use super::convert::{MAX_DIGITS, is_writable};
use super::rego_v2;
use crate::engine::{CompileError, CompileErrors, Location, Module, ModuleSet};

/// Built-ins whose answer in regorus would not be that of OPA: its `http.send` is always undefined,
/// so that `not http.send(…)` would open, and its `opa.runtime` tells about regorus.
const REFUSED: [&str; 3] = ["http.send", "net.lookup_ip_addr", "opa.runtime"];

/// Screens modules.
///
/// # Errors
/// For each module that is too large, too deeply nested or calls what is refused.
pub(super) fn screen_all(
    modules: &ModuleSet,
    limits: &Limits,
) -> Result<Vec<Screened>, CompileErrors> {
    let mut screened = Vec::with_capacity(modules.len());
    let mut errors = Vec::new();
    for module in modules.iter() {
        match screen_one(module, limits) {
            Ok(module) => screened.push(module),
            Err(error) => errors.push(error),
        }
    }
    super::fail_if_any(errors).map(|()| screened)
}

fn screen_one(module: &Module, limits: &Limits) -> Result<Screened, CompileError> {
    let screened = screen(module.source(), limits).map_err(|error| refused(module, &error))?;
    check_numbers(module)?;
    check_version(module)?;
    match REFUSED.into_iter().find(|name| screened.calls(name)) {
        Some(name) => {
            let text = format!("undefined function {name}: the engine `regorus` does not have it");
            Err(CompileError::new(CompileError::TYPE, text).at(place(module, first(module, name))))
        }
        None => Ok(screened),
    }
}

fn refused(module: &Module, error: &ScreenError) -> CompileError {
    let at = place(module, (error.line(), error.column()));
    // The text begins with the place.
    let text = error.to_string();
    let text = text
        .split_once(": ")
        .map_or(text.as_str(), |(_, text)| text);
    CompileError::new(CompileError::PARSE, text).at(at)
}

/// Refuses numbers that regorus would write out.
fn check_numbers(module: &Module) -> Result<(), CompileError> {
    let numbers = tokens(module.source())
        .map_while(Result::ok)
        .filter(|token| token.kind == TokenKind::Number);
    match { numbers }.find(|token| !is_writable(token.text)) {
        Some(token) => {
            let text = format!("a number of more than {MAX_DIGITS} digits");
            let at = place(module, (token.line, token.column));
            Err(CompileError::new(CompileError::PARSE, text).at(at))
        }
        None => Ok(()),
    }
}

/// Refuses what of Rego v2 regorus would not read as OPA does.
fn check_version(module: &Module) -> Result<(), CompileError> {
    match rego_v2::unsupported(module) {
        Some((what, at)) => {
            let text = format!("{what}: the engine `regorus` does not have it");
            Err(CompileError::new(CompileError::PARSE, text).at(place(module, at)))
        }
        None => Ok(()),
    }
}

/// Where the first part of a name is mentioned first.
fn first(module: &Module, name: &str) -> (usize, usize) {
    let root = name.split('.').next().unwrap_or(name);
    let mut tokens = tokens(module.source()).map_while(Result::ok);
    tokens
        .find(|token| token.is(root))
        .map_or((1, 1), |token| (token.line, token.column))
}

fn place(module: &Module, (row, column): (usize, usize)) -> Location {
    let narrow = |value| u32::try_from(value).unwrap_or(u32::MAX);
    Location {
        file: Arc::from(module.id()),
        row: narrow(row),
        column: narrow(column),
    }
}
