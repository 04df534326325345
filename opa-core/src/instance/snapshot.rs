use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Desk;
use super::freshness::StaleFrom;
use super::policy_store::Compiled;
use super::ticket::Lineage;
use crate::Value;
use crate::bundle::store::Sha256Digest;
use crate::engine::{Bound, CompileError, Entrypoint, EntrypointPath, Policy};
use crate::plugin::{Asked, BundleRevision, DecisionSink, Labels, StatusSink};

/// How many paths are kept prepared. Paths come from routes and code, so more are a sign of paths
/// made from requests: those are prepared each time.
const MAX_PREPARED: usize = 256;

/// What an instance is besides its policy: its configuration, rendered when it starts and when it changes.
pub(crate) struct Profile {
    pub(crate) labels: Labels,
    /// The path that is asked when a route names none.
    pub(crate) entrypoint: EntrypointPath,
    pub(crate) dry_run: bool,
    pub(crate) skip_request_body_parse: bool,
    /// The bundles that must be there before anything is served.
    pub(crate) bundles: BTreeMap<Arc<str>, Lineage>,
    /// How old some of them may become.
    pub(crate) max_staleness: BTreeMap<Arc<str>, Duration>,
    /// The configuration has `decision_logs`.
    pub(crate) has_decision_logs: bool,
    /// The configuration has `status`.
    pub(crate) has_status: bool,
    pub(crate) decision_sinks: Vec<Arc<dyn DecisionSink>>,
    pub(crate) status_sinks: Vec<Arc<dyn StatusSink>>,
    /// Where sinks find what a log may show, besides `data.system.log`.
    pub(crate) log_policies: Vec<EntrypointPath>,
    /// The headers of requests that events show.
    pub(crate) logged_headers: Vec<Arc<str>>,
}

/// One immutable, activated state of an instance.
pub(crate) struct Snapshot {
    pub(crate) profile: Arc<Profile>,
    pub(crate) bound: Arc<dyn Bound>,
    pub(crate) bundles: Arc<[BundleRevision]>,
    /// The policy says what a log may show: input and result are withheld from sinks that don't ask
    /// it.
    pub(crate) withholds: bool,
    /// Kept also so that other apps find it as long as this one uses what was made of it.
    pub(super) policy: Arc<dyn Policy>,
    pub(super) data: Value,
    pub(super) desk: Desk,
    pub(super) sizes: Sizes,
    /// Tells its data from others: equal digests are the same data, held once.
    pub(super) data_digest: Sha256Digest,
    /// Another snapshot has another one: what makes the next one fresh doesn't make this one so.
    stale_from: Arc<StaleFrom>,
    default: Entrypoint,
    prepared: ArcSwap<HashMap<EntrypointPath, Entrypoint>>,
}

/// How many bytes the files have that a snapshot was made of.
#[derive(Clone, Copy, Default)]
pub(super) struct Sizes {
    pub(super) policies: u64,
    pub(super) data: u64,
}

impl Snapshot {
    /// # Errors
    /// When the engine can't prepare the profile's entrypoint.
    pub(crate) fn new(
        profile: Arc<Profile>,
        Compiled { policy, bound }: Compiled,
        data: &Value,
        bundles: Arc<[BundleRevision]>,
        desk: Desk,
    ) -> Result<Self, CompileError> {
        let default = bound.prepare(&profile.entrypoint)?;
        let mut snapshot = Self {
            profile,
            bound,
            bundles,
            withholds: policy.defines_system_log() || data.at(&["system", "log"]).is_some(),
            stale_from: Arc::default(),
            default,
            policy,
            data: data.clone(),
            desk,
            sizes: Sizes::default(),
            data_digest: Sha256Digest::default(),
            prepared: ArcSwap::default(),
        };
        let asks_elsewhere = |path: &EntrypointPath| Asked::defines(&snapshot, path);
        snapshot.withholds |= snapshot.profile.log_policies.iter().any(asks_elsewhere);
        Ok(snapshot)
    }

    /// From when on it is too old, which is always without this.
    pub(super) fn stale_from(self, stale_from: Arc<StaleFrom>) -> Self {
        Self { stale_from, ..self }
    }

    /// Notes how large the files are that it was made of, and which data that is.
    pub(super) fn sized(self, sizes: Sizes, data_digest: Sha256Digest) -> Self {
        Self {
            sizes,
            data_digest,
            ..self
        }
    }

    /// Whether one of its bundles is too old.
    pub(super) fn is_stale(&self, now_ms: impl FnOnce() -> u64) -> bool {
        self.stale_from.is_passed(now_ms)
    }

    /// The prepared entrypoint at `path`, by default the configured one.
    ///
    /// # Errors
    /// When the engine can't prepare the path.
    pub(crate) fn entrypoint(
        &self,
        path: Option<&EntrypointPath>,
    ) -> Result<Entrypoint, CompileError> {
        let Some(path) = path.filter(|path| *path != self.default.path()) else {
            return Ok(self.default.clone());
        };
        if let Some(entrypoint) = self.prepared.load().get(path) {
            return Ok(entrypoint.clone());
        }
        let entrypoint = self.bound.prepare(path)?;
        self.prepared.rcu(|prepared| {
            let mut prepared = HashMap::clone(prepared);
            if prepared.len() < MAX_PREPARED {
                // Another thread may have prepared it: all hold the same one from then on.
                prepared
                    .entry(path.clone())
                    .or_insert_with(|| entrypoint.clone());
            }
            prepared
        });
        Ok(self
            .prepared
            .load()
            .get(path)
            .cloned()
            .unwrap_or(entrypoint))
    }
}
