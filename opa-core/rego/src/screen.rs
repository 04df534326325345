//! A look over Rego source text before a parser sees it.
//!
//! [`screen`] reads the tokens of a module once, without recursion, and refuses what would keep the
//! parser of the regorus engine (0.14.1) busy for long or abort the process: its parser tries
//! brackets twice or more, so that nesting costs exponentially, and it walks expressions by
//! recursion. What passes parses in about a tenth of a second beyond the time its length takes, on a
//! stack of 4 MiB; compiling and evaluating a single rule of it needs 8 MiB. The figures are
//! measured, in a debug build, with room to spare.
//!
//! Tokens can't show everything. These still reach the engine: chains and cycles of rules and
//! functions that call each other (evaluated by recursion), and built-ins that are given hostile
//! arguments.
//!
//! ```
//! use opa_rego::screen::{Limits, screen};
//!
//! let screened = screen("package shop.orders\n\nallow := http.send({}).ok", &Limits::default())?;
//! assert_eq!(screened.package(), ["shop", "orders"]);
//! assert!(screened.calls("http.send"));
//!
//! let nested = format!("package a\nx := {}1{}", "(".repeat(40), ")".repeat(40));
//! let error = screen(&nested, &Limits::default()).expect_err("must be refused");
//! assert_eq!(error.to_string(), "line 2, column 38: brackets nested 33 deep, at most 32 are allowed");
//! # Ok::<(), opa_rego::screen::ScreenError>(())
//! ```

use std::collections::BTreeSet;

pub use error::{Measure, ScreenError};

use crate::token::{Token, tokens};

mod error;
mod names;
mod shape;

/// How large and how intricate a module may be.
///
/// ```
/// let mut limits = opa_rego::screen::Limits::default();
/// limits.nesting = 16;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of source text. Default: 1 MiB, which is regorus's own limit.
    pub source_bytes: usize,
    /// Bytes of one line. Default: 16,000. An error beyond column 65,535, where a tab counts as
    /// four, makes regorus panic, and each error that it recovers from copies the line.
    pub line_bytes: usize,
    /// Tokens. Default: 250,000.
    pub tokens: usize,
    /// How deep brackets, braces, parentheses and template expressions are nested. Default: 32,
    /// which is regorus's own limit for parentheses.
    pub nesting: usize,
    /// How high the tree of an expression is: operators, calls and brackets that follow or enclose
    /// one another. Default: 250. Chains such as `a | b | c` become trees as high as they are long.
    pub height: usize,
    /// Statements in one body or comprehension. Default: 500. Ordering them takes regorus time in
    /// the square of their number.
    pub statements: usize,
    /// References with variables, `some` and `every` in one rule. Default: 500. Each may become a
    /// loop within the others.
    pub iterations: usize,
    /// Imports. Default: 500. Each is compared with all others.
    pub imports: usize,
    /// How often the parser may read tokens again, added up over the module, besides twice for
    /// each token. Default: 150,000, which takes about 100 ms in a release build. A token in
    /// brackets that are tried twice at each of n levels counts 2ⁿ - 1.
    pub repetitions: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            source_bytes: 1024 * 1024,
            line_bytes: 16_000,
            tokens: 250_000,
            nesting: 32,
            height: 250,
            statements: 500,
            iterations: 500,
            imports: 500,
            repetitions: 150_000,
        }
    }
}

/// Looks over the source text of a module.
///
/// # Errors
/// If a limit is exceeded, if the text has no `package`, if a bracket has no partner, or if
/// something is no token of Rego. That no error is found doesn't mean that the module parses.
pub fn screen(source: &str, limits: &Limits) -> Result<Screened, ScreenError> {
    check_lengths(source, limits)?;
    let tokens = collect_tokens(source, limits)?;
    shape::check(&tokens, source, limits)?;
    names::read(&tokens)
}

/// What a module's tokens tell about it.
#[derive(Clone, Debug)]
pub struct Screened {
    package: Vec<String>,
    called: BTreeSet<String>,
    mentioned: BTreeSet<String>,
    replaces: bool,
    defines_system_log: bool,
}

impl Screened {
    /// The path of the package, without `data`.
    pub fn package(&self) -> &[String] {
        &self.package
    }

    /// Whether the module may call `function`, named as in `http.send`.
    ///
    /// The spelling doesn't matter (`http["send"]`, blanks and comments before the arguments). In a
    /// module that uses `with`, which can put one function in another's place, any mention counts. A
    /// function of the module's own that has the same name counts, too.
    pub fn calls(&self, function: &str) -> bool {
        self.called.contains(function) || self.replaces && self.mentioned.contains(function)
    }

    /// The names of all functions that [`calls`](Self::calls) affirms, sorted. They include names
    /// of variables and documents where the module uses `with`.
    pub fn called(&self) -> impl Iterator<Item = &str> {
        let names = if self.replaces {
            &self.mentioned
        } else {
            &self.called
        };
        names.iter().map(String::as_str)
    }

    /// Whether the module may define `data.system.log` or something in it, such as the rules that
    /// mask or drop decisions. Another use of the name `log` in package `system` counts, too.
    pub fn defines_system_log(&self) -> bool {
        self.defines_system_log
    }
}

fn check_lengths(source: &str, limits: &Limits) -> Result<(), ScreenError> {
    if source.len() > limits.source_bytes {
        return Err(ScreenError::exceeded(
            1,
            1,
            Measure::SourceBytes,
            source.len(),
            limits.source_bytes,
        ));
    }
    let too_long = |(_, line): &(usize, &str)| line.len() > limits.line_bytes;
    match source.split('\n').enumerate().find(too_long) {
        Some((index, line)) => Err(ScreenError::exceeded(
            index + 1,
            1,
            Measure::LineBytes,
            line.len(),
            limits.line_bytes,
        )),
        None => Ok(()),
    }
}

fn collect_tokens<'a>(source: &'a str, limits: &Limits) -> Result<Vec<Token<'a>>, ScreenError> {
    let mut collected = Vec::new();
    for token in tokens(source) {
        let token = token?;
        collected.push(token);
        if collected.len() > limits.tokens {
            return Err(ScreenError::at(
                &token,
                Measure::Tokens,
                collected.len(),
                limits.tokens,
            ));
        }
    }
    Ok(collected)
}

#[cfg(test)]
mod tests;
