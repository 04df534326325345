//! The parsed template: a tree whose scalars and keys may still hold placeholders.

use std::collections::HashMap;
use std::sync::Arc;

use super::scalar;
use crate::config::error::Position;
use crate::config::node::{Entry, Node, Value};

/// A node of a template. What holds no placeholder is finished and shared by all apps.
pub(crate) enum Tree {
    Const(Node),
    Scalar(Scalar),
    Array {
        items: Vec<Arc<Tree>>,
        position: Position,
    },
    Object(ObjectTree),
}

/// A scalar with at least one placeholder.
#[derive(Clone)]
pub(crate) struct Scalar {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) typing: Typing,
    pub(crate) position: Position,
}

#[derive(Clone)]
pub(crate) enum Piece {
    Text(Box<str>),
    /// The index of a placeholder.
    Placeholder(usize),
}

/// What a scalar's text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Typing {
    /// Quoted, a block, or tagged `!!str`: always a string.
    String,
    /// Unquoted: whatever the core schema says.
    Plain,
    /// An override: whatever OPA's flag says.
    Override,
    /// Tagged: what the core schema says, and it has to be this.
    Tagged(ScalarKind),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalarKind {
    Null,
    Bool,
    Integer,
    Float,
}

/// An object with a placeholder somewhere in it.
pub(crate) struct ObjectTree {
    pub(crate) entries: Vec<(Key, Arc<Tree>)>,
    /// The values of its merge keys (`<<`), in order.
    pub(crate) merges: Vec<Arc<Tree>>,
    pub(crate) position: Position,
}

pub(crate) struct Key {
    pub(crate) text: KeyText,
    pub(crate) position: Position,
}

pub(crate) enum KeyText {
    Const(Arc<str>),
    Filled(Scalar),
}

/// A defect at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Defect {
    pub(crate) position: Option<Position>,
    pub(crate) message: String,
}

impl Defect {
    pub(crate) fn new(position: impl Into<Option<Position>>, message: impl Into<String>) -> Self {
        Self {
            position: position.into(),
            message: message.into(),
        }
    }
}

impl Typing {
    /// The value of a scalar's text.
    pub(crate) fn value(self, text: &str) -> Result<Value, String> {
        let Self::Tagged(kind) = self else {
            return match self {
                Self::Plain => scalar::plain(text),
                Self::Override => Ok(scalar::of_flag(text)),
                _ => Ok(Value::String(text.into())),
            };
        };
        let value = scalar::plain(text)?;
        let fits = match (&value, kind) {
            (Value::Null, ScalarKind::Null)
            | (Value::Bool(_), ScalarKind::Bool)
            | (Value::Number(_), ScalarKind::Float) => true,
            (Value::Number(number), ScalarKind::Integer) => !number.is_f64(),
            _ => false,
        };
        if fits {
            Ok(value)
        } else {
            Err(format!("expected {}", kind.describe()))
        }
    }
}

impl ScalarKind {
    fn describe(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Integer => "an integer",
            Self::Float => "a number",
        }
    }
}

/// An array, finished if it holds no placeholder.
pub(crate) fn finish_array(items: Vec<Arc<Tree>>, position: Position) -> Tree {
    let constant: Option<Arc<[Node]>> = items.iter().map(|item| constant(item)).collect();
    match constant {
        Some(items) => Tree::Const(Node {
            value: Value::Array(items),
            position: Some(position),
            per_app: false,
            flag: None,
        }),
        None => Tree::Array { items, position },
    }
}

/// An object, put together now if it holds no placeholder.
pub(crate) fn finish_object(tree: ObjectTree) -> Result<Tree, Defect> {
    let entries: Option<Vec<Entry>> = tree
        .entries
        .iter()
        .map(|(key, value)| {
            let KeyText::Const(text) = &key.text else {
                return None;
            };
            let key_position = Some(key.position);
            Some(Entry {
                key: text.clone(),
                key_position,
                node: constant(value)?,
            })
        })
        .collect();
    let merges: Option<Vec<Node>> = tree.merges.iter().map(|merge| constant(merge)).collect();
    match (entries, merges) {
        (Some(entries), Some(merges)) => object(entries, &merges, tree.position).map(Tree::Const),
        _ => Ok(Tree::Object(tree)),
    }
}

fn constant(tree: &Tree) -> Option<Node> {
    match tree {
        Tree::Const(node) => Some(node.clone()),
        _ => None,
    }
}

/// A key in JSON, where keys are strings; other scalars become their text, as in OPA.
pub(crate) fn key_text(value: &Value) -> Result<Arc<str>, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Bool(value) => Ok(value.to_string().into()),
        Value::Number(number) => Ok(number.to_string().into()),
        other => Err(format!(
            "expected a string as key, found {}",
            other.describe()
        )),
    }
}

/// Puts an object together. Its own members win over merged ones, earlier merges over later ones.
pub(crate) fn object(
    entries: Vec<Entry>,
    merges: &[Node],
    position: Position,
) -> Result<Node, Defect> {
    let mut first: HashMap<Arc<str>, Option<Position>> = HashMap::with_capacity(entries.len());
    for entry in &entries {
        if let Some(earlier) = first.insert(entry.key.clone(), entry.key_position) {
            let line = earlier.map_or(0, |position| position.line);
            let message = format!("key `{}` is defined twice, first on line {line}", entry.key);
            return Err(Defect::new(entry.key_position, message));
        }
    }
    let mut all = entries;
    for source in merges {
        for entry in merged(source)? {
            if !first.contains_key(&entry.key) {
                first.insert(entry.key.clone(), entry.key_position);
                all.push(entry.clone());
            }
        }
    }
    Ok(Node {
        value: Value::Object(all.into()),
        position: Some(position),
        per_app: false,
        flag: None,
    })
}

/// The members that a merge key brings, those of earlier objects first.
fn merged(source: &Node) -> Result<Vec<&Entry>, Defect> {
    // The words of Go's YAML library.
    let refuse = || {
        let message = "map merge requires map or sequence of maps as the value";
        Defect::new(source.position, message)
    };
    match &source.value {
        Value::Object(entries) => Ok(entries.iter().collect()),
        Value::Array(items) => items
            .iter()
            .map(|item| match &item.value {
                Value::Object(entries) => Ok(entries.iter()),
                _ => Err(refuse()),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(|objects| objects.into_iter().flatten().collect()),
        _ => Err(refuse()),
    }
}
