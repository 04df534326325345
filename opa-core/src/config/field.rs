//! One value of a configuration together with its path: what errors are made from.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::error::{ConfigError, ConfigErrorKind, Location, Position, Warning};
use super::node::{Entry, Node, Value};
use super::reader::Reader;
use super::section::Section;

/// A value in a configuration, at a dotted path.
///
/// See the [module docs](super) for how plugins read their section.
#[derive(Clone)]
pub struct Field<'a> {
    file: Option<&'a Arc<str>>,
    path: String,
    /// Where the key stands; unknown key warnings point there.
    key_position: Option<Position>,
    node: &'a Node,
}

impl<'a> Field<'a> {
    pub(crate) fn new(file: Option<&'a Arc<str>>, path: String, node: &'a Node) -> Self {
        Self {
            file,
            path,
            key_position: node.position,
            node,
        }
    }

    /// The member of an object at `path`.
    pub(crate) fn of(file: Option<&'a Arc<str>>, path: &str, entry: &'a Entry) -> Self {
        let path = join(path, &entry.key);
        Self {
            file,
            path,
            key_position: entry.key_position,
            node: &entry.node,
        }
    }

    /// The dotted path, such as `decision_logs.reporting.trigger`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the value is null, which OPA treats like an absent option.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.node.value.is_null()
    }

    /// The string.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn as_str(&self) -> Result<&'a str, ConfigError> {
        match &self.node.value {
            Value::String(value) => Ok(value),
            _ => Err(self.expected("a string")),
        }
    }

    /// The boolean.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn as_bool(&self) -> Result<bool, ConfigError> {
        match &self.node.value {
            Value::Bool(value) => Ok(*value),
            _ => Err(self.expected("a boolean")),
        }
    }

    /// The number as an integer. As in OPA, `60.0` and `6e1` are the integer 60.
    ///
    /// # Errors
    /// The value is of another type, has a fraction or doesn't fit.
    pub fn as_i64(&self) -> Result<i64, ConfigError> {
        let Value::Number(number) = &self.node.value else {
            return Err(self.expected("an integer"));
        };
        number
            .as_i64()
            .or_else(|| number.as_f64().and_then(integral))
            .ok_or_else(|| self.error(format!("expected an integer, found `{number}`")))
    }

    /// The number.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn as_f64(&self) -> Result<f64, ConfigError> {
        match &self.node.value {
            Value::Number(number) => number
                .as_f64()
                .ok_or_else(|| self.error("expected a number that fits 64 bits")),
            _ => Err(self.expected("a number")),
        }
    }

    /// The items of the array; their paths end in the index.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn items(&self) -> Result<impl Iterator<Item = Field<'a>> + use<'a>, ConfigError> {
        let Value::Array(items) = &self.node.value else {
            return Err(self.expected("an array"));
        };
        let (file, path) = (self.file, self.path.clone());
        Ok(items
            .iter()
            .enumerate()
            .map(move |(index, node)| Field::new(file, join(&path, &index.to_string()), node)))
    }

    /// The array's items, all strings.
    ///
    /// # Errors
    /// The value or one of its items is of another type.
    pub fn strings(&self) -> Result<Vec<&'a str>, ConfigError> {
        self.items()?.map(|item| item.as_str()).collect()
    }

    /// The members of an object whose keys are free names, in file order.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn members(
        &self,
    ) -> Result<impl Iterator<Item = (&'a str, Field<'a>)> + use<'a>, ConfigError> {
        let Value::Object(entries) = &self.node.value else {
            return Err(self.expected("an object"));
        };
        let (file, path) = (self.file, self.path.clone());
        Ok(entries
            .iter()
            .map(move |entry| (&*entry.key, Field::of(file, &path, entry))))
    }

    /// The members of an object whose values are strings; a null is the empty string, as in OPA.
    ///
    /// # Errors
    /// The value is no object, or one of its members isn't a string.
    pub fn string_map(&self) -> Result<BTreeMap<String, String>, ConfigError> {
        self.members()?
            .map(|(key, field)| {
                let value = if field.is_null() { "" } else { field.as_str()? };
                Ok((key.to_owned(), value.to_owned()))
            })
            .collect()
    }

    /// A reader of an object whose keys are known.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn reader(&self) -> Result<Reader<'a>, ConfigError> {
        Reader::new(self)
    }

    /// The value as a section of its own, for whoever reads it later. A null is an empty one.
    #[must_use]
    pub fn section(&self) -> Section {
        Section::new(self)
    }

    /// The value as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.node.to_json()
    }

    /// An error at this value, of the kind [`ConfigErrorKind::Invalid`].
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        ConfigError::at(ConfigErrorKind::Invalid, self.location(), message)
    }

    /// The error for an option that OPA knows and this version doesn't act on, of the kind
    /// [`ConfigErrorKind::Unsupported`]. It names the option.
    #[must_use]
    pub fn unsupported(&self) -> ConfigError {
        let location = Location {
            position: self.key_position,
            ..self.location()
        };
        let message = format!("`{}` is not supported by this version", self.path);
        ConfigError::at(ConfigErrorKind::Unsupported, location, message)
    }

    /// The error for a value that OPA knows and this version doesn't act on.
    #[must_use]
    pub fn unsupported_value(&self, value: &str) -> ConfigError {
        let message = format!("`{}: {value}` is not supported by this version", self.path);
        ConfigError::at(ConfigErrorKind::Unsupported, self.location(), message)
    }

    /// A warning at this option.
    #[must_use]
    pub fn warning(&self, message: impl Into<String>) -> Warning {
        let location = Location {
            position: self.key_position,
            ..self.location()
        };
        Warning::at(location, message)
    }

    pub(crate) fn unknown_option(&self) -> Warning {
        Warning::unknown_option(Location {
            position: self.key_position,
            ..self.location()
        })
    }

    pub(crate) fn expected(&self, what: &str) -> ConfigError {
        self.error(format!(
            "expected {what}, found {}",
            self.node.value.describe()
        ))
    }

    pub(crate) fn node(&self) -> &'a Node {
        self.node
    }

    pub(crate) fn file(&self) -> Option<&'a Arc<str>> {
        self.file
    }

    pub(crate) fn location(&self) -> Location {
        Location {
            file: self.node.flag.clone().or_else(|| self.file.cloned()),
            position: self.node.position,
            path: self.path.clone(),
        }
    }
}

/// Shows the place only: values may be secrets.
impl fmt::Debug for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Appends a segment to a dotted path, as OPA does: dots within a segment aren't escaped.
pub(crate) fn join(path: &str, segment: &str) -> String {
    if path.is_empty() {
        segment.to_owned()
    } else {
        format!("{path}.{segment}")
    }
}

/// The float as an integer if it is one that 64 bits hold.
fn integral(value: f64) -> Option<i64> {
    const BOUND: f64 = 9_223_372_036_854_775_808.0; // 2^63
    if value.fract() != 0.0 || !(-BOUND..BOUND).contains(&value) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "integral and within range")]
    Some(value as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with<T>(value: serde_json::Value, read: impl FnOnce(Field<'_>) -> T) -> T {
        let node = Node::from_json(&value);
        let file = Arc::from("opa.yaml");
        read(Field::new(Some(&file), "a.b".to_owned(), &node))
    }

    #[test]
    fn types_are_checked_and_named() {
        let message = |value, read: fn(Field<'_>) -> Option<ConfigError>| {
            with(value, read).unwrap().to_string()
        };
        assert_eq!(
            message(json!(5), |f| f.as_str().err()),
            "opa.yaml: a.b: expected a string, found a number"
        );
        assert_eq!(
            message(json!("x"), |f| f.as_bool().err()),
            "opa.yaml: a.b: expected a boolean, found a string"
        );
        assert_eq!(
            message(json!([]), |f| f.as_i64().err()),
            "opa.yaml: a.b: expected an integer, found an array"
        );
        assert_eq!(
            message(json!({}), |f| f.as_f64().err()),
            "opa.yaml: a.b: expected a number, found an object"
        );
        assert_eq!(
            message(json!(true), |f| f.items().err()),
            "opa.yaml: a.b: expected an array, found a boolean"
        );
        assert_eq!(
            message(json!(null), |f| f.members().err()),
            "opa.yaml: a.b: expected an object, found null"
        );
    }

    #[test]
    fn items_and_members_carry_their_path() {
        let error = with(json!(["x", 1]), |f| f.strings().unwrap_err());
        assert_eq!(error.path(), "a.b.1");
        let error = with(json!({"k": {"x": 1}}), |f| f.string_map()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "opa.yaml: a.b.k: expected a string, found an object"
        );
    }

    #[test]
    fn integers_may_be_written_as_floats() {
        for (value, expected) in [
            (json!(60), Some(60)),
            (json!(-1), Some(-1)),
            (json!(60.0), Some(60)),
            (json!(-6e1), Some(-60)),
            (json!(0.5), None),
            (json!(9_223_372_036_854_775_808_u64), None),
            (json!(i64::MIN), Some(i64::MIN)),
            (json!(1e19), None),
            (json!(-1e19), None),
        ] {
            assert_eq!(
                with(value.clone(), |f| f.as_i64()).ok(),
                expected,
                "{value}"
            );
        }
    }

    #[test]
    fn null_members_of_a_string_map_are_empty_strings() {
        let map = with(json!({"a": null, "b": "x"}), |f| f.string_map()).unwrap();
        assert_eq!(
            map,
            BTreeMap::from([("a".into(), String::new()), ("b".into(), "x".into())])
        );
    }

    #[test]
    fn unsupported_options_are_named() {
        let error = with(json!({}), |f| f.unsupported());
        assert_eq!(error.kind(), ConfigErrorKind::Unsupported);
        assert_eq!(error.message(), "`a.b` is not supported by this version");
    }

    #[test]
    fn debug_does_not_show_values() {
        let text = with(json!("secret"), |f| format!("{f:?}"));
        assert!(!text.contains("secret"), "{text}");
    }
}
