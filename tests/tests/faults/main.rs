//! Faults of a control plane: who is hurt, who is not, what the status says, and how it ends.
//!
//! The figures go to standard error, past the capture of the test harness. What is asserted are
//! counts and ratios to the same run without the fault, never a time alone.

mod answers;
mod clock;
mod crowd;
mod headers;
mod metrics;
mod names;
mod proxies;
mod retry_after;
mod tls;
mod world;
