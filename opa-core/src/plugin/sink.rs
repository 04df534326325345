use std::fmt;
use std::sync::Arc;

use super::{Event, InstanceStatus};

/// Where the events of one instance go.
///
/// Closures of one argument are sinks.
pub trait DecisionSink: Send + Sync + 'static {
    /// Takes an event over. Called on the way of a request, when the decision is final: it must
    /// not block, and must leave encoding and delivery to somebody else.
    fn record(&self, event: Event);

    /// Whether it asks [the event's policy](Event::policy) what may be shown, and shows no more.
    /// Default: no. Events of an app whose policy says something about logs
    /// (`data.system.log`, or where a plugin [finds it](super::Attached::log_policy)) come without
    /// input and result then, and with [`EventInput::Withheld`](super::EventInput::Withheld).
    fn asks_policy(&self) -> bool {
        false
    }
}

impl<F: Fn(Event) + Send + Sync + 'static> DecisionSink for F {
    fn record(&self, event: Event) {
        self(event);
    }
}

impl fmt::Debug for dyn DecisionSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<decision sink>")
    }
}

/// Where the status of one instance goes.
///
/// Closures of one argument are sinks.
pub trait StatusSink: Send + Sync + 'static {
    /// Takes the newest status; older ones that were not delivered may be forgotten. Must not block.
    fn update(&self, status: Arc<InstanceStatus>);
}

impl<F: Fn(Arc<InstanceStatus>) + Send + Sync + 'static> StatusSink for F {
    fn update(&self, status: Arc<InstanceStatus>) {
        self(status);
    }
}

impl fmt::Debug for dyn StatusSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<status sink>")
    }
}
