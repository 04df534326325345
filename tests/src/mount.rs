//! File systems of a test's own: small, and full or read-only when it wants.

use std::path::Path;
use std::process::Command;

/// A file system in memory, until it is dropped.
#[derive(Debug)]
pub struct Mount(tempfile::TempDir);

impl Mount {
    /// With the options of `mount`, such as `size=1m,mode=700`. `None`, said loudly, where the test
    /// may not mount.
    ///
    /// # Panics
    ///
    /// When there is no folder to mount it to.
    pub fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("{error}"));
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                eprintln!("SKIPPED: no file system can be mounted here: {other:?}");
                None
            }
        }
    }

    /// Changes its options.
    ///
    /// # Panics
    ///
    /// When that is refused.
    pub fn remount(&self, options: &str) {
        let mut command = Command::new("mount");
        command.args(["-o", options]).arg(self.0.path());
        let changed = command.status().is_ok_and(|status| status.success());
        assert!(changed, "{options}");
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}
