//! The values of Open Policy Agent's Rego, as they come in and go out.
//!
//! - [`Value`] and [`Number`]: what policies read and answer, shared, compared as Rego compares.
//!   JSON is read by [`Value::from_json`] and written by [`Value::write_json`].
//! - [`token`]: the tokens of Rego source text.

pub use json::JsonError;
pub use number::Number;
pub use value::{Kind, ObjectIter, ObjectView, SetView, Value};

mod json;
mod number;
pub mod token;
pub mod value;
