//! Builds the template tree from its nodes, within bounds.

use std::collections::HashMap;
use std::sync::Arc;

use super::placeholder::Placeholders;
use super::tree::{
    Defect, Key, KeyText, ObjectTree, Piece, Tree, finish_array, finish_object, key_text,
};
use crate::config::error::Position;

/// Arrays and objects may be nested this deep. It bounds every recursion over a configuration.
const MAX_DEPTH: usize = 128;

/// How many bytes a document may expand to by its aliases: more than a file within its size limit
/// has without them.
const MAX_EXPANDED: usize = 128 << 20;

/// What a node counts besides its text.
const NODE_WEIGHT: usize = 16;

/// Takes nodes in the order of the document.
#[derive(Default)]
pub(crate) struct Builder {
    frames: Vec<Frame>,
    anchors: HashMap<usize, Built>,
    root: Option<Built>,
}

/// A finished node, with what it costs to expand it and how deep it is.
#[derive(Clone)]
pub(crate) struct Built {
    pub(crate) tree: Arc<Tree>,
    weight: usize,
    depth: usize,
}

/// An array or object that is being read.
struct Frame {
    position: Position,
    anchor: usize,
    weight: usize,
    depth: usize,
    content: Content,
}

pub(crate) enum Content {
    Array(Vec<Arc<Tree>>),
    Object {
        object: ObjectTree,
        key: Option<PendingKey>,
    },
}

/// A key whose value comes next.
pub(crate) enum PendingKey {
    Merge,
    Key(Key),
}

impl Built {
    pub(crate) fn scalar(tree: Tree, text: &str) -> Self {
        let weight = text.len().saturating_add(NODE_WEIGHT);
        Self {
            tree: Arc::new(tree),
            weight,
            depth: 0,
        }
    }
}

impl Content {
    pub(crate) fn array() -> Self {
        Self::Array(Vec::new())
    }

    pub(crate) fn object(position: Position) -> Self {
        let object = ObjectTree {
            entries: Vec::new(),
            merges: Vec::new(),
            position,
        };
        Self::Object { object, key: None }
    }
}

impl Builder {
    /// The document, if it isn't empty.
    pub(crate) fn finish(self) -> Option<Arc<Tree>> {
        self.root.map(|built| built.tree)
    }

    /// Takes a merge key (`<<`).
    pub(crate) fn merge_key(&mut self) {
        self.set_key(PendingKey::Merge);
    }

    /// Takes what stands at an anchor once more.
    pub(crate) fn alias(&mut self, anchor: usize, position: Position) -> Result<(), Defect> {
        match self.anchors.get(&anchor).cloned() {
            Some(built) => self.node(built, 0, position),
            None => Err(Defect::new(
                position,
                "an anchor can't contain an alias to itself",
            )),
        }
    }

    /// Takes a finished node: as key, member, item or document.
    pub(crate) fn node(
        &mut self,
        built: Built,
        anchor: usize,
        position: Position,
    ) -> Result<(), Defect> {
        if anchor != 0 {
            self.anchors.insert(anchor, built.clone());
        }
        if self.frames.len().saturating_add(built.depth) > MAX_DEPTH {
            return Err(too_deep(position));
        }
        if self.wants_key() {
            let key = Key {
                text: key_of(&built.tree, position)?,
                position,
            };
            self.add_weight(built.weight, position)?;
            self.set_key(PendingKey::Key(key));
            return Ok(());
        }
        self.add_weight(built.weight, position)?;
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(built);
            return Ok(());
        };
        frame.depth = frame.depth.max(built.depth.saturating_add(1));
        match &mut frame.content {
            Content::Array(items) => items.push(built.tree),
            Content::Object { object, key } => match key.take() {
                Some(PendingKey::Key(key)) => object.entries.push((key, built.tree)),
                // A key is pending, else this node would have been taken as one.
                Some(PendingKey::Merge) | None => object.merges.push(built.tree),
            },
        }
        Ok(())
    }

    /// Begins an array or object.
    pub(crate) fn open(
        &mut self,
        content: Content,
        anchor: usize,
        position: Position,
    ) -> Result<(), Defect> {
        if self.wants_key() {
            let found = match content {
                Content::Array(_) => "an array",
                Content::Object { .. } => "an object",
            };
            return Err(Defect::new(
                position,
                format!("expected a string as key, found {found}"),
            ));
        }
        if self.frames.len() >= MAX_DEPTH {
            return Err(too_deep(position));
        }
        self.frames.push(Frame {
            position,
            anchor,
            weight: NODE_WEIGHT,
            depth: 0,
            content,
        });
        Ok(())
    }

    /// Ends the innermost array or object.
    pub(crate) fn close(&mut self, position: Position) -> Result<(), Defect> {
        let Some(frame) = self.frames.pop() else {
            return Ok(());
        };
        let tree = match frame.content {
            Content::Array(items) => finish_array(items, frame.position),
            Content::Object { object, .. } => finish_object(object)?,
        };
        let depth = frame.depth.max(1);
        let built = Built {
            tree: Arc::new(tree),
            weight: frame.weight,
            depth,
        };
        self.node(built, frame.anchor, position)
    }

    /// Whether the next node is a key.
    pub(crate) fn wants_key(&self) -> bool {
        let content = self.frames.last().map(|frame| &frame.content);
        matches!(content, Some(Content::Object { key: None, .. }))
    }

    fn set_key(&mut self, pending: PendingKey) {
        if let Some(Frame {
            content: Content::Object { key, .. },
            ..
        }) = self.frames.last_mut()
        {
            *key = Some(pending);
        }
    }

    fn add_weight(&mut self, weight: usize, position: Position) -> Result<(), Defect> {
        let Some(frame) = self.frames.last_mut() else {
            return Ok(());
        };
        frame.weight = frame.weight.saturating_add(weight);
        if frame.weight > MAX_EXPANDED {
            let message = format!("the document expands to more than {MAX_EXPANDED} bytes");
            return Err(Defect::new(position, message));
        }
        Ok(())
    }

    /// The dotted path of what is being read.
    pub(crate) fn path(&self, placeholders: &Placeholders) -> String {
        let segments: Vec<String> = self
            .frames
            .iter()
            .filter_map(|frame| match &frame.content {
                Content::Array(items) => Some(items.len().to_string()),
                Content::Object {
                    key: Some(PendingKey::Key(key)),
                    ..
                } => Some(key_path(key, placeholders)),
                Content::Object { .. } => None,
            })
            .collect();
        segments.join(".")
    }
}

fn key_of(tree: &Tree, position: Position) -> Result<KeyText, Defect> {
    match tree {
        Tree::Const(node) => key_text(&node.value)
            .map(KeyText::Const)
            .map_err(|message| Defect::new(position, message)),
        Tree::Scalar(scalar) => Ok(KeyText::Filled(scalar.clone())),
        Tree::Array { .. } => Err(Defect::new(
            position,
            "expected a string as key, found an array",
        )),
        Tree::Object(_) => Err(Defect::new(
            position,
            "expected a string as key, found an object",
        )),
    }
}

/// The key as it was written.
fn key_path(key: &Key, placeholders: &Placeholders) -> String {
    match &key.text {
        KeyText::Const(text) => text.to_string(),
        KeyText::Filled(scalar) => scalar
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text,
                Piece::Placeholder(index) => placeholders.get(*index).map_or("", |p| &*p.source),
            })
            .collect(),
    }
}

pub(crate) fn too_deep(position: Position) -> Defect {
    Defect::new(
        position,
        format!("expected at most {MAX_DEPTH} levels of nesting"),
    )
}
