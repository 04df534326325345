//! What is wrong with an operation, in the words of OPA's storage.

use opa_rego::Value;

use super::super::pointer;

/// How deep data may be nested: as deep as JSON text may be.
const MAX_DEPTH: usize = 10_000;

pub(super) const NOT_FOUND: &str = "storage_not_found_error: document does not exist";

pub(super) fn is_end(segment: &str, length: usize) -> bool {
    segment == "-" || segment == length.to_string()
}

/// The place of an item. OPA also takes `+1`, `01` and `1.0`, which no other reader of JSON pointers
/// does.
pub(super) fn index(segment: &str, length: usize) -> Result<usize, &'static str> {
    let below_zero = segment
        .strip_prefix('-')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit()));
    if below_zero {
        return Err("array index out of range");
    }
    let canonical = segment == "0" || !segment.starts_with('0');
    if !canonical || segment.is_empty() || !segment.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("array index must be integer");
    }
    let index = segment.parse().ok().filter(|index| *index < length);
    index.ok_or("array index out of range")
}

pub(super) fn existing_item(
    path: &[String],
    segment: &str,
    length: usize,
) -> Result<usize, String> {
    if is_end(segment, length) {
        return Err(format!(
            "storage_invalid_patch_error: {}: invalid patch path",
            pointer::shown(path)
        ));
    }
    index(segment, length).map_err(|hint| no_item(path, hint))
}

pub(super) fn no_item<S: AsRef<str>>(path: &[S], hint: &str) -> String {
    format!("storage_not_found_error: {}: {hint}", pointer::shown(path))
}

/// What is at the first `depth` segments of the path is no object.
pub(super) fn conflict<S: AsRef<str>>(path: &[S], depth: usize) -> String {
    let at = path.get(..depth).unwrap_or(path);
    format!("storage_write_conflict_error: {}", pointer::shown(at))
}

pub(super) fn check_depth(segments: usize, value: &Value) -> Result<(), String> {
    if segments.saturating_add(value.depth()) <= MAX_DEPTH {
        return Ok(());
    }
    Err(format!("patch nests deeper than {MAX_DEPTH} levels"))
}
