//! Which of several processes keeps room in the log.
//!
//! All that is done may be done twice, so this decides about waste and not about safety: archives would be written by
//! each, and rows counted by each. The process that has the turn says so again and again; the others look whether that
//! changes, by their own clock, and take the turn when it does not. The claim on the message 0, which does not exist, says
//! who.

use std::time::Duration;

use throughline_schemas::StageName;
use tokio::time::Instant;

use crate::ports::{
    bus::{BusError, Claim, DeliveryState, Published},
    clock::Entropy,
};

/// A process that says nothing for so long has lost its turn. Longer than the time between two looks.
const TURN: Duration = Duration::from_secs(20);
/// A process at work says so this often.
pub(super) const SAY_AGAIN: Duration = Duration::from_secs(5);
/// Where the turn is kept: with the claims on messages, of which none has this sequence.
const PLACE: (StageName, u64) = (StageName::Input, 0);

/// What this process knows of the turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// What it said last, if it has the turn. Each time it is another number, or the bus would take it for a repetition.
    mine: Option<u64>,
    /// The last change that was seen, and when it was.
    seen: Option<(u64, Instant)>,
}

impl Turn {
    /// Takes or keeps the turn if that is possible; whether this process has it.
    pub(super) async fn take(
        &mut self,
        bus: &dyn DeliveryState,
        entropy: &dyn Entropy,
    ) -> Result<bool, BusError> {
        let (stage, place) = PLACE;
        let claimed = bus.claim(stage, place).await?.unwrap_or_default();
        let is_mine = self.mine.is_some_and(|mine| mine == claimed.claim.handling && claimed.revision > 0);
        let now = Instant::now();
        let since = match self.seen {
            Some((revision, since)) if revision == claimed.revision => since,
            Some(_) | None => {
                self.seen = Some((claimed.revision, now));
                now
            }
        };
        if !is_mine && claimed.revision > 0 && now.duration_since(since) < TURN {
            self.mine = None;
            return Ok(false);
        }
        let handling = entropy.next_u64();
        let claim = Claim { handling, open: true, ..Claim::default() };
        let set = bus.set_claim(stage, place, &claim, claimed.revision).await?;
        // `Already`: another one was quicker, or this has been stored and its answer was lost; the next look shows which.
        self.mine = Some(handling);
        Ok(set == Published::New)
    }
}
