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

/// A slot that is taken.
pub(super) struct Slot {
    line: Arc<str>,
    is_retry: bool,
}

#[derive(Default)]
struct Line {
    bound: usize,
    taken: usize,
    retries_taken: usize,
    /// Whose turn is next. Those whose last try failed stand apart, and get at most half.
    waiting: VecDeque<u64>,
    retries: VecDeque<u64>,
}

impl Line {
    /// Whose turn is next, if there is a slot for it while `free` are free in all.
    fn next(&mut self, free: usize) -> Option<(u64, bool)> {
        let has_slot = self.taken < self.bound && (self.taken == 0 || self.taken < free / 8);
        if !has_slot {
            return None;
        }
        let may_retry = self.retries_taken < (self.bound / 2).max(1);
        let next = match self.retries.pop_front_if(|_| may_retry) {
            Some(lane) => {
                self.retries_taken += 1;
                (lane, true)
            }
            None => (self.waiting.pop_front()?, false),
        };
        self.taken += 1;
        Some(next)
    }

    fn is_waited_for(&self) -> bool {
        !self.waiting.is_empty() || !self.retries.is_empty()
    }
}

impl Slots {
    /// A lane wants to deliver.
    pub(super) fn request(&mut self, name: Arc<str>, bound: usize, lane: u64, is_retry: bool) {
        let line = self.lines.entry(Arc::clone(&name)).or_default();
        line.bound = bound;
        if !line.is_waited_for() {
            self.turns.push_back(name);
        }
        match is_retry {
            true => line.retries.push_back(lane),
            false => line.waiting.push_back(lane),
        }
    }

    /// A delivery has ended.
    pub(super) fn ended(&mut self, slot: &Slot) {
        self.taken = self.taken.saturating_sub(1);
        let Some(line) = self.lines.get_mut(&slot.line) else {
            return;
        };
        line.taken = line.taken.saturating_sub(1);
        if slot.is_retry {
            line.retries_taken = line.retries_taken.saturating_sub(1);
        }
        if line.taken == 0 && !line.is_waited_for() {
            self.lines.remove(&slot.line);
        }
    }

    /// Who may deliver now, and in which slot.
    pub(super) fn next(&mut self) -> Option<(u64, Slot)> {
        let free = SLOTS.saturating_sub(self.taken);
        if free == 0 {
            return None;
        }
        for _ in 0..self.turns.len() {
            let name = self.turns.pop_front()?;
            let Some(line) = self.lines.get_mut(&name) else {
                continue;
            };
            let next = line.next(free);
            if line.is_waited_for() {
                self.turns.push_back(Arc::clone(&name));
            }
            if let Some((lane, is_retry)) = next {
                self.taken += 1;
                let line = name;
                return Some((lane, Slot { line, is_retry }));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(slots: &mut Slots) -> Vec<(u64, Slot)> {
        std::iter::from_fn(|| slots.next()).collect()
    }

    #[test]
    fn a_line_has_its_bound_and_its_order_and_retries_get_half() {
        let mut slots = Slots::default();
        for lane in 0..5 {
            slots.request("a".into(), 4, lane, true);
            slots.request("a".into(), 4, lane + 10, false);
        }
        let mut order = Vec::new();
        let mut taken = start(&mut slots);
        while !taken.is_empty() {
            assert!(taken.len() <= 4);
            assert!(taken.iter().filter(|(_, slot)| slot.is_retry).count() <= 2);
            let (lane, slot) = taken.remove(0);
            order.push(lane);
            slots.ended(&slot);
            taken.extend(start(&mut slots));
        }
        assert_eq!(order.len(), 10);
        let of = |retries: bool| order.iter().filter(move |lane| (**lane < 10) == retries);
        assert!(of(true).is_sorted() && of(false).is_sorted(), "{order:?}");
        assert!(slots.lines.is_empty() && slots.turns.is_empty() && slots.taken == 0);
    }

    #[test]
    fn many_lines_that_hang_leave_slots_to_another() {
        let mut slots = Slots::default();
        for line in 0..100u64 {
            for lane in 0..100 {
                let name = line.to_string().into();
                slots.request(name, 16, line * 100 + lane, false);
            }
        }
        let hanging = start(&mut slots).len();
        // Each has some.
        assert!((100..=SLOTS - 16).contains(&hanging), "{hanging}");
        slots.request("good".into(), 16, 1_000_000, false);
        let (lane, slot) = slots.next().unwrap();
        assert_eq!((lane, &*slot.line), (1_000_000, "good"));
    }
}
