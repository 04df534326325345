//! The content of `patch.json`.

use opa_rego::Value;

use super::super::error::{BundleError, BundleErrorKind};
use super::pointer;

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    /// Sets a value, with the objects that it hangs in.
    Upsert,
    /// Takes away what is there.
    Remove,
    /// Sets a value in the place of another one.
    Replace,
}

/// One operation.
#[derive(Debug)]
pub(super) struct Operation {
    verb: Verb,
    spelled: Box<str>,
    path: Vec<String>,
    value: Value,
}

impl Operation {
    pub(super) fn verb(&self) -> Verb {
        self.verb
    }

    /// The path as the patch spells it, without "/" at its ends.
    pub(super) fn spelled(&self) -> &str {
        &self.spelled
    }

    pub(super) fn path(&self) -> &[String] {
        &self.path
    }

    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    fn read(document: &Value) -> Result<Self, BundleError> {
        let text = |member: &str| match member_of(document, member)? {
            None => Ok(""),
            Some(value) if value.is_null() => Ok(""),
            Some(value) => value
                .as_str()
                .ok_or_else(|| malformed(&format!("`{member}` to be a string"))),
        };
        let verb = match text("op")? {
            "upsert" => Verb::Upsert,
            "remove" => Verb::Remove,
            "replace" => Verb::Replace,
            other => return Err(fault(format!("bad patch operation: {other}"))),
        };
        let spelled = text("path")?.trim_matches('/');
        let path = pointer::segments(spelled)
            .ok_or_else(|| fault(format!("error parsing patch path `{spelled}`")))?;
        Ok(Self {
            verb,
            spelled: spelled.into(),
            path,
            value: member_of(document, "value")?.cloned().unwrap_or_default(),
        })
    }
}

/// Reads the operations of a `patch.json`, in their order.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Operation>, BundleError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let document = Value::from_json(bytes).map_err(|error| {
        BundleError::with_source(
            BundleErrorKind::Patch,
            format!("bundle load failed on patch decode: {error}"),
            error,
        )
    })?;
    let list = match member_of(&document, "data")? {
        None => &[][..],
        Some(list) if list.is_null() => &[],
        Some(list) => list
            .as_array()
            .ok_or_else(|| malformed("`data` to be a list of operations"))?,
    };
    list.iter().map(Operation::read).collect()
}

/// A member by its name in any case, as Go's decoder finds it; once, since of two only one counts.
fn member_of<'a>(document: &'a Value, name: &str) -> Result<Option<&'a Value>, BundleError> {
    let object = document.as_object().ok_or_else(|| malformed("an object"))?;
    let mut found = None;
    for (key, value) in object.iter() {
        let fits = key
            .as_str()
            .is_some_and(|key| key.eq_ignore_ascii_case(name));
        if fits && found.replace(value).is_some() {
            return Err(malformed(&format!("`{name}` once")));
        }
    }
    Ok(found)
}

fn malformed(expected: &str) -> BundleError {
    fault(format!(
        "bundle load failed on patch decode: expected {expected}"
    ))
}

fn fault(message: String) -> BundleError {
    BundleError::new(BundleErrorKind::Patch, message)
}
