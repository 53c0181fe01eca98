//! Metrics of the process itself, under the names that Prometheus' client libraries share. Read at each scrape.

use std::fmt::{Display, Write};

use throughline_schemas::Timestamp;

/// What the process says about itself; all but the start time only on Linux. `started` stands in for the start time
/// that the kernel knows.
pub(super) fn render(started: Timestamp) -> String {
    let mut text = String::new();
    let at = Seconds { hundredths: started.unix_ms() / 10 };
    family(
        &mut text,
        "process_start_time_seconds",
        "gauge",
        "Start time, in seconds since the Unix epoch.",
        at,
    );
    #[cfg(target_os = "linux")]
    linux::render(&mut text);
    text
}

fn family(text: &mut String, name: &str, kind: &str, help: &str, value: impl Display) {
    // Writing to a string does not fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
}

/// Exact where a float of seconds would not be.
struct Seconds {
    hundredths: i64,
}

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:02}", self.hundredths / 100, self.hundredths % 100)
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs;

    use super::{Seconds, family};

    /// What cannot be read is left out.
    pub(super) fn render(text: &mut String) {
        if let Some(hundredths) =
            fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(cpu_hundredths)
        {
            let seconds = Seconds { hundredths };
            family(
                text,
                "process_cpu_seconds_total",
                "counter",
                "CPU time, user and system, in seconds.",
                seconds,
            );
        }
        if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes)
        {
            family(text, "process_resident_memory_bytes", "gauge", "Resident memory, in bytes.", bytes);
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            family(text, "process_open_fds", "gauge", "Open file descriptors.", open.count());
        }
    }

    /// Fields 14 and 15: user and system time, in hundredths of a second (`USER_HZ` is 100 on every architecture that
    /// this could run on). The name, field 2, may hold spaces and parentheses.
    pub(super) fn cpu_hundredths(stat: &str) -> Option<i64> {
        let mut after_name = stat.rsplit_once(')')?.1.split_whitespace();
        let user: i64 = after_name.nth(11)?.parse().ok()?;
        let system: i64 = after_name.next()?.parse().ok()?;
        Some(user + system)
    }

    pub(super) fn resident_bytes(status: &str) -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::{linux, *};

    #[test]
    fn the_kernel_s_formats() {
        let stat = "4242 (a (b) c) S 1 4242 4242 0 -1 4194304 2012 0 11 0 1234 56 0 0 20 0 9 0 123456 1 2 3";
        assert_eq!(linux::cpu_hundredths(stat), Some(1290));
        assert_eq!(linux::cpu_hundredths("nonsense"), None);
        let status = "VmHWM:\t   20480 kB\nVmRSS:\t    1024 kB\nRssAnon:\t 5 kB\n";
        assert_eq!(linux::resident_bytes(status), Some(1024 * 1024));
        assert_eq!(Seconds { hundredths: 1290 }.to_string(), "12.90");
    }

    #[test]
    fn this_process_says_all_of_it() {
        let text = render(Timestamp::from_unix_ms(1_000_000_000_120));
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|value| value.parse::<f64>().ok()).unwrap_or(f64::NAN)
        };
        assert!((value("process_start_time_seconds") - 1_000_000_000.12).abs() < 1e-3, "{text}");
        assert!(value("process_resident_memory_bytes") > 1e6, "{text}");
        assert!(value("process_cpu_seconds_total") >= 0.0, "{text}");
        assert!(value("process_open_fds") >= 3.0, "{text}");
    }
}
