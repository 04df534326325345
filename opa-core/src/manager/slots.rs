use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many downloads of one service run at a time, from the question to the activation.
const PER_SERVICE: usize = 16;

/// How many of them may be retries: what fails late, such as a server that hangs for some apps,
/// must not keep its room from those that it answers.
const RETRIES: usize = PER_SERVICE / 2;

/// How many bodies are read at a time in total, besides the one that each service has for itself.
const BODIES: usize = 256;

/// How many services may have a body for themselves at a time.
const OWN_BODIES: usize = 1024;

/// How many long polls of one service wait at a time over HTTP/1.1, where each of them keeps a
/// connection; the others poll by interval.
const LONG_POLLS: usize = 256;

/// How many wait at a time where they keep no connection each: over HTTP/2, and for news of a
/// source in memory.
const MULTIPLEXED: usize = 20_000;

/// The bounds on what one service is asked at a time. Clones are the same bounds.
#[derive(Clone, Debug)]
pub(super) struct Slots(Arc<OfService>);

#[derive(Debug)]
struct OfService {
    downloads: Arc<Semaphore>,
    retries: Arc<Semaphore>,
    /// Slow bodies of other services must not keep this one from a first body.
    own_body: Arc<Semaphore>,
    long_polls: Arc<Semaphore>,
    multiplexed: Arc<Semaphore>,
    total: Total,
}

/// The bounds that all services share. Only bodies count, which take memory: a service that hangs
/// before its answers uses nothing up that others need.
#[derive(Clone, Debug)]
pub(super) struct Total {
    bodies: Arc<Semaphore>,
    own_bodies: Arc<Semaphore>,
}

/// Room for one download.
pub(super) struct DownloadSlot(
    #[expect(dead_code, reason = "held for its drop")] OwnedSemaphorePermit,
    #[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>,
    #[expect(dead_code, reason = "its bounds are used")] Slots,
);

/// Room for one body to be read and activated.
pub(super) struct BodySlot(
    #[expect(dead_code, reason = "held for its drop")] Vec<OwnedSemaphorePermit>,
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

impl Total {
    pub(super) fn new() -> Self {
        Self {
            bodies: Arc::new(Semaphore::new(BODIES)),
            own_bodies: Arc::new(Semaphore::new(OWN_BODIES)),
        }
    }
}

impl Slots {
    pub(super) fn of_service(total: &Total) -> Self {
        Self::new(total, LONG_POLLS)
    }

    pub(super) fn of_code(total: &Total) -> Self {
        Self::new(total, MULTIPLEXED)
    }

    fn new(total: &Total, long_polls: usize) -> Self {
        Self(Arc::new(OfService {
            downloads: Arc::new(Semaphore::new(PER_SERVICE)),
            retries: Arc::new(Semaphore::new(RETRIES)),
            own_body: Arc::new(Semaphore::new(1)),
            long_polls: Arc::new(Semaphore::new(long_polls)),
            multiplexed: Arc::new(Semaphore::new(MULTIPLEXED)),
            total: total.clone(),
        }))
    }

    /// Whether anybody else holds these bounds.
    pub(super) fn is_used(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Tells one service from another.
    pub(super) fn service(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Room for a download, if there is any now.
    pub(super) fn try_download(&self) -> Option<DownloadSlot> {
        self.try_slot(None)
    }

    /// Room for a download that failed the last time, if there is any now.
    pub(super) fn try_retry(&self) -> Option<DownloadSlot> {
        let of_retries = Arc::clone(&self.0.retries).try_acquire_owned().ok()?;
        self.try_slot(Some(of_retries))
    }

    fn try_slot(&self, of_retries: Option<OwnedSemaphorePermit>) -> Option<DownloadSlot> {
        let permit = Arc::clone(&self.0.downloads).try_acquire_owned().ok()?;
        Some(DownloadSlot(permit, of_retries, self.clone()))
    }

    /// Waits for room; whoever waits longest is served first.
    pub(super) async fn download(&self) -> Option<DownloadSlot> {
        let permit = Arc::clone(&self.0.downloads).acquire_owned().await.ok()?;
        Some(DownloadSlot(permit, None, self.clone()))
    }

    /// Waits for room for a body, which whoever has room for a download needs to read it.
    pub(super) async fn body(&self) -> Option<BodySlot> {
        let of_all = Arc::clone(&self.0.total.bodies).acquire_owned();
        let own = async {
            let own = Arc::clone(&self.0.own_body).acquire_owned().await.ok()?;
            let owns = Arc::clone(&self.0.total.own_bodies);
            Some(vec![own, owns.acquire_owned().await.ok()?])
        };
        tokio::select! {
            biased;
            permit = of_all => Some(BodySlot(vec![permit.ok()?])),
            permits = own => Some(BodySlot(permits?)),
        }
    }

    /// Room for a long poll, if there is any now.
    pub(super) fn try_long_poll(&self, multiplexed: bool) -> Option<LongPollSlot> {
        let bound = match multiplexed {
            true => &self.0.multiplexed,
            false => &self.0.long_polls,
        };
        Arc::clone(bound).try_acquire_owned().ok().map(LongPollSlot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn bounds_are_used_as_long_as_a_poll_or_a_download_has_them() {
        let of_service = Slots::of_service(&Total::new());
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
        let total = Total::new();
        let (of_service, other) = (Slots::of_service(&total), Slots::of_service(&total));
        let held: Vec<_> = std::iter::from_fn(|| of_service.try_download()).collect();
        assert_eq!(held.len(), PER_SERVICE);
        assert!(other.try_download().is_some());
    }

    #[test]
    fn retries_have_half_of_the_downloads() {
        let of_service = Slots::of_service(&Total::new());
        let retries: Vec<_> = std::iter::from_fn(|| of_service.try_retry()).collect();
        assert_eq!(retries.len(), RETRIES);
        let others: Vec<_> = std::iter::from_fn(|| of_service.try_download()).collect();
        assert_eq!(others.len(), PER_SERVICE - RETRIES);
        drop(retries);
        assert!(of_service.try_download().is_some() && of_service.try_retry().is_some());
    }

    #[test]
    fn the_bodies_of_all_services_are_bounded_and_each_service_has_one_for_itself() {
        let total = Total::new();
        let services: Vec<_> = (0..20).map(|_| Slots::of_service(&total)).collect();
        let body = |of: &Slots| of.body().now_or_never().flatten();
        let of_one: Vec<_> = std::iter::from_fn(|| body(&services[0])).collect();
        assert_eq!(of_one.len(), BODIES + 1);
        let of_others: Vec<_> = services.iter().filter_map(body).collect();
        assert_eq!(of_others.len(), 19);
        drop(of_one);
        assert!(body(&services[1]).is_some());
    }

    #[test]
    fn long_polls_are_bounded_by_what_they_keep() {
        let slots = Slots::of_service(&Total::new());
        for (multiplexed, bound) in [(false, LONG_POLLS), (true, MULTIPLEXED)] {
            let waiting = std::iter::from_fn(|| slots.try_long_poll(multiplexed));
            assert_eq!(waiting.collect::<Vec<_>>().len(), bound);
        }
    }
}
