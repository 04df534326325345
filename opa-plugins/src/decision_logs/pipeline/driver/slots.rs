//! Who delivers next.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// How many deliveries are under way at a time.
const SLOTS: usize = 512;

/// The deliveries under way, and those that wait for a slot.
///
/// What shares a way out, such as a service, has a line of its own with a bound. The more slots
/// are taken the fewer a line gets: another one is only for a line that has less than an eighth of
/// what is free. So lines that hang leave slots to all others.
#[derive(Default)]
pub(super) struct Slots {
    lines: HashMap<Arc<str>, Line>,
    /// The lines that wait, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    taken: usize,
}

#[derive(Default)]
struct Line {
    bound: usize,
    taken: usize,
    /// Whose turn is next.
    waiting: VecDeque<u64>,
}

impl Slots {
    /// A lane wants to deliver.
    pub(super) fn request(&mut self, name: Arc<str>, bound: usize, lane: u64) {
        let line = self.lines.entry(Arc::clone(&name)).or_default();
        line.bound = bound;
        if line.waiting.is_empty() {
            self.turns.push_back(name);
        }
        line.waiting.push_back(lane);
    }

    /// A delivery has ended.
    pub(super) fn ended(&mut self, name: &str) {
        self.taken = self.taken.saturating_sub(1);
        let Some(line) = self.lines.get_mut(name) else {
            return;
        };
        line.taken = line.taken.saturating_sub(1);
        if line.taken == 0 && line.waiting.is_empty() {
            self.lines.remove(name);
        }
    }

    /// Who may deliver now, and in which line.
    pub(super) fn next(&mut self) -> Option<(u64, Arc<str>)> {
        let free = SLOTS.checked_sub(self.taken + 1)? + 1;
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let Some(line) = self.lines.get_mut(&name) else {
                continue;
            };
            let is_free = line.taken < line.bound && (line.taken == 0 || line.taken < free / 8);
            if !is_free {
                self.turns.push_back(name);
                continue;
            }
            let Some(lane) = line.waiting.pop_front() else {
                continue;
            };
            line.taken += 1;
            self.taken += 1;
            if !line.waiting.is_empty() {
                self.turns.push_back(Arc::clone(&name));
            }
            return Some((lane, name));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(slots: &mut Slots) -> Vec<(u64, Arc<str>)> {
        std::iter::from_fn(|| slots.next()).collect()
    }

    #[test]
    fn a_line_has_its_bound_and_its_order() {
        let mut slots = Slots::default();
        for lane in 0..5 {
            slots.request("a".into(), 2, lane);
        }
        let lanes = |started: Vec<(u64, Arc<str>)>| -> Vec<u64> {
            started.into_iter().map(|(lane, _)| lane).collect()
        };
        assert_eq!(lanes(start(&mut slots)), [0, 1]);
        slots.ended("a");
        assert_eq!(lanes(start(&mut slots)), [2]);
        slots.ended("a");
        slots.ended("a");
        assert_eq!(lanes(start(&mut slots)), [3, 4]);
        slots.ended("a");
        slots.ended("a");
        assert!(slots.lines.is_empty() && slots.turns.is_empty() && slots.taken == 0);
    }

    #[test]
    fn many_lines_that_hang_leave_slots_to_another() {
        let mut slots = Slots::default();
        for line in 0..100u64 {
            for lane in 0..100 {
                slots.request(format!("{line}").into(), 16, line * 100 + lane);
            }
        }
        let hanging = start(&mut slots).len();
        assert!(hanging < SLOTS, "{hanging}");
        slots.request("good".into(), 16, 1_000_000);
        assert_eq!(slots.next(), Some((1_000_000, "good".into())));
        // Each has some.
        assert!((100..=SLOTS - 16).contains(&hanging), "{hanging}");
    }
}
