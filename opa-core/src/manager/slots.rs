use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many downloads of one service run at a time.
const PER_SERVICE: usize = 16;

/// How many downloads run at a time in total.
const TOTAL: usize = 256;

/// How many long polls of one service wait at a time; the others poll by interval. Over HTTP/1.1
/// each of them keeps a connection.
const LONG_POLLS: usize = 256;

/// How many apps wait at a time for news of a source in memory, which keeps no connection.
const IN_MEMORY: usize = 4096;

/// The bounds on what one service is asked at a time.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    downloads: Arc<Semaphore>,
    total: Arc<Semaphore>,
    long_polls: Arc<Semaphore>,
}

/// Room for one download.
pub(super) struct DownloadSlot(
    #[expect(dead_code, reason = "held for its drop")] [OwnedSemaphorePermit; 2],
);

/// Room for one long poll that waits.
pub(super) struct LongPollSlot(
    #[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit,
);

/// What lets a question start.
pub(super) enum Room {
    Download(DownloadSlot),
    LongPoll(#[expect(dead_code, reason = "held for its drop")] LongPollSlot),
}

/// The bound that all services share.
pub(super) fn total() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(TOTAL))
}

impl Slots {
    pub(super) fn of_service(total: &Arc<Semaphore>) -> Self {
        Self::new(total, LONG_POLLS)
    }

    pub(super) fn of_code(total: &Arc<Semaphore>) -> Self {
        Self::new(total, IN_MEMORY)
    }

    fn new(total: &Arc<Semaphore>, long_polls: usize) -> Self {
        Self {
            downloads: Arc::new(Semaphore::new(PER_SERVICE)),
            total: Arc::clone(total),
            long_polls: Arc::new(Semaphore::new(long_polls)),
        }
    }

    /// Whether anybody else holds these bounds.
    pub(super) fn is_used(&self) -> bool {
        Arc::strong_count(&self.downloads) > 1
    }

    /// Tells one service from another.
    pub(super) fn service(&self) -> usize {
        Arc::as_ptr(&self.downloads).addr()
    }

    /// Room for a download, if there is any now.
    pub(super) fn try_download(&self) -> Option<DownloadSlot> {
        let of_service = Arc::clone(&self.downloads).try_acquire_owned().ok()?;
        let of_all = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(DownloadSlot([of_service, of_all]))
    }

    /// Waits for room; whoever waits longest is served first.
    pub(super) async fn download(&self) -> Option<DownloadSlot> {
        let of_service = Arc::clone(&self.downloads).acquire_owned().await.ok()?;
        let of_all = Arc::clone(&self.total).acquire_owned().await.ok()?;
        Some(DownloadSlot([of_service, of_all]))
    }

    /// Room for a long poll, if there is any now.
    pub(super) fn try_long_poll(&self) -> Option<LongPollSlot> {
        Arc::clone(&self.long_polls)
            .try_acquire_owned()
            .ok()
            .map(LongPollSlot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_used_as_long_as_a_poll_or_a_download_has_them() {
        let of_service = Slots::of_service(&total());
        assert!(!of_service.is_used());
        let of_poll = of_service.clone();
        let download = of_poll.try_download().unwrap();
        drop(of_poll);
        assert!(of_service.is_used());
        drop(download);
        assert!(!of_service.is_used());
    }

    #[test]
    fn the_downloads_of_one_service_are_bounded() {
        let (of_service, other) = (Slots::of_service(&total()), Slots::of_service(&total()));
        let held: Vec<_> = std::iter::from_fn(|| of_service.try_download()).collect();
        assert_eq!(held.len(), PER_SERVICE);
        assert!(other.try_download().is_some());
    }

    #[test]
    fn the_downloads_of_all_services_are_bounded() {
        let total = total();
        let services: Vec<_> = (0..100).map(|_| Slots::of_service(&total)).collect();
        let held = services
            .iter()
            .flat_map(|it| std::iter::from_fn(|| it.try_download()));
        assert_eq!(held.collect::<Vec<_>>().len(), TOTAL);
    }
}
