//! Decisions that wait until their events are on the disk, or delivered.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use opa_core::plugin::Event;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Whether something is on the disk, or delivered.
pub(super) type Durable = Pin<Box<dyn Future<Output = bool> + Send>>;

/// An event that was handed over, and who waits for it.
pub(super) struct Handed {
    pub(super) event: Event,
    /// Dropped with an event that is given up.
    pub(super) ticket: Option<Ticket>,
}

impl Handed {
    /// Nobody waits.
    pub(super) fn alone(event: Event) -> Self {
        let ticket = None;
        Self { event, ticket }
    }

    /// Somebody waits.
    pub(super) fn awaited(event: Event) -> (Self, Awaiting) {
        let (stored, answer) = oneshot::channel();
        let ticket = Some(Ticket(stored));
        (Self { event, ticket }, Awaiting(answer))
    }
}

/// Tells whoever waits for an event where it was put.
pub(super) struct Ticket(oneshot::Sender<Stored>);

impl Ticket {
    pub(super) fn tell(self, stored: Stored) {
        // Whoever waited may be gone.
        let _ = self.0.send(stored);
    }
}

/// What became of an event at the outputs that decisions wait for.
#[derive(Default)]
pub(super) struct Stored {
    /// One for each that has it.
    pub(super) writes: Vec<Durable>,
    /// One of them doesn't have it.
    pub(super) lost: bool,
}

/// Waits for an event.
pub(super) struct Awaiting(oneshot::Receiver<Stored>);

impl Awaiting {
    /// Whether all outputs that are waited for and that the event goes to have it, or have it on the
    /// disk.
    pub(super) async fn durable(self) -> bool {
        let Ok(Stored { writes, lost }) = self.0.await else {
            return false;
        };
        let mut durable = !lost;
        for write in writes {
            durable &= write.await;
        }
        durable
    }
}

/// Goes with an event to its output, and tells whoever waits for it when the output has it. Without
/// that, when all of its clones are gone, the event is lost.
#[derive(Clone)]
pub(in super::super) struct Receipt(Arc<Mutex<Option<oneshot::Sender<()>>>>);

impl Receipt {
    pub(super) fn new() -> (Self, Durable) {
        let (delivered, answer) = oneshot::channel();
        let receipt = Self(Arc::new(Mutex::new(Some(delivered))));
        (receipt, Box::pin(async { answer.await.is_ok() }))
    }

    /// The output has the event.
    pub(super) fn give(&self) {
        if let Some(delivered) = self.0.lock().take() {
            // Whoever waited may be gone.
            let _ = delivered.send(());
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<receipt>")
    }
}
