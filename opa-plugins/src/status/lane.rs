//! One instance's way to its service.

use std::sync::Arc;

use opa_core::AppId;
use opa_core::plugin::{InstanceStatus, State, StatusSink};
use parking_lot::Mutex;

use super::driver::Message;
use super::metrics::metrics;
use super::news::{self, News};
use super::target::Target;
use super::{DecisionLogsStatus, Shared, StatusConfig, StatusReport, StatusTrigger, plugin_states};

/// An instance with its configuration and the newest of its statuses.
pub(super) struct Lane {
    pub(super) id: u64,
    pub(super) app: AppId,
    pub(super) config: StatusConfig,
    pub(super) target: Option<Arc<dyn Target>>,
    pub(super) shared: Arc<Shared>,
    /// Whether the instance has a decision log.
    logs_decisions: bool,
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    newest: Option<Arc<InstanceStatus>>,
    logs: Option<DecisionLogsStatus>,
    /// The driver knows that there is something to be sent.
    told: bool,
    closed: bool,
}

/// Where an instance's statuses go.
pub(super) struct LaneSink(pub(super) Arc<Lane>);

impl StatusSink for LaneSink {
    fn update(&self, status: Arc<InstanceStatus>) {
        self.0.update(status);
    }
}

impl Drop for LaneSink {
    fn drop(&mut self) {
        // A closed instance's last status is still to be sent. Otherwise another configuration of
        // the instance has taken over, and must not be followed by what was before.
        if !self.0.slot.lock().closed {
            self.0.shared.send(Message::Gone(self.0.id));
        }
    }
}

impl Lane {
    pub(super) fn new(
        shared: &Arc<Shared>,
        (id, app): (u64, &AppId),
        config: StatusConfig,
        target: Option<Arc<dyn Target>>,
        logs_decisions: bool,
    ) -> Self {
        Self {
            id,
            app: app.clone(),
            config,
            target,
            shared: Arc::clone(shared),
            logs_decisions,
            slot: Mutex::default(),
        }
    }

    fn update(self: &Arc<Self>, status: Arc<InstanceStatus>) {
        let mut slot = self.slot.lock();
        let is_wanted = match &slot.newest {
            // So the driver gets to know the instance.
            None => true,
            Some(old) => self.wants(news::of(old, &status)),
        };
        let closes = matches!(status.state, State::Closed) && !slot.closed;
        slot.closed |= closes;
        slot.newest = Some(status);
        let message = if closes {
            Message::Closing
        } else if is_wanted && !std::mem::replace(&mut slot.told, true) {
            Message::Changed
        } else {
            return;
        };
        // Under the lock: the driver is told in the order in which it happened.
        self.shared.send(message(Arc::clone(self)));
    }

    fn wants(&self, news: News) -> bool {
        match (self.config.trigger, news) {
            (StatusTrigger::Manual, _) | (_, News::Nothing) => false,
            (StatusTrigger::Periodic, News::Poll) => self.config.per_poll,
            (StatusTrigger::Periodic, News::Change) => true,
        }
    }

    /// Whether the last upload of decisions tells something that wasn't known.
    pub(super) fn note_upload(&self) -> bool {
        let logs = self.logs();
        let mut slot = self.slot.lock();
        let is_news = news::is_news_of_logs(slot.logs.as_ref(), logs.as_ref());
        slot.logs = logs;
        is_news
    }

    fn logs(&self) -> Option<DecisionLogsStatus> {
        let read = self.logs_decisions.then(|| self.shared.read_logs())??;
        read(&self.app)
    }

    /// The newest status, which nobody is told of any more.
    pub(super) fn take(&self) -> Option<Arc<InstanceStatus>> {
        let logs = self.logs();
        let mut slot = self.slot.lock();
        slot.told = false;
        slot.logs = logs;
        slot.newest.clone()
    }

    /// The status as it is sent.
    pub(super) fn report<'a>(&self, status: &'a InstanceStatus) -> StatusReport<'a> {
        let mut report = StatusReport::new(status);
        report.decision_logs = self.slot.lock().logs.clone();
        report.plugins = plugin_states(status, self.logs_decisions, true).collect();
        if let Some(problem) = &status.configuration_problem {
            let messages = &mut report.plugin_messages;
            messages.insert("discovery", Arc::clone(problem));
        }
        report.metrics = Some(metrics(&report, self.config.prometheus));
        report
    }
}
