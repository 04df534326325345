use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::SystemTime;

use super::{DecisionCounts, Instance};
use crate::bundle::store::Sha256Digest;
use crate::plugin::InstanceStatus;

/// What there is to measure of all instances of a manager, at one time.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Reports {
    /// Each instance, sorted by app.
    pub instances: Vec<InstanceReport>,
    /// The bytes of all policies that are served; what apps share counts once.
    pub policy_bytes: u64,
    /// The bytes of all data that is served; what apps share counts once.
    pub data_bytes: u64,
}

/// What there is to measure of one instance.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct InstanceReport {
    /// What an operator wants to know.
    pub status: InstanceStatus,
    /// When it was started, by the manager's clock.
    pub started_at: SystemTime,
    /// How often it was used again within the grace period: a lease was taken after the last one
    /// had been dropped.
    pub reuses: u64,
    /// How its decisions ended.
    pub decisions: DecisionCounts,
    /// Whether its configuration has `decision_logs`.
    pub has_decision_logs: bool,
    /// Whether its configuration has `status`.
    pub has_status: bool,
    /// The policy that it serves.
    pub policies: Share,
    /// The data that it serves.
    pub data: Share,
}

/// How large a part of what an instance serves is, and whether it has it alone.
///
/// The size is that of the uncompressed files of its bundles, which is known without looking at the
/// memory: parsed data and compiled policies take more. They are shared as a whole: apps
/// of which only some files are equal share those files, but each has data and policy of its own
/// here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Share {
    /// In bytes; 0 while nothing is served.
    pub bytes: u64,
    /// Another instance serves the same, which is in memory once.
    pub is_shared: bool,
}

/// A report, and what tells its policy and data from those of others.
struct Identified {
    report: InstanceReport,
    policy: Option<usize>,
    data: Option<Sha256Digest>,
}

impl Reports {
    pub(crate) fn of(instances: &[Arc<Instance>]) -> Self {
        let identified: Vec<_> = instances.iter().map(|it| it.identified()).collect();
        let policies = users(identified.iter().map(|it| it.policy));
        let data = users(identified.iter().map(|it| it.data));
        let mut reports = Self::default();
        let (mut seen_policies, mut seen_data) = (policies.clone(), data.clone());
        for it in identified {
            let mut report = it.report;
            report.policies.is_shared = is_shared(&policies, it.policy);
            report.data.is_shared = is_shared(&data, it.data);
            if it
                .policy
                .is_some_and(|key| seen_policies.remove(&key).is_some())
            {
                reports.policy_bytes += report.policies.bytes;
            }
            if it.data.is_some_and(|key| seen_data.remove(&key).is_some()) {
                reports.data_bytes += report.data.bytes;
            }
            reports.instances.push(report);
        }
        let app = |report: &InstanceReport| report.status.app.clone();
        reports.instances.sort_by_cached_key(app);
        reports
    }
}

fn users<K: Hash + Eq>(keys: impl Iterator<Item = Option<K>>) -> HashMap<K, usize> {
    let mut users = HashMap::new();
    for key in keys.flatten() {
        *users.entry(key).or_default() += 1;
    }
    users
}

fn is_shared<K: Hash + Eq>(users: &HashMap<K, usize>, key: Option<K>) -> bool {
    key.and_then(|key| users.get(&key))
        .is_some_and(|users| *users > 1)
}

impl Instance {
    fn identified(&self) -> Identified {
        let snapshot = self.snapshot.load();
        let snapshot = snapshot.as_ref();
        let share = |bytes| Share {
            bytes,
            is_shared: false,
        };
        let sizes = snapshot.map(|it| it.sizes).unwrap_or_default();
        let profile = self.profile();
        let profile = profile.as_deref();
        Identified {
            report: InstanceReport {
                status: self.status(),
                started_at: self.started_at,
                reuses: self.leases.reuses(),
                decisions: self.counters.read(),
                has_decision_logs: profile.is_some_and(|it| it.has_decision_logs),
                has_status: profile.is_some_and(|it| it.has_status),
                policies: share(sizes.policies),
                data: share(sizes.data),
            },
            policy: snapshot.map(|it| Arc::as_ptr(&it.policy).cast::<()>().addr()),
            data: snapshot.map(|it| it.data_digest),
        }
    }
}
