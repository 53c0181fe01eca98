//! Named limits of the engine, each with a unit and a reason.

use std::time::Duration;

/// How often one message may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeliveryLimits {
    /// Deliveries after which a message that is still handed back is dead-lettered. At most the server's `max_deliver`,
    /// or the server would drop it before we dead-letter it.
    pub max_deliveries: u32,
    /// Workers that may die of one message, by panic or by exceeding the work limit, before it is dead-lettered as poison.
    pub max_deaths: u32,
    /// Processes that may vanish while they handle one redelivered message, before it is dead-lettered as poison. More than
    /// deaths, because that it was the message is only a suspicion: processes may be killed for other reasons. The process
    /// that handled its first delivery is not counted.
    pub max_vanished: u32,
    /// Wait after a worker's death.
    pub delay_after_death: Duration,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self {
            max_deliveries: 100,
            max_deaths: 3,
            max_vanished: 5,
            delay_after_death: Duration::from_secs(1),
        }
    }
}

/// Longest wait that a worker spends holding its delivery; longer ones go back to the server, with a log of the
/// attempts made so far. A little over the default cap on hints and backoff, and over the default breaker
/// cooldown: unless configured otherwise every such wait is held.
pub const HOLD_LIMIT: Duration = Duration::from_secs(65);

/// How long a model is waited for while another one of its route may be asked now, unless configured otherwise: the
/// first two waits of the default backoff are under it, a `Retry-After` of any size that matters is over it.
pub const FALLBACK_PATIENCE: Duration = Duration::from_secs(5);

/// How long rate limits may hold a request back while another model of its route may be asked, unless configured
/// otherwise.
pub const RATE_PATIENCE: Duration = Duration::from_secs(30);

/// A wait for a rate limit that is long enough to be reported to listeners.
pub const NOTICEABLE_WAIT: Duration = Duration::from_secs(1);

/// How long rate limits may hold one request back in all, over all deliveries, before its workflow fails, unless
/// configured otherwise: a batch of a thousand at sixty a minute gets through with a few hundred slots.
pub const RATE_TOTAL: Duration = Duration::from_mins(15);

/// How much of that one delivery spends in a worker; longer waits go back to the server. Longer than [`HOLD_LIMIT`],
/// because a call that keeps its place in the queue is served in order, and what is handed back begins again behind
/// those who came later; well below [`WORK_LIMIT`], calls and backoff included.
pub const RATE_HOLD_LIMIT: Duration = Duration::from_mins(5);

/// Longest attempt log of the earlier deliveries of a message, in bytes: about two hundred attempts. They share a small
/// bucket with the claims.
pub const ATTEMPT_LOG_BYTES: usize = 64 * 1024;

/// How often storing or reading an attempt log is tried before its attempts are given up. The delivery is held meanwhile.
pub const ATTEMPT_LOG_TRIES: u32 = 3;

/// How long a worker waits for the database before it hands its delivery back. While the database is away nothing
/// else could be done with the slot, and a hand-back would use up one of the server's deliveries.
pub const STORE_PATIENCE: Duration = Duration::from_mins(10);

/// How often a database that fails is asked again while work waits for it, by one operation of each stage: work goes on
/// within this time of its return. A statement a second is nothing to a database that is back, and to one that is away.
pub const STORE_PROBE: Duration = Duration::from_secs(1);

/// Longest time one worker may spend on one delivery before it is killed and the delivery handed back.
pub const WORK_LIMIT: Duration = Duration::from_mins(30);

/// Share of the acknowledgement wait after which a delivery in hand is reported as in progress.
pub const PROGRESS_PER_ACK_WAIT: u32 = 3;

/// Processes that must have vanished with a message before it is handled with no other such message beside it. Whoever
/// kills workers at random takes many messages along once or twice, and they would all queue.
pub const QUARANTINE_FROM: u32 = 2;

/// How long such a message waits in its slot for the one before it.
pub const QUARANTINE_WAIT: Duration = Duration::from_secs(20);

/// When it comes again after that. With the wait, a message of a hundred deliveries has most of an hour.
pub const QUARANTINE_DELAY: Duration = Duration::from_secs(10);

/// Wait before the bus is asked again that did not take an event; and before a delivery comes again for that reason.
pub const BUS_RETRY_DELAY: Duration = Duration::from_secs(2);

/// A body that is larger than this, in bytes, is likely to be kept in the store for large bodies, and so is what is made of
/// it.
pub const LARGE_BODY_BYTES: usize = 64 * 1024;

/// When a delivery comes again whose result needs room for large bodies that is not there. Long, because it is the hundred
/// deliveries of a message that end its waiting.
pub const BODIES_RETRY_DELAY: Duration = Duration::from_mins(1);

/// How long a worker holds a result that the bus does not take, before it hands its delivery back and the result is
/// lost. As with the database, there is nothing else to do meanwhile.
pub const BUS_PATIENCE: Duration = Duration::from_mins(10);

/// A delivery whose body could not be fetched comes again after this, and each time after so much more ...
pub const BODY_RETRY_DELAY: Duration = Duration::from_secs(2);

/// ... up to this.
pub const BODY_RETRY_DELAY_AT_MOST: Duration = Duration::from_mins(1);

/// How often a body that is kept elsewhere is asked for before its message is dead-lettered without it.
pub const DEAD_LETTER_BODY_TRIES: u32 = 3;

/// How long a delivery waits in its slot for memory before it is handed back: well below [`WORK_LIMIT`].
pub const MEMORY_PATIENCE: Duration = Duration::from_mins(10);

/// After which a wait for memory is reported in the log and by readiness.
pub const MEMORY_LONG_WAIT: Duration = Duration::from_secs(10);

/// When a delivery comes again for which there was no memory. Long, because it is the hundred deliveries of a message that
/// end its waiting.
pub const MEMORY_RETRY_DELAY: Duration = Duration::from_mins(1);

/// Most deliveries of a stage that wait for memory. While one waits it may have its event in hand, which takes nothing from
/// the budget meanwhile: 64 KiB, so 4 MiB in all.
pub const MEMORY_WAITS: usize = 64;
