//! What is wrong with a configuration, and where.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

/// A place in a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line, counted from 1.
    pub line: u32,
    /// The column in characters, counted from 1.
    pub column: u32,
}

/// Where a message belongs: file, position, and the dotted path of the option.
///
/// Each part may be unknown, for instance the position of an option that is missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) file: Option<Arc<str>>,
    pub(crate) position: Option<Position>,
    pub(crate) path: String,
}

impl fmt::Display for Location {
    /// Writes `file:line:column: path: `, leaving out what is unknown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.position) {
            (Some(file), Some(at)) => write!(f, "{file}:{}:{}: ", at.line, at.column)?,
            (Some(file), None) => write!(f, "{file}: ")?,
            (None, _) => {}
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        Ok(())
    }
}

/// The class of a [`ConfigError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConfigErrorKind {
    /// The file can't be read.
    Io,
    /// The file isn't one well-formed YAML document within the documented bounds.
    Syntax,
    /// A `{{ … }}` action that isn't one of the two placeholders, or a placeholder in a place
    /// that can't be filled.
    Placeholder,
    /// An environment variable is unset or not on the allow-list.
    Variable,
    /// An option has the wrong type or a value that makes no sense.
    Invalid,
    /// An option that OPA knows and this version doesn't act on.
    Unsupported,
    /// No Tokio runtime is running where one is needed.
    NoRuntime,
    /// The manager is shut down.
    Closed,
}

/// Why a configuration was refused.
///
/// `Display` is `file:line:column: path: message`, for instance
/// ``opa.yaml:12:5: services.acmecorp.url: expected a string, found a number``. Values of the
/// sections that may hold secrets (`services`, `keys`, `credentials`) are never part of it, but for
/// the name of an algorithm that is none.
///
/// The struct is opaque so that more can be told about an error later; [`kind`](Self::kind) is
/// what programs branch on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Box<Inner>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Inner {
    kind: ConfigErrorKind,
    location: Location,
    message: String,
}

impl ConfigError {
    /// An error that belongs to no place in a file. Errors about an option are made by
    /// [`Field::error`](super::Field::error) and its neighbours.
    #[must_use]
    pub fn new(kind: ConfigErrorKind, message: impl Into<String>) -> Self {
        Self::at(kind, Location::default(), message)
    }

    /// An error at a place in a file.
    pub(crate) fn at(
        kind: ConfigErrorKind,
        location: Location,
        message: impl Into<String>,
    ) -> Self {
        Self(Box::new(Inner {
            kind,
            location,
            message: message.into(),
        }))
    }

    /// Puts what the message is about before it.
    pub(crate) fn about(mut self, subject: &str) -> Self {
        self.0.message = format!("{subject}: {}", self.0.message);
        self
    }

    /// The class of the error.
    #[must_use]
    pub fn kind(&self) -> ConfigErrorKind {
        self.0.kind
    }

    /// The name of the configuration file, as it was given to
    /// [`Template::parse`](super::Template::parse).
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.0.location.file.as_deref()
    }

    /// The position in the file.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.0.location.position
    }

    /// The dotted path of the option, such as `services.acmecorp.url`; empty for errors that
    /// concern the whole file.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.0.location.path
    }

    /// What is wrong, without the place.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.0.location, self.0.message)
    }
}

impl Error for ConfigError {}

/// Something in a configuration that deserves attention but doesn't prevent its use.
///
/// `Display` has the same form as that of [`ConfigError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    location: Location,
    message: String,
}

impl Warning {
    pub(crate) fn at(location: Location, message: impl Into<String>) -> Self {
        Self {
            location,
            message: message.into(),
        }
    }

    /// OPA's text for an option that it doesn't know (since OPA 1.19).
    pub(crate) fn unknown_option(location: Location) -> Self {
        let message = format!(
            "unknown configuration option \"{}\" encountered",
            location.path
        );
        Self::at(location, message)
    }

    /// The name of the configuration file.
    #[must_use]
    pub fn file(&self) -> Option<&str> {
        self.location.file.as_deref()
    }

    /// The position in the file.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.location.position
    }

    /// The dotted path of the option.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.location.path
    }

    /// The warning itself, in OPA's words where OPA has the same warning.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.location, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location() -> Location {
        Location {
            file: Some("opa.yaml".into()),
            position: Some(Position {
                line: 12,
                column: 5,
            }),
            path: "services.acmecorp.url".to_owned(),
        }
    }

    #[test]
    fn display_names_file_position_and_path() {
        let error = ConfigError::at(ConfigErrorKind::Invalid, location(), "expected a string");
        assert_eq!(
            error.to_string(),
            "opa.yaml:12:5: services.acmecorp.url: expected a string"
        );
    }

    #[test]
    fn display_leaves_out_what_is_unknown() {
        let bare = ConfigError::new(ConfigErrorKind::NoRuntime, "no Tokio runtime");
        assert_eq!(bare.to_string(), "no Tokio runtime");
        let unplaced = Location {
            position: None,
            ..location()
        };
        assert_eq!(
            ConfigError::at(ConfigErrorKind::Invalid, unplaced, "missing").to_string(),
            "opa.yaml: services.acmecorp.url: missing"
        );
    }

    #[test]
    fn unknown_options_are_reported_in_the_words_of_opa() {
        let warning = Warning::unknown_option(location());
        assert_eq!(
            warning.message(),
            "unknown configuration option \"services.acmecorp.url\" encountered"
        );
    }
}
