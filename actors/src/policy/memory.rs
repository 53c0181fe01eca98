//! How much memory a message may come to take, and how much all of them together.
//!
//! The factors say how often the bytes of a message are in memory at once, at the worst moment of its stage. They follow from
//! counting the copies that the code makes; `tests/live/memory.rs` checks their sum: many messages of 15 MB stay within the budget.

use throughline_schemas::StageName;

/// A body of up to so many bytes takes nothing from the budget: a stage has only as many of them as it has slots, and a thousand
/// model calls with such messages were measured to take 90 MiB in all, connections included.
pub const FREE_BODY_BYTES: u64 = 8 * 1024;
/// An answer of a source of up to so many bytes takes nothing either. It is the default of `max_bytes`.
pub const FREE_ANSWER_BYTES: usize = 64 * 1024;
/// Largest body of an event, in bytes; taken for the size of one that does not say how large it is.
pub const LARGEST_BODY_BYTES: u64 = 16 * 1024 * 1024;

/// Of a container's limit, this share is for messages. What is left is for a process without any (40 MiB), the messages that take
/// nothing (90 MiB for a thousand), the tables of tokenizers and what the allocator keeps.
const SHARE_PERCENT: u64 = 50;
/// Less than this is never chosen: 6 MiB messages would not fit. In a container that is too small for it the rest has to do.
const LEAST_BYTES: u64 = 32 * MIB;
/// More than this is never chosen: twenty-seven of the largest messages at once, more than a few cores can read and write.
const MOST_BYTES: u64 = 2048 * MIB;
/// Chosen where no limit is known.
const WITHOUT_LIMIT_BYTES: u64 = 512 * MIB;

/// Of the budget, one part in so many is for small messages only.
const SMALL_PART: u64 = 4;

const MIB: u64 = 1024 * 1024;

/// The budget for messages of a process that may take `limit` bytes in all, in bytes.
pub fn automatic_budget(limit: Option<u64>) -> u64 {
    let share = limit.map(|limit| limit / 100 * SHARE_PERCENT);
    share.unwrap_or(WITHOUT_LIMIT_BYTES).clamp(LEAST_BYTES, MOST_BYTES)
}

/// How often the bytes of a stage's message are in memory at once.
pub fn times(stage: StageName) -> u64 {
    match stage {
        // The body, the event, and the event that is made of it; at the persistence stage the last is small. Of answers: as
        // documents, one of them as it came, and the event that is made of them.
        StageName::Input | StageName::Context | StageName::External | StageName::Persistence => 3,
        // The event, the prompt, the request as a value and as it is sent, with what JSON in JSON has to escape.
        StageName::Generation => 5,
    }
}

/// What a message with a body of so many bytes may take at its stage, in bytes.
pub fn weight(stage: StageName, body_bytes: u64) -> u64 {
    if body_bytes <= FREE_BODY_BYTES { 0 } else { body_bytes.saturating_mul(times(stage)) }
}

/// What answers of sources with so many bytes in all may take, in bytes.
pub fn answers_weight(bytes: u64) -> u64 {
    bytes.saturating_mul(times(StageName::External))
}

/// The most that one message may take in a process whose sources answer with so many bytes in all, in bytes: at the stage that
/// makes the prompt, or at the one that asks them.
pub fn largest_weight(answers: u64) -> u64 {
    // Beside the answers an event has the input and the earlier turns.
    const REST: u64 = MIB;
    let event = answers.saturating_add(REST).min(LARGEST_BODY_BYTES);
    weight(StageName::Generation, event).max(answers_weight(answers))
}

/// The most that one message is given of such a budget, in bytes. What takes more is cut to it, and is alone.
pub fn largest_share(budget: u64) -> u64 {
    budget - budget / SMALL_PART
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_half_of_the_limit_within_bounds() {
        assert_eq!(automatic_budget(Some(512 * MIB)) / MIB, 255);
        assert_eq!(automatic_budget(Some(48 * MIB)), LEAST_BYTES);
        assert_eq!(automatic_budget(Some(64 * 1024 * MIB)), MOST_BYTES);
        assert_eq!(automatic_budget(None), WITHOUT_LIMIT_BYTES);
    }

    #[test]
    fn small_messages_take_nothing_and_large_ones_what_their_stage_makes_of_them() {
        assert_eq!(weight(StageName::Generation, FREE_BODY_BYTES), 0);
        assert_eq!(weight(StageName::Generation, 10 * MIB), 50 * MIB);
        assert_eq!(weight(StageName::Persistence, 10 * MIB), 30 * MIB);
        assert_eq!(largest_weight(15 * MIB), 80 * MIB);
        assert_eq!(
            largest_weight(48 * MIB),
            144 * MIB,
            "more than an event can hold is asked for all the same"
        );
    }
}
