//! What a poll does with the disk.

use std::sync::Arc;
use std::time::Duration;

use super::{Arrived, Poll, PollError};
use crate::FailureClass;
use crate::bundle::persist::Place;
use crate::instance::Instance;

impl Poll {
    /// Keeps the bundle at `place`.
    pub(in crate::manager) fn persisted(mut self, place: Place) -> Self {
        self.place = Some(Arc::new(place));
        self
    }

    /// Activates what an earlier process kept, if it is what it must be now, and if the source has
    /// brought nothing yet.
    pub(in crate::manager) async fn restore(&mut self, instance: &Arc<Instance>) {
        match self.try_restore(instance).await {
            Ok(etag) => self.etag = etag,
            Err((class, message)) => {
                tracing::error!(
                    target: "opa::bundle",
                    app = %instance.id(),
                    bundle = %self.bundle,
                    "persisted bundle not loaded: {message}",
                );
                instance.note_bundle(&self.bundle, |status| {
                    status.code = Some("bundle_error");
                    status.message = Some(format!("persisted bundle not loaded: {message}").into());
                    status.class = Some(class);
                    status.failures.add(class);
                });
            }
        }
    }

    async fn try_restore(
        &self,
        instance: &Arc<Instance>,
    ) -> Result<Option<Arc<str>>, (FailureClass, String)> {
        let Some(place) = self.place.clone() else {
            return Ok(None);
        };
        let has_newer = {
            let loaded = instance.loaded().await;
            loaded.has(&self.bundle, &self.ticket)
        };
        if has_newer {
            return Ok(None);
        }
        let told = |error: PollError| (error.class(), error.to_string());
        let panicked = || told(PollError::Panic);
        let max = self.terms.limits.total_bytes();
        let stored = self.compile.run(move || place.load(max)).await;
        let stored = stored.ok_or_else(panicked)?;
        let Some(stored) = stored.map_err(|error| (FailureClass::Io, error.to_string()))? else {
            return Ok(None);
        };
        let arrived = Arrived {
            archive: stored.archive.into(),
            etag: stored.etag.clone(),
            is_delta: false,
            contacted_ms: None,
        };
        let activated = self.take(instance, arrived, (None, Duration::ZERO)).await;
        activated.map_err(told)?;
        Ok(stored.etag)
    }

    /// What could not be written may be now.
    pub(super) async fn persist_again(&self, instance: &Arc<Instance>) {
        let mut loaded = instance.loaded().await;
        if !loaded.is_unsaved() {
            return;
        }
        let persisting = Arc::clone(instance);
        let persist = move || persisting.persist(&mut loaded, None);
        if self.compile.run(persist).await.is_none() {
            tracing::error!(target: "opa::bundle", app = %instance.id(), "a panic ended the writing");
        }
    }
}
