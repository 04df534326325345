//! What an evaluation is given and what it answers: the vocabulary of the engine contract.
//!
//! An [`EvalContext`] carries all that belongs to one decision or to one app: budgets, the cancel
//! flag, the memo of everything that is not deterministic (clock, random seed, answers of I/O),
//! the app's caches and the sink of `print`. An engine answers an [`Outcome`].
//!
//! ```
//! use opa_rego::eval::{Budget, EvalContext, Interrupt};
//!
//! let mut ctx = EvalContext::new(Budget::default().steps(2));
//! assert_eq!(ctx.step(1), Ok(()));
//! assert_eq!(ctx.step(2), Err(Interrupt::Steps));
//! ```

mod budget;
mod clock;
mod context;
mod memo;
mod outcome;

pub use budget::{Budget, Interrupt};
pub use clock::{Clock, SystemClock};
pub use context::{AppCaches, CancelFlag, EvalContext, MAX_PRINTS, PrintSink};
pub use memo::{IoAnswer, IoCall, Memo};
pub use outcome::{EvalError, Location, Outcome};
