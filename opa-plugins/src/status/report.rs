use std::collections::BTreeMap;
use std::sync::Arc;

use opa_core::Value;
use opa_core::plugin::{InstanceStatus, State};

/// One status update, as OPA's status API has it: that of the instance, and what plugins add.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StatusReport<'a> {
    /// The instance. Its bundles are in `bundles`, and make the state of the plugin `bundle`.
    pub instance: &'a InstanceStatus,
    /// What became of the last upload of decisions.
    pub decision_logs: Option<DecisionLogsStatus>,
    /// Further plugins, by name.
    pub plugins: BTreeMap<&'a str, PluginState>,
    /// What plugins of a state say about it, by name.
    pub plugin_messages: BTreeMap<&'a str, Arc<str>>,
    /// The series of metrics by provider, such as `prometheus`: an object.
    pub metrics: Option<Value>,
}

impl<'a> StatusReport<'a> {
    /// The status of an instance alone.
    #[must_use]
    pub fn new(instance: &'a InstanceStatus) -> Self {
        Self {
            instance,
            decision_logs: None,
            plugins: BTreeMap::new(),
            plugin_messages: BTreeMap::new(),
            metrics: None,
        }
    }

    /// The states of all plugins: with bundles that of `bundle` is known.
    pub(crate) fn plugin_states(&self) -> BTreeMap<&'a str, PluginState> {
        let mut plugins = self.plugins.clone();
        if let Some(state) = bundle_state(self.instance) {
            plugins.entry("bundle").or_insert(state);
        }
        plugins
    }
}

/// The plugins of OPA that an instance has, and how they are: with or without `decision_logs` and
/// `status` in its configuration.
pub(crate) fn plugin_states(
    status: &InstanceStatus,
    has_decision_logs: bool,
    has_status: bool,
) -> impl Iterator<Item = (&'static str, PluginState)> + use<> {
    let decision_logs = has_decision_logs.then_some(match status.state {
        State::Closed => PluginState::NotReady,
        State::Starting | State::Ready | State::Failed { .. } => PluginState::Ok,
    });
    let discovery = match &status.configuration_problem {
        None => PluginState::Ok,
        Some(_) => PluginState::Warn,
    };
    let states = [
        ("bundle", bundle_state(status)),
        ("decision_logs", decision_logs),
        ("discovery", Some(discovery)),
        ("status", has_status.then_some(PluginState::Ok)),
    ];
    let states = states.into_iter();
    states.filter_map(|(name, state)| Some((name, state?)))
}

/// The state of the plugin `bundle`, if there are bundles.
fn bundle_state(status: &InstanceStatus) -> Option<PluginState> {
    // As in OPA, a failure after the first activation changes nothing.
    let state = match status.state {
        State::Ready => PluginState::Ok,
        State::Starting | State::Failed { .. } | State::Closed => PluginState::NotReady,
    };
    (!status.bundles.is_empty()).then_some(state)
}

/// How a plugin is: OPA's states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PluginState {
    /// Not yet, or no longer, at work.
    NotReady,
    /// At work.
    Ok,
    /// Broken.
    Error,
    /// At work, but something deserves attention.
    Warn,
}

impl PluginState {
    /// OPA's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotReady => "NOT_READY",
            Self::Ok => "OK",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
        }
    }
}

/// What became of the last upload of decisions: `decision_logs` of a status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DecisionLogsStatus {
    /// What failed, in words; `None` after a success.
    pub message: Option<String>,
    /// The server's answer, if that was the failure.
    pub http_code: Option<u16>,
    /// Counters by OPA's names, without their prefix `counter_`, which `metrics` have. Those at zero
    /// are left out.
    pub counters: BTreeMap<&'static str, u64>,
    /// What waits in memory.
    pub buffer: Option<Buffer>,
}

/// What waits in a decision log's buffer, in the unit of the buffer's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Buffer {
    /// So many events.
    Events(u64),
    /// So many bytes.
    Bytes(u64),
}

impl DecisionLogsStatus {
    /// OPA's code of a failure.
    pub(crate) const CODE: &'static str = "decision_log_error";
}
