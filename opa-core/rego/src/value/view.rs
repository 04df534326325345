use std::fmt;
use std::slice;

use super::Value;

/// The items of a set, in the order of values.
#[derive(Clone, Copy)]
pub struct SetView<'a> {
    pub(super) items: &'a [Value],
}

impl<'a> SetView<'a> {
    /// The number of items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items, in the order of values.
    pub fn iter(&self) -> slice::Iter<'a, Value> {
        self.items.iter()
    }

    /// Whether `item` is in the set.
    pub fn contains(&self, item: &Value) -> bool {
        self.items.binary_search(item).is_ok()
    }
}

impl<'a> IntoIterator for SetView<'a> {
    type Item = &'a Value;
    type IntoIter = slice::Iter<'a, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for SetView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// The members of an object, in the order of their keys.
#[derive(Clone, Copy)]
pub struct ObjectView<'a> {
    pub(super) entries: &'a [(Value, Value)],
}

impl<'a> ObjectView<'a> {
    /// The number of members.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The members, in the order of their keys.
    pub fn iter(&self) -> ObjectIter<'a> {
        ObjectIter {
            entries: self.entries.iter(),
        }
    }

    /// The keys, in their order.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &'a Value> + use<'a> {
        self.iter().map(|(key, _)| key)
    }

    /// The value of the member with `key`.
    pub fn get(&self, key: &Value) -> Option<&'a Value> {
        let found = self
            .entries
            .binary_search_by(|(own, _)| own.cmp(key))
            .ok()?;
        self.entries.get(found).map(|(_, value)| value)
    }

    /// The value of the member with the string key `key`.
    pub fn get_str(&self, key: &str) -> Option<&'a Value> {
        let found = self
            .entries
            .binary_search_by(|(own, _)| own.cmp_str(key))
            .ok()?;
        self.entries.get(found).map(|(_, value)| value)
    }
}

impl<'a> IntoIterator for ObjectView<'a> {
    type Item = (&'a Value, &'a Value);
    type IntoIter = ObjectIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for ObjectView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// Iterates over the members of an object, see [`ObjectView::iter`].
#[derive(Clone, Debug)]
pub struct ObjectIter<'a> {
    entries: slice::Iter<'a, (Value, Value)>,
}

impl<'a> Iterator for ObjectIter<'a> {
    type Item = (&'a Value, &'a Value);

    fn next(&mut self) -> Option<Self::Item> {
        self.entries.next().map(|(key, value)| (key, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.entries.size_hint()
    }
}

impl DoubleEndedIterator for ObjectIter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.entries.next_back().map(|(key, value)| (key, value))
    }
}

impl ExactSizeIterator for ObjectIter<'_> {}
