use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use crate::{App, AppId};

/// A closed set of apps, each with a lease: those that a request may name. Cloning is cheap.
#[derive(Clone)]
pub struct AppSet(Arc<HashMap<AppId, App>>);

impl AppSet {
    pub(super) fn new(leases: impl IntoIterator<Item = App>) -> Self {
        Self(Arc::new(
            leases
                .into_iter()
                .map(|app| (app.id().clone(), app))
                .collect(),
        ))
    }

    /// The app of that name, if it is in the set. Takes no lock.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&App> {
        self.0.get(id)
    }

    /// All apps, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &App> {
        self.0.values()
    }

    /// How many apps there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for AppSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
