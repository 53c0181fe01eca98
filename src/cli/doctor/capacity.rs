//! What the machine allows, against what a worker may need.

use super::finding::Finding;
use crate::{
    config::Config,
    machine::{Machine, Need},
};

const MIB: u64 = 1024 * 1024;
/// A process should not plan with more than this much of its memory.
const USABLE_PERCENT: u64 = 90;

pub(super) fn check(config: &Config, machine: Machine) -> Vec<Finding> {
    let need = Need::of(config);
    vec![open_files(config, need, machine), memory(need, machine)]
}

fn open_files(config: &Config, need: Need, machine: Machine) -> Finding {
    const NAME: &str = "open files";
    let calls = config.stages.generation.concurrency;
    let needed = format!("{calls} model calls at once may need {} open files", need.open_files);
    match machine.open_files {
        Some(allowed) if allowed < need.open_files => Finding::warn(
            NAME,
            format!("{needed}, and this system allows {allowed}"),
            "raise the hard limit (`ulimit -Hn`, LimitNOFILE of a systemd unit, ulimits of a container), or lower \
             stages.generation.concurrency and stages.external.concurrency",
        ),
        Some(allowed) => Finding::ok(NAME, format!("{needed}; {allowed} are allowed")),
        None => Finding::ok(NAME, format!("{needed}; there is no limit")),
    }
}

fn memory(need: Need, machine: Machine) -> Finding {
    const NAME: &str = "memory";
    let needed = format!("a worker whose slots are all taken needs some {} MiB", need.memory / MIB);
    match machine.memory {
        Some(limit) if limit / 100 * USABLE_PERCENT < need.memory => Finding::warn(
            NAME,
            format!("{needed}, and {} MiB are there", limit / MIB),
            "give it more, or lower stages.generation.concurrency and stages.external.concurrency",
        ),
        Some(limit) => Finding::ok(NAME, format!("{needed}; {} MiB are there", limit / MIB)),
        None => Finding::ok(NAME, needed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{cli::doctor::finding::Status, config::Layers};

    #[test]
    fn a_machine_that_is_too_small_is_told_with_what_to_change() {
        let config = Layers::default().load_text("t.toml", "").unwrap();
        let of = |memory, open_files| {
            let findings = check(&config, Machine { memory, open_files });
            findings
                .into_iter()
                .map(|finding| (finding.name, finding.status, finding.advice))
                .collect::<Vec<_>>()
        };
        for (_, status, advice) in of(Some(256 * MIB), Some(1_024)) {
            assert!(status == Status::Warn && advice.contains("stages.generation.concurrency"), "{advice}");
        }
        for enough in [of(Some(512 * MIB), Some(65_536)), of(None, None)] {
            assert!(enough.iter().all(|(_, status, _)| *status == Status::Ok), "{enough:?}");
        }
    }
}
