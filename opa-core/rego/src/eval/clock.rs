use std::fmt;
use std::time::{Duration, Instant, SystemTime};

/// The two clocks that an evaluation looks at, injected so that tests can hold them still.
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The time of day, for `time.now_ns()` and timestamps.
    fn wall(&self) -> SystemTime;

    /// The time since an arbitrary fixed origin; never goes back. Budgets are measured by it.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the operating system. The default.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    origin: Instant,
}

impl SystemClock {
    /// A clock whose monotonic origin is now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn monotonic(&self) -> Duration {
        self.origin.elapsed()
    }
}
