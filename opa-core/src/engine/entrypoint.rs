use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{EntrypointPath, InputPaths};

/// A path that an engine has looked up in one [`Bound`](super::Bound) policy.
#[derive(Clone)]
pub struct Entrypoint {
    path: EntrypointPath,
    inputs: InputPaths,
    handle: Arc<dyn Any + Send + Sync>,
    slow: Arc<AtomicBool>,
}

impl Entrypoint {
    /// An entrypoint at `path` that reads `inputs`. `handle` is the engine's own.
    pub fn new(path: EntrypointPath, inputs: InputPaths, handle: impl Any + Send + Sync) -> Self {
        Self {
            path,
            inputs,
            handle: Arc::new(handle),
            slow: Arc::default(),
        }
    }

    /// The path that was looked up.
    #[must_use]
    pub fn path(&self) -> &EntrypointPath {
        &self.path
    }

    /// The parts of the input that the outcome can depend on.
    #[must_use]
    pub fn inputs(&self) -> &InputPaths {
        &self.inputs
    }

    /// The engine's own handle, if it is a `T`.
    #[must_use]
    pub fn handle<T: Any>(&self) -> Option<&T> {
        self.handle.downcast_ref()
    }

    /// Whether an evaluation was longer than a slice: the next ones start on the pool, until the
    /// next snapshot brings new entrypoints.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_slow(&self) {
        self.slow.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Entrypoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entrypoint")
            .field("path", &self.path)
            .field("inputs", &self.inputs)
            .finish_non_exhaustive()
    }
}
