//! Time and chance are given, never taken.

use throughline_schemas::Timestamp;

/// The wall clock. Durations and deadlines use tokio's monotonic clock instead.
pub trait Clock: Send + Sync + 'static {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// A source of randomness for ids and jitter; not for secrets.
pub trait Entropy: Send + Sync + 'static {
    /// 64 random bits.
    fn next_u64(&self) -> u64;
}
