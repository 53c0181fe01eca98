//! Input: validates what publishers send and admits it into its session's order.
//!
//! One worker at a time takes everything that has arrived, validates it in stream order, and admits it in one
//! transaction. The database, not this stage, decides which turn runs.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use throughline_schemas::{
    Event, EventData, EventType, FailureCode, Ingress, IngressLimits, Meta, Refused, SessionId, StageName,
    StepPath, Subject, Timestamp, TraceParent, UserId, WorkflowFailed, WorkflowId, decode, encode,
    event::{
        InputValidated,
        input::{Request, WhenBusy},
    },
};

use crate::{
    delivery::stage::Stage,
    metrics,
    policy::{limits::BUS_RETRY_DELAY, settle::Outcome},
    ports::{
        bus::{DeadLetter, Delivery, Published},
        store::{
            Admission, AdmissionResult, Admitted, EndedTurn, FailureRecord, Fingerprint, SessionOwner,
            UserLimits, Verdict,
        },
        trace::Tracer,
    },
    workflow::{
        id_conflict, live, missing_end, repetition,
        stage_context::{PublishFailed, StageContext, caused, store_away},
        superseded::{interrupted, merged, not_owner, rejected, too_many_open},
        users::Users,
    },
};

/// Most inputs admitted in one transaction.
pub const ADMISSION_BATCH: usize = 256;

/// See the module's documentation.
pub struct InputStage {
    /// Ends what is invalid, publishes what is valid.
    pub context: StageContext,
    /// Limits on what publishers send.
    pub limits: IngressLimits,
    /// What to do in a busy session with a message that does not say so itself.
    pub when_busy: WhenBusy,
    /// Who may speak in a session.
    pub owner: SessionOwner,
    /// What one user may take.
    pub users: Users,
    /// Where traces begin.
    pub tracer: Arc<dyn Tracer>,
}

/// An input that was read: what to ask of the database, and what to publish afterwards.
struct Read {
    admission: Admission,
    event: Event,
}

#[async_trait]
impl Stage for InputStage {
    fn name(&self) -> StageName {
        StageName::Input
    }

    fn batch_limit(&self) -> usize {
        ADMISSION_BATCH
    }

    async fn handle(&self, batch: &[Delivery]) -> Vec<Outcome> {
        let started = tokio::time::Instant::now();
        for _ in batch.iter().filter(|delivery| delivery.delivered > 1) {
            metrics::redelivered(StageName::Input);
        }
        let read: Vec<Result<Read, Outcome>> = batch.iter().map(|delivery| self.read(delivery)).collect();
        let questions: Vec<Admission> = read.iter().flatten().map(|read| read.admission.clone()).collect();
        let database = &self.context.database;
        let answers = if questions.is_empty() {
            Ok(Vec::new())
        } else {
            database.call(0, |_| self.context.store.admit(questions.clone())).await
        };
        let answers = match answers {
            Ok(answers) => answers,
            Err(gave_up) => {
                let away = store_away(&gave_up);
                return read.into_iter().map(|read| read.err().unwrap_or_else(|| away.clone())).collect();
            }
        };
        if answers.iter().any(|admitted| admitted.result == AdmissionResult::Held) {
            self.users.held();
        }
        let places: Vec<_> = questions
            .iter()
            .zip(&answers)
            .filter(|(_, admitted)| begins_now(admitted))
            .map(|(admission, _)| (admission.session_id.clone(), admission.input_sequence))
            .collect();
        let missing_ends = missing_end::before(&self.context, &places).await;
        let mut answers = answers.into_iter();
        let outcomes = join_all(read.into_iter().zip(batch).map(|(read, delivery)| {
            let answered = read.map(|read| (read, answers.next()));
            let missing_ends = &missing_ends;
            async move {
                match answered {
                    Err(unreadable) => unreadable,
                    Ok((read, Some(admitted))) => {
                        if begins_now(&admitted)
                            && let Err(outcome) = self.after_the_last(missing_ends, &read, delivery).await
                        {
                            return outcome;
                        }
                        self.publish(&read.event, read.admission.input_sequence, admitted).await
                    }
                    Ok((_, None)) => Outcome::Unusable {
                        code: FailureCode::Internal,
                        error: "the database answered fewer admissions than were asked".to_owned(),
                    },
                }
            }
        }))
        .await;
        let worked = started.elapsed();
        let now = self.context.clock.now();
        for delivery in batch {
            let waited = std::time::Duration::from_millis(now.ms_since(delivery.published_at));
            metrics::stage_time(StageName::Input, waited.saturating_sub(worked), worked);
        }
        outcomes
    }

    async fn dead_letter(&self, delivery: &Delivery, code: FailureCode, error: &str) -> Result<(), Outcome> {
        let letter = DeadLetter {
            subject: delivery
                .header("nats-msg-id")
                .and_then(|id| WorkflowId::new(id).ok())
                .map(|workflow| Subject::new(EventType::UserInputReceived, &SessionId::unknown(), &workflow)),
            stage: StageName::Input,
            code,
            error: error.to_owned(),
            at: self.context.clock.now(),
        };
        self.context.dead_letter(delivery, &letter).await?;
        // A workflow that can be named ends as failed: it may have been admitted, and its session goes on then. One that
        // has begun is with the stages behind this one, which end it: its model may be at work, and the next turn must not
        // be.
        let Ok(read) = self.read(delivery) else { return Ok(()) };
        let cause = caused(read.event.meta);
        let beginning = Subject::new(EventType::InputValidated, &cause.session_id, &cause.workflow_id);
        if self.context.exists(&beginning).await.map_err(PublishFailed::outcome)? {
            return Ok(());
        }
        let failed = WorkflowFailed {
            code,
            stage: StageName::Input,
            message: format!("{error}; the message is kept as a dead letter"),
            attempts: delivery.delivered,
            retryable: false,
            may_have_happened: false,
            superseded_by: None,
            earlier_deliveries: 0,
            attempt_log: Vec::new(),
            external: BTreeMap::new(),
        };
        match self.context.fail(&cause, delivery.sequence, failed, cause.traceparent).await {
            Outcome::Done => Ok(()),
            outcome @ (Outcome::Later { .. }
            | Outcome::Unusable { .. }
            | Outcome::Died { .. }
            | Outcome::TakenOver) => Err(outcome),
        }
    }
}

impl InputStage {
    fn read(&self, delivery: &Delivery) -> Result<Read, Outcome> {
        let fallback = derived_id(&delivery.subject, delivery.sequence, delivery.published_at);
        let ingress = Ingress::read(
            &delivery.subject,
            &delivery.body,
            |name| delivery.header(name),
            fallback,
            &self.limits,
        )
        .map_err(|error| Outcome::Unusable { code: FailureCode::InvalidInput, error: error.to_string() })?;
        match ingress {
            Ok(ingress) => self.accepted(delivery, ingress),
            Err(refused) => Ok(self.refused(delivery, *refused)),
        }
    }

    fn accepted(&self, delivery: &Delivery, ingress: Ingress) -> Result<Read, Outcome> {
        let traceparent = self.trace(ingress.traceparent, &ingress.workflow_id);
        let when_busy = ingress.when_busy.unwrap_or(self.when_busy);
        let source = ingress.source.as_deref();
        let fingerprint = Fingerprint::of(&ingress.user_id, &ingress.session_id, &ingress.user_input, source);
        let data = EventData::InputValidated(InputValidated {
            request: Request {
                user_input: ingress.user_input,
                metadata: ingress.metadata,
                input_sequence: delivery.sequence,
                received_at: delivery.published_at,
                merged: Vec::new(),
                redo: ingress.redo,
            },
        });
        let cause = ingress.event_id;
        let event =
            self.event(ingress.workflow_id, ingress.session_id, ingress.user_id, data, traceparent, cause);
        let encoded = encode(&event)
            .map_err(|error| Outcome::Unusable { code: FailureCode::Internal, error: error.to_string() })?;
        Ok(Read {
            admission: admission(
                &event,
                delivery,
                fingerprint,
                Verdict::Accepted { event: encoded, when_busy, owner: self.owner },
                self.users.limits(),
            ),
            event,
        })
    }

    fn refused(&self, delivery: &Delivery, refused: Refused) -> Read {
        let traceparent = self.trace(refused.traceparent, &refused.workflow_id);
        let failed = WorkflowFailed {
            code: FailureCode::InvalidInput,
            stage: StageName::Input,
            message: refused.message,
            attempts: 1,
            retryable: false,
            may_have_happened: false,
            superseded_by: None,
            earlier_deliveries: 0,
            attempt_log: Vec::new(),
            external: BTreeMap::new(),
        };
        let verdict = Verdict::Refused { failure: FailureRecord::of(&failed) };
        // It may have no text, so all of it is compared.
        let body = String::from_utf8_lossy(&delivery.body);
        let fingerprint =
            Fingerprint::of(&refused.user_id, &refused.session_id, &body, refused.source.as_deref());
        let data = EventData::WorkflowFailed(failed);
        let cause = refused.event_id;
        let event =
            self.event(refused.workflow_id, refused.session_id, refused.user_id, data, traceparent, cause);
        Read { admission: admission(&event, delivery, fingerprint, verdict, self.users.limits()), event }
    }

    fn trace(&self, parent: Option<TraceParent>, workflow: &WorkflowId) -> TraceParent {
        let span = tracing::info_span!(
            "process",
            otel.name = "process user_input_received",
            otel.kind = "consumer",
            messaging.system = "nats",
            messaging.operation.name = "process",
            messaging.operation.type = "process",
            messaging.consumer.group.name = "input",
            throughline.stage = "input",
            throughline.workflow = %workflow,
        );
        self.tracer.adopt(&span, parent)
    }

    fn event(
        &self,
        workflow_id: WorkflowId,
        session_id: SessionId,
        user_id: UserId,
        data: EventData,
        traceparent: TraceParent,
        cause: Option<String>,
    ) -> Event {
        // A bare message has no id of its own; it gets the one that it would have as an event of ours.
        let cause = cause.unwrap_or_else(|| workflow_id.event_id(EventType::UserInputReceived));
        let meta = Meta {
            id: workflow_id.event_id(data.event_type()),
            source: format!("throughline/{}", StageName::Input),
            time: self.context.clock.now(),
            step: StepPath::NONE,
            causation_id: Some(cause),
            workflow_id,
            session_id,
            user_id,
            traceparent,
            attempt: 1,
        };
        Event { meta, data }
    }

    /// Makes sure that the log has the end of the turn before one that begins; `Err` if it must wait for that.
    /// `missing_ends` has ends that are missing, by the sequence of the input that would be next.
    async fn after_the_last(
        &self,
        missing_ends: &Result<HashMap<u64, EndedTurn>, Outcome>,
        read: &Read,
        delivery: &Delivery,
    ) -> Result<(), Outcome> {
        let Some(ended) = missing_ends.as_ref().map_err(Clone::clone)?.get(&read.admission.input_sequence)
        else {
            return Ok(());
        };
        match missing_end::wait(ended, delivery.delivered) {
            Some(wait) => Err(wait),
            None => missing_end::publish_end(&self.context, &read.admission.session_id, ended).await,
        }
    }

    /// Says what became of an input.
    async fn publish(&self, event: &Event, sequence: u64, admitted: Admitted) -> Outcome {
        if let Some(interrupted) = &admitted.interrupted
            && let Err(outcome) = self.interrupted(interrupted, &event.meta.workflow_id).await
        {
            return outcome;
        }
        let failed = match admitted.result {
            AdmissionResult::Running | AdmissionResult::Waiting | AdmissionResult::Held
                if admitted.opening.is_some() =>
            {
                return self.context.release(admitted.opening).await;
            }
            AdmissionResult::Running | AdmissionResult::Refused => {
                return self.publish_own(event, sequence).await;
            }
            AdmissionResult::Waiting => {
                live::waits_for_turn(self.context.bus.as_ref(), &event.meta.workflow_id);
                return Outcome::Done;
            }
            AdmissionResult::Held => {
                live::waits_for_share(self.context.bus.as_ref(), &event.meta.workflow_id);
                return Outcome::Done;
            }
            // A log that was recreated counts from one again, so that a message can come in the place of itself.
            AdmissionResult::Ended => return repetition::repeated(&self.context, event, sequence).await,
            AdmissionResult::Repeated { ended } => {
                metrics::duplicate();
                if ended {
                    return repetition::repeated(&self.context, event, sequence).await;
                }
                return Outcome::Done;
            }
            AdmissionResult::Conflict { session_id } => {
                return repetition::conflict(&self.context, event, sequence, &session_id).await;
            }
            AdmissionResult::Rejected => rejected(),
            AdmissionResult::NotOwner => not_owner(),
            AdmissionResult::TooManyOpen => too_many_open(self.users.limits().open),
            AdmissionResult::Merged { into } => merged(into),
        };
        let cause = caused(event.meta.clone());
        match self.context.publish_failure(&cause, failed, cause.traceparent).await {
            Ok(()) => Outcome::Done,
            Err(failed) => failed.outcome(),
        }
    }

    async fn publish_own(&self, event: &Event, sequence: u64) -> Outcome {
        match self.context.publish(event).await {
            Ok(Published::New) => {
                if event.event_type() == EventType::WorkflowFailed {
                    // The reason may quote what the publisher wrote; it is in the event.
                    tracing::info!(
                        workflow = %event.meta.workflow_id,
                        trace_id = %format_args!("{:032x}", event.meta.traceparent.trace_id()),
                        "input refused"
                    );
                    metrics::failed(StageName::Input, FailureCode::InvalidInput);
                }
                Outcome::Done
            }
            Ok(Published::Already) => match id_conflict::refused(&self.context, event).await {
                Ok(next) => self.context.release(next).await,
                Err(outcome) => outcome,
            },
            Err(failed @ PublishFailed::Now(_)) => failed.outcome(),
            Err(PublishFailed::Never(error)) => {
                let cause = caused(event.meta.clone());
                let failed = self.context.unpublishable(&error, 1);
                self.context.fail(&cause, sequence, failed, cause.traceparent).await
            }
        }
    }

    /// Tells the end of a turn that was interrupted.
    async fn interrupted(&self, opening: &[u8], by: &WorkflowId) -> Result<(), Outcome> {
        let context = &self.context;
        let meta = match decode(opening) {
            Ok(event) => event.meta,
            Err(error) => {
                let reason = format!("interrupted turn unreadable: {error}");
                return Err(Outcome::Later { after: BUS_RETRY_DELAY, reason });
            }
        };
        context.interruptions.announce(context.bus.as_ref(), &meta.workflow_id).await;
        let told = context.publish_failure(&meta, interrupted(by), meta.traceparent).await;
        told.map_err(PublishFailed::outcome)
    }
}

/// Whether a turn that stands so is begun by the stage that admitted it. The end of what it interrupted is published just
/// before.
fn begins_now(admitted: &Admitted) -> bool {
    admitted.result == AdmissionResult::Running && admitted.interrupted.is_none()
}

fn admission(
    event: &Event,
    delivery: &Delivery,
    fingerprint: Fingerprint,
    verdict: Verdict,
    limits: UserLimits,
) -> Admission {
    Admission {
        workflow_id: event.meta.workflow_id.clone(),
        session_id: event.meta.session_id.clone(),
        user_id: event.meta.user_id.clone(),
        input_sequence: delivery.sequence,
        fingerprint,
        at: event.meta.time,
        verdict,
        limits,
    }
}

/// The workflow id of a message that names none: time-ordered, and the same each time the message is delivered.
pub fn derived_id(subject: &str, sequence: u64, published_at: Timestamp) -> WorkflowId {
    let digest = Sha256::new()
        .chain_update(subject)
        .chain_update(sequence.to_be_bytes())
        .chain_update(published_at.unix_ms().to_be_bytes())
        .finalize();
    WorkflowId::derive(published_at, &digest)
}
