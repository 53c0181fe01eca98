//! The machine's clock and randomness, as the ports want them.

use rand::RngExt;
use throughline_actors::ports::clock::{Clock, Entropy};
use throughline_schemas::Timestamp;
use time::OffsetDateTime;

/// The machine's wall clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place where the wall clock is read")]
    fn now(&self) -> Timestamp {
        OffsetDateTime::now_utc().into()
    }
}

/// The thread's random number generator.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn next_u64(&self) -> u64 {
        rand::rng().random()
    }
}

/// What this machine, or container, is called; `unknown` where it does not say.
pub fn host_name() -> String {
    let said = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = said.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let plain: String = name.trim().chars().filter(char::is_ascii_graphic).take(64).collect();
    if plain.is_empty() { "unknown".to_owned() } else { plain }
}
