use std::collections::BTreeMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::activation::Loaded;
use super::concluded::Admissions;
use super::counters::Counters;
use super::freshness::Freshness;
use super::lease::Leases;
use super::ticket::{Lineage, Ticket};
use super::{Configured, Profile, Shared, Snapshot};
use crate::engine::AppCaches;
use crate::engine::pool::PoolKey;
use crate::plugin::{
    Asked, BundleStatus, DecisionSink, Event, EventInput, InstanceStatus, LoadStage, LogPolicy,
    State,
};
use crate::{AppId, Reason};

/// The virtual OPA of one app.
pub(crate) struct Instance {
    pub(super) id: AppId,
    /// Distinguishes this instance from every other of its manager, also of the same app.
    pub(crate) key: PoolKey,
    pub(super) shared: Arc<Shared>,
    pub(super) leases: Leases,
    /// When it was started, by the injected clock.
    pub(super) started_at: SystemTime,
    pub(super) state: watch::Sender<State>,
    pub(super) snapshot: ArcSwapOption<Snapshot>,
    pub(super) counters: Counters,
    pub(super) freshness: Freshness,
    pub(super) caches: Arc<AppCaches>,
    /// Set when the configuration was rendered and the plugins have read it.
    profile: ArcSwapOption<Profile>,
    /// What it was told last; held while it is told something else.
    configured: Arc<tokio::sync::Mutex<Option<Configured>>>,
    /// Why it isn't what the configuration says now.
    configuration_problem: Mutex<Option<Arc<str>>>,
    bundles: Mutex<BTreeMap<Arc<str>, BundleStatus>>,
    publishing: Mutex<()>,
    /// Held by the one activation at a time.
    loaded: Arc<tokio::sync::Mutex<Loaded>>,
}

impl Instance {
    pub(crate) fn new(id: AppId, shared: Arc<Shared>) -> Self {
        let key = PoolKey(shared.next_key.fetch_add(1, Ordering::Relaxed));
        Self {
            id,
            key,
            leases: Leases::starting_at(shared.now_ms()),
            started_at: shared.clock.wall(),
            shared,
            state: watch::Sender::new(State::Starting),
            snapshot: ArcSwapOption::empty(),
            counters: Counters::default(),
            freshness: Freshness::default(),
            caches: Arc::default(),
            profile: ArcSwapOption::empty(),
            configured: Arc::default(),
            configuration_problem: Mutex::default(),
            bundles: Mutex::default(),
            publishing: Mutex::default(),
            loaded: Arc::default(),
        }
    }

    pub(crate) fn id(&self) -> &AppId {
        &self.id
    }

    pub(crate) fn profile(&self) -> Option<Arc<Profile>> {
        self.profile.load_full()
    }

    pub(super) fn put_profile(&self, profile: &Arc<Profile>) {
        self.profile.store(Some(Arc::clone(profile)));
    }

    /// What the instance was told last, for the one that tells it something else.
    pub(crate) async fn configured(&self) -> tokio::sync::OwnedMutexGuard<Option<Configured>> {
        Arc::clone(&self.configured).lock_owned().await
    }

    /// Notes why the instance isn't what the configuration says now, or that it is.
    pub(crate) fn note_configuration(&self, problem: Option<Arc<str>>) {
        let changed = {
            let mut noted = self.configuration_problem.lock();
            std::mem::replace(&mut *noted, problem.clone()) != problem
        };
        if changed {
            self.publish();
        }
    }

    #[cfg(test)]
    pub(crate) fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.leases.is_closed()
    }

    /// The instance knows its configuration from here on.
    pub(crate) fn configure(&self, profile: Arc<Profile>) {
        self.keep_statuses(&profile);
        self.put_profile(&profile);
        self.bound_staleness(&profile);
        self.publish();
    }

    pub(super) fn bound_staleness(&self, profile: &Profile) {
        let bounds = profile.max_staleness.iter();
        self.freshness.configure(bounds.filter_map(|(name, max)| {
            let lineage = profile.bundles.get(name)?;
            Some((Arc::clone(name), *max, lineage.clone()))
        }));
    }

    /// The bundles of `profile` have a status from here on, the one that they had or an empty one.
    pub(super) fn keep_statuses(&self, profile: &Profile) {
        let mut statuses = self.bundles.lock();
        let mut previous = std::mem::take(&mut *statuses);
        *statuses = profile
            .bundles
            .keys()
            .map(|name| {
                let status = previous.remove(name).unwrap_or_else(|| BundleStatus {
                    name: Arc::clone(name),
                    ..BundleStatus::default()
                });
                (Arc::clone(name), status)
            })
            .collect();
    }

    /// The first activation has not succeeded yet, and the last attempt failed.
    pub(crate) fn fail(&self, reason: &str, retry_at: Option<SystemTime>) {
        self.state.send_if_modified(|state| {
            let starting = matches!(state, State::Starting | State::Failed { .. });
            if starting {
                *state = State::Failed {
                    reason: reason.into(),
                    retry_at,
                };
            }
            starting
        });
        self.publish();
    }

    /// Serves `snapshot`, which is of `profile`, from now on, unless the instance was closed meanwhile.
    pub(super) fn install(&self, profile: &Arc<Profile>, snapshot: Arc<Snapshot>) -> bool {
        let mut installed = false;
        self.state.send_if_modified(|state| {
            // Closing takes the same lock of the channel: a closed instance is never revived.
            if matches!(state, State::Closed) {
                return false;
            }
            installed = true;
            self.put_profile(profile);
            self.shared.retire(self.snapshot.swap(Some(snapshot)));
            !matches!(std::mem::replace(state, State::Ready), State::Ready)
        });
        self.publish();
        installed
    }

    /// The source of a bundle answered then, by the manager's clock, that it is current.
    pub(crate) fn note_contact(&self, name: &Arc<str>, ticket: &Ticket, at_ms: u64) {
        self.contacted(name, ticket.lineage(), Some(at_ms));
    }

    pub(super) fn contacted(&self, name: &Arc<str>, lineage: &Lineage, at_ms: Option<u64>) {
        if let Some(at_ms) = at_ms {
            self.freshness.contact(name, lineage, at_ms);
        }
    }

    /// The time of day, by the injected clock.
    pub(crate) fn now(&self) -> SystemTime {
        self.shared.clock.wall()
    }

    /// Ends when the instance is closed or `ticket` is retired.
    pub(crate) fn over(&self, ticket: &Ticket) -> impl Future<Output = ()> + Send + 'static {
        let mut states = self.state.subscribe();
        let ticket = ticket.clone();
        async move {
            // A sender that is gone means that the instance is.
            let _ = states
                .wait_for(|state| matches!(state, State::Closed) || ticket.is_retired())
                .await;
        }
    }

    /// Lets the polls see whether their tickets are retired.
    pub(super) fn wake_polls(&self) {
        self.state.send_modify(|_| ());
    }

    /// The lock of the one activation at a time.
    pub(crate) async fn loaded(&self) -> tokio::sync::OwnedMutexGuard<Loaded> {
        Arc::clone(&self.loaded).lock_owned().await
    }

    /// Whether a decision was asked for and is not made yet.
    pub(crate) fn is_deciding(&self) -> bool {
        self.counters.in_flight() > 0
    }

    /// How long nobody has held a lease, in milliseconds.
    pub(crate) fn idle_ms(&self, now_ms: u64) -> Option<u64> {
        self.leases.idle_ms(now_ms)
    }

    /// Refuses new leases, if nobody holds one.
    pub(crate) fn close_unused(&self) -> bool {
        self.leases.close_unused()
    }

    /// Ends the instance whoever holds a lease; leases answer `closed` from now on.
    pub(crate) fn close(&self) {
        self.leases.close();
        self.state.send_if_modified(|state| {
            self.shared.retire(self.snapshot.swap(None));
            !matches!(std::mem::replace(state, State::Closed), State::Closed)
        });
        self.shared.retire_loaded(Arc::clone(&self.loaded));
        self.publish();
        tracing::info!(target: "opa::instance", app = %self.id, "instance closed");
    }

    /// Notes what happened to a bundle and tells the status sinks.
    pub(crate) fn note_bundle(&self, name: &str, note: impl FnOnce(&mut BundleStatus)) {
        if let Some(status) = self.bundles.lock().get_mut(name) {
            note(status);
        }
        self.publish();
    }

    /// Notes how long a stage of loading a bundle took. The status sinks are told with what comes
    /// next.
    pub(crate) fn note_stage(&self, name: &str, stage: LoadStage, took: Duration) {
        self.shared.loads.times.lock().record(stage, took);
        if let Some(status) = self.bundles.lock().get_mut(name) {
            status.last_load.record(stage, took);
            if self.shared.loads.by_app.load(Ordering::Relaxed) {
                let times = status.load_times.get_or_insert_default();
                times.record(stage, took);
            }
        }
    }

    pub(crate) fn status(&self) -> InstanceStatus {
        InstanceStatus::new(
            self.id.clone(),
            self.profile().map(|profile| profile.labels.clone()),
            self.state.borrow().clone(),
            self.configuration_problem.lock().clone(),
            self.bundle_statuses(),
        )
    }

    fn bundle_statuses(&self) -> Vec<BundleStatus> {
        let now_ms = self.shared.now_ms();
        let mut statuses: Vec<_> = self.bundles.lock().values().cloned().collect();
        for status in &mut statuses {
            status.stale = self.freshness.is_bundle_stale(&status.name, now_ms);
        }
        statuses
    }

    /// Tells the status sinks how it is.
    pub(crate) fn publish(&self) {
        let Some(profile) = self.profile() else {
            return;
        };
        if profile.status_sinks.is_empty() {
            return;
        }
        // One at a time, so that no sink is left with an older status than the last one.
        let _in_order = self.publishing.lock();
        let status = Arc::new(self.status());
        for sink in &profile.status_sinks {
            self.contain("status", || sink.update(Arc::clone(&status)));
        }
    }

    /// Whether the sinks of `profile` let decisions be made. One that panics doesn't.
    pub(super) fn is_log_available(&self, profile: &Profile) -> bool {
        let is_available = |sink: &Arc<dyn DecisionSink>| {
            self.contain("decision", || sink.is_available()) == Some(true)
        };
        profile.decision_sinks.iter().all(is_available)
    }

    pub(super) fn emit(
        &self,
        profile: &Profile,
        snapshot: Option<&Arc<Snapshot>>,
        event: Event,
    ) -> Admissions {
        let mut admissions = Admissions::default();
        let Some((last, others)) = profile.decision_sinks.split_last() else {
            return admissions;
        };
        // There is no effect to wait for where the log is why there is none.
        let waits = event.reason != Reason::LogUnavailable;
        let mut hand_over = |sink: &dyn DecisionSink, event| {
            let event = for_sink(sink, snapshot, event);
            if waits {
                admissions.add(self.contain("decision", || sink.admit(event)));
            } else {
                self.contain("decision", || sink.record(event));
            }
        };
        for sink in others {
            hand_over(&**sink, event.clone());
        }
        hand_over(&**last, event);
        admissions
    }

    /// Calls a sink, which is a plugin's code: its panic, for `None`, must end neither a request nor
    /// a poll.
    pub(super) fn contain<T>(&self, kind: &str, call: impl FnOnce() -> T) -> Option<T> {
        let called = catch_unwind(AssertUnwindSafe(call)).ok();
        if called.is_none() {
            tracing::error!(target: "opa::instance", app = %self.id, "a {kind} sink panicked");
        }
        called
    }
}

/// What a sink may see: the policy and all that it may hide, or neither.
fn for_sink(sink: &dyn DecisionSink, snapshot: Option<&Arc<Snapshot>>, mut event: Event) -> Event {
    let Some(snapshot) = snapshot else {
        if !matches!(event.input, EventInput::None) {
            event.withhold("there is no policy that could say what a log may show");
        }
        return event;
    };
    if sink.asks_policy() {
        let asked: Arc<dyn Asked> = Arc::<Snapshot>::clone(snapshot);
        event.policy = Some(LogPolicy::new(asked));
    } else if snapshot.withholds {
        event.withhold("the policy says what a log may show, and this sink does not ask it");
    }
    event
}
