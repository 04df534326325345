//! Reads data files in YAML.
//!
//! As OPA: JSON is tried first and keeps the text of its numbers; scalars of YAML are read by the
//! rules in [`scalar`]; anchors, aliases and merge keys (`<<`) work; the last of equal keys wins.
//! Other than OPA, tags beyond the core schema and more than one document are errors and not
//! ignored, and what aliases may blow a document up to is bounded.

use std::collections::HashMap;
use std::fmt;

use opa_rego::Value;
use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};

use scalar::{Scalar, resolve};
use tag::{check_collection, is_non_specific, tagged};

mod scalar;
mod tag;

/// How deep collections may nest, as in JSON.
const MAX_DEPTH: usize = 10_000;

/// What all aliases together may add to a document: one for each value, one for each byte of
/// text. Shared values cost little here, but a policy may walk over every copy.
const MAX_ALIASED: usize = 16 << 20;

/// What is wrong with a document, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct YamlError {
    line: usize,
    column: usize,
    message: String,
}

/// Reads one document. An empty one is null.
pub(super) fn read(text: &str) -> Result<Value, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if let Ok(value) = Value::from_json(text.as_bytes()) {
        return Ok(value);
    }
    let mut composer = Composer::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| fault(error.marker(), error.info()))?;
        composer
            .take(event)
            .map_err(|message| fault(&span.start, &message))?;
    }
    Ok(composer.document.unwrap_or_default().value)
}

/// Builds values from the events of the parser with a stack of its own.
#[derive(Default)]
struct Composer {
    open: Vec<Collection>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    document: Option<Node>,
}

/// A finished value.
#[derive(Clone, Default)]
struct Node {
    value: Value,
    /// The key that it would make.
    key: Option<Result<String, &'static str>>,
    /// Whether it is an unquoted `<<`.
    merge: bool,
    /// The number of values and bytes of text in it, aliases followed.
    weight: usize,
}

/// A list or an object that is not finished.
struct Collection {
    anchor: usize,
    weight: usize,
    items: Items,
}

enum Items {
    List(Vec<Value>),
    Object {
        entries: Vec<(Value, Value)>,
        merged: Vec<Value>,
        key: Option<Key>,
    },
}

enum Key {
    Name(String),
    Merge,
}

impl Composer {
    fn take(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let node = scalar_node(&text, style, tag.as_deref())?;
                self.finish(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                check_collection(tag.as_deref(), "seq")?;
                self.start(anchor, Items::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                check_collection(tag.as_deref(), "map")?;
                let items = Items::Object {
                    entries: Vec::new(),
                    merged: Vec::new(),
                    key: None,
                };
                self.start(anchor, items)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let node = self.alias(anchor)?;
                self.finish(node, 0)
            }
            Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::StreamStart
            | Event::StreamEnd
            | Event::Nothing => Ok(()),
        }
    }

    fn start(&mut self, anchor: usize, items: Items) -> Result<(), String> {
        if self.open.len() == MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.open.push(Collection {
            anchor,
            weight: 1,
            items,
        });
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        let Some(collection) = self.open.pop() else {
            return Ok(());
        };
        let value = match collection.items {
            Items::List(items) => Value::array(items),
            Items::Object {
                entries, merged, ..
            } => object(entries, &merged),
        };
        let node = Node {
            value,
            weight: collection.weight,
            ..Node::default()
        };
        self.finish(node, collection.anchor)
    }

    fn alias(&mut self, anchor: usize) -> Result<Node, String> {
        let node = self
            .anchors
            .get(&anchor)
            .ok_or("an alias inside of the value that it refers to")?;
        self.aliased = self.aliased.saturating_add(node.weight);
        if self.aliased > MAX_ALIASED {
            return Err("aliases blow the document up too far".to_owned());
        }
        Ok(node.clone())
    }

    /// Hands a finished value to its anchor and to the collection that it is in.
    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), String> {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(parent) = self.open.last_mut() else {
            return self.root(node);
        };
        parent.weight = parent.weight.saturating_add(node.weight);
        match &mut parent.items {
            Items::List(items) => items.push(node.value),
            Items::Object {
                entries,
                merged,
                key,
            } => match key.take() {
                None => *key = Some(node.into_key()?),
                Some(Key::Name(name)) => entries.push((Value::from(name), node.value)),
                Some(Key::Merge) => merge_sources(node.value, merged)?,
            },
        }
        Ok(())
    }

    fn root(&mut self, node: Node) -> Result<(), String> {
        if self.document.is_none() {
            self.document = Some(node);
        } else if !node.value.is_null() {
            return Err("more than one document".to_owned());
        }
        Ok(())
    }
}

impl Node {
    fn into_key(self) -> Result<Key, String> {
        if self.merge {
            return Ok(Key::Merge);
        }
        match self.key {
            Some(Ok(name)) => Ok(Key::Name(name)),
            Some(Err(expected)) => Err(format!("expected {expected}")),
            None => Err("expected a scalar as key".to_owned()),
        }
    }
}

/// An object with what its merge keys bring: its own members win, then the earlier source.
fn object(entries: Vec<(Value, Value)>, merged: &[Value]) -> Value {
    if merged.is_empty() {
        return Value::object(entries);
    }
    let inherited = merged.iter().rev().filter_map(Value::as_object);
    let inherited = inherited.flat_map(|source| {
        source
            .iter()
            .map(|(key, value)| (key.clone(), value.clone()))
    });
    Value::object(inherited.chain(entries).collect::<Vec<_>>())
}

fn merge_sources(value: Value, merged: &mut Vec<Value>) -> Result<(), String> {
    let sources = match value.as_array() {
        Some(sources) => sources.to_vec(),
        None => vec![value],
    };
    if sources.iter().any(|source| source.as_object().is_none()) {
        return Err("expected an object or a list of objects for `<<`".to_owned());
    }
    merged.extend(sources);
    Ok(())
}

fn scalar_node(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Node, String> {
    let plain = style == ScalarStyle::Plain && tag.is_none();
    let scalar = match tag.filter(|tag| !is_non_specific(tag)) {
        None if style == ScalarStyle::Plain => resolve(text),
        None => Scalar::Text,
        Some(tag) => tagged(text, tag)?,
    };
    let value = scalar
        .to_value(text)
        .map_err(|expected| format!("`{text}` is not {expected}"));
    Ok(Node {
        // A key may be `.nan`, a value may not.
        key: Some(scalar.to_key(text)),
        merge: plain && text == "<<",
        weight: text.len().saturating_add(1),
        value: value?,
    })
}

fn fault(at: &Marker, message: &str) -> YamlError {
    YamlError {
        line: at.line(),
        column: at.col() + 1,
        message: message.to_owned(),
    }
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            message,
        } = self;
        write!(f, "yaml: line {line}, column {column}: {message}")
    }
}

impl std::error::Error for YamlError {}

#[cfg(test)]
mod tests;
