use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::reconfigure::{Fresh, Next};
use super::snapshot::Sizes;
use super::ticket::{Lineage, Ticket};
use super::{Desk, Instance, Profile, Snapshot};
use crate::FailureClass;
use crate::bundle::persist::Place;
use crate::bundle::{ArchiveBytes, Bundle, BundleError, Union};
use crate::engine::{CompileErrors, Module, ModuleSet};
use crate::plugin::{BundleRevision, BundleStatus};

/// Bundles by name.
type Bundles = BTreeMap<Arc<str>, Arc<Bundle>>;

/// What the sources of bundles call their content, by the bundles' names.
type Etags = BTreeMap<Arc<str>, Arc<str>>;

/// What an instance has read.
#[derive(Default)]
pub(crate) struct Loaded {
    /// The bundles by name.
    pub(super) bundles: Bundles,
    /// Where each of them comes from.
    pub(super) lineages: BTreeMap<Arc<str>, Lineage>,
    /// The sizes of those that wait for the instance's other bundles, in bytes.
    pub(super) waiting: BTreeMap<Arc<str>, u64>,
    /// What their sources called them.
    pub(super) etags: Etags,
    /// What is to be written when it is active.
    pub(super) unsaved: BTreeMap<Arc<str>, Unsaved>,
    /// The configuration that waits for its bundles.
    pub(super) next: Option<Next>,
}

/// A bundle as it came, and where it is to be kept.
pub(crate) struct Unsaved {
    pub(crate) place: Arc<Place>,
    pub(crate) archive: ArchiveBytes,
    pub(crate) etag: Option<Arc<str>>,
    pub(crate) lineage: Lineage,
}

impl Loaded {
    /// The bundle of that name, whatever its lineage: the one that waits for others, or the active
    /// one.
    pub(super) fn newest(&self, name: &str) -> Option<&Arc<Bundle>> {
        let waiting = self.next.as_ref().and_then(|next| next.bundle(name));
        waiting
            .map(|(bundle, _)| bundle)
            .or_else(|| self.bundles.get(name))
    }

    /// The bundle of that name that came from there, if there is one.
    pub(super) fn of_lineage(&self, name: &str, lineage: &Lineage) -> Option<&Arc<Bundle>> {
        let waiting = self.next.as_ref().and_then(|next| next.bundle(name));
        let active = || Some((self.bundles.get(name)?, self.lineages.get(name)?));
        [waiting, active()]
            .into_iter()
            .flatten()
            .find(|(_, other)| *other == lineage)
            .map(|(bundle, _)| bundle)
    }

    /// Whether there is a bundle of that name that came from where this ticket's does.
    pub(crate) fn has(&self, name: &str, ticket: &Ticket) -> bool {
        self.of_lineage(name, ticket.lineage()).is_some()
    }

    /// Whether something is still to be written.
    pub(crate) fn is_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }
}

impl Instance {
    /// Puts `bundle` in the place of the one of that name and serves what comes of it: all or
    /// nothing. Runs on a thread that may block; `loaded` is the lock of the one activation.
    ///
    /// While other bundles of the instance are still missing, nothing is served yet.
    ///
    /// # Errors
    /// Whatever is wrong with the bundle; what was served before goes on.
    pub(super) fn activate(
        &self,
        loaded: &mut Loaded,
        (name, ticket): (&Arc<str>, &Ticket),
        bundle: Arc<Bundle>,
        (size, etag, contacted_ms): (u64, Option<Arc<str>>, Option<u64>),
    ) -> Result<(), ActivationError> {
        let Some(profile) = self.profile().filter(|_| !ticket.is_retired()) else {
            return Ok(());
        };
        let lineage = ticket.lineage();
        let came = Fresh {
            bundle,
            size,
            etag,
            contacted_ms,
            lineage: lineage.clone(),
        };
        if let Some(taken) = self.activate_next(loaded, name, &came) {
            return taken;
        }
        let mut candidate = loaded.bundles.clone();
        candidate.insert(Arc::clone(name), came.bundle);
        let mut etags = loaded.etags.clone();
        match came.etag {
            Some(etag) => etags.insert(Arc::clone(name), etag),
            None => etags.remove(name),
        };
        let complete = profile
            .bundles
            .keys()
            .all(|bundle| candidate.contains_key(bundle));
        let mut fresh = loaded.waiting.clone();
        fresh.insert(Arc::clone(name), size);
        if self.is_closed() {
            return Ok(());
        }
        if !complete {
            Union::shared(&candidate, &self.shared.bundles)?;
            loaded.bundles = candidate;
            loaded.waiting = fresh;
            loaded.lineages.insert(Arc::clone(name), lineage.clone());
            loaded.etags = etags;
            self.contacted(name, lineage, contacted_ms);
            self.note_bundle(name, BundleStatus::clear_error);
            return Ok(());
        }
        // Whoever sees it ready is not told that it is stale.
        let contact = || self.contacted(name, lineage, contacted_ms);
        if self.serve(&profile, (&candidate, &etags), &fresh, contact)? {
            loaded.bundles = candidate;
            loaded.etags = etags;
            loaded.waiting.clear();
            loaded.lineages.insert(Arc::clone(name), lineage.clone());
        }
        Ok(())
    }

    /// Serves `candidate`, of which `fresh` was not served before, with their sizes. Answers whether
    /// the instance lives. `before_swap` runs when nothing can fail any more.
    ///
    /// # Errors
    /// Whatever is wrong with them; what was served before goes on.
    pub(super) fn serve(
        &self,
        profile: &Arc<Profile>,
        (candidate, etags): (&Bundles, &Etags),
        fresh: &BTreeMap<Arc<str>, u64>,
        before_swap: impl FnOnce(),
    ) -> Result<bool, ActivationError> {
        let union = Union::shared(candidate, &self.shared.bundles)?;
        let modules = ModuleSet::new(union.modules().iter().map(|module| {
            let file = module.file();
            Module::new(
                Arc::clone(module.id()),
                Arc::clone(file.source()),
                file.rego_version(),
            )
        }));
        let asks_system = profile.entrypoint.segments().next() == Some("system");
        let policy_bytes = union.modules().iter();
        let policy_bytes = policy_bytes.map(|module| module.file().source().len() as u64);
        let data_bytes = candidate.values().map(|bundle| bundle.data_bytes());
        let sizes = Sizes {
            policies: policy_bytes.sum(),
            data: data_bytes.sum(),
        };
        let (data, digest) = union.with_system(asks_system, candidate, etags)?;
        let engine = &*self.shared.engine;
        let compiled = self.shared.store.bound(engine, &modules, (&data, digest))?;
        let revisions: Arc<[_]> = candidate
            .iter()
            .map(|(name, bundle)| BundleRevision {
                name: Arc::clone(name),
                revision: bundle.revision().cloned(),
            })
            .collect();
        let snapshot = Snapshot::new(
            Arc::clone(profile),
            compiled,
            &data,
            revisions,
            Desk::new(self),
        )
        .map_err(CompileErrors::from)?;
        self.shared.hooks.reach("activation: before the swap");
        // Before the swap: whoever sees the instance ready sees which revision is.
        let now = self.now();
        for (name, size) in fresh {
            self.note_bundle(name, |status| {
                status.active_revision = revision_of(candidate, name).cloned();
                status.last_successful_activation = Some(now);
                status.size = Some(*size);
                status.loads += 1;
                status.clear_error();
            });
        }
        let snapshot = snapshot
            .stale_from(self.freshness.renew())
            .sized(sizes, digest);
        before_swap();
        self.shared.hooks.reach("activation: contacts noted");
        if !self.install(profile, Arc::new(snapshot)) {
            return Ok(false);
        }
        self.warn_of_dry_run();
        for name in fresh.keys() {
            let revision = revision_of(candidate, name).map(|revision| &**revision);
            tracing::info!(
                target: "opa::bundle",
                app = %self.id,
                bundle = %name,
                revision,
                "bundle activated",
            );
        }
        Ok(true)
    }

    /// Writes `unsaved`, the bundle `name`, and whatever could not be written before. What waits
    /// for other bundles was never compiled: it is not written over what was. Blocks.
    pub(crate) fn persist(&self, loaded: &mut Loaded, unsaved: Option<(Arc<str>, Unsaved)>) {
        loaded.unsaved.extend(unsaved);
        if !loaded.waiting.is_empty() || self.is_closed() {
            return;
        }
        let Loaded {
            unsaved,
            next,
            lineages,
            ..
        } = loaded;
        unsaved.retain(|name, unsaved| {
            let waiting = next.as_ref().and_then(|next| next.bundle(name));
            if waiting.is_some_and(|(_, lineage)| *lineage == unsaved.lineage) {
                return true;
            }
            // What waited in vain was never compiled either.
            if lineages.get(name) != Some(&unsaved.lineage) {
                return false;
            }
            let saved = unsaved
                .place
                .save(&unsaved.archive, unsaved.etag.as_deref());
            let problem = saved.err().map(|error| Arc::<str>::from(error.to_string()));
            if let Some(problem) = &problem {
                tracing::warn!(
                    target: "opa::bundle",
                    app = %self.id,
                    bundle = %name,
                    "bundle not persisted: {problem}",
                );
            }
            let failed = problem.is_some();
            self.note_bundle(name, |status| {
                if problem.is_some() {
                    status.failures.add(FailureClass::Persist);
                }
                status.not_persisted = problem;
            });
            failed
        });
    }

    fn warn_of_dry_run(&self) {
        if self.profile().is_some_and(|profile| profile.dry_run) {
            tracing::warn!(
                target: "opa::instance",
                app = %self.id,
                "dry-run: requests that the policy denies are let through",
            );
        }
    }
}

fn revision_of<'a>(
    bundles: &'a BTreeMap<Arc<str>, Arc<Bundle>>,
    name: &str,
) -> Option<&'a Arc<str>> {
    bundles.get(name)?.revision()
}

/// Why a bundle was not activated.
#[derive(Debug)]
pub(crate) enum ActivationError {
    Bundle(BundleError),
    Compile(CompileErrors),
}

impl ActivationError {
    /// What sort of failure it is.
    pub(crate) fn class(&self) -> FailureClass {
        match self {
            Self::Bundle(error) => error.kind().into(),
            Self::Compile(_) => FailureClass::Compile,
        }
    }
}

impl From<BundleError> for ActivationError {
    fn from(error: BundleError) -> Self {
        Self::Bundle(error)
    }
}

impl From<CompileErrors> for ActivationError {
    fn from(errors: CompileErrors) -> Self {
        Self::Compile(errors)
    }
}

impl fmt::Display for ActivationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bundle(error) => error.fmt(f),
            Self::Compile(errors) => errors.fmt(f),
        }
    }
}
