//! From the outbox to the output: what is done of it at a time.

use std::sync::Arc;
use std::time::Duration;

use super::lane::Lane;
use super::ledger::{Fate, Unsettled};
use super::outbox::Parcel;

/// How many parcels of a lane are delivered at a time.
const PARCELS: usize = 16;

/// How a turn of deliveries ended.
pub(super) enum Turn {
    /// With a success, or nothing to do.
    Done,
    /// With a success, and what was due is not all delivered yet.
    More,
    /// A parcel was not taken, and is the oldest again.
    Failed { retry_after: Option<Duration> },
}

/// Delivers some of a lane's events, oldest first. `gathers` takes those that wait for more, too.
pub(super) async fn deliver(lane: Arc<Lane>, gathers: bool) -> Turn {
    for _ in 0..PARCELS {
        let taking = Arc::clone(&lane);
        let taken = tokio::task::spawn_blocking(move || taking.next(gathers)).await;
        let (parcel, unsettled) = match taken {
            Ok(Some(taken)) => taken,
            Ok(None) => return Turn::Done,
            Err(error) => {
                // As after a refusal there is a pause: it may fail again.
                tracing::error!(app = %lane.app, %error, "decision log: nothing could be taken");
                return Turn::Failed { retry_after: None };
            }
        };
        if let Err(retry_after) = deliver_one(&lane, parcel, unsettled).await {
            return Turn::Failed { retry_after };
        }
    }
    // Events that came meanwhile and are not enough yet have time.
    match gathers && lane.has_backlog() {
        true => Turn::More,
        false => Turn::Done,
    }
}

async fn deliver_one(
    lane: &Arc<Lane>,
    mut parcel: Parcel,
    mut unsettled: Unsettled,
) -> Result<(), Option<Duration>> {
    let events = parcel.events();
    let Err(error) = lane.transport.deliver(&lane.app, &mut parcel).await else {
        unsettled.settle(Fate::Delivered, events);
        return Ok(());
    };
    tracing::warn!(app = %lane.app, output = %lane.name, events, "decision log: {error}");
    if error.is_permanent {
        unsettled.settle(Fate::Rejected, events);
        return Ok(());
    }
    lane.put_back(parcel, &mut unsettled);
    lane.shared.relieve();
    Err(error.retry_after)
}
