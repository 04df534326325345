use std::fmt;
use std::time::Duration;

/// What one decision may use, over all its rounds and wherever it runs.
///
/// Exceeding a budget ends the decision with [`Outcome::Interrupted`](super::Outcome::Interrupted),
/// which neither `not`, nor `else`, nor non-strict built-in errors can hide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub(super) time: Duration,
    pub(super) steps: u64,
    pub(super) memory: u64,
    pub(super) depth: u32,
}

impl Budget {
    /// The time from the decision's start, waiting included. Default: 1 s.
    #[must_use]
    pub const fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Calls, loop steps and units of work of built-ins. Default: 50 million.
    #[must_use]
    pub const fn steps(mut self, steps: u64) -> Self {
        self.steps = steps;
        self
    }

    /// Bytes of values built during the evaluation. Default: 256 MiB.
    #[must_use]
    pub const fn memory(mut self, bytes: u64) -> Self {
        self.memory = bytes;
        self
    }

    /// Nested calls. Default: 10,000.
    #[must_use]
    pub const fn depth(mut self, levels: u32) -> Self {
        self.depth = levels;
        self
    }

    /// The allowed time.
    #[must_use]
    pub const fn max_time(&self) -> Duration {
        self.time
    }

    /// The allowed steps.
    #[must_use]
    pub const fn max_steps(&self) -> u64 {
        self.steps
    }

    /// The allowed bytes.
    #[must_use]
    pub const fn max_memory(&self) -> u64 {
        self.memory
    }

    /// The allowed levels.
    #[must_use]
    pub const fn max_depth(&self) -> u32 {
        self.depth
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            time: Duration::from_secs(1),
            steps: 50_000_000,
            memory: 256 << 20,
            depth: 10_000,
        }
    }
}

/// Why an evaluation was stopped before it had an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interrupt {
    /// The inline slice is over; the decision starts again on a pool.
    Slice,
    /// [`Budget::time`] is used up.
    Time,
    /// [`Budget::steps`] is used up.
    Steps,
    /// [`Budget::memory`] is used up.
    Memory,
    /// [`Budget::depth`] is exceeded.
    Depth,
    /// The caller does not wait for the answer any more.
    Cancelled,
}

impl fmt::Display for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Slice => "the inline slice is over",
            Self::Time => "the evaluation exceeded its time budget",
            Self::Steps => "the evaluation exceeded its step budget",
            Self::Memory => "the evaluation exceeded its memory budget",
            Self::Depth => "the evaluation exceeded its depth budget",
            Self::Cancelled => "caller cancelled query execution",
        })
    }
}
