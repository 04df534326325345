//! The larger examples, run as their users run them.

mod quickstart;
mod serve;
mod support;
