//! From the outbox to the output: what is done of it at a time.

use std::sync::Arc;

use super::super::output::OutputError;
use super::lane::{Account, Lane};
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
    Failed(OutputError),
}

/// Delivers some of a lane's events, oldest first. `gathers` takes those that wait for more, too.
pub(super) async fn deliver(lane: Arc<Lane>, gathers: bool) -> Turn {
    for number in 0..PARCELS {
        let taking = Arc::clone(&lane);
        let taken = tokio::task::spawn_blocking(move || taking.next(gathers)).await;
        let (parcel, account) = match taken {
            Ok(Ok(Some(taken))) => taken,
            Ok(Ok(None)) if number == 0 => return Turn::Done,
            Ok(Ok(None)) => return ended(&lane, Turn::Done),
            Ok(Err(error)) => {
                tracing::warn!(app = %lane.app, output = %lane.name, "decision log: {error}");
                return Turn::Failed(error);
            }
            Err(error) => {
                // As after a refusal there is a pause: it may fail again.
                tracing::error!(app = %lane.app, %error, "decision log: nothing could be taken");
                return Turn::Failed(OutputError::new("nothing could be taken"));
            }
        };
        if let Err(error) = deliver_one(&lane, parcel, account).await {
            return ended(&lane, Turn::Failed(error));
        }
    }
    // Events that came meanwhile and are not enough yet have time.
    let turn = match gathers && lane.has_backlog() {
        true => Turn::More,
        false => Turn::Done,
    };
    ended(&lane, turn)
}

fn ended(lane: &Lane, turn: Turn) -> Turn {
    lane.shared.tell(&lane.app);
    turn
}

async fn deliver_one(
    lane: &Arc<Lane>,
    mut parcel: Parcel,
    account: Account,
) -> Result<(), OutputError> {
    let events = parcel.events();
    let is_chunk = matches!(parcel, Parcel::Chunk(_));
    let delivered = lane.transport.deliver(&lane.app, &mut parcel).await;
    lane.ledger.attempted(delivered.as_ref().err(), is_chunk);
    let Err(error) = delivered else {
        account.settle(events, 0);
        parcel.give_receipts();
        return Ok(());
    };
    tracing::warn!(app = %lane.app, output = %lane.name, events, "decision log: {error}");
    if error.is_permanent {
        let lost = error.lost.map_or(events, |lost| events.min(lost as u64));
        account.settle(events, lost);
        return Ok(());
    }
    lane.put_back(parcel, account);
    lane.shared.relieve();
    Err(error)
}
