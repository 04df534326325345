//! JSON text: read and written as OPA does it, to any depth that OPA reads.

pub use error::{JsonError, ReadJsonError};
pub(crate) use write::{key_text, write_scalar};

mod error;
mod names;
mod read;
mod window;
mod write;
