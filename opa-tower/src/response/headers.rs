use http::{HeaderMap, HeaderName, HeaderValue};
use opa_core::Value;

use super::verdict::Problem;
use crate::input::PARTIAL_BODY;

/// More headers than this in one member of a decision make it invalid.
const MAX_HEADERS: usize = 1_000;

/// The headers in a member of a decision.
#[derive(Debug, Default)]
pub(super) struct Listed {
    /// Also those whose list of values is empty.
    pub(super) names: Vec<HeaderName>,
    pub(super) headers: HeaderMap,
}

/// Reads a member of a decision that holds headers.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(decision: &Value, member: &str) -> Result<Listed, Problem> {
    let mut headers = Listed::default();
    let Some(value) = decision.get(member) else {
        return Ok(headers);
    };
    match value.as_array() {
        Some(objects) => {
            for object in objects {
                read_object(object, member, &mut headers)?;
            }
        }
        None => read_object(value, member, &mut headers)?,
    }
    Ok(headers)
}

fn read_object(object: &Value, member: &str, into: &mut Listed) -> Result<(), Problem> {
    let object = object
        .as_object()
        .ok_or_else(|| format!("`{member}` is neither an object nor an array of objects"))?;
    for (name, values) in object.iter() {
        let name = name
            .as_str()
            .ok_or_else(|| format!("`{member}` has a name that is no string"))?;
        let name = read_name(name, member)?;
        for value in values.as_array().unwrap_or(std::slice::from_ref(values)) {
            if into.headers.len() >= MAX_HEADERS {
                return Err(format!("`{member}` has more than {MAX_HEADERS} headers"));
            }
            into.headers
                .append(&name, read_value(value, &name, member)?);
        }
        into.names.push(name);
    }
    Ok(())
}

fn read_value(value: &Value, name: &HeaderName, member: &str) -> Result<HeaderValue, Problem> {
    value
        .as_str()
        .and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok())
        .ok_or_else(|| format!("`{member}` has a value for `{name}` that no header can have"))
}

/// Reads the name of a header that a policy may touch.
///
/// # Errors
/// When it is no name, or one that only the server may set.
pub(super) fn read_name(name: &str, member: &str) -> Result<HeaderName, Problem> {
    let shown = || {
        name.chars()
            .take(64)
            .collect::<String>()
            .escape_debug()
            .to_string()
    };
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| format!("`{member}` names `{}`, which is no header", shown()))?;
    if is_forbidden(&parsed) {
        return Err(format!(
            "`{member}` names `{parsed}`, which a policy must not touch"
        ));
    }
    Ok(parsed)
}

/// Names whose change would move the request's borders or its target, or that concern one
/// connection only.
fn is_forbidden(name: &HeaderName) -> bool {
    const NAMES: [&str; 8] = [
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "keep-alive",
        "te",
        "trailer",
        "upgrade",
    ];
    let name = name.as_str();
    NAMES.contains(&name) || name.starts_with("proxy-") || name == PARTIAL_BODY
}
