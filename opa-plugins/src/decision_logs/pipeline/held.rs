//! Decisions that wait for room for their events, and until these are on the disk.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::super::WhenFull;
use super::intake::{Intake, Offer};
use super::ledger::Fate;
use super::ticket::{Awaiting, Handed};

/// How often a spool is asked for room.
const SPOOL_DELAY: Duration = Duration::from_millis(20);

/// A decision that waits for room for its event. When it is dropped, the event is lost.
pub(super) struct Held {
    intake: Arc<Intake>,
    handed: Option<Handed>,
}

/// Whether the event was taken, and is on the disk if that is waited for, within `deadline`.
pub(super) async fn taken(mut held: Held, awaiting: Option<Awaiting>, deadline: Duration) -> bool {
    let taken = async {
        if !held.is_taken().await {
            return false;
        }
        match awaiting {
            Some(awaiting) => awaiting.durable().await,
            None => true,
        }
    };
    timeout(deadline, taken).await.unwrap_or_default()
}

/// Whether a decision may take effect whose event was taken.
pub(super) async fn durable(awaiting: Awaiting, when_full: WhenFull) -> bool {
    let durable = awaiting.durable();
    match when_full {
        WhenFull::Hold { deadline } => timeout(deadline, durable).await.unwrap_or_default(),
        WhenFull::Deny => durable.await,
        // Who lets events be dropped lets their decisions take effect.
        WhenFull::DropOldest | WhenFull::DropNewest | WhenFull::Sample => {
            durable.await;
            true
        }
    }
}

impl Held {
    pub(super) fn new(intake: Arc<Intake>, handed: Handed) -> Self {
        intake.queue.lock().waiting += 1;
        let handed = Some(handed);
        Self { intake, handed }
    }

    async fn is_taken(&mut self) -> bool {
        let has_spool = self.intake.lanes().any(|lane| lane.is_spooled());
        let delay = match has_spool {
            true => SPOOL_DELAY,
            false => Duration::MAX,
        };
        loop {
            // The queue can have got room before there was anybody to be told.
            let room = self.intake.room.notified();
            if let Some(handed) = self.handed.take() {
                match self.intake.offer(handed, false) {
                    Offer::Taken => return true,
                    Offer::Over => return false,
                    Offer::Full(handed) => self.handed = Some(*handed),
                }
            }
            // A spool doesn't tell.
            let _ = timeout(delay, room).await;
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
        if let Some(handed) = self.handed.take() {
            self.intake.lose(handed, Fate::Refused);
        }
    }
}
