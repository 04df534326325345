use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Budget, Clock, Interrupt, Memo, SystemClock};

/// How many steps pass between two looks at the clock and the cancel flag.
const CLOCK_EVERY: u64 = 1_000;

/// How many lines of `print` are kept for one round.
pub const MAX_PRINTS: usize = 1_000;

/// All that is per decision or per app while a policy is evaluated.
///
/// An engine charges its work with [`step`](Self::step) and [`allocate`](Self::allocate); every
/// call that answers an error must end the evaluation with
/// [`Outcome::Interrupted`](super::Outcome::Interrupted).
#[derive(Debug)]
pub struct EvalContext {
    budget: Budget,
    clock: Arc<dyn Clock>,
    deadline: Duration,
    slice_end: Option<Duration>,
    cancel: CancelFlag,
    memo: Memo,
    caches: Arc<AppCaches>,
    sink: Option<Arc<dyn PrintSink>>,
    prints: Vec<(String, String)>,
    steps: u64,
    next_clock: u64,
    memory: u64,
    strict_builtin_errors: bool,
}

impl EvalContext {
    /// A context with the system's clocks whose time runs from now.
    #[must_use]
    pub fn new(budget: Budget) -> Self {
        Self::with_clock(budget, Arc::new(SystemClock::new()))
    }

    /// A context whose time runs from `clock`'s now.
    #[must_use]
    pub fn with_clock(budget: Budget, clock: Arc<dyn Clock>) -> Self {
        Self {
            budget,
            deadline: clock.monotonic().saturating_add(budget.time),
            slice_end: None,
            cancel: CancelFlag::default(),
            memo: Memo::new(clock.wall(), 0),
            clock,
            caches: Arc::default(),
            sink: None,
            prints: Vec::new(),
            steps: 0,
            next_clock: CLOCK_EVERY,
            memory: 0,
            strict_builtin_errors: false,
        }
    }

    /// With what is fixed for the decision.
    #[must_use]
    pub fn with_memo(mut self, memo: Memo) -> Self {
        self.memo = memo;
        self
    }

    /// With the flag that the caller raises when it stops waiting.
    #[must_use]
    pub fn with_cancel(mut self, cancel: CancelFlag) -> Self {
        self.cancel = cancel;
        self
    }

    /// With the caches of the app that asks.
    #[must_use]
    pub fn with_caches(mut self, caches: Arc<AppCaches>) -> Self {
        self.caches = caches;
        self
    }

    /// With a sink for `print`. Without one `print` does nothing.
    #[must_use]
    pub fn with_prints(mut self, sink: Arc<dyn PrintSink>) -> Self {
        self.sink = Some(sink);
        self
    }

    /// With errors of built-ins that end the evaluation instead of being undefined. Default: as the
    /// policy was compiled.
    #[must_use]
    pub fn with_strict_builtin_errors(mut self) -> Self {
        self.strict_builtin_errors = true;
        self
    }

    /// Whether errors of built-ins end this evaluation, however the policy was compiled.
    #[must_use]
    pub fn strict_builtin_errors(&self) -> bool {
        self.strict_builtin_errors
    }

    /// Bounds the next evaluation to `slice` from now; `None` lifts the bound.
    pub fn set_slice(&mut self, slice: Option<Duration>) {
        self.slice_end = slice.map(|slice| self.clock.monotonic().saturating_add(slice));
        self.next_clock = self.steps.saturating_add(CLOCK_EVERY);
    }

    /// Charges `n` steps and looks at the clock and the cancel flag now and then.
    ///
    /// # Errors
    /// Which budget is used up.
    pub fn step(&mut self, n: u64) -> Result<(), Interrupt> {
        self.steps = self.steps.saturating_add(n);
        if self.steps > self.budget.steps {
            return Err(Interrupt::Steps);
        }
        if self.steps >= self.next_clock {
            self.next_clock = self.steps.saturating_add(CLOCK_EVERY);
            return self.check();
        }
        Ok(())
    }

    /// Looks at the cancel flag and the clock.
    ///
    /// # Errors
    /// [`Interrupt::Cancelled`], [`Interrupt::Time`] or [`Interrupt::Slice`], in this order.
    pub fn check(&self) -> Result<(), Interrupt> {
        if self.cancel.is_cancelled() {
            return Err(Interrupt::Cancelled);
        }
        let now = self.clock.monotonic();
        if now >= self.deadline {
            return Err(Interrupt::Time);
        }
        match self.slice_end {
            Some(end) if now >= end => Err(Interrupt::Slice),
            _ => Ok(()),
        }
    }

    /// Charges `bytes` of values built.
    ///
    /// # Errors
    /// [`Interrupt::Memory`] when the budget is used up.
    pub fn allocate(&mut self, bytes: u64) -> Result<(), Interrupt> {
        self.memory = self.memory.saturating_add(bytes);
        if self.memory > self.budget.memory {
            Err(Interrupt::Memory)
        } else {
            Ok(())
        }
    }

    /// Whether `levels` of nested calls are allowed.
    ///
    /// # Errors
    /// [`Interrupt::Depth`] when they are not.
    pub fn depth(&self, levels: u32) -> Result<(), Interrupt> {
        if levels > self.budget.depth {
            Err(Interrupt::Depth)
        } else {
            Ok(())
        }
    }

    /// The time left until the decision's deadline.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_sub(self.clock.monotonic())
    }

    /// The steps charged so far, over all rounds.
    #[must_use]
    pub fn steps_used(&self) -> u64 {
        self.steps
    }

    /// What is fixed for the decision.
    #[must_use]
    pub fn memo(&self) -> &Memo {
        &self.memo
    }

    /// Access for the driver that fills in answers between two rounds.
    pub fn memo_mut(&mut self) -> &mut Memo {
        &mut self.memo
    }

    /// The caches of the app that asks.
    #[must_use]
    pub fn app_caches(&self) -> &AppCaches {
        &self.caches
    }

    /// The caller's flag.
    #[must_use]
    pub fn cancel_flag(&self) -> &CancelFlag {
        &self.cancel
    }

    /// Whether anybody wants the lines of `print`.
    #[must_use]
    pub fn wants_prints(&self) -> bool {
        self.sink.is_some()
    }

    /// Keeps a line of `print` until the round turns out to be the last one. A line beyond
    /// [`MAX_PRINTS`] is dropped.
    pub fn print(&mut self, location: impl Into<String>, text: impl Into<String>) {
        if self.sink.is_some() && self.prints.len() < MAX_PRINTS {
            self.prints.push((location.into(), text.into()));
        }
    }

    /// Hands the kept lines to the sink: the round's outcome counts.
    pub fn flush_prints(&mut self) {
        let lines = std::mem::take(&mut self.prints);
        if let Some(sink) = &self.sink {
            for (location, text) in lines {
                sink.print(&location, &text);
            }
        }
    }

    /// Forgets the kept lines: the round starts again.
    pub fn discard_prints(&mut self) {
        self.prints.clear();
    }
}

/// Raised by a caller that stops waiting; cloned flags are the same flag.
#[derive(Clone, Debug, Default)]
pub struct CancelFlag(Arc<AtomicBool>);

impl CancelFlag {
    /// Asks the evaluation to end at its next look.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether the caller stopped waiting.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where the lines of a policy's `print` go.
pub trait PrintSink: fmt::Debug + Send + Sync + 'static {
    /// One line, printed at `location` (`file:row`).
    fn print(&self, location: &str, text: &str);
}

/// What an engine keeps for one app between decisions, one entry for each type.
///
/// Each app has its own, so that nothing of one app reaches another.
#[derive(Default)]
pub struct AppCaches {
    entries: Mutex<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>,
}

impl AppCaches {
    /// The app's cache of type `T`, made when it is first asked for.
    pub fn get<T: Any + Default + Send + Sync>(&self) -> Arc<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries
            .entry(TypeId::of::<T>())
            .or_insert_with(|| Arc::new(T::default()));
        // The entry's key is its type, so the cast holds.
        Arc::clone(entry).downcast().unwrap_or_default()
    }
}

impl fmt::Debug for AppCaches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppCaches").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use std::time::SystemTime;

    #[derive(Debug, Default)]
    struct Held(AtomicU64);

    impl Clock for Held {
        fn wall(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH
        }
        fn monotonic(&self) -> Duration {
            Duration::from_micros(self.0.load(Ordering::Relaxed))
        }
    }

    fn held(budget: Budget) -> (Arc<Held>, EvalContext) {
        let clock = Arc::new(Held::default());
        (Arc::clone(&clock), EvalContext::with_clock(budget, clock))
    }

    #[test]
    fn steps_add_up_over_rounds() {
        let (_, mut ctx) = held(Budget::default().steps(10));
        assert_eq!(ctx.step(6), Ok(()));
        ctx.set_slice(None);
        assert_eq!(ctx.step(5), Err(Interrupt::Steps));
        assert_eq!(ctx.steps_used(), 11);
    }

    #[test]
    fn the_clock_is_read_every_thousand_steps() {
        let (clock, mut ctx) = held(Budget::default().time(Duration::from_micros(50)));
        clock.0.store(50, Ordering::Relaxed);
        assert_eq!(ctx.step(CLOCK_EVERY - 1), Ok(()));
        assert_eq!(ctx.step(1), Err(Interrupt::Time));
    }

    #[test]
    fn a_slice_ends_before_the_budget_and_can_be_lifted() {
        let (clock, mut ctx) = held(Budget::default());
        ctx.set_slice(Some(Duration::from_micros(100)));
        clock.0.store(100, Ordering::Relaxed);
        assert_eq!(ctx.check(), Err(Interrupt::Slice));
        ctx.set_slice(None);
        assert_eq!(ctx.check(), Ok(()));
    }

    #[test]
    fn cancel_wins_over_time() {
        let (clock, ctx) = held(Budget::default().time(Duration::ZERO));
        clock.0.store(1, Ordering::Relaxed);
        ctx.cancel_flag().cancel();
        assert_eq!(ctx.check(), Err(Interrupt::Cancelled));
    }

    #[test]
    fn memory_and_depth_have_their_own_interrupts() {
        let (_, mut ctx) = held(Budget::default().memory(8).depth(3));
        assert_eq!(ctx.allocate(8), Ok(()));
        assert_eq!(ctx.allocate(1), Err(Interrupt::Memory));
        assert_eq!(ctx.depth(3), Ok(()));
        assert_eq!(ctx.depth(4), Err(Interrupt::Depth));
    }

    #[derive(Debug, Default)]
    struct Lines(Mutex<Vec<String>>);

    impl PrintSink for Lines {
        fn print(&self, location: &str, text: &str) {
            self.0.lock().unwrap().push(format!("{location} {text}"));
        }
    }

    #[test]
    fn prints_of_an_abandoned_round_are_forgotten() {
        let lines = Arc::new(Lines::default());
        let sink = Arc::clone(&lines) as Arc<dyn PrintSink>;
        let mut ctx = EvalContext::new(Budget::default()).with_prints(sink);
        ctx.print("a.rego:1", "abandoned");
        ctx.discard_prints();
        ctx.print("a.rego:1", "kept");
        ctx.flush_prints();
        ctx.flush_prints();
        assert_eq!(*lines.0.lock().unwrap(), ["a.rego:1 kept"]);
    }

    #[test]
    fn caches_are_kept_by_type() {
        let caches = AppCaches::default();
        let first = caches.get::<AtomicU64>();
        first.store(7, Ordering::Relaxed);
        assert_eq!(caches.get::<AtomicU64>().load(Ordering::Relaxed), 7);
    }
}
