//! Whether this machine's clock agrees with the server's.

use std::time::Duration;

use throughline_actors::ports::{bus::EventLog, clock::Clock};

use crate::system::SystemClock;

/// A difference that is worth a word.
const TOLERANCE: Duration = Duration::from_secs(5);

/// Says so if the clocks differ: nobody's turn is ended by that, but instants in events and tables are wrong.
pub(super) async fn compare(bus: &dyn EventLog) {
    let before = SystemClock.now();
    let Ok(position) = bus.position().await else { return };
    let after = SystemClock.now();
    let Some(server) = position.now else { return };
    // It was asked between the two. One of them is zero.
    let (ahead, behind) = (before.ms_since(server), server.ms_since(after));
    let differ = Duration::from_millis(ahead.max(behind));
    if differ > TOLERANCE {
        let which = if ahead > 0 { "ahead of" } else { "behind" };
        tracing::warn!(
            by_s = differ.as_secs(),
            "this machine's clock is {which} the NATS server's; set both by NTP: instants in events and in the database are \
             wrong until then"
        );
    }
}
