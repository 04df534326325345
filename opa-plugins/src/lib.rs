//! OPA's plugins for [`opa_core`]: what runs beside every virtual instance.
//!
//! - [`decision_logs`](decision_logs()): OPA's decision log, uploaded to a service or written to the console.
//! - [`metrics`](metrics()): what a scrape of Prometheus is answered with, by app.
//! - [`status`](status()): OPA's status, posted to a service or written to the console.
#![cfg_attr(
    feature = "opentelemetry",
    doc = "- [`opentelemetry`](opentelemetry()): decisions, downloads and uploads in the traces of OpenTelemetry."
)]
//!
//! ```
//! use opa_core::Manager;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), opa_core::config::ConfigError> {
//! let manager = Manager::builder()
//!     .config_yaml("services: {control: {url: 'http://127.0.0.1:1'}}\ndecision_logs: {console: true}")
//!     .plugin(opa_plugins::decision_logs())
//!     .build()?;
//! # drop(manager);
//! # Ok(())
//! # }
//! ```

pub mod decision_logs;
mod json;
pub mod metrics;
#[cfg(feature = "opentelemetry")]
pub mod opentelemetry;
pub mod status;

pub use decision_logs::decision_logs;
pub use metrics::metrics;
#[cfg(feature = "opentelemetry")]
pub use opentelemetry::opentelemetry;
pub use status::status;
