use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use crate::Value;

/// A call of a built-in whose answer comes from outside, such as `http.send`.
///
/// Two calls with equal names and arguments are the same call: it is made once in a decision.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IoCall {
    name: Arc<str>,
    args: Arc<[Value]>,
}

impl IoCall {
    /// A call of the built-in `name` with `args`.
    pub fn new(name: impl Into<Arc<str>>, args: impl IntoIterator<Item = Value>) -> Self {
        Self {
            name: name.into(),
            args: args.into_iter().collect(),
        }
    }

    /// The built-in's name, such as `http.send`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The arguments, in order.
    #[must_use]
    pub fn args(&self) -> &[Value] {
        &self.args
    }
}

/// What came back of an [`IoCall`]: a value, or the built-in's error text.
pub type IoAnswer = Result<Value, Arc<str>>;

/// Everything of a decision that is not deterministic, fixed for all of its rounds.
///
/// One clock reading, one random seed, one answer for each distinct I/O call; errors are kept like
/// answers, so that a call which failed is not sent again.
#[derive(Clone, Debug)]
pub struct Memo {
    now: SystemTime,
    seed: u64,
    answers: HashMap<IoCall, IoAnswer>,
}

impl Memo {
    /// The memo of a decision made at `now`, whose random source starts from `seed`.
    #[must_use]
    pub fn new(now: SystemTime, seed: u64) -> Self {
        Self {
            now,
            seed,
            answers: HashMap::new(),
        }
    }

    /// The decision's only clock reading.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        self.now
    }

    /// Where the decision's random source starts.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The answer of `call`, if it was made already.
    #[must_use]
    pub fn answer(&self, call: &IoCall) -> Option<&IoAnswer> {
        self.answers.get(call)
    }

    /// Keeps the answer of `call` for the rest of the decision. The first answer stays.
    pub fn remember(&mut self, call: IoCall, answer: IoAnswer) {
        self.answers.entry(call).or_insert(answer);
    }

    /// All calls that were made, with their answers, in no particular order.
    pub fn answers(&self) -> impl Iterator<Item = (&IoCall, &IoAnswer)> {
        self.answers.iter()
    }
}
