//! The tree of what is put over the file.

use std::sync::Arc;

use crate::config::error::Position;
use crate::config::node::{Entry, Node, Value};

/// The override that something comes from, and where it stands there.
pub(super) type Origin<'o> = (&'o Arc<str>, Position);

/// A value that is put over another one.
#[derive(Default)]
pub(super) enum Over {
    /// Nothing yet.
    #[default]
    Unset,
    Node(Node),
    /// Members by key, in the order in which they came.
    Object(Vec<Member>, Option<(Arc<str>, Position)>),
    /// Items; those that are missing are null.
    Array(Vec<Option<Over>>, (Arc<str>, Position)),
}

pub(super) struct Member {
    key: Arc<str>,
    position: Position,
    over: Over,
}

impl Over {
    pub(super) fn array(items: Vec<Option<Self>>, (name, position): Origin<'_>) -> Self {
        Self::Array(items, (Arc::clone(name), position))
    }

    /// The member `key`; `None` if this is no object.
    pub(super) fn member(
        &mut self,
        key: &Arc<str>,
        (name, position): Origin<'_>,
    ) -> Option<&mut Self> {
        if matches!(self, Self::Unset) {
            *self = Self::Object(Vec::new(), Some((Arc::clone(name), position)));
        }
        let Self::Object(members, _) = self else {
            return None;
        };
        let at = match members.iter().position(|member| member.key == *key) {
            Some(at) => at,
            None => {
                members.push(Member {
                    key: Arc::clone(key),
                    position,
                    over: Self::Unset,
                });
                members.len() - 1
            }
        };
        members.get_mut(at).map(|member| &mut member.over)
    }

    /// The item at `index`; `None` if this is no array.
    pub(super) fn item(&mut self, index: usize, (name, position): Origin<'_>) -> Option<&mut Self> {
        if matches!(self, Self::Unset) {
            *self = Self::Array(Vec::new(), (Arc::clone(name), position));
        }
        let Self::Array(items, _) = self else {
            return None;
        };
        if items.len() <= index {
            items.resize_with(index + 1, || None);
        }
        let item = items.get_mut(index)?.get_or_insert_with(Self::default);
        if matches!(item, Self::Node(_)) {
            // As in OPA, what is below an item takes its place.
            *item = Self::Unset;
        }
        Some(item)
    }

    /// The configuration with this over it. What is no object can't have options: it is left for
    /// whoever reads it to refuse.
    pub(super) fn over(self, root: Node) -> Node {
        let is_object = matches!(root.value, Value::Null | Value::Object(_));
        if is_object {
            self.merged(Some(root))
        } else {
            root
        }
    }

    fn merged(self, base: Option<Node>) -> Node {
        match self {
            Self::Unset => base.unwrap_or_else(|| node(Value::Null, None)),
            Self::Node(node) => node,
            Self::Array(items, origin) => {
                let items = items.into_iter();
                let items = items.map(|item| item.unwrap_or_default().merged(None));
                node(Value::Array(items.collect()), Some(origin))
            }
            Self::Object(members, origin) => {
                let (mut entries, base) = match base {
                    Some(base) => match &base.value {
                        Value::Object(entries) => (entries.to_vec(), Some(base)),
                        _ => (Vec::new(), None),
                    },
                    None => (Vec::new(), None),
                };
                for member in members {
                    member.merge(&mut entries);
                }
                let value = Value::Object(entries.into());
                match base {
                    Some(base) => Node { value, ..base },
                    None => node(value, origin),
                }
            }
        }
    }
}

impl Member {
    fn merge(self, entries: &mut Vec<Entry>) {
        match entries.iter_mut().find(|entry| entry.key == self.key) {
            Some(entry) => {
                let overrides = !matches!(self.over, Over::Object(..));
                entry.node = self.over.merged(Some(entry.node.clone()));
                if overrides || entry.node.flag.is_some() {
                    entry.key_position = Some(self.position);
                }
            }
            None => entries.push(Entry {
                key: self.key,
                key_position: Some(self.position),
                node: self.over.merged(None),
            }),
        }
    }
}

fn node(value: Value, origin: Option<(Arc<str>, Position)>) -> Node {
    let (flag, position) = origin.unzip();
    Node {
        value,
        position,
        per_app: false,
        flag,
    }
}
