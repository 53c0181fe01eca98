//! The database, answering from a tape.

use async_trait::async_trait;
use throughline_schemas::{
    Event, EventData, FailureCode, Meta, SessionId, StageName, Timestamp, UserId, WorkflowId, decode, encode,
    event::{InputValidated, context::Context, input::Request},
};

use super::{
    Link,
    tape::{Recording, with},
};
use crate::{
    policy::merge::SEPARATOR,
    ports::store::{
        Admission, AdmissionResult, Admitted, Closed, EndedTurn, Ending, FailedTurn, Failing, HeldQuery,
        HeldStarted, Interaction, KnownEnd, ListedTurn, Mark, OpenTurns, Opening, RestoredTurn, RunningQuery,
        RunningTurn, Store, StoreError, TurnsQuery, Verdict,
    },
};

/// What the database answered.
#[derive(Debug, Clone)]
pub(super) struct StoreScript {
    result: AdmissionResult,
    /// The request of a turn, where other messages became part of it.
    merged: Option<Request>,
    context: Context,
    ending: Ending,
    /// Why the turn failed, if it did.
    failed: Option<Box<FailedTurn>>,
    /// When the interaction is saved, which is read before it is.
    pub(super) saving_at: Option<Timestamp>,
}

impl Default for StoreScript {
    fn default() -> Self {
        Self {
            result: AdmissionResult::Running,
            merged: None,
            context: Context::default(),
            ending: Ending::AsAsked,
            failed: None,
            saving_at: None,
        }
    }
}

impl StoreScript {
    pub(super) fn of(link: Link<'_>) -> Self {
        let script = Self::default();
        match &link.result.event.data {
            EventData::InputValidated(validated) if !validated.request.merged.is_empty() => {
                Self { merged: Some(validated.request.clone()), ..script }
            }
            EventData::ContextRetrieved(retrieved) => Self { context: retrieved.context.clone(), ..script },
            EventData::InteractionSaved(saved) => Self { saving_at: Some(saved.saved_at), ..script },
            EventData::WorkflowFailed(failed) => {
                let result = match (failed.code, &failed.superseded_by) {
                    (FailureCode::SessionBusy, _) => AdmissionResult::Rejected,
                    (FailureCode::NotSessionOwner, _) => AdmissionResult::NotOwner,
                    (FailureCode::TooManyOpen, _) => AdmissionResult::TooManyOpen,
                    (FailureCode::Merged, Some(into)) => AdmissionResult::Merged { into: into.clone() },
                    (
                        FailureCode::Merged
                        | FailureCode::InvalidInput
                        | FailureCode::ModelRejected
                        | FailureCode::ModelUnavailable
                        | FailureCode::RateLimited
                        | FailureCode::TimedOut
                        | FailureCode::BadResponse
                        | FailureCode::SourceUnavailable
                        | FailureCode::StoreUnavailable
                        | FailureCode::UnreadableEvent
                        | FailureCode::Poison
                        | FailureCode::Interrupted
                        | FailureCode::Stalled
                        | FailureCode::ResultTooLarge
                        | FailureCode::PromptFailed
                        | FailureCode::Conflict
                        | FailureCode::Gone
                        | FailureCode::Internal
                        | FailureCode::Unrecognised,
                        _,
                    ) => AdmissionResult::Refused,
                };
                let ending = match link.stage {
                    StageName::Persistence => Ending::Otherwise,
                    StageName::Input | StageName::Context | StageName::External | StageName::Generation => {
                        Ending::AsAsked
                    }
                };
                let meta = &link.result.event.meta;
                let failed = Some(Box::new(FailedTurn {
                    user_id: Some(meta.user_id.clone()),
                    session_id: meta.session_id.clone(),
                    code: Some(failed.code),
                    record: Some(failed.clone()),
                    superseded_by: failed.superseded_by.clone(),
                    ended_at: meta.time,
                }));
                Self { result, ending, failed, ..script }
            }
            EventData::UserInputReceived(_)
            | EventData::InputValidated(_)
            | EventData::ExternalDataFetched(_)
            | EventData::ResponseGenerated(_) => script,
        }
    }

    /// Knows this context.
    pub(super) fn with_context(context: Context) -> Self {
        Self { context, ..Self::default() }
    }
}

/// The turn as it began: its own event, and those of the messages that were merged into it. How the texts behind its
/// own are divided among these does not matter, since they are put together again.
fn opening(admission: &Admission, request: &Request) -> Option<Opening> {
    let Verdict::Accepted { event, .. } = &admission.verdict else { return None };
    let own = decode(event).ok()?;
    let EventData::InputValidated(validated) = &own.data else { return None };
    let behind = request.user_input.strip_prefix(&validated.request.user_input)?.strip_prefix(SEPARATOR)?;
    let texts = behind.splitn(request.merged.len(), SEPARATOR);
    let merged = request.merged.iter().zip(texts).map(|(workflow, text)| {
        let request = Request { user_input: text.to_owned(), ..validated.request.clone() };
        let meta = Meta { workflow_id: workflow.clone(), ..own.meta.clone() };
        encode(&Event { meta, data: EventData::InputValidated(InputValidated { request }) }).ok()
    });
    Some(Opening { event: event.clone(), merged: merged.collect::<Option<_>>()? })
}

#[async_trait]
impl Store for Recording {
    async fn admit(&self, batch: Vec<Admission>) -> Result<Vec<Admitted>, StoreError> {
        let StoreScript { result, merged, .. } = with(|tape| tape.store.clone());
        let admitted = |admission: &Admission| {
            let opening = merged.as_ref().and_then(|request| opening(admission, request));
            Admitted { result: result.clone(), interrupted: None, opening }
        };
        Ok(batch.iter().map(admitted).collect())
    }

    async fn start_held(&self, _: HeldQuery) -> Result<HeldStarted, StoreError> {
        Ok(HeldStarted::default())
    }

    async fn context(&self, _: &UserId, _: &SessionId, turns: usize) -> Result<Context, StoreError> {
        let mut context = with(|tape| tape.store.context.clone());
        let older = context.recent_turns.len().saturating_sub(turns);
        context.recent_turns.drain(..older);
        Ok(context)
    }

    async fn save(&self, _: Interaction) -> Result<Closed, StoreError> {
        let ending = with(|tape| {
            tape.store.saving_at = None;
            Some(tape.store.ending)
        });
        Ok(Closed { ending: ending.unwrap_or(Ending::AsAsked), next: None })
    }

    async fn fail(&self, _: Failing) -> Result<Closed, StoreError> {
        Ok(Closed { ending: Ending::AsAsked, next: None })
    }

    async fn running(&self, _: RunningQuery) -> Result<Vec<RunningTurn>, StoreError> {
        Ok(Vec::new())
    }

    async fn opening(&self, _: &WorkflowId) -> Result<Option<Opening>, StoreError> {
        // The caller wants to know whether the turn runs. It did.
        Ok(Some(Opening { event: Vec::new(), merged: Vec::new() }))
    }

    async fn ended_before(&self, places: &[(SessionId, u64)]) -> Result<Vec<Option<EndedTurn>>, StoreError> {
        Ok(vec![None; places.len()])
    }

    async fn end(&self, _: &WorkflowId) -> Result<Option<KnownEnd>, StoreError> {
        Ok(with(|tape| tape.store.failed.clone()).map(KnownEnd::Failed))
    }

    async fn oldest_open(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    async fn forget_ended(&self, _: Timestamp, _: usize) -> Result<u64, StoreError> {
        Ok(0)
    }

    async fn restore(&self, _: RestoredTurn) -> Result<Closed, StoreError> {
        Ok(Closed { ending: Ending::AsAsked, next: None })
    }

    async fn latest_turns(&self, _: TurnsQuery) -> Result<Vec<ListedTurn>, StoreError> {
        Ok(Vec::new())
    }

    async fn open_turns(&self) -> Result<OpenTurns, StoreError> {
        Ok(OpenTurns::default())
    }

    async fn mark(&self) -> Result<Mark, StoreError> {
        Ok(Mark::default())
    }

    async fn set_mark(&self, _: u64, _: u64) -> Result<(), StoreError> {
        Ok(())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
