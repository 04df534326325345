//! Output types of the decision log: [`File`], [`S3`] and, with the feature `otlp`, `Otlp`.
//!
//! Each reads its own options; what the pipeline does before it (masks, batches, retries) has its
//! options beside them.
//!
//! ```
//! use opa_plugins::decision_logs::output::OutputType;
//! use opa_plugins::decision_logs::outputs::{File, S3};
//!
//! let types: [(&str, Box<dyn OutputType>); 2] =
//!     [("file", Box::new(File::default())), ("s3", Box::new(S3::default()))];
//! # drop(types);
//! ```

mod file;
mod options;
#[cfg(feature = "otlp")]
mod otlp;
mod s3;

pub use file::File;
#[cfg(feature = "otlp")]
pub use otlp::Otlp;
pub use s3::S3;
