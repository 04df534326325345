//! Changes a tree of data without touching it: what an operation reaches is opened up, all else is
//! shared with what was there.

mod fault;
mod node;

use opa_rego::Value;

use self::fault::{NOT_FOUND, check_depth, conflict, existing_item, index, is_end, no_item};
pub(super) use self::node::size;
use self::node::{Node, Slot, finish, has};
use super::patch::{Operation, Verb};

/// Operations inside of arrays move the items behind them. All of them together may move this many,
/// which takes about a second; a patch that asks for more is refused.
const MAX_MOVED: u64 = 1 << 28;

/// A tree of data and the changes to it.
///
/// What is opened up lives in one list and refers to each other by position, so that nothing here
/// recurses over the depth of the data.
#[derive(Debug)]
pub(in super::super) struct Editor {
    /// The root comes first, and a node after the one that it hangs in.
    nodes: Vec<Node>,
    moved: u64,
}

/// Where one step of a path leads.
enum Step {
    Node(usize),
    Scalar,
    /// The object has no such key.
    Missing,
    /// The array has no such item.
    NoItem(&'static str),
}

impl Editor {
    /// Changes `data`, an object.
    pub(in super::super) fn new(data: &Value) -> Self {
        Self {
            nodes: vec![Node::object(data.clone())],
            moved: 0,
        }
    }

    pub(super) fn run(&mut self, operation: &Operation) -> Result<(), String> {
        let value = operation.value();
        match operation.verb() {
            Verb::Upsert => self.upsert(operation.path(), value.clone()),
            Verb::Replace => self.replace(operation.path(), value.clone()),
            Verb::Remove => self.remove(operation.path()),
        }
    }

    /// Sets a value and makes the objects that it hangs in. In an array it is put before the item
    /// of its index; "-" and the length stand for the end.
    ///
    /// # Errors
    /// Something that is no object is in the way.
    pub(in super::super) fn upsert<S: AsRef<str>>(
        &mut self,
        path: &[S],
        value: Value,
    ) -> Result<(), String> {
        let Some((last, parents)) = path.split_last() else {
            return Err("error parsing patch path: expected a segment".to_owned());
        };
        check_depth(path.len(), &value)?;
        let mut at = 0;
        for (depth, segment) in parents.iter().enumerate() {
            at = match self.step(at, segment.as_ref()) {
                Step::Node(next) => next,
                Step::Missing => self.make_object(at, segment.as_ref()),
                Step::Scalar if depth + 1 == parents.len() => return Err(NOT_FOUND.to_owned()),
                Step::Scalar => return Err(conflict(path, depth + 1)),
                Step::NoItem(_) => return Err(conflict(path, depth)),
            };
        }
        let segment = last.as_ref();
        match self.nodes.get_mut(at) {
            Some(Node::Object { changes, .. }) => {
                changes.insert(Value::from(segment), Some(Slot::Value(value)));
                Ok(())
            }
            Some(Node::Array(items)) if is_end(segment, items.len()) => {
                items.push(Slot::Value(value));
                Ok(())
            }
            Some(Node::Array(items)) => {
                let index = index(segment, items.len()).map_err(|hint| no_item(path, hint))?;
                let moves = items.len() - index;
                items.insert(index, Slot::Value(value));
                self.moves(moves)
            }
            None => Err(NOT_FOUND.to_owned()),
        }
    }

    fn replace(&mut self, path: &[String], value: Value) -> Result<(), String> {
        check_depth(path.len(), &value)?;
        let Some((last, parents)) = path.split_last() else {
            if value.as_object().is_none() {
                return Err("storage_invalid_patch_error: root must be object".to_owned());
            }
            self.nodes = vec![Node::object(value)];
            return Ok(());
        };
        let at = self.existing(path, parents)?;
        match self.nodes.get_mut(at) {
            Some(Node::Object { base, changes }) => {
                let key = Value::from(last.as_str());
                if !has(base, changes, &key) {
                    return Err(NOT_FOUND.to_owned());
                }
                changes.insert(key, Some(Slot::Value(value)));
                Ok(())
            }
            Some(Node::Array(items)) => {
                let index = existing_item(path, last, items.len())?;
                if let Some(item) = items.get_mut(index) {
                    *item = Slot::Value(value);
                }
                Ok(())
            }
            None => Err(NOT_FOUND.to_owned()),
        }
    }

    fn remove(&mut self, path: &[String]) -> Result<(), String> {
        let Some((last, parents)) = path.split_last() else {
            return Err("storage_invalid_patch_error: root cannot be removed".to_owned());
        };
        let at = self.existing(path, parents)?;
        match self.nodes.get_mut(at) {
            Some(Node::Object { base, changes }) => {
                let key = Value::from(last.as_str());
                if !has(base, changes, &key) {
                    return Err(NOT_FOUND.to_owned());
                }
                changes.insert(key, None);
                Ok(())
            }
            Some(Node::Array(items)) => {
                let index = existing_item(path, last, items.len())?;
                items.remove(index);
                let moves = items.len() - index;
                self.moves(moves)
            }
            None => Err(NOT_FOUND.to_owned()),
        }
    }

    /// The container at the end of `parents`, which must be there.
    fn existing(&mut self, path: &[String], parents: &[String]) -> Result<usize, String> {
        let mut at = 0;
        for segment in parents {
            at = match self.step(at, segment) {
                Step::Node(next) => next,
                Step::Scalar | Step::Missing => return Err(NOT_FOUND.to_owned()),
                Step::NoItem(hint) => return Err(no_item(path, hint)),
            };
        }
        Ok(at)
    }

    /// One step down. A container that is reached is opened up.
    fn step(&mut self, at: usize, segment: &str) -> Step {
        let next = self.nodes.len();
        let key = Value::from(segment);
        let reached = match self.nodes.get(at) {
            None => return Step::Missing,
            Some(Node::Array(items)) => match index(segment, items.len()) {
                Ok(index) => items.get(index).cloned(),
                Err(hint) => return Step::NoItem(hint),
            },
            Some(Node::Object { base, changes }) => match changes.get(&key) {
                Some(changed) => changed.clone(),
                None => base.get(segment).cloned().map(Slot::Value),
            },
        };
        let opened = match reached {
            None => return Step::Missing,
            Some(Slot::Node(node)) => return Step::Node(node),
            Some(Slot::Value(value)) => match value.as_array() {
                Some(items) => Node::array(items),
                None if value.as_object().is_some() => Node::object(value),
                None => return Step::Scalar,
            },
        };
        self.nodes.push(opened);
        match self.nodes.get_mut(at) {
            Some(Node::Object { changes, .. }) => {
                changes.insert(key, Some(Slot::Node(next)));
            }
            Some(Node::Array(items)) => {
                let index = index(segment, items.len()).ok();
                if let Some(item) = index.and_then(|index| items.get_mut(index)) {
                    *item = Slot::Node(next);
                }
            }
            None => {}
        }
        Step::Node(next)
    }

    fn make_object(&mut self, at: usize, segment: &str) -> usize {
        let next = self.nodes.len();
        self.nodes.push(Node::object(Value::empty_object()));
        if let Some(Node::Object { changes, .. }) = self.nodes.get_mut(at) {
            changes.insert(Value::from(segment), Some(Slot::Node(next)));
        }
        next
    }

    fn moves(&mut self, items: usize) -> Result<(), String> {
        self.moved = self.moved.saturating_add(items as u64);
        if self.moved > MAX_MOVED {
            return Err("patch moves too many items of arrays".to_owned());
        }
        Ok(())
    }

    /// The changed tree, an object.
    pub(in super::super) fn finish(self) -> Value {
        finish(self.nodes)
    }
}
