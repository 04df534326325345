use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;

use super::{Event, InstanceStatus};

/// Where the events of one instance go.
///
/// Closures of one argument are sinks. One that must not lose a decision holds it until its event is
/// safe:
///
/// ```
/// use opa_core::plugin::{Admission, DecisionSink, Event};
/// use tokio::sync::{mpsc, oneshot};
///
/// /// Hands events to a task that writes them down, and answers then.
/// struct Journal(mpsc::Sender<(Event, oneshot::Sender<()>)>);
///
/// impl DecisionSink for Journal {
///     fn record(&self, event: Event) {
///         drop(self.admit(event));
///     }
///     fn is_available(&self) -> bool {
///         !self.0.is_closed()
///     }
///     fn admit(&self, event: Event) -> Admission {
///         let (written, is_written) = oneshot::channel();
///         match self.0.try_send((event, written)) {
///             Ok(()) => Admission::Waits(Box::pin(async { is_written.await.is_ok() })),
///             Err(_) => Admission::Refused,
///         }
///     }
/// }
/// ```
pub trait DecisionSink: Send + Sync + 'static {
    /// Takes an event over. Called on the way of a request, when the decision is made: it must
    /// not block, and must leave encoding and delivery to somebody else.
    ///
    /// A panic ends no request; the event may be lost.
    fn record(&self, event: Event);

    /// Whether it asks [the event's policy](Event::policy) what may be shown, and shows no more.
    /// Default: no. Events of an app whose policy says something about logs
    /// (`data.system.log`, or where a plugin [finds it](super::Attached::log_policy)) come without
    /// input and result then, and with [`EventInput::Withheld`](super::EventInput::Withheld).
    fn asks_policy(&self) -> bool {
        false
    }

    /// Whether decisions may be made at all. Asked before each of them, so it must be cheap. While
    /// it is not, or panics, they are refused as
    /// [`LogUnavailable`](crate::Reason::LogUnavailable), and the events of these refusals are
    /// [recorded](Self::record). Default: yes.
    fn is_available(&self) -> bool {
        true
    }

    /// As [`record`](Self::record), and tells when the decision may take effect. Called for every
    /// decision, whatever its outcome, but for those that are refused as
    /// [`LogUnavailable`](crate::Reason::LogUnavailable). Must not block either.
    ///
    /// Every sink of an instance is asked, and the decision takes effect when all of them admit it.
    /// A panic here, or in the future, refuses it, since nobody knows whether the event is safe.
    ///
    /// Default: records it and admits it at once, also when `record` panics: a sink that never
    /// holds a decision stops none.
    fn admit(&self, event: Event) -> Admission {
        let app = event.app.clone();
        if catch_unwind(AssertUnwindSafe(|| self.record(event))).is_err() {
            tracing::error!(target: "opa::instance", %app, "a decision sink panicked");
        }
        Admission::Admitted
    }
}

/// Whether a decision may take effect, as far as its log is concerned.
#[non_exhaustive]
pub enum Admission {
    /// It may.
    Admitted,
    /// It may not: it is refused as [`LogUnavailable`](crate::Reason::LogUnavailable). There is no
    /// second event: who took this one has a decision that had no effect.
    Refused,
    /// The future tells, within 30 s, else it may not. When it is dropped before, the event may be
    /// in the log or not.
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
