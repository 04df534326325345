//! References of parsed modules as paths.
//!
//! The types of parsed modules are in `regorus::unstable`, which is why the version of regorus is
//! pinned exactly: what OPA checks at load can only be checked there.

use regorus::Value as Theirs;
use regorus::unstable::Expr;

use crate::engine::Location;

/// A reference from its root name up to the first part that is only known during evaluation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StaticPath {
    pub(super) names: Vec<String>,
    /// What follows `names`.
    pub(super) tail: Tail,
}

/// What follows the static part of a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    Nothing,
    /// One bracket, whose content is no string.
    Bracket,
    More,
}

/// `None` if the expression is no reference whose root is a name.
pub(super) fn static_path(expr: &Expr) -> Option<StaticPath> {
    let mut parts = Vec::new();
    let mut expr = expr;
    let root = loop {
        match expr {
            Expr::Var { span, .. } => break span.text().to_owned(),
            Expr::RefDot { refr, field, .. } => {
                parts.push(Some(field.0.text().to_owned()));
                expr = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                parts.push(string(index));
                expr = refr;
            }
            _ => return None,
        }
    };
    parts.push(Some(root));
    parts.reverse();
    let known = parts.iter().take_while(|part| part.is_some()).count();
    let tail = match parts.len() - known {
        0 => Tail::Nothing,
        1 => Tail::Bracket,
        _ => Tail::More,
    };
    Some(StaticPath {
        names: parts.into_iter().map_while(|part| part).collect(),
        tail,
    })
}

/// The names of a reference without its brackets that hold no strings, as regorus names functions.
pub(super) fn function_name(expr: &Expr) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut expr = expr;
    loop {
        match expr {
            Expr::Var { span, .. } => {
                names.push(span.text().to_owned());
                names.reverse();
                return Some(names);
            }
            Expr::RefDot { refr, field, .. } => {
                names.push(field.0.text().to_owned());
                expr = refr;
            }
            Expr::RefBrack { refr, index, .. } => {
                names.extend(string(index));
                expr = refr;
            }
            _ => return None,
        }
    }
}

fn string(index: &Expr) -> Option<String> {
    match index {
        Expr::String {
            value: Theirs::String(text),
            ..
        } => Some(text.to_string()),
        _ => None,
    }
}

/// Where an expression stands.
pub(super) fn location(expr: &Expr) -> Location {
    let span = expr.span();
    Location {
        file: span.source.get_path().as_str().into(),
        row: span.line,
        column: span.col,
    }
}

/// The path below `data` as regorus names rules: `data.a["b-c"]`.
pub(super) fn rule_name<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let mut path = String::from("data");
    for name in names {
        if is_identifier(name) {
            path.push('.');
            path.push_str(name);
        } else {
            push_bracket(&mut path, name);
        }
    }
    path
}

/// The path below `data` as a query: `data["a"]["b-c"]`. Every name stands in quotes.
pub(super) fn query<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let mut path = String::from("data");
    for name in names {
        push_bracket(&mut path, name);
    }
    path
}

fn push_bracket(path: &mut String, name: &str) {
    path.push('[');
    path.push_str(&serde_json::Value::from(name).to_string());
    path.push(']');
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|first: char| first == '_' || first.is_ascii_alphabetic())
        && name
            .bytes()
            .all(|byte| byte == b'_' || byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_identifiers_stand_in_quotes() {
        assert_eq!(rule_name(["a", "b_1"]), "data.a.b_1");
        assert_eq!(
            rule_name(["a", "b-c", "1", ""]),
            r#"data.a["b-c"]["1"][""]"#
        );
        assert_eq!(rule_name(["x\"]; true #"]), r#"data["x\"]; true #"]"#);
    }

    #[test]
    fn in_a_query_every_name_stands_in_quotes() {
        assert_eq!(query(["a", "b"]), r#"data["a"]["b"]"#);
        assert_eq!(query([r#"\"]"#]), r#"data["\\\"]"]"#);
    }
}
