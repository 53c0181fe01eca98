//! Messages that come again: how often they were the death of a worker, and who has them now.
//!
//! The server counts deliveries. That a message came five times can mean that it killed five processes, or that it was
//! handed back four times because a database was away. So whoever handles a redelivery says so before it begins and
//! when it ends; a claim that is still open when the message comes again tells of a process that vanished. First
//! deliveries, which are nearly all, cost nothing.

use std::sync::Arc;

use throughline_schemas::{FailureCode, StageName};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    closing::{PublishFailed, patiently},
    policy::{limits::DeliveryLimits, settle::Outcome},
    ports::bus::{Bus, Claim, Delivery},
};

/// The claims of one stage.
#[derive(Clone)]
pub struct Claims {
    /// Whose messages.
    pub stage: StageName,
    /// Where claims are kept.
    pub bus: Arc<dyn Bus>,
    /// One permit for the whole process: what may have killed a process is handled with nothing of its kind beside it,
    /// or the innocent would be blamed along with it.
    pub quarantine: Arc<Semaphore>,
    /// When it is enough.
    pub limits: DeliveryLimits,
}

/// Leave to handle a redelivery.
pub struct Opened {
    claim: Claim,
    /// Given back when the handling is over.
    _alone: Option<OwnedSemaphorePermit>,
}

impl Claims {
    /// Claims a message that came before; `Err` if it must not be handled, or not now.
    pub async fn open(&self, delivery: &Delivery) -> Result<Opened, Outcome> {
        let mut claim = self.read(delivery).await?;
        if claim.open {
            claim.vanished += 1;
        }
        if claim.vanished >= self.limits.max_vanished {
            let error = format!(
                "{} processes that handled it vanished without a word: killed, out of memory, or aborted",
                claim.vanished
            );
            return Err(Outcome::Unusable { code: FailureCode::Poison, error });
        }
        let alone = if claim.vanished == 0 {
            None
        } else {
            tracing::warn!(
                stage = %self.stage,
                sequence = delivery.sequence,
                vanished = claim.vanished,
                "a process vanished while it handled this message, which is handled with no other such message"
            );
            Some(Arc::clone(&self.quarantine).acquire_owned().await)
        };
        claim.delivery = delivery.delivered;
        claim.open = true;
        self.write(delivery, &claim).await?;
        // The semaphore is never closed.
        Ok(Opened { claim, _alone: alone.and_then(Result::ok) })
    }

    /// The handling is over, as `outcome` says.
    pub async fn close(&self, delivery: &Delivery, opened: Opened, outcome: &Outcome) {
        match outcome {
            // It is the later delivery's claim now.
            Outcome::TakenOver => return,
            Outcome::Done | Outcome::Later { .. } | Outcome::Unusable { .. } | Outcome::Died { .. } => {}
        }
        // It is kept, so that an earlier attempt that wakes up finds that it is not alone.
        let closed = Claim { open: false, ..opened.claim };
        if let Err(outcome) = self.write(delivery, &closed).await {
            // It counts as a process that vanished, of which several are allowed.
            tracing::warn!(stage = %self.stage, sequence = delivery.sequence, ?outcome, "claim not given up");
        }
    }

    /// Counts a worker that died of a message in this process; says how many did, as far as is known.
    pub async fn count_death(&self, delivery: &Delivery) -> u32 {
        let claim = match self.read(delivery).await {
            Ok(claim) => claim,
            Err(outcome) => {
                tracing::warn!(stage = %self.stage, sequence = delivery.sequence, ?outcome, "deaths not known");
                Claim::default()
            }
        };
        let claim = Claim { delivery: delivery.delivered, open: false, panics: claim.panics + 1, ..claim };
        if let Err(outcome) = self.write(delivery, &claim).await {
            tracing::warn!(stage = %self.stage, sequence = delivery.sequence, ?outcome, "death not counted");
        }
        claim.panics
    }

    async fn read(&self, delivery: &Delivery) -> Result<Claim, Outcome> {
        let asked = patiently(self.stage, || self.bus.claim(self.stage, delivery.sequence)).await;
        asked.map(Option::unwrap_or_default).map_err(PublishFailed::outcome)
    }

    async fn write(&self, delivery: &Delivery, claim: &Claim) -> Result<(), Outcome> {
        let written =
            patiently(self.stage, || self.bus.set_claim(self.stage, delivery.sequence, claim)).await;
        written.map_err(PublishFailed::outcome)
    }
}
