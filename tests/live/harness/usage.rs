//! What a process takes, on Linux; zero elsewhere.

/// CPU seconds that a process has used.
pub fn cpu(pid: u32) -> f64 {
    // Ticks of 10 ms, as on every Linux that Rust supports.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // User and system time are the 12th and 13th field after the name, which stands in parentheses.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// Its resident memory, in MiB.
pub fn memory_mib(pid: u32) -> u64 {
    status_mib(pid, "VmRSS:")
}

/// The most that it was, in MiB.
pub fn peak_mib(pid: u32) -> u64 {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() / 1024
}
