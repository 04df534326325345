//! The one way of all apps' events: from the hand-over to the service and the console.
//!
//! An instance hands its events over to its [intake], without blocking. What its policies on logs
//! leave is encoded once for all outputs that show the same ([process]), and put into the [lane] of
//! each, where it waits in an [outbox] until it is [delivered](deliver) by the lane's [transport].
//! A [ledger] for each app and output accounts for all. One [driver] decides whose events are
//! processed next, and who delivers; there is no task or timer for an app that has nothing to do.

mod deliver;
mod driver;
mod estimate;
mod held;
mod intake;
mod lane;
mod ledger;
mod outbox;
mod policy;
mod process;
mod queue;
mod segments;
mod shared;
mod spooled;
mod ticket;
mod transport;
mod trigger;

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opa_core::AppId;
use opa_core::plugin::DecisionSink;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::AbortHandle;

use self::driver::Message;
pub(super) use self::intake::Terms;
use self::intake::{Handover, Intake};
pub(super) use self::lane::Route;
pub use self::ledger::AppCounts;
use self::shared::Shared;
#[cfg(all(feature = "spool", unix))]
use self::spooled::Opening;
pub(super) use self::ticket::Receipt;
pub(super) use self::transport::Transport;
pub use self::trigger::{UploadError, UploadTrigger};
use super::console::Console;
use super::outputs::Disk;

/// The pipeline of a process.
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    unstarted: Mutex<Option<UnboundedReceiver<Message>>>,
    driver: OnceLock<AbortHandle>,
    #[cfg(all(feature = "spool", unix))]
    opening: Mutex<Option<Opening>>,
}

impl Pipeline {
    pub(super) fn new(console: Arc<Console>) -> Self {
        let (messages, receiver) = unbounded_channel();
        Self {
            shared: Arc::new(Shared::new(console, messages)),
            unstarted: Mutex::new(Some(receiver)),
            driver: OnceLock::new(),
            #[cfg(all(feature = "spool", unix))]
            opening: Mutex::new(None),
        }
    }

    pub(super) fn set_console(&self, console: Arc<Console>) {
        *self.shared.console.lock() = console;
    }

    pub(super) fn trigger(&self) -> UploadTrigger {
        UploadTrigger(Arc::clone(&self.shared))
    }

    pub(super) fn set_max_bytes(&self, bytes: usize) {
        self.shared.max_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Events wait in a spool, which is [opened](Self::open_spool) later.
    #[cfg(all(feature = "spool", unix))]
    pub(super) fn set_spool(&self, config: super::spool::SpoolConfig) {
        *self.opening.lock() = Some(Opening::new(config));
    }

    /// Opens the spool that a configuration wants, if there is none. `None` if the program has another
    /// one, which wins.
    ///
    /// # Errors
    /// Why it can't be opened, or is another one.
    #[cfg(all(feature = "spool", unix))]
    pub(super) fn open_disk(&self, disk: &Disk) -> Result<Option<()>, String> {
        // Locked, so that one opens it.
        let _opening = self.opening.lock();
        if let Some(streams) = self.shared.streams() {
            return streams.is_wanted(disk);
        }
        let streams = Opening::wanted(disk).open(&self.shared)?;
        let _ = self.shared.streams.set(Arc::new(streams));
        Ok(Some(()))
    }

    /// Without the feature there is none.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(all(feature = "spool", unix)))]
    pub(super) fn open_disk(&self, disk: &Disk) -> Result<Option<()>, String> {
        let Disk { path, .. } = disk;
        Err(format!(
            "`{}` needs Unix, and a program that was built with the feature `spool` of opa-plugins",
            path.display()
        ))
    }

    /// Opens the program's spool, if there is to be one and it isn't open. Whether there is one.
    ///
    /// # Errors
    /// Why it can't be opened, with its place.
    pub(super) fn open_spool(&self) -> Result<bool, String> {
        #[cfg(all(feature = "spool", unix))]
        {
            let opening = self.opening.lock();
            if let Some(opening) = &*opening
                && self.shared.streams().is_none()
            {
                let streams = opening.open(&self.shared)?;
                // Nobody else opens it: it is locked.
                let _ = self.shared.streams.set(Arc::new(streams));
            }
        }
        Ok(self.shared.streams().is_some_and(|it| it.is_for_all()))
    }

    /// The sink of an app. `None` outside of a Tokio runtime.
    pub(super) fn sink(
        &self,
        app: &AppId,
        routes: Vec<Route>,
        terms: Terms,
    ) -> Option<impl DecisionSink + use<>> {
        self.start()?;
        let intake = Arc::new(Intake::new(&self.shared, app, routes, terms));
        self.shared.register(&intake);
        // Without an id it is a configuration that is only tried.
        if let Some(streams) = self
            .shared
            .streams()
            .filter(|_| !intake.terms.instance.is_empty())
        {
            for lane in intake.lanes().filter(|lane| lane.is_spooled()) {
                streams.attach(lane);
                self.shared.send(Message::Stored(Arc::clone(lane)));
            }
        }
        Some(Handover(intake))
    }

    fn start(&self) -> Option<()> {
        let Some(receiver) = self.unstarted.lock().take() else {
            return Some(());
        };
        let Ok(runtime) = Handle::try_current() else {
            *self.unstarted.lock() = Some(receiver);
            return None;
        };
        self.shared.start();
        let driver = runtime.spawn(driver::run(Arc::clone(&self.shared), receiver));
        let _ = self.driver.set(driver.abort_handle());
        Some(())
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Delivers all that waits, as far as `deadline` permits. Nothing is taken any more then.
    pub(super) async fn shutdown(&self, deadline: Duration) {
        let shared = &self.shared;
        shared.send(Message::Drain);
        let delivered = async {
            while !shared.totals.is_empty() {
                shared.totals.empty.notified().await;
            }
        };
        // The rest of the time is for counting what is lost.
        let time = deadline - (deadline / 10).min(Duration::from_millis(100));
        if tokio::time::timeout(time, delivered).await.is_err() {
            shared.warn_of_rest();
        }
        self.end();
        if let Some(streams) = shared.streams() {
            streams.close().await;
        }
    }

    fn end(&self) {
        self.shared.end();
        if let Some(driver) = self.driver.get() {
            driver.abort();
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
