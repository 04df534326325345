use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::{Instance, Snapshot};
use crate::bundle::persist::Place;
use crate::bundle::{self, ArchiveBytes, Bundle, BundleError, Limits, Union, Verification};
use crate::engine::{CompileErrors, Module, ModuleSet};
use crate::plugin::{BundleRevision, BundleStatus};

/// What an instance has read.
#[derive(Default)]
pub(crate) struct Loaded {
    /// The bundles by name.
    bundles: BTreeMap<Arc<str>, Arc<Bundle>>,
    /// The sizes of those that wait for the instance's other bundles, in bytes.
    waiting: BTreeMap<Arc<str>, u64>,
    /// What is to be written when it is active.
    unsaved: BTreeMap<Arc<str>, Unsaved>,
}

/// A bundle as it came, and where it is to be kept.
pub(crate) struct Unsaved {
    pub(crate) place: Arc<Place>,
    pub(crate) archive: ArchiveBytes,
    pub(crate) etag: Option<Arc<str>>,
}

impl Loaded {
    /// Whether something is still to be written.
    pub(crate) fn is_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }
}

impl Instance {
    /// Reads and checks a bundle. What other apps hold of it is shared. Blocks.
    ///
    /// # Errors
    /// As [`bundle::read_verified`].
    pub(crate) fn read_bundle(
        &self,
        archive: &ArchiveBytes,
        limits: &Limits,
        verification: &Verification,
    ) -> Result<Bundle, BundleError> {
        bundle::read_shared(archive, limits, verification, &self.shared.bundles)
    }

    /// Puts `bundle` in the place of the one of that name and serves what comes of it: all or
    /// nothing. Runs on a thread that may block; `loaded` is the lock of the one activation.
    ///
    /// While other bundles of the instance are still missing, nothing is served yet.
    ///
    /// # Errors
    /// Whatever is wrong with the bundle; what was served before goes on.
    pub(crate) fn activate(
        &self,
        loaded: &mut Loaded,
        name: &Arc<str>,
        bundle: Arc<Bundle>,
        size: u64,
    ) -> Result<(), ActivationError> {
        let Some(profile) = self.profile() else {
            return Ok(());
        };
        let mut candidate = loaded.bundles.clone();
        candidate.insert(Arc::clone(name), bundle);
        let union = Union::shared(&candidate, &self.shared.bundles)?;
        let complete = profile
            .bundles
            .iter()
            .all(|bundle| candidate.contains_key(bundle));
        let mut fresh = loaded.waiting.clone();
        fresh.insert(Arc::clone(name), size);
        if self.is_closed() {
            return Ok(());
        }
        if !complete {
            loaded.bundles = candidate;
            loaded.waiting = fresh;
            self.note_bundle(name, BundleStatus::clear_error);
            return Ok(());
        }
        let modules = ModuleSet::new(union.modules().iter().map(|module| {
            let file = module.file();
            Module::new(
                Arc::clone(module.id()),
                Arc::clone(file.source()),
                file.rego_version(),
            )
        }));
        let data = (union.data(), union.data_digest());
        let engine = &*self.shared.engine;
        let compiled = self.shared.store.bound(engine, &modules, data)?;
        let revisions: Arc<[_]> = candidate
            .iter()
            .map(|(name, bundle)| BundleRevision {
                name: Arc::clone(name),
                revision: bundle.revision().cloned(),
            })
            .collect();
        let snapshot = Snapshot::new(Arc::clone(profile), compiled, union.data(), revisions)
            .map_err(CompileErrors::from)?;
        self.shared.hooks.reach("activation: before the swap");
        // Before the swap: whoever sees the instance ready sees which revision is.
        let now = self.now();
        for (name, size) in &fresh {
            self.note_bundle(name, |status| {
                status.active_revision = revision_of(&candidate, name).cloned();
                status.last_successful_activation = Some(now);
                status.size = Some(*size);
                status.clear_error();
            });
        }
        if self.install(Arc::new(snapshot)) {
            self.warn_of_dry_run();
            for name in fresh.keys() {
                let revision = revision_of(&candidate, name).map(|revision| &**revision);
                tracing::info!(
                    target: "opa::bundle",
                    app = %self.id,
                    bundle = %name,
                    revision,
                    "bundle activated",
                );
            }
            loaded.bundles = candidate;
            loaded.waiting.clear();
        }
        Ok(())
    }

    /// Writes `unsaved`, the bundle `name`, and whatever could not be written before. What waits
    /// for other bundles was never compiled: it is not written over what was. Blocks.
    pub(crate) fn persist(&self, loaded: &mut Loaded, unsaved: Option<(Arc<str>, Unsaved)>) {
        loaded.unsaved.extend(unsaved);
        if !loaded.waiting.is_empty() || self.is_closed() {
            return;
        }
        loaded.unsaved.retain(|name, unsaved| {
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
            self.note_bundle(name, |status| status.not_persisted = problem);
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
