//! Claims on redelivered messages: how many workers and processes have died of each, and which delivery handles it now.
//!
//! The server counts deliveries. That a message came five times can mean that it killed five processes, or that it was
//! handed back four times because a database was away. So a worker claims a redelivery before it begins and closes
//! the claim when it ends; a claim that is still open when the message comes again means that a process vanished. First
//! deliveries, which are nearly all, cost nothing.
//!
//! A claim is replaced by compare-and-set: a process that stood still between reading and
//! writing must not overwrite the claim of the one that has the message now.

use std::sync::Arc;

use throughline_schemas::{FailureCode, StageName};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    policy::{
        limits::{BUS_RETRY_DELAY, DeliveryLimits, QUARANTINE_DELAY, QUARANTINE_FROM, QUARANTINE_WAIT},
        settle::Outcome,
    },
    ports::{
        bus::{Claim, Claimed, Delivery, DeliveryState, Published},
        clock::Entropy,
    },
    workflow::stage_context::{PublishFailed, patiently},
};

/// How often a claim is replaced while others replace it, too, before the delivery is handed back.
const TRIES: u32 = 5;

/// The claims of one stage.
#[derive(Clone)]
pub struct Claims {
    /// Whose messages.
    pub stage: StageName,
    /// Where claims are kept.
    pub bus: Arc<dyn DeliveryState>,
    /// Names handlings.
    pub entropy: Arc<dyn Entropy>,
    /// One permit for the whole process: what may have killed processes is handled with nothing of its kind beside it,
    /// or the innocent would be blamed along with it.
    pub quarantine: Arc<Semaphore>,
    /// When it is enough.
    pub limits: DeliveryLimits,
}

/// Leave to handle a redelivery.
pub struct Opened {
    handling: u64,
    /// Given back when the handling is over.
    _alone: Option<OwnedSemaphorePermit>,
}

impl Claims {
    /// Claims a message that came before; `Err` if it must not be handled, or not now.
    pub async fn open(&self, delivery: &Delivery) -> Result<Opened, Outcome> {
        let known = self.read(delivery).await?;
        let vanished = with_the_last(&known.claim);
        if vanished >= self.limits.max_vanished {
            let error = format!(
                "{vanished} processes that handled it vanished without a word: killed, out of memory, or aborted"
            );
            return Err(Outcome::Unusable { code: FailureCode::Poison, error });
        }
        let alone =
            if vanished < QUARANTINE_FROM { None } else { Some(self.quarantined(delivery, vanished).await?) };
        let handling = self.entropy.next_u64();
        let open = |claim: Claim| Claim {
            delivery: delivery.delivered,
            handling,
            open: true,
            vanished: with_the_last(&claim),
            ..claim
        };
        self.replace(delivery, known, open).await?;
        Ok(Opened { handling, _alone: alone })
    }

    /// Waits until nothing else is handled that may have killed a process. A slot is not kept for longer than others may
    /// need it.
    async fn quarantined(&self, delivery: &Delivery, vanished: u32) -> Result<OwnedSemaphorePermit, Outcome> {
        tracing::warn!(
            stage = %self.stage,
            sequence = delivery.sequence,
            vanished,
            "processes vanished while they handled this message, which is handled with no other such message"
        );
        match timeout(QUARANTINE_WAIT, Arc::clone(&self.quarantine).acquire_owned()).await {
            // The semaphore is never closed.
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Outcome::Later {
                after: QUARANTINE_DELAY,
                reason: "another message that may have killed a process is being handled".to_owned(),
            }),
        }
    }

    /// The handling is over, as `outcome` says.
    pub async fn close(&self, delivery: &Delivery, opened: Opened, outcome: &Outcome) {
        match outcome {
            // It is the later delivery's claim now.
            Outcome::TakenOver => return,
            Outcome::Done | Outcome::Later { .. } | Outcome::Unusable { .. } | Outcome::Died { .. } => {}
        }
        // It is kept, so that an earlier attempt that wakes up finds that it is not alone. Another handling's is its own.
        let close = |claim: Claim| {
            if claim.handling == opened.handling { Claim { open: false, ..claim } } else { claim }
        };
        match self.read_and_replace(delivery, close).await {
            Ok(_) | Err(Outcome::TakenOver) => {}
            // It counts as a process that vanished, of which several are allowed.
            Err(outcome) => {
                tracing::warn!(stage = %self.stage, sequence = delivery.sequence, ?outcome, "claim not given up");
            }
        }
    }

    /// Counts a worker that died of a message in this process; says how many did, as far as is known. `Err` if the
    /// message belongs to another delivery by now.
    pub async fn count_death(&self, delivery: &Delivery) -> Result<u32, Outcome> {
        let handling = self.entropy.next_u64();
        let died = |claim: Claim| Claim {
            delivery: delivery.delivered,
            handling,
            open: false,
            panics: claim.panics + 1,
            vanished: claim.vanished,
        };
        match self.read_and_replace(delivery, died).await {
            Ok(claim) => Ok(claim.panics),
            Err(Outcome::TakenOver) => Err(Outcome::TakenOver),
            Err(outcome) => {
                tracing::warn!(stage = %self.stage, sequence = delivery.sequence, ?outcome, "death not counted");
                Ok(1)
            }
        }
    }

    async fn read_and_replace(
        &self,
        delivery: &Delivery,
        next: impl Fn(Claim) -> Claim,
    ) -> Result<Claim, Outcome> {
        let known = self.read(delivery).await?;
        self.replace(delivery, known, next).await
    }

    /// Replaces the claim, which was `known` to be this, by what `next` makes of it; `Err` also if a later delivery has
    /// claimed the message.
    async fn replace(
        &self,
        delivery: &Delivery,
        mut known: Claimed,
        next: impl Fn(Claim) -> Claim,
    ) -> Result<Claim, Outcome> {
        for _ in 0..TRIES {
            let Claimed { claim, revision } = known;
            let replacement = next(claim.clone());
            if replacement == claim {
                return Ok(claim);
            }
            let write = || self.bus.set_claim(self.stage, delivery.sequence, &replacement, revision);
            match patiently(self.stage, None, write).await.map_err(PublishFailed::outcome)? {
                Published::New => return Ok(replacement),
                // Another delivery's claim is there, or this one from an attempt whose answer was lost.
                Published::Already => known = self.read(delivery).await?,
            }
            if known.claim == replacement {
                return Ok(replacement);
            }
        }
        Err(Outcome::Later {
            after: BUS_RETRY_DELAY,
            reason: "others claim this message at the same time".to_owned(),
        })
    }

    /// The claim, if it is not a later delivery's.
    async fn read(&self, delivery: &Delivery) -> Result<Claimed, Outcome> {
        let asked = patiently(self.stage, None, || self.bus.claim(self.stage, delivery.sequence)).await;
        let claimed = asked.map_err(PublishFailed::outcome)?.unwrap_or_default();
        if claimed.claim.delivery > delivery.delivered {
            tracing::warn!(
                stage = %self.stage,
                sequence = delivery.sequence,
                delivery = delivery.delivered,
                "another worker has taken the message over before it was handled here"
            );
            return Err(Outcome::TakenOver);
        }
        Ok(claimed)
    }
}

/// How many processes vanished, the one that left the claim open included.
fn with_the_last(claim: &Claim) -> u32 {
    claim.vanished + u32::from(claim.open)
}
