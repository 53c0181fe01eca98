//! What the machine, or the container, lets a process have: memory and open files.

use std::{fs, path::Path};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use throughline_actors::policy::memory::automatic_budget;

use crate::config::Config;

/// Memory of a worker that has nothing to do, in bytes.
const IDLE_BYTES: u64 = 64 * MIB;
/// Memory of one message in hand: an event that travels in its message (64 KiB at most), and as much for what is made of
/// it. A thousand model calls of ordinary size were measured to take 90 MiB in all.
const BYTES_IN_HAND: u64 = 128 * 1024;
/// Files that a worker has open besides its calls: NATS, its own port's connections (256), database, log, runtime.
const OTHER_FILES: u64 = 320;

const MIB: u64 = 1024 * 1024;

/// Limits of this process. `None`: there is none, or it cannot be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Bytes of memory: the container's limit, else the machine's.
    pub memory: Option<u64>,
    /// Files that may be open at once.
    pub open_files: Option<u64>,
}

/// What a worker with this configuration may come to need when all of its slots are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Bytes of memory, by the sizes that are usual.
    pub memory: u64,
    /// Open files, one connection for each call: fewer where a server speaks HTTP/2.
    pub open_files: u64,
}

impl Machine {
    /// Asks the system.
    pub fn here() -> Self {
        Self { memory: memory(), open_files: getrlimit(Resource::Nofile).current }
    }

    /// Memory that messages in hand may take in a worker with this configuration, in bytes.
    pub fn message_memory(&self, config: &Config) -> u64 {
        match config.worker.message_memory_mib {
            0 => automatic_budget(self.memory),
            mib => mib.saturating_mul(MIB),
        }
    }
}

impl Need {
    /// Of a process that runs every stage.
    pub fn of(config: &Config) -> Self {
        let stages = &config.stages;
        let slots =
            [&stages.input, &stages.context, &stages.external, &stages.generation, &stages.persistence];
        let slots: u64 = slots.iter().map(|stage| stage.concurrency as u64).sum();
        let calls = stages.generation.concurrency as u64
            + (stages.external.concurrency as u64).saturating_mul(config.sources.len() as u64);
        Self {
            memory: IDLE_BYTES.saturating_add(slots.saturating_mul(BYTES_IN_HAND)),
            open_files: calls.saturating_add(u64::from(config.database.max_connections)) + OTHER_FILES,
        }
    }
}

/// Lets this process open as many files as it may: many systems allow 1,024 unless a process asks for more, which is
/// fewer than the calls that a worker holds.
pub fn raise_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, ?current, "the limit on open files was not raised");
    }
}

/// The smallest limit of the control groups that this process is in, else the machine's memory.
fn memory() -> Option<u64> {
    let limits =
        cgroup_files().into_iter().filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(total_bytes);
    limits.chain(machine).min()
}

/// Where the limit may stand: control groups of version 2 (this process's and those around it) and of version 1.
fn cgroup_files() -> Vec<std::path::PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    let own = fs::read_to_string("/proc/self/cgroup").ok();
    let own = own.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("0::/")));
    let own = root.join(own.unwrap_or_default());
    let version_2 =
        own.ancestors().take_while(|path| path.starts_with(root)).map(|path| path.join("memory.max"));
    version_2.chain([root.join("memory/memory.limit_in_bytes")]).collect()
}

/// Of a text like `/proc/meminfo`.
fn total_bytes(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Layers;

    fn need(text: &str) -> Need {
        Need::of(&Layers::default().load_text("t.toml", text).unwrap())
    }

    #[test]
    fn what_is_needed_follows_the_slots_and_the_sources() {
        let defaults = need("");
        assert_eq!(defaults.open_files, 1_024 + 4 + OTHER_FILES);
        assert!((300 * MIB..450 * MIB).contains(&defaults.memory), "{}", defaults.memory);
        let source = |name| format!("[[sources]]\nname = \"{name}\"\nurl = \"http://127.0.0.1/\"\n");
        let two = need(&(source("a") + &source("b")));
        assert_eq!(two.open_files, defaults.open_files + 2 * 1_024);
        let small = need("[stages.generation]\nconcurrency = 24\n");
        assert_eq!(defaults.memory - small.memory, 1_000 * BYTES_IN_HAND);
        assert_eq!(defaults.open_files - small.open_files, 1_000);
    }

    #[test]
    fn what_is_configured_wins_over_what_the_machine_has() {
        let of = |text: &str, memory| {
            let config = Layers::default().load_text("t.toml", text).unwrap();
            Machine { memory, open_files: None }.message_memory(&config) / MIB
        };
        assert_eq!((of("", Some(512 * MIB)), of("", None)), (255, 512));
        assert_eq!(of("[worker]\nmessage_memory_mib = 100\n", Some(512 * MIB)), 100);
    }

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        assert_eq!(total_bytes("MemTotal:       24662360 kB\nMemFree: 1 kB\n"), Some(24_662_360 * 1024));
        assert_eq!(total_bytes("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn as_many_files_may_be_open_as_the_system_lets_a_process_have() {
        raise_open_files();
        assert_eq!(Machine::here().open_files, getrlimit(Resource::Nofile).maximum);
    }
}
