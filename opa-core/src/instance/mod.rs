//! The virtual OPA of one app: its snapshot, its life and its decisions.
//!
//! An [`App`] is a lease on an instance: what a route holds. It is cheap to clone; when the last
//! lease is dropped the instance's grace period starts. Every decision takes the same four steps,
//! for [`App::decide`] and for a layer that brings its own input: snapshot, entrypoint, input,
//! evaluation.
//!
//! A decision takes effect when the app's sinks [admit](crate::plugin::DecisionSink::admit) it. Most
//! do at once; one that must not lose a decision may let it wait until its event is safe, or refuse
//! it. So every way to end a question gives a [`Concluded`], which is a future of the [`Decision`]
//! and has it [`now`](Concluded::now) where no sink waits. What has no record must not be acted on:
//! refused, the decision is [`LogUnavailable`](crate::Reason::LogUnavailable), whatever the policy
//! said, and while a sink [is not available](crate::plugin::DecisionSink::is_available), the policy
//! is not asked.
//!
//! ```
//! use opa_core::engine::Module;
//! use opa_core::{Manager, Reason, Value};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let policy = "package orders\nvisible := [id | some id, order in data.orders; order.owner == input.user]";
//! let data = Value::from_json(br#"{"orders": {"1": {"owner": "ann"}, "2": {"owner": "bob"}}}"#)?;
//! let manager = Manager::in_memory([Module::v1("orders.rego", policy)], data)?;
//!
//! let app = manager.app("shop")?;
//! app.ready(std::time::Duration::from_secs(5)).await?;
//! let input = Value::from_json(br#"{"user": "ann"}"#)?;
//! let decision = app.decide("orders/visible", &input).await;
//! assert_eq!(decision.reason(), Reason::Decided);
//! assert_eq!(decision.result().map(Value::to_json).as_deref(), Some(r#"["1"]"#));
//! # Ok(())
//! # }
//! ```

mod activation;
mod concluded;
mod counters;
mod decide;
mod decision;
mod evaluation;
mod freshness;
mod hooks;
mod incoming;
mod lease;
mod life;
mod log_policy;
mod policy_store;
mod question;
mod reconfigure;
mod report;
mod shared;
mod snapshot;
mod ticket;
mod traced;

pub use concluded::Concluded;
pub use counters::DecisionCounts;
pub use decide::Decide;
pub use decision::Decision;
pub use evaluation::{Evaluated, Evaluation};
pub use lease::{App, NotReady};
pub use question::{LogEntry, Prepared, Question};
pub use report::{InstanceReport, Reports, Share};

pub(crate) use activation::{ActivationError, Unsaved};
pub(crate) use hooks::Hooks;
pub(crate) use incoming::{Incoming, check_persistable};
pub(crate) use life::Instance;
pub(crate) use log_policy::Desk;
pub(crate) use policy_store::PolicyStore;
pub(crate) use reconfigure::Configured;
pub(crate) use shared::Shared;
pub(crate) use snapshot::{Profile, Snapshot};
pub(crate) use ticket::Ticket;
pub(crate) use traced::Tracing;
