//! Messages that the server has given up on: delivered as often as `max_deliver` allows, and never settled.
//!
//! Such a message may have killed every worker that tried to handle it. It is not handled again: it is dead-lettered, its
//! workflow ends as failed, and its session goes on.

use std::sync::Arc;

use async_trait::async_trait;
use throughline_schemas::{FailureCode, StageName};

use crate::{delivery::stage::Stage, policy::settle::Outcome, ports::bus::Delivery};

/// Dead-letters what a stage's consumer has given up on.
pub struct UndeliverableHandler(pub Arc<dyn Stage>);

#[async_trait]
impl Stage for UndeliverableHandler {
    fn name(&self) -> StageName {
        self.0.name()
    }

    fn batch_limit(&self) -> usize {
        1
    }

    async fn handle(&self, batch: &[Delivery]) -> Vec<Outcome> {
        let outcomes = batch.iter().map(|delivery| Outcome::Unusable {
            code: FailureCode::Poison,
            error: format!(
                "it was delivered {} times and nobody answered for it, so it is not delivered again",
                delivery.delivered
            ),
        });
        outcomes.collect()
    }

    async fn dead_letter(&self, delivery: &Delivery, code: FailureCode, error: &str) -> Result<(), Outcome> {
        self.0.dead_letter(delivery, code, error).await
    }
}
