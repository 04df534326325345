//! Queues that take turns.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Queues by key, served one after the other.
pub(super) struct Turns<K, Q> {
    /// Whose turn is next in front: the keys of `queues`, none of which is empty.
    order: VecDeque<K>,
    queues: HashMap<K, Q>,
}

/// What can take a turn.
pub(super) trait Queue: Default {
    fn is_empty(&self) -> bool;
}

impl<T> Queue for VecDeque<T> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }
}

impl<K, Q> Default for Turns<K, Q> {
    fn default() -> Self {
        Self {
            order: VecDeque::new(),
            queues: HashMap::new(),
        }
    }
}

impl<K, Q> Queue for Turns<K, Q> {
    fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

impl<K: Copy + Eq + Hash, Q: Queue> Turns<K, Q> {
    /// The queue of `key`, for something to be put into it.
    pub(super) fn queue(&mut self, key: K) -> &mut Q {
        self.queues.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            Q::default()
        })
    }

    /// Whose turn is next.
    pub(super) fn front(&self) -> Option<&Q> {
        self.queues.get(self.order.front()?)
    }

    /// What `take` answers for the first queue, in turn, for which it answers anything. It takes
    /// that from the queue, which has the last turn from now on.
    pub(super) fn next<R>(&mut self, mut take: impl FnMut(&mut Q) -> Option<R>) -> Option<R> {
        for at in 0..self.order.len() {
            let key = *self.order.get(at)?;
            let Some(taken) = self.queues.get_mut(&key).and_then(&mut take) else {
                continue;
            };
            self.order.remove(at);
            if self.queues.get(&key).is_none_or(Q::is_empty) {
                self.queues.remove(&key);
            } else {
                self.order.push_back(key);
            }
            return Some(taken);
        }
        None
    }

    /// Lets `clean` take from each queue what it wants.
    pub(super) fn clean(&mut self, mut clean: impl FnMut(&mut Q)) {
        self.queues.retain(|_, queue| {
            clean(queue);
            !queue.is_empty()
        });
        let queues = &self.queues;
        self.order.retain(|key| queues.contains_key(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Simple = Turns<char, VecDeque<(char, usize)>>;

    #[test]
    fn queues_take_turns_however_long_they_are() {
        let mut turns = Simple::default();
        for (key, n) in [('a', 0), ('a', 1), ('a', 2), ('b', 0), ('c', 0)] {
            turns.queue(key).push_back((key, n));
        }
        let all: Vec<_> = std::iter::from_fn(|| turns.next(VecDeque::pop_front)).collect();
        assert_eq!(all, [('a', 0), ('b', 0), ('c', 0), ('a', 1), ('a', 2)]);
        assert!(turns.is_empty() && turns.queues.is_empty());
    }

    #[test]
    fn a_queue_that_can_not_be_served_keeps_its_turn() {
        let mut turns = Simple::default();
        for (key, n) in [('a', 0), ('b', 0), ('a', 1), ('b', 1)] {
            turns.queue(key).push_back((key, n));
        }
        let not_a = |queue: &mut VecDeque<(char, usize)>| queue.pop_front_if(|it| it.0 != 'a');
        assert_eq!(turns.next(not_a), Some(('b', 0)));
        assert_eq!(turns.next(VecDeque::pop_front), Some(('a', 0)));
        turns.clean(|queue| queue.retain(|it| it.0 != 'b'));
        assert_eq!(turns.next(VecDeque::pop_front), Some(('a', 1)));
        assert!(turns.is_empty());
    }
}
