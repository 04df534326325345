//! The larger examples, run as their users run them.
#![cfg(test)]

mod quickstart;
mod serve;
mod support;
