//! Many virtual Open Policy Agent instances in one process.
//!
//! One shared [`Manager`] runs an instance for each application: its own bundles, labels,
//! configuration, decision log and status, in OPA's own protocols. What a route holds is an
//! [`App`], a lease on an instance.
//!
//! The modules stand in the order in which data flows; each may use those before it only:
//! [`trace`], [`config`], [`service`], [`bundle`], [`engine`], [`plugin`], [`instance`], [`manager`].

pub mod bundle;
pub mod config;
pub mod engine;
pub mod instance;
pub mod manager;
pub mod plugin;
pub mod service;
pub mod trace;

mod app_id;
mod entrypoint_path;
mod failure;
mod histogram;
mod reason;

pub use app_id::{AppId, InvalidAppId};
pub use failure::{FailureClass, FailureCounts};
pub use histogram::Histogram;
pub use instance::{App, Decision};
pub use manager::{AppSet, Manager, ManagerBuilder};
pub use opa_rego::builtin::{self, Builtin};
pub use opa_rego::{JsonError, Kind, Number, ObjectIter, RegoVersion, Value};
pub use reason::Reason;

/// The version of OPA whose protocols and answers are spoken, in `labels.version` and `User-Agent`.
pub const OPA_VERSION: &str = "1.22.2";
