//! Fills a template for one app.

use std::sync::Arc;

use super::placeholder::{Placeholder, Placeholders};
use super::scan::Kind;
use super::tree::{
    Defect, Key, KeyText, ObjectTree, Piece, Scalar, Tree, Typing, key_text, object,
};
use crate::config::env::{EnvPolicy, Lookedup};
use crate::config::error::{ConfigError, ConfigErrorKind, Location, Position, Warning};
use crate::config::field::join;
use crate::config::node::{Entry, Node, Value};

/// How many bytes a document's filled scalars may have in all.
const MAX_FILLED: usize = 32 << 20;

/// Fills the tree for `app`.
pub(crate) fn render(
    tree: Option<&Tree>,
    placeholders: &Placeholders,
    file: &Arc<str>,
    app: &str,
    env: &EnvPolicy,
) -> Result<(Node, Vec<Warning>), ConfigError> {
    let mut renderer = Renderer::new(placeholders, file, app, env);
    let root = match tree {
        Some(tree) => renderer.node(tree, &Place::root())?,
        None => Node {
            value: Value::Null,
            position: None,
            per_app: false,
            flag: None,
        },
    };
    Ok((root, renderer.warnings))
}

/// Where a node stands.
pub(super) struct Place {
    path: String,
    /// A placeholder without a value is an error here.
    strict: bool,
}

impl Place {
    pub(super) fn root() -> Self {
        Self {
            path: String::new(),
            strict: false,
        }
    }

    /// `services`, `keys` and everything named `credentials` hold what a control plane is reached
    /// and trusted by. A placeholder left in there would fail much later, or be sent to somebody.
    pub(super) fn member(&self, key: &str) -> Self {
        let is_root = self.path.is_empty();
        let strict = self.strict
            || key == "credentials"
            || (is_root && (key == "services" || key == "keys"));
        Self {
            path: join(&self.path, key),
            strict,
        }
    }

    pub(super) fn item(&self, index: usize) -> Self {
        Self {
            path: join(&self.path, &index.to_string()),
            strict: self.strict,
        }
    }
}

pub(super) struct Renderer<'r> {
    placeholders: &'r Placeholders,
    file: &'r Arc<str>,
    app: &'r str,
    env: &'r EnvPolicy,
    /// What each variable was found to be: a document is filled from one state of the
    /// environment, and a lookup is made once.
    found: Vec<Option<Arc<Lookedup>>>,
    /// Bytes filled in so far.
    filled: usize,
    pub(super) warnings: Vec<Warning>,
}

/// The text of a scalar.
struct Filled {
    text: String,
    per_app: bool,
}

impl<'r> Renderer<'r> {
    pub(super) fn new(
        placeholders: &'r Placeholders,
        file: &'r Arc<str>,
        app: &'r str,
        env: &'r EnvPolicy,
    ) -> Self {
        Self {
            placeholders,
            file,
            app,
            env,
            found: vec![None; placeholders.len()],
            filled: 0,
            warnings: Vec::new(),
        }
    }
}

impl Renderer<'_> {
    fn node(&mut self, tree: &Tree, place: &Place) -> Result<Node, ConfigError> {
        match tree {
            Tree::Const(node) => Ok(node.clone()),
            Tree::Scalar(scalar) => self.scalar(scalar, place),
            Tree::Array { items, position } => {
                let items = items
                    .iter()
                    .enumerate()
                    .map(|(index, item)| self.node(item, &place.item(index)))
                    .collect::<Result<Arc<[Node]>, _>>()?;
                Ok(Node {
                    value: Value::Array(items),
                    position: Some(*position),
                    per_app: false,
                    flag: None,
                })
            }
            Tree::Object(tree) => self.object(tree, place),
        }
    }

    fn object(&mut self, tree: &ObjectTree, place: &Place) -> Result<Node, ConfigError> {
        let mut entries = Vec::with_capacity(tree.entries.len());
        for (key, value) in &tree.entries {
            let text = self.key(key, place)?;
            let node = self.node(value, &place.member(&text))?;
            entries.push(Entry {
                key: text,
                key_position: Some(key.position),
                node,
            });
        }
        // Merged members stand in this object, so they are filled as its own are.
        let merges = tree
            .merges
            .iter()
            .map(|merge| self.merge(merge, place))
            .collect::<Result<Vec<_>, _>>()?;
        object(entries, &merges, tree.position).map_err(|defect| self.invalid(defect, place))
    }

    fn merge(&mut self, tree: &Tree, place: &Place) -> Result<Node, ConfigError> {
        let Tree::Array { items, position } = tree else {
            return self.node(tree, place);
        };
        let items = items
            .iter()
            .map(|item| self.node(item, place))
            .collect::<Result<Arc<[Node]>, _>>()?;
        Ok(Node {
            value: Value::Array(items),
            position: Some(*position),
            per_app: false,
            flag: None,
        })
    }

    pub(super) fn scalar(&mut self, scalar: &Scalar, place: &Place) -> Result<Node, ConfigError> {
        let filled = self.fill(scalar, place)?;
        let value = scalar
            .typing
            .value(&filled.text)
            .map_err(|message| self.invalid(Defect::new(scalar.position, message), place))?;
        Ok(Node {
            value,
            position: Some(scalar.position),
            per_app: filled.per_app,
            flag: None,
        })
    }

    pub(super) fn key(&mut self, key: &Key, place: &Place) -> Result<Arc<str>, ConfigError> {
        let scalar = match &key.text {
            KeyText::Const(text) => return Ok(text.clone()),
            KeyText::Filled(scalar) => scalar,
        };
        let filled = self.fill(scalar, place)?;
        scalar
            .typing
            .value(&filled.text)
            .and_then(|value| key_text(&value))
            .map_err(|message| self.invalid(Defect::new(key.position, message), place))
    }

    /// The text with its placeholders filled in. Values are never searched for placeholders.
    fn fill(&mut self, scalar: &Scalar, place: &Place) -> Result<Filled, ConfigError> {
        let mut text = String::new();
        let mut per_app = false;
        for piece in &scalar.pieces {
            match piece {
                Piece::Text(piece) => text.push_str(piece),
                Piece::Placeholder(index) => {
                    let Some(placeholder) = self.placeholders.get(*index) else {
                        continue;
                    };
                    match &placeholder.kind {
                        Kind::App => {
                            text.push_str(self.app);
                            per_app = true;
                        }
                        Kind::Env(name) => {
                            self.variable(*index, placeholder, name, place, &mut text)?
                        }
                        // Refused when the template was parsed.
                        Kind::Unknown => text.push_str(&placeholder.source),
                    }
                }
            }
        }
        self.filled = self.filled.saturating_add(text.len());
        if self.filled > MAX_FILLED {
            let message = format!("the filled placeholders add up to more than {MAX_FILLED} bytes");
            return Err(self.invalid(Defect::new(scalar.position, message), place));
        }
        // White space around an unquoted word is never part of it.
        if !matches!(scalar.typing, Typing::String | Typing::Override) {
            text = text.trim_matches([' ', '\t', '\r', '\n']).to_owned();
        }
        Ok(Filled { text, per_app })
    }

    fn variable(
        &mut self,
        index: usize,
        placeholder: &Placeholder,
        name: &str,
        place: &Place,
        text: &mut String,
    ) -> Result<(), ConfigError> {
        let problem = match &*self.look_up(index, name) {
            Lookedup::Value(value) => {
                text.push_str(value);
                return Ok(());
            }
            Lookedup::Unset => "is not set",
            Lookedup::Forbidden => "is not on the list of variables that may be read",
            Lookedup::NotUtf8 => "is not valid UTF-8",
        };
        let message = format!("environment variable `{name}` {problem}");
        let location = self.location(placeholder.position, place);
        if place.strict {
            return Err(ConfigError::at(
                ConfigErrorKind::Variable,
                location,
                message,
            ));
        }
        let message = format!("{message}; `{}` stays as it is", placeholder.source);
        self.warnings.push(Warning::at(location, message));
        text.push_str(&placeholder.source);
        Ok(())
    }

    fn look_up(&mut self, index: usize, name: &str) -> Arc<Lookedup> {
        match self.found.get_mut(index) {
            Some(found) => found
                .get_or_insert_with(|| Arc::new(self.env.get(name)))
                .clone(),
            None => Arc::new(self.env.get(name)),
        }
    }

    fn location(&self, position: Position, place: &Place) -> Location {
        Location {
            file: Some(self.file.clone()),
            position: Some(position),
            path: place.path.clone(),
        }
    }

    pub(super) fn invalid(&self, defect: Defect, place: &Place) -> ConfigError {
        let location = Location {
            file: Some(self.file.clone()),
            position: defect.position,
            path: place.path.clone(),
        };
        ConfigError::at(ConfigErrorKind::Invalid, location, defect.message)
    }
}
