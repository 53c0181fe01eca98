//! What every stage has to publish events, end workflows as failed and start the next turn.
//!
//! The database decides whether it may end so (once, and only one way); then the event is published, and the next
//! turn of the session is released. Each step is idempotent, so a crash in between is repaired by the redelivery.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use throughline_schemas::{
    Event, EventData, EventType, FailureCode, Meta, StageName, StepPath, Subject, TraceParent,
    WorkflowFailed, WorkflowId, decode,
};
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    dependency::{
        Dependency, RetriesExhausted,
        cause::{Cause, error_chain},
        vitals::DependencyKind,
    },
    metrics,
    policy::{
        limits::{BODIES_RETRY_DELAY, BUS_PATIENCE, BUS_RETRY_DELAY, LARGE_BODY_BYTES},
        merge,
        settle::Outcome,
    },
    ports::{
        Classify, Fault,
        bus::{BODIES_FULL, Bus, BusError, DeadLetter, Delivery, Published},
        clock::Clock,
        store::{Closed, Ending, FailedTurn, Failing, FailureRecord, KnownEnd, Opening, Store, StoreError},
    },
    workflow::{id_conflict, interruptions::Interruptions, superseded},
};

/// What a stage publishes and ends workflows with.
#[derive(Clone)]
pub struct StageContext {
    /// The stage that ends them.
    pub stage: StageName,
    /// The event bus.
    pub bus: Arc<dyn Bus>,
    /// The database.
    pub store: Arc<dyn Store>,
    /// The database as a dependency of this stage.
    pub database: Dependency,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Workflows to stop working on.
    pub interruptions: Interruptions,
    /// Events that may wait here for room for large bodies; others go back to the server, so that slots are left for
    /// what needs no such room.
    pub large_waits: Arc<Semaphore>,
}

impl StageContext {
    /// The envelope of an event that this stage publishes because of `cause`.
    pub fn meta(&self, cause: &Meta, data: &EventData, traceparent: TraceParent, attempt: u32) -> Meta {
        Meta {
            id: cause.workflow_id.event_id(data.event_type()),
            source: format!("throughline/{}", self.stage),
            time: self.clock.now(),
            workflow_id: cause.workflow_id.clone(),
            session_id: cause.session_id.clone(),
            user_id: cause.user_id.clone(),
            step: StepPath::NONE,
            causation_id: Some(cause.id.clone()),
            traceparent,
            attempt,
        }
    }

    /// Publishes an event. While the bus does not take it, it is held for up to [`BUS_PATIENCE`]: handing the cause
    /// back would throw away what was done for it, a paid answer perhaps. While only large bodies find no room, that
    /// is so for as many as there are [`StageContext::large_waits`].
    pub async fn publish(&self, event: &Event) -> Result<Published, PublishFailed> {
        let error = match self.bus.publish(event).await {
            Ok(published) => return Ok(published),
            Err(error) => error,
        };
        let _waits = match &error {
            BusError::BodiesFull(_) => {
                let Ok(waits) = self.large_waits.try_acquire() else {
                    self.database.bus_failed(Cause::of(&error));
                    return Err(PublishFailed::Now(error));
                };
                Some(waits)
            }
            BusError::Unavailable { .. }
            | BusError::Full(_)
            | BusError::TooLarge { .. }
            | BusError::NotSetUp(_)
            | BusError::Forbidden(_)
            | BusError::Encode(_) => None,
        };
        let mut first = Some(error);
        let again = patiently(self.stage, Some(&self.database), || {
            let first = first.take();
            async move {
                match first {
                    Some(error) => Err(error),
                    None => self.bus.publish(event).await,
                }
            }
        });
        // Rare, and not to make every other delivery larger.
        Box::pin(again).await
    }

    /// How a delivery ends whose result would find no room: what is large as it comes is large as it goes, and a call of a
    /// model that is made now would have to be made again.
    pub fn no_room_for_results_of(&self, delivery: &Delivery) -> Option<Outcome> {
        if delivery.body_bytes() <= LARGE_BODY_BYTES as u64 {
            return None;
        }
        let full = self.database.vitals().troubles().into_iter().find(|trouble| {
            trouble.kind == DependencyKind::Bus
                && trouble.cause.class == BODIES_FULL
                && trouble.last.elapsed() < BODIES_RETRY_DELAY / 2
        })?;
        Some(Outcome::Later { after: BODIES_RETRY_DELAY, reason: full.cause.text.to_string() })
    }

    /// Whether an event of this address is stored; as patient as [`StageContext::publish`].
    pub async fn exists(&self, subject: &Subject) -> Result<bool, PublishFailed> {
        patiently(self.stage, Some(&self.database), || self.bus.exists(subject)).await
    }

    /// The event that is stored at an address; as patient as [`StageContext::publish`].
    pub async fn recorded(&self, subject: &Subject) -> Result<Option<Bytes>, PublishFailed> {
        patiently(self.stage, Some(&self.database), || self.bus.recorded(subject)).await
    }

    /// Stores a dead letter; as patient as [`StageContext::publish`].
    pub async fn dead_letter(&self, delivery: &Delivery, letter: &DeadLetter) -> Result<(), Outcome> {
        patiently(self.stage, Some(&self.database), || self.bus.dead_letter(delivery, letter))
            .await
            .map_err(PublishFailed::outcome)
    }

    /// Ends the workflow of `cause`, whose input has this sequence, as failed, and starts the next turn of its session.
    pub async fn fail(
        &self,
        cause: &Meta,
        input_sequence: u64,
        failed: WorkflowFailed,
        traceparent: TraceParent,
    ) -> Outcome {
        match self.end(cause, input_sequence, failed, traceparent).await {
            Ok(closed) => self.release(closed.next).await,
            Err(outcome) => outcome,
        }
    }

    /// Completes what an earlier delivery began: it published `workflow_failed`, and may not have got further.
    pub async fn finish(&self, cause: &Meta, input_sequence: u64) -> Outcome {
        let subject = Subject::new(EventType::WorkflowFailed, &cause.session_id, &cause.workflow_id);
        let published = match self.recorded(&subject).await {
            Ok(body) => body.and_then(|body| decode(&body).ok()).map(|event| event.data),
            Err(failed) => return failed.outcome(),
        };
        let failed = match published {
            Some(EventData::WorkflowFailed(failed)) => failed,
            Some(_) | None => recorded_as_failed(self.stage, 1),
        };
        match self.close(cause, input_sequence, &failed).await {
            Ok(closed) => self.release(closed.next).await,
            Err(outcome) => outcome,
        }
    }

    /// Publishes the `input_validated` of a turn whose time has come. A turn that cannot be published fails, one whose id
    /// the log has for another message is refused, and the one behind it is next.
    pub async fn release(&self, mut next: Option<Opening>) -> Outcome {
        while let Some(opening) = next {
            let (event, input_sequence) = match merge::opened(&opening) {
                Ok(opened) => opened,
                // The database holds what we wrote ourselves; a newer version may have written it.
                Err(error) => {
                    let reason = format!("next turn unreadable: {error}");
                    return Outcome::Later { after: BUS_RETRY_DELAY, reason };
                }
            };
            next = match self.publish(&event).await {
                Ok(Published::New) => return Outcome::Done,
                Ok(Published::Already) => match id_conflict::refused(self, &event).await {
                    Ok(next) => next,
                    Err(outcome) => return outcome,
                },
                Err(failed @ PublishFailed::Now(_)) => return failed.outcome(),
                Err(PublishFailed::Never(error)) => {
                    let cause = caused(event.meta);
                    let failed = self.unpublishable(&error, 1);
                    match self.end(&cause, input_sequence, failed, cause.traceparent).await {
                        Ok(closed) => closed.next,
                        Err(outcome) => return outcome,
                    }
                }
            };
        }
        Outcome::Done
    }

    /// The failure of a workflow whose next event the bus will never take.
    pub fn unpublishable(&self, error: &BusError, attempts: u32) -> WorkflowFailed {
        let code = match error {
            BusError::TooLarge { .. } => FailureCode::ResultTooLarge,
            BusError::Unavailable { .. }
            | BusError::Full(_)
            | BusError::BodiesFull(_)
            | BusError::NotSetUp(_)
            | BusError::Forbidden(_)
            | BusError::Encode(_) => FailureCode::Internal,
        };
        WorkflowFailed {
            code,
            stage: self.stage,
            message: error_chain(error),
            attempts,
            retryable: false,
            may_have_happened: true,
            superseded_by: None,
            earlier_deliveries: 0,
            attempt_log: Vec::new(),
            external: BTreeMap::new(),
        }
    }

    /// Records the workflow as failed and says so, unless it has been saved. The session's next turn is still to be
    /// released.
    pub async fn end(
        &self,
        cause: &Meta,
        input_sequence: u64,
        failed: WorkflowFailed,
        traceparent: TraceParent,
    ) -> Result<Closed, Outcome> {
        let closed = self.close(cause, input_sequence, &failed).await?;
        match closed.ending {
            Ending::AsAsked => {
                self.publish_failure(cause, failed, traceparent).await.map_err(PublishFailed::outcome)?;
            }
            Ending::Otherwise | Ending::Duplicate => {}
        }
        Ok(closed)
    }

    /// Whether a turn runs, according to the database.
    pub async fn runs(&self, workflow: &WorkflowId) -> Result<bool, Outcome> {
        let opening = self.database.call(0, |_| self.store.opening(workflow)).await;
        opening.map(|opening| opening.is_some()).map_err(|gave_up| store_away(&gave_up))
    }

    /// What the database knows of a workflow's end.
    pub(crate) async fn known_end(&self, workflow: &WorkflowId) -> Result<Option<KnownEnd>, Outcome> {
        let known = self.database.call(0, |_| self.store.end(workflow)).await;
        known.map_err(|gave_up| store_away(&gave_up))
    }

    /// Publishes the end of a workflow that is recorded as failed.
    pub async fn publish_failure(
        &self,
        cause: &Meta,
        failed: WorkflowFailed,
        traceparent: TraceParent,
    ) -> Result<(), PublishFailed> {
        let (code, attempts) = (failed.code, failed.attempts);
        let data = EventData::WorkflowFailed(failed);
        let event = Event { meta: self.meta(cause, &data, traceparent, attempts), data };
        match self.publish(&event).await? {
            Published::New => {
                metrics::failed(self.stage, code);
                tracing::warn!(
                    stage = %self.stage,
                    code = %code,
                    workflow = %cause.workflow_id,
                    trace_id = %format_args!("{:032x}", traceparent.trace_id()),
                    "workflow failed"
                );
            }
            Published::Already => {}
        }
        Ok(())
    }

    /// Why a turn failed that is recorded as failed.
    pub async fn reason(&self, workflow: &WorkflowId, attempts: u32) -> Result<WorkflowFailed, Outcome> {
        let reason = reason_on_record(self.store.as_ref(), &self.database, workflow, (self.stage, attempts));
        reason.await.map_err(|gave_up| store_away(&gave_up))
    }

    async fn close(
        &self,
        cause: &Meta,
        input_sequence: u64,
        failed: &WorkflowFailed,
    ) -> Result<Closed, Outcome> {
        let failing = Failing {
            workflow_id: cause.workflow_id.clone(),
            session_id: cause.session_id.clone(),
            user_id: cause.user_id.clone(),
            input_sequence,
            at: self.clock.now(),
            failure: FailureRecord::of(failed),
        };
        let call = self.database.call(0, |_| self.store.fail(failing.clone()));
        call.await.map_err(|gave_up| store_away(&gave_up))
    }
}

/// Asks the bus until it answers, for up to [`BUS_PATIENCE`]. Meanwhile `known_to` has it that the bus fails.
pub(crate) async fn patiently<T, Fut>(
    stage: StageName,
    known_to: Option<&Dependency>,
    mut ask: impl FnMut() -> Fut,
) -> Result<T, PublishFailed>
where
    Fut: Future<Output = Result<T, BusError>>,
{
    let give_up_at = Instant::now() + BUS_PATIENCE;
    let mut has_failed = false;
    loop {
        let error = match ask().await {
            Ok(answer) => {
                if let Some(known_to) = known_to.filter(|_| has_failed) {
                    known_to.bus_answered();
                }
                return Ok(answer);
            }
            Err(error) => error,
        };
        match error.fault() {
            Fault::Permanent => return Err(PublishFailed::Never(error)),
            Fault::Transient { .. } | Fault::Unknown => {}
        }
        let cause = Cause::of(&error);
        if let Some(known_to) = known_to {
            known_to.bus_failed(cause.clone());
        }
        has_failed = true;
        if Instant::now() + BUS_RETRY_DELAY > give_up_at {
            return Err(PublishFailed::Now(error));
        }
        let Cause { class, text } = cause;
        tracing::warn!(stage = %stage, class, error = %text, "the event bus does not take it, trying again");
        tokio::time::sleep(BUS_RETRY_DELAY).await;
    }
}

/// Why a workflow failed that an earlier attempt recorded as failed. It has its `workflow_failed` already, as a rule, and
/// this one is not stored. Unless that attempt was interrupted in between: then this is the only end that the workflow
/// will have. `now` is the stage that asks and its attempt, if nothing more is known.
pub(crate) async fn reason_on_record(
    store: &dyn Store,
    database: &Dependency,
    workflow: &WorkflowId,
    now: (StageName, u32),
) -> Result<WorkflowFailed, RetriesExhausted<StoreError>> {
    let known = database.call(0, |_| store.end(workflow)).await?;
    Ok(match known {
        Some(KnownEnd::Failed(turn)) => reason_of(*turn, now),
        // It is about to end, or nothing is known: an earlier version deleted its turn.
        Some(KnownEnd::Open | KnownEnd::Saved(_) | KnownEnd::Forgotten { .. }) | None => {
            recorded_as_failed(now.0, now.1)
        }
    })
}

fn reason_of(turn: FailedTurn, (stage, attempts): (StageName, u32)) -> WorkflowFailed {
    match (turn.record, turn.code, turn.superseded_by) {
        (Some(record), _, _) => record,
        (None, Some(FailureCode::SessionBusy), _) => superseded::rejected(),
        (None, Some(FailureCode::NotSessionOwner), _) => superseded::not_owner(),
        (None, Some(FailureCode::TooManyOpen), _) => superseded::too_many_open(None),
        (None, Some(FailureCode::Interrupted), Some(by)) => superseded::interrupted(&by),
        (None, Some(FailureCode::Merged), Some(into)) => superseded::merged(into),
        (None, _, _) => recorded_as_failed(stage, attempts),
    }
}

/// The failure of a workflow that an earlier version recorded as failed, without its reason.
fn recorded_as_failed(stage: StageName, attempts: u32) -> WorkflowFailed {
    WorkflowFailed {
        code: FailureCode::Internal,
        stage,
        message:
            "an interrupted attempt had recorded the workflow as failed, and its reason is lost; publish the \
                  input again under another workflow id"
                .to_owned(),
        attempts,
        retryable: true,
        may_have_happened: true,
        superseded_by: None,
        earlier_deliveries: 0,
        attempt_log: Vec::new(),
        external: BTreeMap::new(),
    }
}

/// What caused an event that is not published itself.
pub fn caused(meta: Meta) -> Meta {
    Meta { id: meta.causation_id.clone().unwrap_or_else(|| meta.id.clone()), ..meta }
}

/// An event was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishFailed {
    /// Not now; it may work later.
    #[error(transparent)]
    Now(BusError),
    /// It never will.
    #[error(transparent)]
    Never(BusError),
}

impl PublishFailed {
    /// How the delivery that caused the event ends.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Now(error @ BusError::BodiesFull(_)) => {
                Outcome::Later { after: BODIES_RETRY_DELAY, reason: error_chain(&error) }
            }
            Self::Now(error) => Outcome::Later { after: BUS_RETRY_DELAY, reason: error_chain(&error) },
            Self::Never(error) => Outcome::Unusable {
                code: FailureCode::Internal,
                error: format!("its result was not accepted: {}", error_chain(&error)),
            },
        }
    }
}

/// How a delivery ends whose work the database did not let happen.
pub fn store_away(gave_up: &RetriesExhausted<StoreError>) -> Outcome {
    match gave_up.wait {
        Some(after) => Outcome::Later { after, reason: error_chain(&gave_up.last) },
        None => Outcome::Unusable { code: FailureCode::StoreUnavailable, error: error_chain(&gave_up.last) },
    }
}
