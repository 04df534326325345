//! The values of Open Policy Agent's Rego and the vocabulary of its evaluation.
//!
//! - [`Value`] and [`Number`]: what policies read and answer, shared, compared as Rego compares.
//!   JSON is read by [`Value::from_json`] and written by [`Value::write_json`].
//! - [`eval`]: what an evaluation is given and what it answers.
//! - [`builtin`]: functions of the user's own.
//! - [`token`]: the tokens of Rego source text.
//! - [`screen`]: a look over a module that refuses what a parser might not survive.

pub use json::{JsonError, ReadJsonError};
pub use number::Number;
pub use rego_version::RegoVersion;
pub use value::{Kind, ObjectIter, ObjectView, SetView, Value, WeakValue};

pub mod builtin;
pub mod eval;
mod json;
mod number;
mod rego_version;
pub mod screen;
pub mod token;
pub mod value;
