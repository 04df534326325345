use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::{IoAnswer, IoCall};
use crate::AppId;

/// A boxed future of an [`IoAnswer`].
pub type IoFuture = Pin<Box<dyn Future<Output = IoAnswer> + Send>>;

/// Answers the calls of built-ins that need input or output, off the engine's threads.
///
/// Closures are drivers. Each distinct call of a decision is made exactly once.
pub trait IoDriver: Send + Sync + 'static {
    /// Makes `call` for `app`, under the app's permissions.
    fn call(&self, app: &AppId, call: &IoCall) -> IoFuture;
}

impl<F: Fn(&AppId, &IoCall) -> IoFuture + Send + Sync + 'static> IoDriver for F {
    fn call(&self, app: &AppId, call: &IoCall) -> IoFuture {
        self(app, call)
    }
}

impl fmt::Debug for dyn IoDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<I/O driver>")
    }
}

/// Refuses every call. The default.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoIo;

impl IoDriver for NoIo {
    fn call(&self, _: &AppId, call: &IoCall) -> IoFuture {
        let refused = format!("{}: the app is not granted any host", call.name());
        Box::pin(std::future::ready(Err(refused.into())))
    }
}
