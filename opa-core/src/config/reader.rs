//! Reads an object of known options, and tells which of its keys nobody asked for.

use std::collections::BTreeMap;
use std::fmt;

use super::error::{ConfigError, Warning};
use super::field::{Field, join};
use super::node::{Entry, Value};

/// Reads the options of one object.
///
/// Every method treats a null like an absent option, as OPA does. A key that no method asked for
/// is unknown: [`finish`](Self::finish) turns it into a warning in OPA's words.
///
/// See the [module docs](super) for how plugins read their section.
#[must_use = "unknown options are only noticed by `finish`"]
pub struct Reader<'a> {
    field: Field<'a>,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(field: &Field<'a>) -> Result<Self, ConfigError> {
        match &field.node().value {
            Value::Object(entries) => Ok(Self {
                field: field.clone(),
                entries,
                asked: Vec::new(),
            }),
            _ => Err(field.expected("an object")),
        }
    }

    /// The dotted path of the object.
    #[must_use]
    pub fn path(&self) -> &str {
        self.field.path()
    }

    /// The value of an option, unless it is absent or null.
    pub fn field(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.member(key).filter(|field| !field.is_null())
    }

    /// The value of an option, null included.
    pub(crate) fn member(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.asked.push(key);
        let entry = self.entries.iter().find(|entry| &*entry.key == key)?;
        Some(self.at(entry))
    }

    /// A string.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn string(&mut self, key: &'static str) -> Result<Option<&'a str>, ConfigError> {
        self.field(key).map(|field| field.as_str()).transpose()
    }

    /// A boolean.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn bool(&mut self, key: &'static str) -> Result<Option<bool>, ConfigError> {
        self.field(key).map(|field| field.as_bool()).transpose()
    }

    /// An integer; see [`Field::as_i64`].
    ///
    /// # Errors
    /// The value is of another type, has a fraction or doesn't fit.
    pub fn integer(&mut self, key: &'static str) -> Result<Option<i64>, ConfigError> {
        self.field(key).map(|field| field.as_i64()).transpose()
    }

    /// A number.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn number(&mut self, key: &'static str) -> Result<Option<f64>, ConfigError> {
        self.field(key).map(|field| field.as_f64()).transpose()
    }

    /// An array of strings; empty if absent.
    ///
    /// # Errors
    /// The value or one of its items is of another type.
    pub fn strings(&mut self, key: &'static str) -> Result<Vec<&'a str>, ConfigError> {
        Ok(self
            .field(key)
            .map(|field| field.strings())
            .transpose()?
            .unwrap_or_default())
    }

    /// An object of strings; empty if absent.
    ///
    /// # Errors
    /// The value or one of its members is of another type.
    pub fn string_map(
        &mut self,
        key: &'static str,
    ) -> Result<BTreeMap<String, String>, ConfigError> {
        Ok(self
            .field(key)
            .map(|field| field.string_map())
            .transpose()?
            .unwrap_or_default())
    }

    /// A nested object of known options. Its unknown keys are its own reader's to report.
    ///
    /// # Errors
    /// The value is of another type.
    pub fn object(&mut self, key: &'static str) -> Result<Option<Reader<'a>>, ConfigError> {
        self.field(key).map(|field| field.reader()).transpose()
    }

    /// Refuses an option that OPA knows and the caller doesn't act on.
    ///
    /// # Errors
    /// The option is present, and neither null nor `false`, which ask for nothing.
    pub fn unsupported(&mut self, key: &'static str) -> Result<(), ConfigError> {
        match self.field(key) {
            Some(field) if !matches!(field.node().value, Value::Bool(false)) => {
                Err(field.unsupported())
            }
            _ => Ok(()),
        }
    }

    /// An error about the object as a whole.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        self.field.error(message)
    }

    /// An error about an option that is missing.
    #[must_use]
    pub fn missing(&self, key: &str, what: &str) -> ConfigError {
        let mut location = self.field.location();
        location.path = join(&location.path, key);
        ConfigError::at(
            super::ConfigErrorKind::Invalid,
            location,
            format!("expected {what}, found nothing"),
        )
    }

    /// The warnings about keys that nobody asked for, in file order.
    ///
    /// # Errors
    /// A key differs from a known one by case alone. OPA acts on such a key (Go matches JSON
    /// names regardless of case), so passing over it could turn a protection off.
    pub fn finish(self) -> Result<Vec<Warning>, ConfigError> {
        let unknown = |entry: &&Entry| !self.asked.contains(&&*entry.key);
        self.entries
            .iter()
            .filter(unknown)
            .map(|entry| {
                let field = self.at(entry);
                match self
                    .asked
                    .iter()
                    .find(|known| known.eq_ignore_ascii_case(&entry.key))
                {
                    Some(known) => Err(field.error(format!("expected the key to be `{known}`"))),
                    None => Ok(field.unknown_option()),
                }
            })
            .collect()
    }

    fn at(&self, entry: &'a Entry) -> Field<'a> {
        Field::of(self.field.file(), self.field.path(), entry)
    }
}

impl fmt::Debug for Reader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ConfigErrorKind, Section};
    use serde_json::json;

    fn section(value: serde_json::Value) -> Section {
        Section::from_json("decision_logs", &value)
    }

    #[test]
    fn absent_and_null_are_the_same() {
        let section = section(json!({"console": null}));
        let mut reader = section.reader().unwrap();
        assert_eq!(reader.bool("console"), Ok(None));
        assert_eq!(reader.string("service"), Ok(None));
        assert_eq!(reader.strings("list"), Ok(vec![]));
        assert_eq!(reader.finish(), Ok(vec![]));
    }

    #[test]
    fn keys_that_nobody_asked_for_are_unknown() {
        let section = section(json!({"console": true, "consoel": 1, "reporting": {"x": 1}}));
        let mut reader = section.reader().unwrap();
        assert_eq!(reader.bool("console"), Ok(Some(true)));
        let nested = reader
            .object("reporting")
            .unwrap()
            .unwrap()
            .finish()
            .unwrap();
        let own = reader.finish().unwrap();
        let texts: Vec<_> = own.iter().chain(&nested).map(Warning::message).collect();
        assert_eq!(
            texts,
            [
                "unknown configuration option \"decision_logs.consoel\" encountered",
                "unknown configuration option \"decision_logs.reporting.x\" encountered",
            ]
        );
    }

    #[test]
    fn keys_in_another_case_are_refused() {
        let section = section(json!({"Console": true}));
        let mut reader = section.reader().unwrap();
        assert_eq!(reader.bool("console"), Ok(None));
        let error = reader.finish().unwrap_err();
        assert_eq!(
            error.to_string(),
            "decision_logs.Console: expected the key to be `console`"
        );
    }

    #[test]
    fn unsupported_options_are_refused_unless_they_ask_for_nothing() {
        let section = section(json!({"a": {}, "b": null, "c": false}));
        let mut reader = section.reader().unwrap();
        let error = reader.unsupported("a").unwrap_err();
        assert_eq!(error.kind(), ConfigErrorKind::Unsupported);
        assert_eq!(error.path(), "decision_logs.a");
        for key in ["b", "c", "d"] {
            assert_eq!(reader.unsupported(key), Ok(()), "{key}");
        }
    }

    #[test]
    fn missing_options_are_named() {
        let section = section(json!({}));
        let error = section.reader().unwrap().missing("service", "a string");
        assert_eq!(
            error.to_string(),
            "decision_logs.service: expected a string, found nothing"
        );
    }
}
