//! A worker: a child of its stage that handles one batch at a time and reports once for each.
//!
//! It waits on the network so that its stage need not. If it panics, the panic ends this worker only; its stage
//! learns of that through supervision and lets another worker settle what it held.

use std::sync::Arc;

use ractor::{Actor, ActorProcessingErr, ActorRef};

use crate::{
    delivery::{
        claims::Claims,
        stage::{Stage, StageMessage},
    },
    metrics,
    policy::{
        limits::{BUS_RETRY_DELAY, DeliveryLimits},
        settle::{Decision, Outcome, settle},
    },
    ports::bus::{Delivery, Settlement},
};

/// What a worker is asked to do.
pub enum Work {
    /// Handle these.
    Handle(Arc<[Delivery]>),
    /// Settle these, whose worker died.
    Aftermath(Arc<[Delivery]>, String),
}

/// What a worker needs.
pub struct WorkerArgs {
    /// What to do with deliveries.
    pub stage: Arc<dyn Stage>,
    /// To whom to report.
    pub parent: ActorRef<StageMessage>,
    /// How often one message may come.
    pub limits: DeliveryLimits,
    /// Claims on messages that came before; `None` where deliveries are not attempts at handling a message.
    pub claims: Option<Claims>,
}

/// See the module's documentation.
pub struct Worker;

impl Actor for Worker {
    type Msg = Work;
    type State = WorkerArgs;
    type Arguments = WorkerArgs;

    async fn pre_start(&self, _: ActorRef<Work>, args: WorkerArgs) -> Result<WorkerArgs, ActorProcessingErr> {
        Ok(args)
    }

    async fn handle(
        &self,
        myself: ActorRef<Work>,
        work: Work,
        state: &mut WorkerArgs,
    ) -> Result<(), ActorProcessingErr> {
        let (batch, outcomes) = match work {
            Work::Handle(batch) => {
                let outcomes = state.handle(&batch).await;
                (batch, outcomes)
            }
            Work::Aftermath(batch, reason) => {
                let mut outcomes = Vec::with_capacity(batch.len());
                for delivery in batch.iter() {
                    outcomes.push(state.died(delivery, reason.clone()).await);
                }
                (batch, outcomes)
            }
        };
        for (delivery, outcome) in batch.iter().zip(outcomes) {
            state.end(delivery, outcome).await;
        }
        state.parent.cast(StageMessage::Finished { worker: myself.get_id(), count: batch.len() })?;
        Ok(())
    }
}

impl WorkerArgs {
    /// Handles a batch; what came before comes alone, and is claimed first.
    async fn handle(&self, batch: &[Delivery]) -> Vec<Outcome> {
        let (Some(claims), [again]) = (&self.claims, batch) else { return self.stage.handle(batch).await };
        if again.delivered == 1 {
            return self.stage.handle(batch).await;
        }
        match claims.open(again).await {
            Ok(opened) => {
                let outcomes = self.stage.handle(batch).await;
                if let Some(outcome) = outcomes.first() {
                    claims.close(again, opened, outcome).await;
                }
                outcomes
            }
            Err(outcome) => vec![outcome],
        }
    }

    async fn died(&self, delivery: &Delivery, reason: String) -> Outcome {
        let deaths = match &self.claims {
            Some(claims) => match claims.count_death(delivery).await {
                Ok(deaths) => deaths,
                Err(taken_over) => return taken_over,
            },
            None => delivery.delivered,
        };
        Outcome::Died { reason, deaths }
    }

    async fn end(&self, delivery: &Delivery, outcome: Outcome) {
        let stage = self.stage.name();
        if let Outcome::Later { after, reason } = &outcome {
            tracing::warn!(%stage, sequence = delivery.sequence, ?after, reason, "delivery handed back");
        }
        let decision = settle(outcome, delivery.delivered, &self.limits);
        let (settlement, label) = match decision {
            Decision::Acknowledge => (Settlement::Acknowledged, "acknowledged"),
            Decision::HandBack { after } => (Settlement::Retried { after }, "handed_back"),
            Decision::Leave => {
                metrics::settled(stage, "taken_over");
                return;
            }
            Decision::DeadLetter { code, error } => {
                match self.stage.dead_letter(delivery, code, &error).await {
                    Ok(()) => {
                        // What was wrong may quote what a user wrote; it is in the dead letter.
                        tracing::warn!(%stage, %code, sequence = delivery.sequence, "message dead-lettered");
                        (Settlement::Terminated { reason: format!("{code}: {error}") }, "buried")
                    }
                    Err(outcome) => {
                        // Not even a dead letter can be stored now; the message must stay where it is.
                        tracing::error!(%stage, ?outcome, sequence = delivery.sequence, "message not dead-lettered yet");
                        (Settlement::Retried { after: BUS_RETRY_DELAY }, "handed_back")
                    }
                }
            }
        };
        metrics::settled(stage, label);
        if let Err(error) = delivery.receipt.settle(settlement).await {
            tracing::warn!(%stage, %error, sequence = delivery.sequence, "settlement lost, the message will come again");
        }
    }
}
