//! Decisions that wait for room for their events.

use std::sync::Arc;
use std::time::Duration;

use opa_core::plugin::Event;

use super::intake::{Intake, Offer};
use super::ledger::Fate;

/// A decision that waits for room for its event. When it is dropped, the event is lost.
pub(super) struct Held {
    intake: Arc<Intake>,
    event: Option<Event>,
}

impl Held {
    pub(super) fn new(intake: Arc<Intake>, event: Event) -> Self {
        intake.queue.lock().waiting += 1;
        let event = Some(event);
        Self { intake, event }
    }

    /// Whether it was taken within `deadline`.
    pub(super) async fn wait(mut self, deadline: Duration) -> bool {
        tokio::time::timeout(deadline, self.is_taken())
            .await
            .unwrap_or_default()
    }

    async fn is_taken(&mut self) -> bool {
        loop {
            // The queue can have got room before there was anybody to be told.
            let room = self.intake.room.notified();
            if let Some(event) = self.event.take() {
                match self.intake.offer(event, false) {
                    Offer::Taken => return true,
                    Offer::Over => return false,
                    Offer::Full(event) => self.event = Some(*event),
                }
            }
            room.await;
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let others = {
            let mut queue = self.intake.queue.lock();
            queue.waiting = queue.waiting.saturating_sub(1);
            queue.waiting
        };
        if others > 0 {
            // There may be room for another one.
            self.intake.room.notify_one();
        }
        if let Some(event) = self.event.take() {
            self.intake.lose(event, Fate::Refused);
        }
    }
}
