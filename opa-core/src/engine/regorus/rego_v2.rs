//! What of Rego v2 regorus has: the part that means the same in v1.
//!
//! Version 2 adds the keywords `and` and `or`, and gives braces and parentheses after `not` another
//! meaning (a body, where v1 has a set or an expression). A module without them is a v1 module. An
//! older module asks for parts of v2 by `import rego.v2` or `import future.keywords`.

use opa_rego::RegoVersion;
use opa_rego::token::{Token, TokenKind, tokens};

use crate::engine::Module;

/// What regorus would not read as OPA does, and its line and column.
pub(super) fn unsupported(module: &Module) -> Option<(String, (usize, usize))> {
    let tokens: Vec<_> = tokens(module.source()).map_while(Result::ok).collect();
    let asks = asks_for(&tokens);
    if let Some((version, at)) = asks.version {
        return Some((format!("`import rego.{version}`"), place(at)));
    }
    if module.version() != RegoVersion::V2 && !asks.future_keywords {
        return None;
    }
    let is_v2 = module.version() == RegoVersion::V2;
    let before = [None].into_iter().chain(tokens.iter().map(Some));
    { before.zip(tokens.iter().enumerate()) }.find_map(|(before, (at, token))| {
        let next = tokens.get(at + 1);
        let what = match token.text {
            _ if token.kind != TokenKind::Identifier => return None,
            _ if before.is_some_and(|before| before.is(".")) => return None,
            // Where they are imported, they are keywords; else, a name as any other.
            "and" | "or" if is_v2 || asks.logic => format!("the keyword `{}`", token.text),
            "not" if next.is_some_and(|next| next.is("{")) => "`not { … }`".to_owned(),
            "not" if next.is_some_and(|next| next.is("(")) => "`not ( … )`".to_owned(),
            _ => return None,
        };
        Some((format!("{what} of Rego v2"), place(token)))
    })
}

#[derive(Default)]
struct Asks<'t> {
    /// `import rego.…`, but for `v1`.
    version: Option<(&'t str, &'t Token<'t>)>,
    /// `import future.keywords`, whole or in part.
    future_keywords: bool,
    /// `and` and `or` may be among them.
    logic: bool,
}

fn asks_for<'t>(tokens: &'t [Token<'t>]) -> Asks<'t> {
    let mut asks = Asks::default();
    for (at, token) in tokens.iter().enumerate() {
        if !token.is("import") {
            continue;
        }
        let path = import_path(tokens.get(at + 1..).unwrap_or_default());
        match path.as_slice() {
            ["rego", "v1"] => {}
            ["rego", rest @ ..] => {
                let version = rest.first().copied().unwrap_or_default();
                asks.version = asks.version.or(Some((version, token)));
            }
            ["future", "keywords"] => {
                asks.future_keywords = true;
                asks.logic = true;
            }
            ["future", "keywords", keyword, ..] => {
                asks.future_keywords |= matches!(*keyword, "not" | "and" | "or");
                asks.logic |= matches!(*keyword, "and" | "or");
            }
            _ => {}
        }
    }
    asks
}

/// The names of `a.b["c"]`, at most three, which tell the imports above.
fn import_path<'t>(tokens: &[Token<'t>]) -> Vec<&'t str> {
    let names = tokens.iter().take(8).map_while(|token| match token.kind {
        TokenKind::Identifier => Some(Some(token.text)),
        TokenKind::String | TokenKind::RawString => Some(Some(token.text.trim_matches(['"', '`']))),
        TokenKind::Punctuation if [".", "[", "]"].contains(&token.text) => Some(None),
        _ => None,
    });
    let mut path = Vec::new();
    let mut expects_name = true;
    for name in names {
        match name {
            // Two names side by side: the next statement.
            Some(_) if !expects_name => break,
            Some(name) => {
                path.push(name);
                expects_name = false;
            }
            None => expects_name = true,
        }
    }
    path
}

fn place(token: &Token<'_>) -> (usize, usize) {
    (token.line, token.column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(version: RegoVersion, body: &str) -> Option<String> {
        let module = Module::new("a.rego", format!("package a\n{body}"), version);
        unsupported(&module).map(|(what, _)| what)
    }

    #[test]
    fn what_v2_adds() {
        for (body, what) in [
            ("p if { x and y }", "the keyword `and` of Rego v2"),
            ("p if { x or y }", "the keyword `or` of Rego v2"),
            ("p if not { x }", "`not { … }` of Rego v2"),
            ("p if { not (x) }", "`not ( … )` of Rego v2"),
            ("import rego.v2\np := 1", "`import rego.v2`"),
            ("import rego[\"v2\"]\np := 1", "`import rego.v2`"),
            ("import rego.v3\np := 1", "`import rego.v3`"),
        ] {
            assert_eq!(
                refused(RegoVersion::V2, body).as_deref(),
                Some(what),
                "{body}"
            );
        }
        for body in [
            "p if not x",
            "p if { input.and; input.x.or }",
            "p if { every x in [1] { x } }",
            "import rego.v1\np contains \"and\"",
        ] {
            assert_eq!(refused(RegoVersion::V2, body), None, "{body}");
        }
    }

    #[test]
    fn what_older_modules_import_of_it() {
        for version in [RegoVersion::V0, RegoVersion::V1] {
            for body in [
                "p = x { not {x} }",
                "and := 1",
                "import future.keywords.in\np := {1 | not {2}}",
                "import rego.v1\nor := 1",
            ] {
                assert_eq!(refused(version, body), None, "{version} {body}");
            }
            for body in [
                "import rego.v2",
                "import future.keywords\np := 1 { not {x} }",
                "import future.keywords\nand := 1",
                "import future.keywords.or\np if { x or y }",
                "import future.keywords.not\np if not { x }",
                "import future[\"keywords\"].not\np if not { x }",
            ] {
                assert!(refused(version, body).is_some(), "{version} {body}");
            }
        }
    }
}
