//! Uploads that the program starts.

use std::fmt;
use std::sync::Arc;

use opa_core::AppId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::driver::Message;
use super::shared::Shared;

/// Starts uploads: OPA's `Trigger`. Clones are the same.
///
/// With `reporting.trigger: manual` nothing else does, but for the end of an app or of the process,
/// where, unlike in OPA, what waits is uploaded, too.
#[derive(Clone)]
pub struct UploadTrigger(pub(super) Arc<Shared>);

/// Why not all events of an upload that was [triggered](UploadTrigger) were taken. They are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UploadError {
    /// Whose events; `None` when nothing is delivered any more.
    pub app: Option<AppId>,
    /// The output, `service` for OPA's own upload.
    pub output: Arc<str>,
    /// In words.
    pub message: String,
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.app {
            Some(app) => write!(f, "app `{app}`, output `{}`: {}", self.output, self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for UploadError {}

impl UploadTrigger {
    /// Delivers all that was decided before, of all apps and at all outputs.
    ///
    /// # Errors
    /// The first attempt that failed. With a trigger other than `manual` it is repeated.
    pub async fn all(&self) -> Result<(), UploadError> {
        self.start(None).await
    }

    /// Delivers all that was decided before, of one app, at all its outputs.
    ///
    /// # Errors
    /// As of [`all`](Self::all).
    pub async fn app(&self, app: &AppId) -> Result<(), UploadError> {
        self.start(Some(app.clone())).await
    }

    async fn start(&self, app: Option<AppId>) -> Result<(), UploadError> {
        if !self.0.is_started() {
            // No app was ever there.
            return Ok(());
        }
        let (done, answer) = oneshot::channel();
        let call = Call {
            shared: Arc::clone(&self.0),
            done: Mutex::new(Some(done)),
        };
        self.0.send(Message::Trigger(app, Arc::new(call)));
        let over = UploadError {
            app: None,
            output: Arc::default(),
            message: "nothing is delivered any more".to_owned(),
        };
        answer.await.unwrap_or(Err(over))
    }
}

impl fmt::Debug for UploadTrigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UploadTrigger")
    }
}

/// Who waits for uploads. It has succeeded when nobody has it any more.
pub(super) struct Call {
    shared: Arc<Shared>,
    done: Mutex<Option<oneshot::Sender<Result<(), UploadError>>>>,
}

impl Call {
    pub(super) fn fail(&self, app: &AppId, output: &Arc<str>, message: &str) {
        if let Some(done) = self.done.lock().take() {
            // Nobody may wait any more.
            let _ = done.send(Err(UploadError {
                app: Some(app.clone()),
                output: Arc::clone(output),
                message: message.to_owned(),
            }));
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(done) = self.done.lock().take().filter(|_| !self.shared.is_over()) {
            // Nobody may wait any more.
            let _ = done.send(Ok(()));
        }
    }
}
