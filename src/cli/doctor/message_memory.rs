//! Whether the memory for messages in hand goes together with how large messages may be, and with what the process has.

use throughline_actors::policy::memory::{largest_share, largest_weight};

use super::finding::Finding;
use crate::{config::Config, machine::Machine};

const NAME: &str = "message memory";
const MIB: u64 = 1024 * 1024;
/// With more than this for messages, a process has too little for everything else.
const MOST_PERCENT: u64 = 75;

/// What is to be changed, in words for `config check`.
pub(in crate::cli) fn warning(config: &Config, machine: Machine) -> Option<String> {
    let Finding { name, detail, advice, .. } = check(config, machine);
    (!advice.is_empty()).then(|| format!("{name}: {detail}; {advice}"))
}

pub(super) fn check(config: &Config, machine: Machine) -> Finding {
    let budget = machine.message_memory(config);
    let answers = config
        .sources
        .iter()
        .map(|source| (source.max_bytes as u64).saturating_mul(source.max_matches as u64));
    let largest = largest_weight(answers.sum());
    let chosen = match (config.worker.message_memory_mib, machine.memory) {
        (0, Some(limit)) => format!("chosen for the {} MiB that are there", limit / MIB),
        (0, None) => "chosen without knowing how much there is".to_owned(),
        (_, Some(limit)) => format!("worker.message_memory_mib, of {} MiB that are there", limit / MIB),
        (_, None) => "worker.message_memory_mib".to_owned(),
    };
    let told = format!(
        "messages in hand may take {} MiB ({chosen}); the largest that the sources' limits allow takes {} MiB",
        budget / MIB,
        largest.div_ceil(MIB)
    );
    if machine.memory.is_some_and(|limit| budget > limit / 100 * MOST_PERCENT) {
        let advice = "lower worker.message_memory_mib, or give the process more: the rest of it needs a quarter at least";
        return Finding::warn(NAME, told, advice);
    }
    if largest > largest_share(budget) {
        let advice = "such a message is worked on alone, and may take more than there is: give the process more memory, raise \
                      worker.message_memory_mib, or lower max_bytes of the sources";
        return Finding::warn(NAME, told, advice);
    }
    Finding::ok(NAME, told)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{cli::doctor::finding::Status, config::Layers};

    #[test]
    fn a_budget_that_is_too_small_or_too_large_is_told_with_what_to_change() {
        let of = |text: &str, memory_mib: u64| {
            let config = Layers::default().load_text("t.toml", text).unwrap();
            check(&config, Machine { memory: Some(memory_mib * MIB), open_files: None })
        };
        let good = of("", 512);
        assert!(
            good.status == Status::Ok && good.detail.contains("255 MiB (chosen for the 512 MiB"),
            "{good:?}"
        );
        let source = "[[sources]]\nname = \"a\"\nurl = \"http://127.0.0.1/\"\nmax_bytes = 16000000\n";
        assert_eq!(of(source, 512).status, Status::Ok);
        let small = of(source, 128);
        assert!(small.status == Status::Warn && small.advice.contains("max_bytes"), "{small:?}");
        let large = of("[worker]\nmessage_memory_mib = 400\n", 512);
        assert!(large.status == Status::Warn && large.advice.contains("a quarter"), "{large:?}");
    }
}
