//! Reads the configuration again when the process is told to.

use std::io;

use opa_tower::Manager;

/// Reloads the configuration at each SIGHUP from now on. What it did, or what is wrong, is logged
/// by the manager. Systems without that signal have `--watch`.
///
/// # Errors
/// When the operating system refuses it.
#[cfg(unix)]
pub(crate) fn at_hangup(manager: Manager) -> io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            // The log has it, and there is nobody else to tell.
            let _ = manager.reload().await;
        }
    });
    Ok(())
}

#[cfg(not(unix))]
pub(crate) fn at_hangup(_: Manager) -> io::Result<()> {
    Ok(())
}
