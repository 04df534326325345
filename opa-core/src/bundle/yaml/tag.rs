//! Tags: `!!str` and the like say what a value is.

use saphyr_parser::Tag;

use super::scalar::{Scalar, resolve};

/// What the tags of YAML's own begin with.
const CORE_TAGS: &str = "tag:yaml.org,2002:";

/// The meaning of a scalar with a tag.
pub(super) fn tagged(text: &str, tag: &Tag) -> Result<Scalar, String> {
    let name = core_name(tag).ok_or_else(|| unknown_tag(tag))?;
    match (name, resolve(text)) {
        ("str", _) => Ok(Scalar::Text),
        ("float", Scalar::Int(number)) => Ok(Scalar::whole_float(number)),
        ("null", scalar @ Scalar::Null)
        | ("bool", scalar @ Scalar::Bool(_))
        | ("int", scalar @ Scalar::Int(_))
        | ("float", scalar @ Scalar::Float(_)) => Ok(scalar),
        ("null" | "bool" | "int" | "float", _) => {
            Err(format!("`{text}` is not of type `{}`", shown(tag)))
        }
        _ => Err(unknown_tag(tag)),
    }
}

/// Whether a tag fits a list (`seq`) or an object (`map`).
pub(super) fn check_collection(tag: Option<&Tag>, expected: &str) -> Result<(), String> {
    match tag {
        Some(tag) if !is_non_specific(tag) && core_name(tag) != Some(expected) => {
            Err(unknown_tag(tag))
        }
        _ => Ok(()),
    }
}

/// The tag `!`, which says nothing.
pub(super) fn is_non_specific(tag: &Tag) -> bool {
    matches!(
        (tag.handle.as_str(), tag.suffix.as_str()),
        ("", "!") | ("!", "")
    )
}

/// The name of a tag of YAML's own, written `!!name` or `!<tag:yaml.org,2002:name>`.
fn core_name(tag: &Tag) -> Option<&str> {
    match tag.handle.as_str() {
        CORE_TAGS => Some(&tag.suffix),
        "" => tag.suffix.strip_prefix(CORE_TAGS),
        _ => None,
    }
}

fn shown(tag: &Tag) -> String {
    match core_name(tag) {
        Some(name) => format!("!!{name}"),
        None => format!("{}{}", tag.handle, tag.suffix),
    }
}

fn unknown_tag(tag: &Tag) -> String {
    format!(
        "tag `{}` has no meaning in data: expected one of YAML's core schema",
        shown(tag)
    )
}
