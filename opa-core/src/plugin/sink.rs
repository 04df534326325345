use std::fmt;
use std::future::Future;
use std::pin::Pin;
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

    /// Whether decisions may be made at all. Asked before each of them, so it must be cheap. While
    /// it is not, they are refused as [`LogUnavailable`](crate::Reason::LogUnavailable). Default:
    /// yes.
    fn is_available(&self) -> bool {
        true
    }

    /// As [`record`](Self::record), and tells when the decision may take effect. Default: at once.
    fn admit(&self, event: Event) -> Admission {
        self.record(event);
        Admission::Admitted
    }
}

/// Whether a decision may take effect, as far as its log is concerned.
#[non_exhaustive]
pub enum Admission {
    /// It may.
    Admitted,
    /// It may not: it is refused as [`LogUnavailable`](crate::Reason::LogUnavailable).
    Refused,
    /// The future tells. When it is dropped before, the event may be in the log or not.
    Waits(AdmissionFuture),
}

/// Tells whether a decision may take effect.
pub type AdmissionFuture = Pin<Box<dyn Future<Output = bool> + Send + 'static>>;

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admitted => "Admitted",
            Self::Refused => "Refused",
            Self::Waits(_) => "Waits",
        })
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
