//! The tags of YAML's core schema (§10.3).

use saphyr_parser::{ScalarStyle, Tag};

use super::tree::{ScalarKind, Typing};

/// What a scalar's style and tag make of its text; `None` for a tag outside the core schema.
pub(crate) fn scalar_typing(style: ScalarStyle, tag: Option<&Tag>) -> Option<Typing> {
    let Some(tag) = tag else {
        return Some(if style == ScalarStyle::Plain {
            Typing::Plain
        } else {
            Typing::String
        });
    };
    match core_tag(tag)? {
        "str" | "!" => Some(Typing::String),
        "null" => Some(Typing::Tagged(ScalarKind::Null)),
        "bool" => Some(Typing::Tagged(ScalarKind::Bool)),
        "int" => Some(Typing::Tagged(ScalarKind::Integer)),
        "float" => Some(Typing::Tagged(ScalarKind::Float)),
        _ => None,
    }
}

/// Whether a tag may stand before a `seq` or `map`.
pub(crate) fn fits_collection(tag: Option<&Tag>, kind: &str) -> bool {
    tag.is_none_or(|tag| core_tag(tag).is_some_and(|tag| tag == kind || tag == "!"))
}

/// The tag's name if it is one of the core schema, or `!`, which says "not resolved".
fn core_tag(tag: &Tag) -> Option<&str> {
    if tag.is_yaml_core_schema() {
        return Some(&tag.suffix);
    }
    (tag.handle.is_empty() && tag.suffix == "!").then_some("!")
}
