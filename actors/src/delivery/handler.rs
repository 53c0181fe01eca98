//! The journey of one delivery: receive, decide, do, publish and await the acknowledgement, acknowledge.

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use throughline_schemas::{
    DecodeError, Event, EventData, EventType, FailureCode, Meta, StageName, Subject, TraceParent,
    WorkflowFailed, WorkflowId, decode,
};
use tokio::time::Instant;
use tracing::Instrument;

use crate::{
    delivery::{
        attempt_log,
        fence::{TakenOver, fenced},
        stage::Stage,
    },
    dependency::cause::error_chain,
    memory_budget::{Room, StageMemory},
    metrics,
    policy::{
        limits::{
            BODY_RETRY_DELAY, BODY_RETRY_DELAY_AT_MOST, BUS_RETRY_DELAY, DEAD_LETTER_BODY_TRIES,
            LARGE_BODY_BYTES,
        },
        memory::{LARGEST_BODY_BYTES, weight},
        settle::Outcome,
    },
    ports::{
        bus::{BusError, DeadLetter, Delivery, Published},
        store::{Ending, Interaction, KnownEnd, Opening},
        trace::Tracer,
    },
    workflow::{
        live, repetition,
        stage_context::{PublishFailed, StageContext},
        unreadable,
    },
};
use std::sync::Arc;

/// Between two looks at the database for hints about one workflow.
const BETWEEN_HINTS: Duration = Duration::from_millis(250);

/// What one stage does with one event. The engine around it decodes, retries the bus, publishes and settles.
#[async_trait]
pub trait Step: Send + Sync + 'static {
    /// Which stage it is.
    fn stage(&self) -> StageName;
    /// Does the work. Must be safe to run again for the same event.
    async fn run(&self, event: &Event, run: Run<'_>) -> Result<Next, Stopped>;
    /// Takes the memory for a message with a body of so many bytes, which is neither fetched nor read yet.
    async fn make_room(&self, room: &Room, body_bytes: u64) {
        let weight = weight(self.stage(), body_bytes);
        if body_bytes > LARGE_BODY_BYTES as u64 {
            // What it may come to hold is in it, too: a delivery that has this never waits for more.
            room.take_all(weight).await;
        } else {
            room.take(weight).await;
        }
    }
    /// What ends the workflow if it turns out to have been saved while its message is being dead-lettered.
    fn saved(&self, _event: &Event) -> Option<EventData> {
        None
    }
}

/// Facts about this run of a step.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The sequence of the message.
    pub sequence: u64,
    /// Deliveries of it before this one.
    pub made: u32,
    /// The context to hand on to dependencies.
    pub traceparent: TraceParent,
    /// The memory of the delivery.
    pub room: &'a Room,
}

/// What to publish.
#[derive(Debug)]
pub struct Next {
    /// Data of the stage's event.
    pub data: EventData,
    /// Which attempt produced it.
    pub attempt: u32,
    /// The next turn of the session, if this one was the last stage of its workflow.
    pub release: Option<Opening>,
}

/// Why there is nothing to publish.
#[derive(Debug)]
pub enum Stopped {
    /// The workflow fails.
    Failed(WorkflowFailed),
    /// The delivery ends in another way.
    Otherwise(Outcome),
}

/// How far an earlier delivery of the same message got.
enum Earlier {
    /// It published nothing.
    Nothing,
    /// It published the stage's event, which is all there is to do.
    Published,
    /// It published the workflow's failure; the session's next turn may still have to be released.
    Failed,
    /// It recorded the workflow as failed, and did not get to say so.
    Unsaid,
    /// The workflow was saved, and the log has lost that.
    Saved(Box<Interaction>),
}

impl Earlier {
    fn is_something(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Published | Self::Failed | Self::Unsaid | Self::Saved(_) => true,
        }
    }
}

/// A [`Step`] as a [`Stage`]: one event in, one event out.
pub struct EventHandler<S> {
    step: S,
    context: StageContext,
    tracer: Arc<dyn Tracer>,
    memory: StageMemory,
}

impl<S: Step> EventHandler<S> {
    /// Puts a step to work.
    pub fn new(step: S, context: StageContext, tracer: Arc<dyn Tracer>, memory: StageMemory) -> Self {
        Self { step, context, tracer, memory }
    }

    /// Handles a delivery in the memory that it takes, which is given back at the end.
    async fn one(&self, delivery: &Delivery) -> Outcome {
        let room = self.memory.room();
        tokio::select! {
            biased;
            no_room = room.refused() => no_room.outcome(),
            outcome = self.within(delivery, &room) => outcome,
        }
    }

    /// The event of a delivery, read where there is room for it. The body is not kept: it would be one copy more.
    async fn opened(&self, delivery: &Delivery, room: &Room) -> Result<Event, Outcome> {
        self.step.make_room(room, delivery.body_bytes()).await;
        let body = self.context.bus.body(delivery).await.map_err(|error| {
            let after = BODY_RETRY_DELAY.saturating_mul(delivery.delivered).min(BODY_RETRY_DELAY_AT_MOST);
            Outcome::Later { after, reason: format!("its body cannot be fetched: {}", error_chain(&error)) }
        })?;
        decode(&body).map_err(|error| not_readable(&error))
    }

    async fn within(&self, delivery: &Delivery, room: &Room) -> Outcome {
        let event = match self.opened(delivery, room).await {
            Ok(event) => event,
            Err(outcome) => return outcome,
        };
        let stage = self.step.stage();
        let span = tracing::info_span!(
            "process",
            otel.name = %format_args!("process {}", event.event_type()),
            otel.kind = "consumer",
            messaging.system = "nats",
            messaging.operation.name = "process",
            messaging.operation.type = "process",
            messaging.consumer.group.name = stage.as_str(),
            throughline.stage = stage.as_str(),
            throughline.workflow = %event.meta.workflow_id,
            trace_id = %format_args!("{:032x}", event.meta.traceparent.trace_id()),
        );
        let traceparent = self.tracer.adopt(&span, Some(event.meta.traceparent));
        let waited = self.context.clock.now().ms_since(delivery.published_at);
        let started = Instant::now();
        // Large for what is rare in it: kept out of what each delivery moves around.
        let journey = Box::pin(self.journey(&event, delivery, traceparent, room)).instrument(span);
        let outcome = match fenced(&self.context.bus, stage, delivery, journey).await {
            Ok(outcome) => outcome,
            Err(TakenOver) => Outcome::TakenOver,
        };
        metrics::stage_time(stage, Duration::from_millis(waited), started.elapsed());
        outcome
    }

    async fn journey(
        &self,
        event: &Event,
        delivery: &Delivery,
        traceparent: TraceParent,
        room: &Room,
    ) -> Outcome {
        let made = delivery.delivered.saturating_sub(1);
        let run = Run { sequence: delivery.sequence, made, traceparent, room };
        if run.made > 0 {
            metrics::redelivered(self.step.stage());
        }
        if run.made > 0 || delivery.maybe_worked_on {
            let earlier = self.earlier(&event.meta).await;
            if run.made == 0 && earlier.as_ref().is_ok_and(Earlier::is_something) {
                metrics::not_done_again(self.step.stage());
                tracing::info!(
                    sequence = run.sequence,
                    "an old event was delivered as a new one; its work is on record"
                );
            }
            match earlier {
                Ok(earlier) => {
                    if let Some(outcome) = self.conclude(earlier, event, run).await {
                        return outcome;
                    }
                }
                Err(outcome) => return outcome,
            }
        }
        if let Some(outcome) = self.context.no_room_for_results_of(delivery) {
            return outcome;
        }
        live::stage_begins(self.context.bus.as_ref(), &event.meta.workflow_id, self.step.stage());
        let started = Instant::now();
        let mut step = std::pin::pin!(self.step(event, run));
        let (mut heard, mut ask_from) = (0, started);
        let stepped = loop {
            tokio::select! {
                biased;
                hints = self.hinted(&event.meta.workflow_id, heard, ask_from) => {
                    heard = hints;
                    // The step stands still until the database has answered: nothing is done for a turn that has ended.
                    if let Some(earlier) = self.ended(&event.meta).await {
                        return self.conclude(earlier, event, run).await.unwrap_or(Outcome::Done);
                    }
                    ask_from = Instant::now() + BETWEEN_HINTS;
                }
                stepped = &mut step => break stepped,
            }
        };
        let next = match stepped {
            Ok(next) => next,
            Err(Stopped::Failed(failed)) => {
                return self.context.fail(&event.meta, input_sequence(event), failed, traceparent).await;
            }
            Err(Stopped::Otherwise(outcome)) => return outcome,
        };
        let data = next.data;
        let result = Event { meta: self.context.meta(&event.meta, &data, traceparent, next.attempt), data };
        match self.context.publish(&result).await {
            Ok(Published::New) => count_end(self.step.stage(), &result.data),
            Ok(Published::Already) => {}
            Err(PublishFailed::Never(error)) => {
                let failed = self.unpublishable(&error, &result, next.attempt);
                return Box::pin(self.not_stored(delivery, event, failed, traceparent)).await;
            }
            Err(failed @ PublishFailed::Now(_)) => return failed.outcome(),
        }
        self.context.release(next.release).await
    }

    /// Ends a workflow whose result will never be taken; its message is kept as a dead letter.
    async fn not_stored(
        &self,
        delivery: &Delivery,
        event: &Event,
        failed: WorkflowFailed,
        traceparent: TraceParent,
    ) -> Outcome {
        let letter = DeadLetter {
            subject: Some(event.subject()),
            stage: self.step.stage(),
            code: failed.code,
            error: failed.message.clone(),
            at: self.context.clock.now(),
        };
        match self.context.dead_letter(delivery, &letter).await {
            Ok(()) => self.context.fail(&event.meta, input_sequence(event), failed, traceparent).await,
            Err(outcome) => outcome,
        }
    }

    /// The failure of a workflow whose result will never be taken; with the calls that were made for it, which may have
    /// been paid for.
    fn unpublishable(&self, error: &BusError, result: &Event, attempt: u32) -> WorkflowFailed {
        let failed = self.context.unpublishable(error, attempt);
        let (attempt_log, earlier_deliveries) = match &result.data {
            EventData::ResponseGenerated(generated) => {
                (generated.attempts.clone(), generated.earlier_deliveries)
            }
            EventData::UserInputReceived(_)
            | EventData::InputValidated(_)
            | EventData::ContextRetrieved(_)
            | EventData::ExternalDataFetched(_)
            | EventData::InteractionSaved(_)
            | EventData::WorkflowFailed(_) => (Vec::new(), 0),
        };
        let message = format!(
            "the result of the {} stage cannot be stored: {}; the message that it was made of is kept as a dead letter",
            self.step.stage(),
            failed.message
        );
        WorkflowFailed { message, attempt_log, earlier_deliveries, ..failed }
    }

    /// The result of the step, or what an earlier workflow has on record where this one takes it up.
    async fn step(&self, event: &Event, run: Run<'_>) -> Result<Next, Stopped> {
        match self.on_record(event, run.room).await {
            Ok(Some(data)) => Ok(Next { data, attempt: run.made + 1, release: None }),
            Ok(None) => self.step.run(event, run).await,
            Err(failed) => Err(Stopped::Otherwise(failed.outcome())),
        }
    }

    /// What this stage made for the workflow that is taken up, if that is to be handed on.
    async fn on_record(&self, event: &Event, room: &Room) -> Result<Option<EventData>, PublishFailed> {
        let stage = self.step.stage();
        let Some(request) = event.data.request() else { return Ok(None) };
        let Some(redo) = request.redo.as_ref().filter(|redo| stage < redo.from) else { return Ok(None) };
        // Its size is not known.
        room.take_more(weight(stage, LARGEST_BODY_BYTES)).await;
        let subject = Subject::new(stage.publishes(), &event.meta.session_id, &redo.of);
        let recorded = self.context.recorded(&subject).await?.and_then(|body| decode(&body).ok());
        // One user's data is not handed on to another, even within one session.
        let recorded = recorded.filter(|recorded| recorded.meta.user_id == event.meta.user_id);
        let Some(mut data) = recorded.map(|recorded| recorded.data) else {
            tracing::info!(of = %redo.of, "nothing on record to hand on, the stage does its work");
            return Ok(None);
        };
        if let Some(recorded) = data.request_mut() {
            recorded.clone_from(request);
        }
        Ok(Some(data))
    }

    /// Completes, not before this instant, when there have been more than `heard` hints that the turn of a workflow was
    /// interrupted; returns how many there are. Never in a stage whose work does not stop for that.
    async fn hinted(&self, workflow: &WorkflowId, heard: u64, from: Instant) -> u64 {
        if !self.step.stage().definition().stops_for_interruptions {
            return std::future::pending().await;
        }
        let hints = self.context.interruptions.of(workflow, heard).await;
        // Behind the hint, so that a delivery without hints has no timer.
        tokio::time::sleep_until(from).await;
        hints
    }

    /// How far the end of a turn has got; `None` while it runs, by the word of the database, or while the database does not
    /// answer: the next hint, or publishing the result, will show it.
    async fn ended(&self, meta: &Meta) -> Option<Earlier> {
        if self.context.runs(&meta.workflow_id).await.unwrap_or(true) {
            tracing::debug!(workflow = %meta.workflow_id, "a hint says that this turn was interrupted; it runs");
            return None;
        }
        self.earlier(meta).await.ok().filter(Earlier::is_something)
    }

    /// Completes what an earlier delivery, or the message that interrupted this one, has begun; `None` if there is nothing.
    async fn conclude(&self, earlier: Earlier, event: &Event, run: Run<'_>) -> Option<Outcome> {
        let outcome = match earlier {
            Earlier::Nothing => return None,
            Earlier::Published => Outcome::Done,
            Earlier::Failed => self.context.finish(&event.meta, input_sequence(event)).await,
            Earlier::Unsaid => match self.context.reason(&event.meta.workflow_id, run.made).await {
                Ok(failed) => {
                    self.context.fail(&event.meta, input_sequence(event), failed, run.traceparent).await
                }
                Err(outcome) => outcome,
            },
            Earlier::Saved(interaction) => {
                match repetition::publish_saved(&self.context, &event.meta, *interaction).await {
                    Ok(()) => self.context.finish(&event.meta, input_sequence(event)).await,
                    Err(failed) => failed.outcome(),
                }
            }
        };
        Some(outcome)
    }

    /// How far an earlier delivery got. The last stage is not asked: saving again is cheap, changes nothing, and
    /// tells which turn to release.
    async fn earlier(&self, meta: &Meta) -> Result<Earlier, Outcome> {
        let next = self.step.stage().publishes();
        if next.is_end() {
            return Ok(Earlier::Nothing);
        }
        for (event_type, found) in [(next, Earlier::Published), (EventType::WorkflowFailed, Earlier::Failed)]
        {
            let subject = Subject::new(event_type, &meta.session_id, &meta.workflow_id);
            if self.context.exists(&subject).await.map_err(PublishFailed::outcome)? {
                return Ok(found);
            }
        }
        // No model is to be asked, and paid, for a turn that has ended.
        if self.context.runs(&meta.workflow_id).await? {
            return Ok(Earlier::Nothing);
        }
        Ok(match self.context.known_end(&meta.workflow_id).await? {
            Some(KnownEnd::Saved(interaction)) => Earlier::Saved(interaction),
            Some(KnownEnd::Open | KnownEnd::Failed(_) | KnownEnd::Forgotten { .. }) | None => Earlier::Unsaid,
        })
    }
}

#[async_trait]
impl<S: Step> Stage for EventHandler<S> {
    fn name(&self) -> StageName {
        self.step.stage()
    }

    fn batch_limit(&self) -> usize {
        1
    }

    async fn handle(&self, batch: &[Delivery]) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for delivery in batch {
            outcomes.push(self.one(delivery).await);
        }
        outcomes
    }

    async fn dead_letter(&self, delivery: &Delivery, code: FailureCode, error: &str) -> Result<(), Outcome> {
        let room = self.memory.room();
        tokio::select! {
            biased;
            no_room = room.refused() => Err(no_room.outcome()),
            dead_lettered = self.dead_lettered(delivery, &room, code, error) => dead_lettered,
        }
    }
}

impl<S: Step> EventHandler<S> {
    /// The delivery with its body, for its dead letter. One that is gone is left as its reference.
    async fn whole(&self, delivery: &Delivery) -> Delivery {
        for tried in 1..=DEAD_LETTER_BODY_TRIES {
            match self.context.bus.body(delivery).await {
                Ok(body) => return Delivery { body, kept: None, ..delivery.clone() },
                Err(error) => {
                    tracing::warn!(sequence = delivery.sequence, %error, "a message's body cannot be fetched");
                }
            }
            if tried < DEAD_LETTER_BODY_TRIES {
                tokio::time::sleep(BUS_RETRY_DELAY).await;
            }
        }
        delivery.clone()
    }

    async fn dead_lettered(
        &self,
        delivery: &Delivery,
        room: &Room,
        code: FailureCode,
        error: &str,
    ) -> Result<(), Outcome> {
        self.step.make_room(room, delivery.body_bytes()).await;
        let delivery = &self.whole(delivery).await;
        let event = decode(&delivery.body).ok();
        let letter = DeadLetter {
            subject: event.as_ref().map(Event::subject),
            stage: self.step.stage(),
            code,
            error: error.to_owned(),
            at: self.context.clock.now(),
        };
        self.context.dead_letter(delivery, &letter).await?;
        // Its workflow ends as failed, so that its session goes on.
        let Some(event) = event else {
            return unreadable::end(&self.context, delivery, code, error).await;
        };
        let earlier = attempt_log::earlier(
            self.context.bus.as_ref(),
            self.step.stage(),
            delivery.sequence,
            delivery.delivered.saturating_sub(1),
        )
        .await;
        let failed = WorkflowFailed {
            code,
            stage: self.step.stage(),
            message: format!("{error}; the message is kept as a dead letter"),
            attempts: delivery.delivered,
            retryable: false,
            may_have_happened: true,
            superseded_by: None,
            earlier_deliveries: earlier.unknown,
            attempt_log: earlier.attempts,
            external: BTreeMap::new(),
        };
        let sequence = input_sequence(&event);
        let closed = self.context.end(&event.meta, sequence, failed, event.meta.traceparent).await?;
        if closed.ending == Ending::Otherwise
            && let Some(data) = self.step.saved(&event)
        {
            let meta = self.context.meta(&event.meta, &data, event.meta.traceparent, delivery.delivered);
            let saved = Event { meta, data };
            let published = self.context.publish(&saved).await.map_err(PublishFailed::outcome)?;
            if published == Published::New {
                count_end(self.step.stage(), &saved.data);
            }
        }
        match self.context.release(closed.next).await {
            Outcome::Done => Ok(()),
            outcome @ (Outcome::Later { .. }
            | Outcome::Unusable { .. }
            | Outcome::Died { .. }
            | Outcome::TakenOver) => Err(outcome),
        }
    }
}

fn count_end(stage: StageName, data: &EventData) {
    match data {
        EventData::InteractionSaved(_) => metrics::saved(),
        EventData::WorkflowFailed(failed) => metrics::failed(stage, failed.code),
        EventData::UserInputReceived(_)
        | EventData::InputValidated(_)
        | EventData::ContextRetrieved(_)
        | EventData::ExternalDataFetched(_)
        | EventData::ResponseGenerated(_) => {}
    }
}

/// Which message the workflow of an event began with. The events of no stage lack it; zero is no message's sequence.
fn input_sequence(event: &Event) -> u64 {
    event.data.request().map_or(0, |request| request.input_sequence)
}

fn not_readable(error: &DecodeError) -> Outcome {
    Outcome::Unusable { code: FailureCode::UnreadableEvent, error: error.to_string() }
}
