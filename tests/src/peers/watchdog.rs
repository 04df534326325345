//! Ends a program when this process ends without doing so itself, killed for example.

use std::io;
use std::process::{Child, Command, Stdio};

/// A shell that waits for the end of its input, and then kills the program it watches over.
///
/// The kernel closes our end of the pipe when we die, whatever the cause.
#[derive(Debug)]
pub(super) struct Watchdog(Child);

impl Watchdog {
    pub(super) fn over(child: &Child) -> io::Result<Watchdog> {
        // Ctrl-C goes to the whole process group; it must outlive that.
        let script = "trap '' INT TERM HUP; read -r _; kill -s KILL \"$1\"";
        Command::new("/bin/sh")
            .args(["-c", script, "watchdog"])
            .arg(child.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Watchdog)
    }

    /// To be called while the watched process id is still ours: it must not end a later owner.
    pub(super) fn dismiss(&mut self) {
        end(&mut self.0);
    }

    #[cfg(test)]
    pub(super) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.dismiss();
    }
}

/// Kills and waits; a child that was waited for before is left alone.
pub(super) fn end(child: &mut Child) {
    // Both fail only if the child has ended and was waited for.
    let _ = child.kill();
    let _ = child.wait();
}
