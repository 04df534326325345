//! Named places where a test forces the order of a race. They cost nothing outside of tests.

#[cfg(test)]
type Action = Box<dyn FnOnce() + Send>;

/// The places of one manager.
#[derive(Default)]
pub(crate) struct Hooks {
    #[cfg(test)]
    actions: parking_lot::Mutex<Vec<(&'static str, Action)>>,
}

#[cfg(not(test))]
impl Hooks {
    /// Does nothing.
    #[inline]
    #[expect(clippy::unused_self, reason = "the same signature as in tests")]
    pub(crate) fn reach(&self, _: &'static str) {}
}

#[cfg(test)]
impl Hooks {
    /// Runs what a test wants to happen at `place`, once.
    pub(crate) fn reach(&self, place: &'static str) {
        let mut actions = self.actions.lock();
        let Some(at) = actions.iter().position(|(name, _)| *name == place) else {
            return;
        };
        let (_, action) = actions.swap_remove(at);
        drop(actions);
        action();
    }

    /// Lets `action` happen the next time that `place` is reached.
    pub(crate) fn at(&self, place: &'static str, action: impl FnOnce() + Send + 'static) {
        self.actions.lock().push((place, Box::new(action)));
    }

    /// Whether every wanted action has happened.
    pub(crate) fn all_reached(&self) -> bool {
        self.actions.lock().is_empty()
    }
}
