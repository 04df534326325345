//! A part of the configuration that a plugin reads.

use std::fmt;
use std::sync::Arc;

use super::error::{ConfigError, Location};
use super::field::Field;
use super::node::{Node, Value};
use super::reader::Reader;

/// The configuration of one plugin, with the places that its errors point to.
///
/// Clones share the contents. See the [module docs](super) for how to read one.
#[derive(Clone)]
pub struct Section {
    file: Option<Arc<str>>,
    path: String,
    node: Node,
}

impl Section {
    pub(crate) fn new(field: &Field<'_>) -> Self {
        // OPA hands `null` to a plugin as a configuration without options.
        let node = field.node().clone().or_empty_object();
        Self {
            file: field.file().cloned(),
            path: field.path().to_owned(),
            node,
        }
    }

    /// A section that was not read from a file.
    #[must_use]
    pub fn from_json(path: impl Into<String>, value: &serde_json::Value) -> Self {
        Self {
            file: None,
            path: path.into(),
            node: Node::from_json(value),
        }
    }

    /// The dotted path of the section, such as `decision_logs` or `plugins.example`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The whole section as one value.
    #[must_use]
    pub fn field(&self) -> Field<'_> {
        Field::new(self.file.as_ref(), self.path.clone(), &self.node)
    }

    /// A reader of the section's options.
    ///
    /// # Errors
    /// The section isn't an object.
    pub fn reader(&self) -> Result<Reader<'_>, ConfigError> {
        self.field().reader()
    }

    /// The section without some of its options, for whoever reads only the others.
    #[must_use]
    pub fn without(mut self, options: &[&str]) -> Self {
        if let Value::Object(entries) = &self.node.value {
            let others = entries.iter().filter(|it| !options.contains(&&*it.key));
            self.node.value = Value::Object(others.cloned().collect());
        }
        self
    }

    /// The section as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.node.to_json()
    }

    /// An error about the section as a whole.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        self.field().error(message)
    }

    /// The error for a section that nothing acts on.
    #[must_use]
    pub fn unsupported(&self) -> ConfigError {
        self.field().unsupported()
    }

    /// The error for a plugin that nobody registered, in OPA's words.
    #[must_use]
    pub fn not_registered(&self, name: &str) -> ConfigError {
        self.error(format!("plugin \"{name}\" not registered"))
    }
}

/// Sections are equal that say the same, wherever they stand in a file.
impl PartialEq for Section {
    fn eq(&self, other: &Self) -> bool {
        self.path == other.path && self.node.is_same(&other.node)
    }
}

/// Shows the place only: values may be secrets.
impl fmt::Debug for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let location = Location {
            file: self.file.clone(),
            position: self.node.position,
            path: self.path.clone(),
        };
        write!(f, "Section({location}…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_part_is_read_by_somebody_else() {
        let section =
            Section::from_json("logs", &json!({"outputs": [{"type": "x", "a": 1}, null]}));
        let mut reader = section.reader().unwrap();
        let outputs = reader.field("outputs").unwrap();
        let outputs: Vec<_> = outputs.items().unwrap().map(|it| it.section()).collect();
        let rest = outputs[0].clone().without(&["type"]);
        assert_eq!(rest.path(), "logs.outputs.0");
        assert_eq!(rest.to_json(), json!({"a": 1}));
        assert_eq!(rest.reader().unwrap().finish().unwrap().len(), 1);
        assert_eq!(outputs[1].to_json(), json!({}));
    }
}
