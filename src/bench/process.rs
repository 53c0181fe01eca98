//! What the system tells about a process: `/proc` on Linux, nothing elsewhere.

use std::{fs, time::Duration};

/// Clock ticks per second in `/proc/*/stat`: 100 on every Linux since 2.6.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time and memory of one process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Resident memory now, in bytes.
    pub rss: u64,
    /// Largest resident memory so far, in bytes.
    pub peak_rss: u64,
}

/// Asks for a process; zeros if the system does not tell.
pub(super) fn usage(pid: Option<u32>) -> Usage {
    pid.and_then(read).unwrap_or_default()
}

fn read(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may contain blanks; utime and stime are the 12th and 13th fields after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Usage {
        cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        rss: kib("VmRSS:")? * 1024,
        peak_rss: kib("VmHWM:")? * 1024,
    })
}

/// Usage of the four parts of the rig.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parts {
    pub nats: Usage,
    /// All workers together.
    pub workers: Usage,
    pub upstreams: Usage,
    pub driver: Usage,
}
