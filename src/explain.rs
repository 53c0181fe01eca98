//! Where an answer came from, as far as the log shows; and which answers came from something.

mod proof;
mod uses;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};
use throughline_actors::replay::RecordedWorkflow;
use throughline_schemas::{
    EventData, EventType, Ingress, IngressLimits, Metadata, Timestamp, Usage, Usd, WorkflowFailed,
    WorkflowId,
    event::{
        ResponseGenerated,
        context::{Context, Turn},
        external::SourceResult,
        generation::{Attempt, Message, Prompt, Response, Route},
    },
};

use proof::Fetched;
pub use proof::{Proof, Renderer};
pub use uses::{Use, UseOf, UseOfError, Uses};

/// How far a workflow has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Its answer is stored.
    Complete,
    /// It ended without an answer.
    Failed,
    /// It has not ended, or its end has expired.
    Open,
}

/// What somebody asked.
#[derive(Debug, Clone, Serialize)]
pub struct Input<'a> {
    /// As the stages saw it: trimmed, and with the texts of merged messages; if no stage has taken it, as published.
    pub text: String,
    /// What the publisher added.
    pub metadata: Option<&'a Metadata>,
    /// Workflows whose texts are part of it.
    pub merged: &'a [WorkflowId],
    /// Its sequence in the event stream.
    pub sequence: Option<u64>,
}

/// What was known of user and session, and what became of it.
#[derive(Debug, Clone, Serialize)]
pub struct Known<'a> {
    /// The user's preferences.
    pub preferences: &'a Map<String, Value>,
    /// Earlier turns of the session, oldest first.
    pub earlier_turns: &'a [Turn],
    /// How many of them the prompt leaves out, the oldest; `None` if there is no prompt on record.
    pub left_out: Option<u32>,
    /// How many of them stand in it as a summary only.
    pub summarised: Option<u32>,
}

/// The prompt.
#[derive(Debug, Clone, Serialize)]
pub struct Asked<'a> {
    /// Everything else of the record; `None` if the prompt itself is not on record, and `messages` was rendered again.
    pub record: Option<Settings<'a>>,
    /// The messages: as sent if there is a record.
    pub messages: std::borrow::Cow<'a, [Message]>,
    /// What shows that they are what was sent.
    pub proof: Proof,
}

/// With what a prompt was made and sent.
#[derive(Debug, Clone, Serialize)]
pub struct Settings<'a> {
    /// Id of the template.
    pub template: &'a str,
    /// Lower-case hex SHA-256 of the template's sources: its version.
    pub hash: &'a str,
    /// Id of the configuration.
    pub config: &'a str,
    /// Limit on the answer, in tokens.
    pub max_tokens: u32,
    /// Sampling temperature in thousandths, if it was sent.
    pub temperature_milli: Option<u32>,
    /// Nucleus sampling in thousandths, if it was sent.
    pub top_p_milli: Option<u32>,
    /// Tokens of the prompt by our own count, if it was counted.
    pub prompt_tokens: Option<u64>,
}

impl<'a> From<&'a Prompt> for Settings<'a> {
    fn from(prompt: &'a Prompt) -> Self {
        Self {
            template: &prompt.id,
            hash: &prompt.hash,
            config: &prompt.config,
            max_tokens: prompt.max_tokens,
            temperature_milli: prompt.temperature_milli,
            top_p_milli: prompt.top_p_milli,
            prompt_tokens: prompt.window.as_ref().and_then(|window| window.prompt_tokens),
        }
    }
}

/// The answer.
#[derive(Debug, Clone, Serialize)]
pub struct Answer<'a> {
    /// What the model said.
    pub response: &'a Response,
    /// Tokens of the answering call.
    pub usage: Usage,
    /// Cost of all attempts, as far as it is known.
    pub cost_usd: Option<Usd>,
    /// Whether there may be more.
    pub cost_is_partial: bool,
}

/// Where an answer came from. Whatever is not on record is absent.
#[derive(Debug, Clone, Serialize)]
pub struct Explanation<'a> {
    /// The workflow.
    pub workflow: &'a WorkflowId,
    /// Its session.
    pub session: Option<String>,
    /// Who asked.
    pub user: Option<String>,
    /// Its trace.
    pub trace: Option<String>,
    /// How far it has come.
    pub state: State,
    /// When its input was stored.
    pub received_at: Option<Timestamp>,
    /// When its end was stored.
    pub ended_at: Option<Timestamp>,
    /// What was asked.
    pub input: Option<Input<'a>>,
    /// What was known.
    pub context: Option<Known<'a>>,
    /// What each source answered, by its name.
    pub sources: Option<&'a BTreeMap<String, SourceResult>>,
    /// What the model was asked.
    pub prompt: Option<Asked<'a>>,
    /// Which models might be asked, and why these.
    pub route: Option<&'a Route>,
    /// Every call to a model.
    pub attempts: &'a [Attempt],
    /// Deliveries whose attempts are not on record.
    pub earlier_deliveries: u32,
    /// What came of it.
    pub answer: Option<Answer<'a>>,
    /// Why there is none.
    pub failure: Option<&'a WorkflowFailed>,
}

impl<'a> Explanation<'a> {
    /// Reads it off the record.
    pub fn new(recorded: &'a RecordedWorkflow, renderer: &Renderer) -> Self {
        let any = EventType::ALL.into_iter().find_map(|kind| recorded.event(kind));
        let meta = any.map(|stored| &stored.event.meta);
        let response = response(recorded);
        let fetched = fetched(recorded);
        let failure = match recorded.event(EventType::WorkflowFailed).map(|stored| &stored.event.data) {
            Some(EventData::WorkflowFailed(failed)) => Some(failed),
            _ => None,
        };
        let input = input(recorded);
        Self {
            workflow: &recorded.workflow,
            session: meta.map(|meta| meta.session_id.as_str().to_owned()),
            user: meta.map(|meta| meta.user_id.as_str().to_owned()),
            trace: meta.map(|meta| format!("{:032x}", meta.traceparent.trace_id())),
            state: match recorded.end().map(|end| end.event.event_type()) {
                Some(EventType::WorkflowFailed) => State::Failed,
                Some(_) => State::Complete,
                None => State::Open,
            },
            received_at: recorded
                .input()
                .map(|input| input.stored_at)
                .or_else(|| request(recorded).map(|request| request.received_at)),
            ended_at: recorded.end().map(|end| end.message.stored_at),
            input,
            context: context(recorded).map(|context| Known {
                preferences: &context.preferences,
                earlier_turns: &context.recent_turns,
                left_out: response.map(|r| r.prompt.window.as_ref().map_or(0, |window| window.dropped_turns)),
                summarised: response
                    .map(|r| r.prompt.window.as_ref().map_or(0, |window| window.summarised_turns)),
            }),
            sources: match (fetched, failure) {
                (Some(fetched), _) => Some(&fetched.data.external),
                (None, Some(failed)) if !failed.external.is_empty() => Some(&failed.external),
                (None, _) => None,
            },
            prompt: prompt(response, fetched, failure, renderer),
            route: response.and_then(|response| response.route.as_ref()),
            attempts: match (response, failure) {
                (Some(response), _) => &response.attempts,
                (None, Some(failure)) => &failure.attempt_log,
                (None, None) => &[],
            },
            earlier_deliveries: response.map_or(0, |response| response.earlier_deliveries),
            answer: answer(recorded, response),
            failure,
        }
    }
}

fn response(recorded: &RecordedWorkflow) -> Option<&ResponseGenerated> {
    match recorded.event(EventType::ResponseGenerated).map(|stored| &stored.event.data) {
        Some(EventData::ResponseGenerated(response)) => Some(response),
        _ => None,
    }
}

fn fetched(recorded: &RecordedWorkflow) -> Option<Fetched<'_>> {
    let event = &recorded.event(EventType::ExternalDataFetched)?.event;
    match &event.data {
        EventData::ExternalDataFetched(data) => Some(Fetched { meta: &event.meta, data }),
        EventData::UserInputReceived(_)
        | EventData::InputValidated(_)
        | EventData::ContextRetrieved(_)
        | EventData::ResponseGenerated(_)
        | EventData::InteractionSaved(_)
        | EventData::WorkflowFailed(_) => None,
    }
}

/// As the model got to see it, if it has come so far: the profile's preferences come with the sources.
fn context(recorded: &RecordedWorkflow) -> Option<&Context> {
    let retrieved = || match recorded.event(EventType::ContextRetrieved).map(|stored| &stored.event.data) {
        Some(EventData::ContextRetrieved(retrieved)) => Some(&retrieved.context),
        _ => None,
    };
    fetched(recorded).map(|fetched| &fetched.data.context).or_else(retrieved)
}

fn request(recorded: &RecordedWorkflow) -> Option<&throughline_schemas::event::input::Request> {
    EventType::ALL.into_iter().find_map(|kind| recorded.event(kind)?.event.data.request())
}

fn input(recorded: &RecordedWorkflow) -> Option<Input<'_>> {
    if let Some(request) = request(recorded) {
        return Some(Input {
            text: request.user_input.clone(),
            metadata: Some(&request.metadata),
            merged: &request.merged,
            sequence: Some(request.input_sequence),
        });
    }
    let published = recorded.input()?;
    let header = |name: &str| {
        published.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    };
    let text = match Ingress::read(
        &published.subject,
        &published.body,
        header,
        recorded.workflow.clone(),
        &IngressLimits::UNLIMITED,
    ) {
        Ok(Ok(input)) => input.user_input,
        // What was refused may be anything.
        Ok(Err(_)) | Err(_) => String::from_utf8_lossy(&published.body).into_owned(),
    };
    Some(Input { text, metadata: None, merged: &[], sequence: Some(published.sequence) })
}

fn prompt<'a>(
    response: Option<&'a ResponseGenerated>,
    fetched: Option<Fetched<'_>>,
    failure: Option<&WorkflowFailed>,
    renderer: &Renderer,
) -> Option<Asked<'a>> {
    if let Some(response) = response {
        return Some(Asked {
            record: Some((&response.prompt).into()),
            messages: (&response.prompt.messages[..]).into(),
            proof: renderer.compare(&response.prompt, fetched),
        });
    }
    // Calls were made, and nobody wrote down with what.
    let asked = failure.is_some_and(|failure| failure.attempt_log.iter().any(|attempt| attempt.sent));
    let (messages, proof) = renderer.rebuilt(fetched.filter(|_| asked)?);
    Some(Asked { record: None, messages: messages.into(), proof })
}

fn answer<'a>(recorded: &'a RecordedWorkflow, response: Option<&'a ResponseGenerated>) -> Option<Answer<'a>> {
    if let Some(ResponseGenerated { response, usage, cost_usd, cost_is_partial, .. }) = response {
        let (cost_usd, cost_is_partial) = (*cost_usd, *cost_is_partial);
        return Some(Answer { response, usage: *usage, cost_usd, cost_is_partial });
    }
    // The rest may have expired.
    match recorded.event(EventType::InteractionSaved).map(|stored| &stored.event.data) {
        Some(EventData::InteractionSaved(saved)) => Some(Answer {
            response: &saved.response,
            usage: saved.usage,
            cost_usd: saved.cost_usd,
            cost_is_partial: false,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
