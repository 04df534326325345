//! Whose events are masked and encoded next.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use opa_core::AppId;

use super::super::intake::Intake;
use super::super::process::BATCH;

/// How many apps' events are masked and encoded at a time. Most of them wait for a policy.
const PLACES: usize = 64;

/// How many of these are for apps whose policies on logs are slow: the others don't wait for them.
const SLOW_PLACES: usize = PLACES / 2;

/// How long an app's events wait for others, if nobody waits for them. Whoever hands over meanwhile
/// need not wake anybody, which takes longer than all the rest of a hand-over.
const GATHER: Duration = Duration::from_millis(1);

/// The apps that have events to be masked and encoded, or had some just now.
#[derive(Default)]
pub(super) struct Turns {
    intakes: HashMap<u64, Arc<Intake>>,
    queue: TurnQueue,
    /// Those that gather, and until when: the soonest first.
    gathering: VecDeque<(Instant, u64)>,
    /// Those whose outputs have no room.
    parked: HashSet<u64>,
    apps: HashMap<AppId, Order>,
}

/// The configurations of one app: what was decided under an earlier one goes first, so that it is
/// first in the spool. One that can't use its turns, or is slow, keeps no later one waiting.
#[derive(Default)]
struct Order {
    first: BTreeSet<u64>,
    behind: BTreeSet<u64>,
}

impl Order {
    /// Whether it has turns now.
    fn add(&mut self, id: u64) -> bool {
        if self.first.contains(&id) {
            return true;
        }
        let waits = self.first.range(..id).next().is_some();
        match waits {
            true => self.behind.insert(id),
            false => self.first.insert(id),
        };
        !waits
    }

    /// It keeps nobody waiting any more; who has turns now.
    fn leave(&mut self, id: u64) -> Option<u64> {
        self.first.remove(&id);
        let next = *self.behind.first()?;
        if self.first.range(..next).next().is_some() {
            return None;
        }
        self.behind.remove(&next);
        self.first.insert(next);
        Some(next)
    }
}

/// In the order of their turns, those apart that took long the last time.
#[derive(Default)]
struct TurnQueue {
    waiting: VecDeque<u64>,
    slow: VecDeque<u64>,
    taken: usize,
    slow_taken: usize,
    are_slow: HashSet<u64>,
}

impl TurnQueue {
    fn push(&mut self, id: u64) {
        match self.are_slow.contains(&id) {
            true => self.slow.push_back(id),
            false => self.waiting.push_back(id),
        }
    }

    fn next(&mut self) -> Option<u64> {
        if self.taken >= PLACES {
            return None;
        }
        let id = match self.slow.front() {
            Some(_) if self.slow_taken < SLOW_PLACES => {
                self.slow_taken += 1;
                self.slow.pop_front()
            }
            _ => self.waiting.pop_front(),
        }?;
        self.taken += 1;
        Some(id)
    }

    /// A turn has ended, and whether it was slow. `None` when it wasn't used.
    fn ended(&mut self, id: u64, was_slow: Option<bool>) {
        self.taken = self.taken.saturating_sub(1);
        if self.are_slow.contains(&id) {
            self.slow_taken = self.slow_taken.saturating_sub(1);
        }
        match was_slow {
            Some(true) => drop(self.are_slow.insert(id)),
            Some(false) => drop(self.are_slow.remove(&id)),
            None => {}
        }
    }
}

impl Turns {
    /// All whose events are not all encoded.
    pub(super) fn intakes(&self) -> impl Iterator<Item = &Arc<Intake>> {
        let gathering: HashSet<_> = self.gathering.iter().map(|(_, id)| *id).collect();
        let intakes = self.intakes.values();
        intakes.filter(move |it| !gathering.contains(&it.id) || it.backlog() > 0)
    }

    /// An app that had no events has some.
    pub(super) fn add(&mut self, intake: Arc<Intake>) {
        if self.is_first(&intake) {
            self.go_on(&intake);
        }
        self.intakes.insert(intake.id, intake);
    }

    /// Whether it has turns; otherwise it gets them after an earlier one of its app.
    fn is_first(&mut self, intake: &Intake) -> bool {
        let order = self.apps.entry(intake.app.clone()).or_default();
        order.add(intake.id)
    }

    /// It keeps no other one of its app waiting.
    fn leave(&mut self, intake: &Intake) {
        let Some(order) = self.apps.get_mut(&intake.app) else {
            return;
        };
        if let Some(next) = order.leave(intake.id) {
            self.queue.push(next);
        } else if order.first.is_empty() {
            self.apps.remove(&intake.app);
        }
    }

    /// When the next app has gathered.
    pub(super) fn due(&self) -> Option<Instant> {
        self.gathering.front().map(|(until, _)| *until)
    }

    /// Gives those a turn that have gathered by `now`. Those that got nothing rest: the driver is
    /// told of their next event.
    pub(super) fn gathered(&mut self, now: Instant) {
        while let Some((_, id)) = self.gathering.pop_front_if(|(until, _)| *until <= now) {
            let Some(intake) = self.intakes.get(&id).cloned() else {
                continue;
            };
            if !intake.has_more() {
                self.intakes.remove(&id);
                self.leave(&intake);
            } else if self.is_first(&intake) {
                self.queue.push(id);
            }
        }
    }

    /// Gives an app a turn, or lets it gather.
    fn go_on(&mut self, intake: &Intake) {
        if intake.can_wait() && intake.backlog() < BATCH {
            let until = Instant::now() + GATHER;
            self.gathering.push_back((until, intake.id));
        } else {
            self.queue.push(intake.id);
        }
    }

    /// Who is next, if there is a place.
    pub(super) fn next(&mut self) -> Option<Arc<Intake>> {
        let id = self.queue.next()?;
        self.intakes.get(&id).cloned()
    }

    /// It can't use its turn before it is unparked.
    pub(super) fn park(&mut self, intake: &Intake) {
        self.queue.ended(intake.id, None);
        self.parked.insert(intake.id);
        self.leave(intake);
    }

    /// An output may have room again.
    pub(super) fn unpark(&mut self, intake: u64) {
        if self.parked.remove(&intake) {
            self.queue.push(intake);
        }
    }

    /// A turn has ended, and whether it was slow.
    pub(super) fn ended(&mut self, intake: &Intake, was_slow: bool) {
        // Also without one: while events come, none of them has to wake anybody.
        let goes_on = intake.can_wait() || intake.has_more();
        // Who comes back after a rest is judged anew.
        let has_more = intake.backlog() > 0;
        self.queue.ended(intake.id, Some(was_slow && has_more));
        if has_more && was_slow {
            // It left the order of its app, and gathers enough meanwhile.
            self.queue.push(intake.id);
        } else if goes_on {
            self.go_on(intake);
        } else {
            self.intakes.remove(&intake.id);
        }
        if was_slow || !has_more {
            self.leave(intake);
        }
    }
}

#[cfg(test)]
mod tests {
    use opa_core::plugin::DecisionSink;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::super::super::super::console::Console;
    use super::super::super::super::{Audit, Durability, Lines, WhenFull};
    use super::super::super::intake::Handover;
    use super::super::super::shared::Shared;
    use super::super::super::tests::{Moody, app, event, route, terms};
    use super::super::Message;
    use super::*;

    fn sink(durability: Durability) -> (Handover, UnboundedReceiver<Message>) {
        let console = Console::new(Box::new(Lines::default()));
        let (messages, told) = unbounded_channel();
        let shared = Arc::new(Shared::new(Arc::new(console), messages));
        let mut terms = terms(WhenFull::DropOldest, Audit::Off);
        terms.durability = durability;
        let routes = vec![route("x", &Moody::new(1, false), None)];
        let intake = Intake::new(&shared, &app("a"), routes, terms);
        (Handover(Arc::new(intake)), told)
    }

    /// What the driver is told of, all of it.
    fn hear(turns: &mut Turns, told: &mut UnboundedReceiver<Message>) -> usize {
        let mut heard = 0;
        while let Ok(Message::Events(intake)) = told.try_recv() {
            turns.add(intake);
            heard += 1;
        }
        heard
    }

    /// Gives the app a turn that takes all of its events.
    fn take_turn(turns: &mut Turns) -> usize {
        let Some(intake) = turns.next() else {
            return 0;
        };
        let taken = std::iter::from_fn(|| intake.pop()).count();
        turns.ended(&intake, false);
        taken
    }

    #[tokio::test(start_paused = true)]
    async fn while_events_come_the_driver_is_told_once() {
        let (sink, mut told) = sink(Durability::Async);
        let mut turns = Turns::default();
        sink.record(event(0));
        assert_eq!(hear(&mut turns, &mut told), 1);
        for round in 1..50 {
            // Before it is due there is no turn.
            assert_eq!(take_turn(&mut turns), 0);
            sink.record(event(round));
            let due = turns.due().unwrap();
            assert_eq!(due - Instant::now(), GATHER);
            tokio::time::advance(GATHER).await;
            turns.gathered(due);
            let gathered = if round == 1 { 2 } else { 1 };
            assert_eq!(take_turn(&mut turns), gathered);
            assert_eq!(hear(&mut turns, &mut told), 0, "round {round}");
            assert_eq!(turns.intakes().count(), 0, "all is encoded");
        }
        // Then it rests, and its next event is told.
        let due = turns.due().unwrap();
        turns.gathered(due);
        assert_eq!((take_turn(&mut turns), turns.due()), (0, None));
        assert!(turns.intakes.is_empty());
        sink.record(event(50));
        assert_eq!(hear(&mut turns, &mut told), 1);
        assert_eq!(turns.intakes().count(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fills_a_turn_does_not_gather() {
        let (sink, mut told) = sink(Durability::Async);
        let mut turns = Turns::default();
        (0..BATCH as u64).for_each(|id| sink.record(event(id)));
        assert_eq!(hear(&mut turns, &mut told), 1);
        assert_eq!(turns.due(), None);
        assert_eq!(take_turn(&mut turns), BATCH);
    }

    #[tokio::test(start_paused = true)]
    async fn what_somebody_waits_for_does_not_gather() {
        let (sink, mut told) = sink(Durability::BeforeResponse);
        let mut turns = Turns::default();
        for id in 0..3 {
            drop(sink.admit(event(id)));
            assert_eq!(hear(&mut turns, &mut told), 1);
            assert_eq!(turns.due(), None);
            assert_eq!(take_turn(&mut turns), 1);
            assert!(turns.intakes.is_empty());
        }
    }

    #[test]
    fn earlier_configurations_of_an_app_go_first() {
        let mut order = Order::default();
        assert!(order.add(3) && order.add(3));
        assert!(!order.add(5) && !order.add(4));
        // It had nothing before; who has turns keeps them.
        assert!(order.add(2) && order.add(3));
        assert_eq!(order.leave(2), None);
        assert_eq!(order.leave(3), Some(4));
        assert_eq!(order.leave(4), Some(5));
        assert_eq!(order.leave(5), None);
        assert!(order.first.is_empty() && order.behind.is_empty());
    }

    #[test]
    fn who_is_slow_leaves_places_to_the_others() {
        let mut queue = TurnQueue::default();
        (0..100).for_each(|id| queue.push(id));
        let first: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(first, (0..64).collect::<Vec<_>>());
        for id in first {
            queue.ended(id, Some(true));
            queue.push(id);
        }
        (64..200).for_each(|id| queue.push(id));
        let second: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        let slow = second.iter().filter(|id| **id < 64).count();
        assert_eq!((second.len(), slow), (PLACES, SLOW_PLACES));
        for id in second {
            queue.ended(id, Some(false));
        }
        assert_eq!((queue.taken, queue.slow_taken), (0, 0));
        assert_eq!(queue.are_slow.len(), 64 - SLOW_PLACES);
    }
}
