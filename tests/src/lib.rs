//! What the cross-crate tests share: the real programs that the product is compared with, a small
//! HTTP client and upstream, and the policies of the differential tests.
//!
//! Peers (Open Policy Agent, its Envoy plugin, Envoy, nginx, servers of S3's protocol, a registry,
//! Toxiproxy, Prometheus) are real programs. [`peers`] fetches them into `target/peers` when a test first asks for one and starts
//! them on loopback, each with its own ports and directories. A test whose peer can't be had says
//! so on standard error and returns; with `CI=true` it fails instead:
//!
//! ```no_run
//! # async fn test() {
//! let Some(opa) = tests::peers::opa() else { return };
//! assert!(opa.version().contains("Version: 1.22.2"));
//! # }
//! ```

pub mod activating;
pub mod bundle_server;
pub mod bundle_service;
pub mod certificates;
pub mod comparison;
pub mod echo;
pub mod envoy_stack;
pub mod http_client;
pub mod layered;
pub mod log_sink;
pub mod memory;
pub mod oci_registry;
pub mod peers;
pub mod policies;
pub mod scripted;
pub mod serve;
pub mod signing;
pub mod spooling;
pub mod statuses;
