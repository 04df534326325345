//! OPA's status: what an instance tells a control plane about itself.
//!
//! ```
//! use opa_core::AppId;
//! use opa_core::plugin::{InstanceStatus, Labels, State};
//! use opa_plugins::status::StatusReport;
//!
//! let labels = Labels::new([("id".to_owned(), "1".to_owned())]);
//! let status = InstanceStatus::new(AppId::new("shop")?, Some(labels), State::Ready, None, vec![]);
//! let mut json = Vec::new();
//! StatusReport::new(&status).write(&mut json);
//! assert_eq!(json, br#"{"labels":{"id":"1"}}"#);
//! # Ok::<(), opa_core::InvalidAppId>(())
//! ```

mod encode;
mod report;

pub use report::{DecisionLogsStatus, PluginState, StatusReport};
