//! A configuration file, filled for one app.

use std::fmt;
use std::sync::Arc;

use super::error::Warning;
use super::field::Field;
use super::node::Node;

/// A configuration file with its placeholders filled for one app.
#[derive(Clone)]
pub struct Document {
    file: Arc<str>,
    app: Box<str>,
    root: Node,
    warnings: Vec<Warning>,
}

impl Document {
    pub(crate) fn new(file: Arc<str>, app: &str, root: Node, warnings: Vec<Warning>) -> Self {
        // As in OPA, an empty file is an object without options.
        let root = root.or_empty_object();
        Self {
            file,
            app: app.into(),
            root,
            warnings,
        }
    }

    /// The app.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.app
    }

    /// Placeholders that were left as they are, because their variable is unset or forbidden.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// The whole document.
    #[must_use]
    pub fn field(&self) -> Field<'_> {
        Field::new(Some(&self.file), String::new(), &self.root)
    }

    /// The document as JSON.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.root.to_json()
    }
}

/// Shows the place only: values may be secrets.
impl fmt::Debug for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Document")
            .field("file", &self.file)
            .field("app", &self.app)
            .finish_non_exhaustive()
    }
}
