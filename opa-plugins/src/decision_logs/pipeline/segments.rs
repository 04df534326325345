//! A queue that never moves what it holds.

use std::collections::VecDeque;

/// How many items the first segment has room for, and the largest ones.
const SEGMENT: (usize, usize) = (4, 64);

/// Items, oldest first, in segments: whoever adds one pays for none of the others, as he would where
/// a growing buffer is moved, and memory goes as soon as what was in it has gone.
pub(super) struct Segments<T> {
    /// All but the last have something in them.
    segments: VecDeque<VecDeque<T>>,
    len: usize,
}

impl<T> Default for Segments<T> {
    fn default() -> Self {
        Self {
            segments: VecDeque::new(),
            len: 0,
        }
    }
}

impl<T> Segments<T> {
    pub(super) fn push(&mut self, item: T) {
        self.len += 1;
        if let Some(last) = self.segments.back_mut()
            && last.len() < last.capacity()
        {
            last.push_back(item);
            return;
        }
        let mut segment = VecDeque::with_capacity(self.len.clamp(SEGMENT.0, SEGMENT.1));
        segment.push_back(item);
        self.segments.push_back(segment);
    }

    pub(super) fn pop(&mut self) -> Option<T> {
        let first = self.segments.front_mut()?;
        let item = first.pop_front()?;
        self.len -= 1;
        // The last one is used again.
        if first.is_empty() && self.segments.len() > 1 {
            self.segments.pop_front();
        }
        Some(item)
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut T> {
        self.segments.back_mut()?.back_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Gives up the memory that nothing is in.
    pub(super) fn shrink(&mut self) {
        if self.is_empty() {
            self.segments = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how many items there is room.
    fn room<T>(segments: &Segments<T>) -> usize {
        segments.segments.iter().map(VecDeque::capacity).sum()
    }

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let (mut segments, mut expected) = (Segments::default(), VecDeque::new());
        // Grows and shrinks in waves.
        for step in 0..10_000_usize {
            if step % 1_000 < 600 {
                segments.push(step);
                expected.push_back(step);
                assert_eq!(segments.last_mut(), Some(&mut { step }));
            } else {
                assert_eq!(segments.pop(), expected.pop_front());
            }
            assert_eq!(segments.len(), expected.len());
        }
        while let Some(item) = segments.pop() {
            assert_eq!(Some(item), expected.pop_front());
        }
        assert!(segments.is_empty() && expected.is_empty());
    }

    #[test]
    fn the_room_is_bounded_by_what_is_held() {
        let mut segments = Segments::default();
        for held in 1..=8_192 {
            segments.push(held);
            let room = room(&segments);
            assert!(room <= (2 * held).clamp(4, held + 64), "{room} for {held}");
        }
        while segments.pop().is_some() {
            let (room, held) = (room(&segments), segments.len());
            assert!(room <= held + 2 * 64, "{room} for {held}");
        }
        assert!(room(&segments) > 0);
        segments.shrink();
        assert_eq!(room(&segments), 0);
    }

    #[test]
    fn a_queue_that_is_emptied_again_and_again_keeps_its_room() {
        let mut segments = Segments::default();
        let mut wave = || {
            (0..40).for_each(|item| segments.push(item));
            let full = room(&segments);
            while segments.pop().is_some() {}
            (full, room(&segments))
        };
        wave();
        // The largest segment is the one that stays.
        let (full, empty) = wave();
        assert_eq!(full, empty);
        assert!((0..100).all(|_| wave() == (full, empty)));
    }
}
