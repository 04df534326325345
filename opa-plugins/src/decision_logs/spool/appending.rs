use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::oneshot;

use super::error::AppendError;
use super::record::RecordId;
use super::state::{Answer, Shared};

/// A record on its way to the disk: ready when it is durable, or when it failed.
///
/// Whoever polls it has it written at once. Dropping it takes nothing back.
#[must_use = "without an answer nobody knows whether the record is durable"]
pub struct Appending {
    id: RecordId,
    answer: oneshot::Receiver<Answer>,
    /// `None` once the writer knows that somebody waits.
    shared: Option<Arc<Shared>>,
}

impl Appending {
    pub(super) fn new(
        id: RecordId,
        answer: oneshot::Receiver<Answer>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            id,
            answer,
            shared: Some(shared),
        }
    }

    /// The record's id.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.id
    }
}

impl Future for Appending {
    type Output = Result<RecordId, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(shared) = self.shared.take()
            && shared.state.lock().hurry(self.id)
        {
            shared.wake.notify_one();
        }
        let id = self.id;
        let answer = ready!(Pin::new(&mut self.answer).poll(cx));
        Poll::Ready(answer.unwrap_or(Err(AppendError::Closed)).map(|()| id))
    }
}

impl fmt::Debug for Appending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appending")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
