//! The values of Open Policy Agent's Rego, as they come in and go out.
//!
//! - [`Value`] and [`Number`]: what policies read and answer, shared, compared as Rego compares.
//!   JSON is read by [`Value::from_json`] and written by [`Value::write_json`].
//! - [`token`]: the tokens of Rego source text.
//! - [`screen`]: a look over a module that refuses what a parser might not survive.

pub use json::JsonError;
pub use number::Number;
pub use value::{Kind, ObjectIter, ObjectView, SetView, Value};

mod json;
mod number;
pub mod screen;
pub mod token;
pub mod value;
