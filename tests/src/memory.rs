//! What the own process takes, as Linux tells it.

use std::fs;

/// The resident memory, in KiB.
pub fn resident() -> u64 {
    status("VmRSS:")
}

/// The most that was resident since the start or since [`reset_peak`], in KiB.
pub fn peak() -> u64 {
    status("VmHWM:")
}

/// Has [`peak`] begin with what is resident now.
pub fn reset_peak() -> std::io::Result<()> {
    fs::write("/proc/self/clear_refs", "5")
}

fn status(name: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_default()
}
