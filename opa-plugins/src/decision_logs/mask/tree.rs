//! A value in the hands of a mask: what is on the way of a path is opened, the rest stays shared.

use std::collections::BTreeMap;

use opa_core::Value;

use super::{Budget, MaskError};

/// A value that can be changed. Nodes refer to each other by number, so that nothing recurses.
pub(super) struct Tree {
    /// Those below a node stand after it.
    nodes: Vec<Node>,
    root: Slot,
}

enum Slot {
    Closed(Value),
    /// The number of a node.
    Open(usize),
}

/// A container that was opened. A set is an array, as in JSON.
enum Node {
    Array(Vec<Slot>),
    /// The keys are strings.
    Object(BTreeMap<Value, Slot>),
}

impl Tree {
    pub(super) fn new(value: Value) -> Self {
        Self {
            nodes: Vec::new(),
            root: Slot::Closed(value),
        }
    }

    /// Whether there was something at the path, which has a segment at least.
    pub(super) fn remove(
        &mut self,
        path: &[Value],
        budget: &mut Budget,
    ) -> Result<bool, MaskError> {
        let Some((last, parents)) = path.split_last() else {
            return Ok(false);
        };
        let Some(parent) = self.walk(parents, false, budget)? else {
            return Ok(false);
        };
        Ok(match self.nodes.get_mut(parent) {
            Some(Node::Object(members)) => members.remove(last).is_some(),
            Some(Node::Array(items)) => match index(last).filter(|index| *index < items.len()) {
                Some(index) => {
                    budget.spend(items.len() - index)?;
                    items.remove(index);
                    true
                }
                None => false,
            },
            None => false,
        })
    }

    /// Whether there is a place at the path, which has a segment at least.
    pub(super) fn upsert(
        &mut self,
        path: &[Value],
        value: &Value,
        budget: &mut Budget,
    ) -> Result<bool, MaskError> {
        let Some((last, parents)) = path.split_last() else {
            return Ok(false);
        };
        let Some(parent) = self.walk(parents, true, budget)? else {
            return Ok(false);
        };
        let value = Slot::Closed(value.clone());
        Ok(match self.nodes.get_mut(parent) {
            Some(Node::Object(members)) => {
                members.insert(last.clone(), value);
                true
            }
            Some(node) => match node.slot(last) {
                Some(slot) => {
                    *slot = value;
                    true
                }
                None => false,
            },
            None => false,
        })
    }

    /// The value as it is now.
    pub(super) fn into_value(self) -> Value {
        let mut closed: Vec<Value> = Vec::new();
        closed.resize(self.nodes.len(), Value::NULL);
        // From the last one: what is below a node is closed before it.
        for (number, node) in self.nodes.into_iter().enumerate().rev() {
            let value = node.close(&mut closed);
            if let Some(place) = closed.get_mut(number) {
                *place = value;
            }
        }
        self.root.close(&mut closed)
    }

    /// Opens all that is on the way; answers the node at its end.
    fn walk(
        &mut self,
        segments: &[Value],
        create: bool,
        budget: &mut Budget,
    ) -> Result<Option<usize>, MaskError> {
        budget.spend(segments.len() + 1)?;
        let (root, nodes) = (&mut self.root, self.nodes.len());
        let opened = root.open(nodes, budget)?;
        let Some(mut at) = self.enter(opened) else {
            return Ok(None);
        };
        for segment in segments {
            let nodes = self.nodes.len();
            let Some(node) = self.nodes.get_mut(at) else {
                return Ok(None);
            };
            if create && let Node::Object(members) = node {
                members
                    .entry(segment.clone())
                    .or_insert_with(|| Slot::Closed(Value::empty_object()));
            }
            let Some(slot) = node.slot(segment) else {
                return Ok(None);
            };
            let opened = slot.open(nodes, budget)?;
            match self.enter(opened) {
                Some(below) => at = below,
                None => return Ok(None),
            }
        }
        Ok(Some(at))
    }

    fn enter(&mut self, opened: Opened) -> Option<usize> {
        match opened {
            Opened::Scalar => None,
            Opened::Before(number) => Some(number),
            Opened::Now(node) => {
                self.nodes.push(node);
                Some(self.nodes.len() - 1)
            }
        }
    }
}

/// What opening a slot found.
enum Opened {
    Scalar,
    Before(usize),
    /// A node that gets the next number.
    Now(Node),
}

impl Slot {
    fn open(&mut self, next: usize, budget: &mut Budget) -> Result<Opened, MaskError> {
        let value = match self {
            Self::Open(number) => return Ok(Opened::Before(*number)),
            Self::Closed(value) => value,
        };
        budget.spend(value.len().unwrap_or_default())?;
        let Some(node) = Node::open(value) else {
            return Ok(Opened::Scalar);
        };
        *self = Self::Open(next);
        Ok(Opened::Now(node))
    }

    fn close(self, closed: &mut [Value]) -> Value {
        match self {
            Self::Closed(value) => value,
            Self::Open(number) => closed
                .get_mut(number)
                .map(std::mem::take)
                .unwrap_or_default(),
        }
    }
}

impl Node {
    fn open(value: &Value) -> Option<Self> {
        let slot = |value: &Value| Slot::Closed(value.clone());
        if let Some(members) = value.as_object() {
            // Of keys with one text the later stays, as in JSON that OPA makes of it.
            let members = members.iter().map(|(key, value)| (text(key), slot(value)));
            return Some(Self::Object(members.collect()));
        }
        let items = value.as_array().map(<[Value]>::iter);
        let items = items.or_else(|| value.as_set().map(|set| set.iter()))?;
        Some(Self::Array(items.map(slot).collect()))
    }

    fn slot(&mut self, segment: &Value) -> Option<&mut Slot> {
        match self {
            Self::Object(members) => members.get_mut(segment),
            Self::Array(items) => items.get_mut(index(segment)?),
        }
    }

    fn close(self, closed: &mut [Value]) -> Value {
        match self {
            Self::Array(items) => Value::array(items.into_iter().map(|slot| slot.close(closed))),
            Self::Object(members) => {
                let members = members.into_iter();
                Value::object(members.map(|(key, slot)| (key, slot.close(closed))))
            }
        }
    }
}

/// A key as a string.
fn text(key: &Value) -> Value {
    match key.as_str() {
        Some(_) => key.clone(),
        None => Value::from(key.to_json()),
    }
}

/// Go's `strconv.Atoi`: signs and leading zeros are fine.
fn index(segment: &Value) -> Option<usize> {
    usize::try_from(segment.as_str()?.parse::<i64>().ok()?).ok()
}
