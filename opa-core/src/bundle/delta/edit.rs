//! Changes a tree of data without touching it: what an operation reaches is opened up, all else is
//! shared with what was there.

use std::collections::BTreeMap;

use opa_rego::Value;

use super::patch::{Operation, Verb};
use super::pointer;

/// How deep data may be nested: as deep as JSON text may be.
const MAX_DEPTH: usize = 10_000;

/// Operations inside of arrays move the items behind them. All of them together may move this many,
/// which takes seconds; a patch that asks for more is refused.
const MAX_MOVED: u64 = 1 << 30;

const NOT_FOUND: &str = "storage_not_found_error: document does not exist";

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

#[derive(Debug)]
enum Node {
    Object {
        base: Value,
        /// What is set, or is gone.
        changes: BTreeMap<Value, Option<Slot>>,
    },
    Array(Vec<Slot>),
}

#[derive(Debug, Clone)]
enum Slot {
    Value(Value),
    Node(usize),
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
            nodes: vec![opened_object(data.clone())],
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
            self.nodes = vec![opened_object(value)];
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
                Some(items) => Node::Array(items.iter().cloned().map(Slot::Value).collect()),
                None if value.as_object().is_some() => opened_object(value),
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
        self.nodes.push(opened_object(Value::empty_object()));
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
        let mut finished: Vec<Option<Value>> = vec![None; self.nodes.len()];
        for (position, node) in self.nodes.into_iter().enumerate().rev() {
            let mut value_of = |slot| match slot {
                Slot::Value(value) => value,
                Slot::Node(node) => finished
                    .get_mut(node)
                    .and_then(Option::take)
                    .unwrap_or_default(),
            };
            let value = match node {
                Node::Array(items) => Value::array(items.into_iter().map(value_of)),
                Node::Object { base, changes } if changes.is_empty() => base,
                Node::Object { base, changes } => {
                    // Of entries with equal keys the last one stays.
                    let (set, gone): (Vec<_>, Vec<_>) = changes
                        .into_iter()
                        .map(|(key, slot)| (key, slot.map(&mut value_of)))
                        .partition(|(_, value)| value.is_some());
                    merged(&base, set, &gone)
                }
            };
            if let Some(slot) = finished.get_mut(position) {
                *slot = Some(value);
            }
        }
        finished
            .into_iter()
            .next()
            .flatten()
            .unwrap_or_else(Value::empty_object)
    }
}

type Change = (Value, Option<Value>);

/// The members of `base`, without those that are gone, with those that are set. Both lists are
/// sorted.
fn merged(base: &Value, set: Vec<Change>, gone: &[Change]) -> Value {
    let mut gone = gone.iter().peekable();
    let members = base.as_object().into_iter().flatten();
    let kept = members.filter(|(key, _)| {
        while gone.next_if(|(gone, _)| gone < *key).is_some() {}
        gone.peek().is_none_or(|(gone, _)| gone != *key)
    });
    let kept = kept.map(|(key, value)| (key.clone(), value.clone()));
    let set = set
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    Value::object(kept.chain(set))
}

fn opened_object(base: Value) -> Node {
    Node::Object {
        base,
        changes: BTreeMap::new(),
    }
}

fn has(base: &Value, changes: &BTreeMap<Value, Option<Slot>>, key: &Value) -> bool {
    match changes.get(key) {
        Some(changed) => changed.is_some(),
        None => base.as_object().is_some_and(|base| base.get(key).is_some()),
    }
}

fn is_end(segment: &str, length: usize) -> bool {
    segment == "-" || segment == length.to_string()
}

/// The place of an item. OPA also takes `+1`, `01` and `1.0`, which no other reader of JSON pointers
/// does.
fn index(segment: &str, length: usize) -> Result<usize, &'static str> {
    let below_zero = segment
        .strip_prefix('-')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit()));
    if below_zero {
        return Err("array index out of range");
    }
    let canonical = segment == "0" || !segment.starts_with('0');
    if !canonical || segment.is_empty() || !segment.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("array index must be integer");
    }
    let index = segment.parse().ok().filter(|index| *index < length);
    index.ok_or("array index out of range")
}

fn existing_item(path: &[String], segment: &str, length: usize) -> Result<usize, String> {
    if is_end(segment, length) {
        return Err(format!(
            "storage_invalid_patch_error: {}: invalid patch path",
            pointer::shown(path)
        ));
    }
    index(segment, length).map_err(|hint| no_item(path, hint))
}

fn no_item<S: AsRef<str>>(path: &[S], hint: &str) -> String {
    format!("storage_not_found_error: {}: {hint}", pointer::shown(path))
}

/// What is at the first `depth` segments of the path is no object.
fn conflict<S: AsRef<str>>(path: &[S], depth: usize) -> String {
    let at = path.get(..depth).unwrap_or(path);
    format!("storage_write_conflict_error: {}", pointer::shown(at))
}

fn check_depth(segments: usize, value: &Value) -> Result<(), String> {
    if segments.saturating_add(value.depth()) <= MAX_DEPTH {
        return Ok(());
    }
    Err(format!("patch nests deeper than {MAX_DEPTH} levels"))
}

/// About how many bytes of JSON a value is.
pub(super) fn size(value: &Value) -> u64 {
    let mut pending = vec![value];
    let mut size = 0_u64;
    while let Some(value) = pending.pop() {
        let own = match value.as_str() {
            Some(text) => text.len() as u64 + 2,
            None => 4,
        };
        size = size.saturating_add(own);
        pending.extend(value.as_array().into_iter().flatten());
        for (key, value) in value.as_object().into_iter().flatten() {
            pending.extend([key, value]);
        }
    }
    size
}
