//! Another configuration for an instance that runs: the old state serves until the new one is
//! complete.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::activation::{ActivationError, Loaded};
use super::ticket::{Lineage, Ticket};
use super::{Instance, Profile};
use crate::bundle::Bundle;
use crate::config::Config;
use crate::plugin::BundleStatus;

/// What an instance was told last.
pub(crate) struct Configured {
    pub(crate) config: Config,
    /// The label `id`, which stays.
    pub(crate) id: String,
    /// The ticket of each bundle's poll.
    pub(crate) polls: BTreeMap<Arc<str>, Ticket>,
}

/// What the instance serves as soon as all of its bundles are there.
#[derive(Clone)]
pub(super) struct Next {
    profile: Arc<Profile>,
    /// What is there already of what wasn't served before.
    fresh: BTreeMap<Arc<str>, Fresh>,
}

/// A bundle that came.
#[derive(Clone)]
pub(super) struct Fresh {
    pub(super) bundle: Arc<Bundle>,
    /// As downloaded, in bytes.
    pub(super) size: u64,
    pub(super) etag: Option<Arc<str>>,
    /// When its source brought it; `None` if an earlier process kept it.
    pub(super) contacted_ms: Option<u64>,
    pub(super) lineage: Lineage,
}

impl Next {
    /// What waits under that name, and where it comes from.
    pub(super) fn bundle(&self, name: &str) -> Option<(&Arc<Bundle>, &Lineage)> {
        let fresh = self.fresh.get(name)?;
        Some((&fresh.bundle, &fresh.lineage))
    }
}

impl Configured {
    /// No poll that `next` doesn't have any more may change the instance from here on.
    fn retire_others(&self, next: &Self) {
        for (name, ticket) in &self.polls {
            if next.polls.get(name) != Some(ticket) {
                ticket.retire();
            }
        }
    }
}

impl Instance {
    /// Puts `next` in the place of `configured`, and serves it if all of its bundles are there;
    /// otherwise what is served stays until they are. Runs on a thread that may block; `loaded` is
    /// the lock of the one activation.
    ///
    /// # Errors
    /// What is there of the bundles makes no policy without those that are gone. The configuration
    /// is in force all the same: the next bundle that comes is tried with it.
    pub(crate) fn reconfigure(
        &self,
        loaded: &mut Loaded,
        configured: &mut Option<Configured>,
        next: Configured,
        profile: Arc<Profile>,
    ) -> Result<(), ActivationError> {
        let Some(previous) = configured.replace(next) else {
            self.configure(profile);
            return Ok(());
        };
        if let Some(next) = configured.as_ref() {
            previous.retire_others(next);
        }
        self.wake_polls();
        self.keep_statuses(&profile);
        let served = match self.snapshot.load().is_some() {
            true => self.hold_next(loaded, profile),
            false => self.start_over(loaded, profile),
        };
        self.publish();
        served
    }

    /// Something is served: it stays until the new state is complete.
    fn hold_next(&self, loaded: &mut Loaded, profile: Arc<Profile>) -> Result<(), ActivationError> {
        let mut fresh = loaded
            .next
            .take()
            .map(|next| next.fresh)
            .unwrap_or_default();
        fresh.retain(|name, fresh| profile.bundles.get(name) == Some(&fresh.lineage));
        let Loaded {
            unsaved, lineages, ..
        } = &mut *loaded;
        unsaved.retain(|name, unsaved| {
            let of = |lineages: &BTreeMap<Arc<str>, Lineage>| {
                lineages.get(name) == Some(&unsaved.lineage)
            };
            of(lineages) || of(&profile.bundles)
        });
        let next = Next { profile, fresh };
        match self.switch(loaded, &next) {
            Ok(true) => Ok(()),
            Ok(false) => {
                loaded.next = Some(next);
                Ok(())
            }
            Err(error) => {
                loaded.next = Some(next);
                Err(error)
            }
        }
    }

    /// Nothing was served yet, so there is nothing to hold on to.
    fn start_over(
        &self,
        loaded: &mut Loaded,
        profile: Arc<Profile>,
    ) -> Result<(), ActivationError> {
        loaded.keep(&profile.bundles);
        self.put_profile(&profile);
        self.bound_staleness(&profile);
        let fresh = BTreeMap::new();
        self.switch(loaded, &Next { profile, fresh }).map(|_| ())
    }

    /// Takes a bundle for the configuration that waits for its bundles. `None` when the bundle is
    /// the current one's concern, too.
    pub(super) fn activate_next(
        &self,
        loaded: &mut Loaded,
        name: &Arc<str>,
        came: &Fresh,
    ) -> Option<Result<(), ActivationError>> {
        let mut next = loaded.next.clone()?;
        let is_awaited = loaded.lineages.get(name) != Some(&came.lineage);
        next.fresh.insert(Arc::clone(name), came.clone());
        match self.switch(loaded, &next) {
            Ok(true) => {
                self.note_configuration(None);
                Some(Ok(()))
            }
            Ok(false) if is_awaited => {
                loaded.next = Some(next);
                self.note_bundle(name, BundleStatus::clear_error);
                Some(Ok(()))
            }
            Ok(false) => None,
            Err(error) if is_awaited => Some(Err(error)),
            Err(error) => {
                self.note_configuration(Some(error.to_string().into()));
                None
            }
        }
    }

    /// Serves `next`, if all of its bundles are there.
    fn switch(&self, loaded: &mut Loaded, next: &Next) -> Result<bool, ActivationError> {
        let mut candidate = BTreeMap::new();
        let mut etags = BTreeMap::new();
        let mut sizes = loaded.waiting.clone();
        for (name, lineage) in &next.profile.bundles {
            let fresh = next
                .fresh
                .get(name)
                .filter(|fresh| fresh.lineage == *lineage);
            sizes.extend(fresh.map(|fresh| (Arc::clone(name), fresh.size)));
            let known = || {
                loaded
                    .bundles
                    .get(name)
                    .filter(|_| loaded.lineages.get(name) == Some(lineage))
            };
            let Some(bundle) = fresh.map(|fresh| &fresh.bundle).or_else(known) else {
                return Ok(false);
            };
            candidate.insert(Arc::clone(name), Arc::clone(bundle));
            let etag = match fresh {
                Some(fresh) => fresh.etag.as_ref(),
                None => loaded.etags.get(name),
            };
            etags.extend(etag.map(|etag| (Arc::clone(name), Arc::clone(etag))));
        }
        // What was told of the old configuration's bundles counts until the new one's are served.
        let contact = || {
            for (name, fresh) in &next.fresh {
                self.contacted(name, &fresh.lineage, fresh.contacted_ms);
            }
            self.bound_staleness(&next.profile);
        };
        if self.serve(&next.profile, (&candidate, &etags), &sizes, contact)? {
            loaded.bundles = candidate;
            loaded.etags = etags;
            loaded.waiting.clear();
            loaded.next = None;
            loaded.lineages = next.profile.bundles.clone();
            loaded.keep(&next.profile.bundles);
        }
        Ok(true)
    }
}

impl Loaded {
    /// Forgets what is not of `bundles`.
    fn keep(&mut self, bundles: &BTreeMap<Arc<str>, Lineage>) {
        self.lineages
            .retain(|name, lineage| bundles.get(name) == Some(lineage));
        let lineages = &self.lineages;
        self.bundles.retain(|name, _| lineages.contains_key(name));
        self.waiting.retain(|name, _| lineages.contains_key(name));
        self.etags.retain(|name, _| lineages.contains_key(name));
        self.unsaved
            .retain(|name, unsaved| bundles.get(name) == Some(&unsaved.lineage));
    }
}
