//! The names in a module: its package, what it calls and what it mentions.

use std::collections::BTreeSet;

use super::{ScreenError, Screened};
use crate::token::{Token, TokenKind};
use crate::value::Value;

pub(super) fn read(tokens: &[Token<'_>]) -> Result<Screened, ScreenError> {
    let package = read_package(tokens)?;
    let mut screened = Screened {
        defines_system_log: defines_system_log(&package, tokens),
        package,
        called: BTreeSet::new(),
        mentioned: BTreeSet::new(),
        replaces: false,
    };
    for (start, token) in roots(tokens) {
        screened.replaces |= token.text == "with";
        let reference = read_reference(tokens, start);
        for name in [&reference.all, &reference.without_raw] {
            if reference.called {
                screened.called.insert(dotted(name));
            }
            screened.mentioned.insert(dotted(name));
        }
    }
    Ok(screened)
}

fn read_package(tokens: &[Token<'_>]) -> Result<Vec<String>, ScreenError> {
    let place = |at: usize| {
        tokens
            .get(at)
            .or(tokens.last())
            .map_or((1, 1), |t| (t.line, t.column))
    };
    let expected = |at: usize, what: &str| {
        let (line, column) = place(at);
        ScreenError::syntax(line, column, format!("expected {what}"))
    };
    if !tokens.first().is_some_and(|token| token.is("package")) {
        return Err(expected(0, "`package`"));
    }
    let named = |token: &&Token<'_>| token.kind == TokenKind::Identifier;
    if tokens.get(1).filter(named).is_none() {
        return Err(expected(1, "the name of the package"));
    }
    Ok(read_reference(tokens, 1).all)
}

/// The identifiers that aren't a field of something, with their places.
fn roots<'t>(tokens: &'t [Token<'t>]) -> impl Iterator<Item = (usize, &'t Token<'t>)> {
    let before = [None].into_iter().chain(tokens.iter().map(Some));
    let root = |before: Option<&Token<'_>>| !before.is_some_and(|before| before.is("."));
    tokens
        .iter()
        .enumerate()
        .zip(before)
        .filter_map(move |((at, token), before)| {
            (token.kind == TokenKind::Identifier && root(before)).then_some((at, token))
        })
}

struct Reference {
    /// The name at its root, then its fields and the strings in its brackets.
    all: Vec<String>,
    /// The same, but for strings in back quotes, which regorus leaves out of a function's name.
    without_raw: Vec<String>,
    called: bool,
}

/// Reads the reference whose root is the token at `start`. Brackets that hold anything but a string
/// are left out, as regorus does where a function is named after `with … as`.
fn read_reference(tokens: &[Token<'_>], start: usize) -> Reference {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let root = vec![text(start).to_owned()];
    let mut reference = Reference {
        all: root.clone(),
        without_raw: root,
        called: false,
    };
    let mut at = start + 1;
    while let Some(token) = tokens.get(at) {
        if token.is(".") {
            let field = text(at + 1).to_owned();
            reference.all.push(field.clone());
            reference.without_raw.push(field);
            at += 2;
        } else if token.is("[") {
            let end = closing_bracket(tokens, at);
            if let (Some(string), true) = (tokens.get(at + 1).and_then(decode), end == at + 2) {
                reference.all.push(string.clone());
                if tokens
                    .get(at + 1)
                    .is_some_and(|token| token.kind == TokenKind::String)
                {
                    reference.without_raw.push(string);
                }
            }
            at = end + 1;
        } else {
            reference.called = token.is("(");
            break;
        }
    }
    reference
}

/// The place of the bracket that closes the one at `start`.
fn closing_bracket(tokens: &[Token<'_>], start: usize) -> usize {
    let mut open = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        if token.is("[") {
            open += 1;
        } else if token.is("]") {
            open -= 1;
            if open == 0 {
                return at;
            }
        }
    }
    tokens.len()
}

/// The text that a string token stands for.
fn decode(token: &Token<'_>) -> Option<String> {
    match token.kind {
        TokenKind::RawString => Some(token.text.trim_matches('`').to_owned()),
        TokenKind::String => {
            let value = Value::from_json(token.text.as_bytes()).ok()?;
            value.as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// `a.b["c d"]`
fn dotted(path: &[String]) -> String {
    let mut name = String::new();
    for part in path {
        let plain = part
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !part.starts_with(|first: char| first.is_ascii_digit())
            && !part.is_empty();
        if !plain {
            name.push('[');
            name.push_str(&Value::from(part).to_json());
            name.push(']');
            continue;
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(part);
    }
    name
}

/// Whether rules in `package` may define something in `data.system.log`.
fn defines_system_log(package: &[String], tokens: &[Token<'_>]) -> bool {
    let package: Vec<_> = package.iter().map(String::as_str).collect();
    match package.as_slice() {
        ["system", "log", ..] => true,
        ["system"] => roots(tokens).any(|(_, token)| token.text == "log"),
        _ => false,
    }
}
