//! What a thread and a process take, as Linux tells it.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The processor time of this thread.
pub(crate) fn thread() -> Duration {
    clock(ClockId::ThreadCPUTime)
}

/// The processor time of this process.
pub(crate) fn process() -> Duration {
    clock(ClockId::ProcessCPUTime)
}

fn clock(id: ClockId) -> Duration {
    let time = clock_gettime(id);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The processor time of another process, in steps of 10 ms.
pub(crate) fn of_process(pid: u32) -> Result<Duration, String> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    // After the name, which may have spaces.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks = |at| {
        let field = fields.split_whitespace().nth(at);
        field.and_then(|ticks| ticks.parse::<u64>().ok())
    };
    let ticks = ticks(11)
        .zip(ticks(12))
        .ok_or_else(|| format!("{path}: {stat}"))?;
    Ok(Duration::from_millis((ticks.0 + ticks.1) * 10))
}

/// The most memory that another process had resident, in KiB.
pub(crate) fn peak_of_process(pid: u32) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.split_whitespace().next()?.parse().ok())
        .ok_or_else(|| format!("{path}: {status}"))
}
