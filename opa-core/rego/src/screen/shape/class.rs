//! What a token is, told from the one before it.

use super::Previous;
use crate::token::{Token, TokenKind};

/// Names after which no term has ended, where they are keywords.
const OPENING_KEYWORDS: [&str; 14] = [
    "and", "as", "contains", "default", "else", "every", "if", "import", "in", "not", "or",
    "package", "some", "with",
];

pub(super) fn is_field(token: &Token<'_>, previous: Option<Previous<'_>>) -> bool {
    token.kind == TokenKind::Identifier && previous.is_some_and(|previous| previous.token.is("."))
}

/// Whether a term may end with `previous`.
pub(super) fn ends_term(previous: Option<Previous<'_>>) -> bool {
    let Some(Previous { token, field }) = previous else {
        return false;
    };
    match token.kind {
        TokenKind::Identifier => field || !OPENING_KEYWORDS.contains(&token.text),
        TokenKind::Punctuation => matches!(token.text, "]" | "}" | ")"),
        TokenKind::TemplateStart | TokenKind::TemplateMiddle => false,
        _ => true,
    }
}

/// Whether `token` stands on another line than a term that ends before it.
pub(super) fn begins_line(token: &Token<'_>, previous: Option<Previous<'_>>) -> bool {
    ends_term(previous) && previous.is_some_and(|previous| previous.token.line < token.line)
}

/// Whether `token`, at the start of a line, may begin a statement.
pub(super) fn begins_statement(token: &Token<'_>) -> bool {
    match token.kind {
        TokenKind::Identifier => !matches!(token.text, "as" | "else" | "with"),
        TokenKind::Punctuation => matches!(token.text, "[" | "{" | "("),
        TokenKind::TemplateMiddle | TokenKind::TemplateEnd => false,
        _ => true,
    }
}

/// Whether `token`, at the start of a line, can't go on with the expression before it.
pub(super) fn begins_expression(token: &Token<'_>) -> bool {
    begins_statement(token)
        && !token.is("(")
        && !["and", "in", "or"].iter().any(|name| token.is(name))
}

/// Whether `token` separates two expressions wherever it stands.
pub(super) fn separates(token: &Token<'_>, field: bool) -> bool {
    // Only names that can't be a variable's in any version of Rego: else the chain
    // `if | if | if` would look like many short expressions.
    let keyword = !field && ["as", "else", "with"].iter().any(|name| token.is(name));
    keyword || [",", ":", ";"].iter().any(|separator| token.is(separator))
}

/// Whether the bracket `token` is an index of what stands directly before it.
pub(super) fn is_index(token: &Token<'_>, previous: Option<Previous<'_>>) -> bool {
    let adjacent =
        |Previous {
             token: previous, ..
         }: Previous<'_>| { previous.offset + previous.text.len() == token.offset };
    ends_term(previous) && previous.is_some_and(adjacent)
}

/// Whether the brace `token` opens the body of a rule or of `every`, not a set or an object.
pub(super) fn opens_body(
    token: &Token<'_>,
    previous: Option<Previous<'_>>,
    in_module: bool,
) -> bool {
    let Some(Previous {
        token: before,
        field,
    }) = previous
    else {
        return false;
    };
    if in_module && !field && (before.is("if") || before.is("else")) {
        return true;
    }
    // In a body, a brace on a line of its own begins a statement.
    ends_term(previous) && (in_module || before.line == token.line)
}

/// Whether `token` as an index has nothing to iterate over.
pub(super) fn is_literal(token: &Token<'_>) -> bool {
    matches!(
        token.kind,
        TokenKind::Number | TokenKind::RawString | TokenKind::String
    )
}

pub(super) fn are_partners(opening: &Token<'_>, closing: &Token<'_>) -> bool {
    match closing.kind {
        TokenKind::TemplateMiddle | TokenKind::TemplateEnd => {
            matches!(
                opening.kind,
                TokenKind::TemplateStart | TokenKind::TemplateMiddle
            )
        }
        _ => matches!(
            (opening.text, closing.text),
            ("[", "]") | ("{", "}") | ("(", ")")
        ),
    }
}

/// The bracket in a token, which for a part of a template string is a brace.
pub(super) fn bracket<'a>(token: &Token<'a>) -> &'a str {
    match token.kind {
        TokenKind::TemplateMiddle | TokenKind::TemplateEnd => "}",
        TokenKind::TemplateStart => "{",
        _ => token.text,
    }
}
