//! What rows of either database say, in the words of the port.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use throughline_actors::ports::store::{
    FailedTurn, FailureRecord, Interaction, KnownEnd, ListedTurn, OpenTurns, Tally, TurnState, failure_code,
};
use throughline_schemas::{
    FailureCode, FinishReason, Metadata, SessionId, Timestamp, Usage, Usd, UserId, WorkflowId,
    event::{
        generation::{Response, ToolCall},
        input::Request,
    },
};

use super::context_rows::undecodable;

/// What an answer has for which there is no column.
#[derive(Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct More {
    #[serde(skip_serializing_if = "Option::is_none")]
    finish_reason_raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_write_input_tokens: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<String>,
}

impl More {
    /// `None` if there is nothing.
    pub(super) fn of(interaction: &Interaction) -> Option<Self> {
        let Interaction { response, usage, .. } = interaction;
        let more = Self {
            finish_reason_raw: response.finish_reason_raw.clone(),
            reasoning: response.reasoning.clone(),
            tool_calls: response.tool_calls.clone(),
            cache_write_input_tokens: Some(usage.cache_write_input_tokens).filter(|tokens| *tokens > 0),
            degraded: interaction.degraded.clone(),
        };
        (more != Self::default()).then_some(more)
    }
}

/// A row of `interactions`.
pub(super) struct Row {
    pub(super) workflow: String,
    pub(super) id: String,
    pub(super) user: String,
    pub(super) session: String,
    pub(super) input: String,
    pub(super) response: String,
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) finish_reason: String,
    /// Input, cached input, output, reasoning.
    pub(super) tokens: [i64; 4],
    pub(super) cost_usd: Option<String>,
    pub(super) metadata: Metadata,
    pub(super) input_sequence: i64,
    pub(super) received_at: Timestamp,
    pub(super) generated_at: Timestamp,
    pub(super) saved_at: Timestamp,
    pub(super) more: Option<Value>,
}

impl Row {
    pub(super) fn interaction(self) -> Result<Interaction, sqlx::Error> {
        let more: More = match self.more {
            Some(more) => serde_json::from_value(more).map_err(undecodable)?,
            None => More::default(),
        };
        let finish_reason = FinishReason::deserialize(Value::String(self.finish_reason));
        let [input, cached, output, reasoning] = self.tokens.map(|tokens| u64::try_from(tokens).unwrap_or(0));
        Ok(Interaction {
            workflow_id: WorkflowId::new(self.workflow).map_err(undecodable)?,
            interaction_id: self.id,
            session_id: SessionId::new(self.session).map_err(undecodable)?,
            user_id: UserId::new(self.user).map_err(undecodable)?,
            request: Request {
                user_input: self.input,
                metadata: self.metadata,
                input_sequence: sequence(self.input_sequence)?,
                received_at: self.received_at,
                merged: Vec::new(),
                redo: None,
            },
            response: Response {
                text: self.response,
                model: self.model,
                provider: self.provider,
                finish_reason: finish_reason.map_err(undecodable)?,
                finish_reason_raw: more.finish_reason_raw,
                reasoning: more.reasoning,
                tool_calls: more.tool_calls,
            },
            usage: Usage {
                input_tokens: input,
                output_tokens: output,
                cached_input_tokens: cached,
                cache_write_input_tokens: more.cache_write_input_tokens.unwrap_or(0),
                reasoning_tokens: reasoning,
            },
            cost_usd: cost(self.cost_usd.as_deref())?,
            degraded: more.degraded,
            saved_at: self.saved_at,
            generated_at: self.generated_at,
        })
    }
}

/// How a turn stands, according to its row.
pub(super) struct EndRow<'a> {
    pub(super) state: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) session: &'a str,
    pub(super) code: Option<&'a str>,
    pub(super) record: Option<&'a [u8]>,
    pub(super) superseded_by: Option<&'a str>,
    pub(super) updated_at: Timestamp,
}

impl EndRow<'_> {
    /// `interaction` is that of a turn that was saved.
    pub(super) fn end(&self, interaction: Option<Interaction>) -> Result<KnownEnd, sqlx::Error> {
        let user_id = id(self.user)?;
        let session_id = SessionId::new(self.session).map_err(undecodable)?;
        Ok(match (state(self.state)?, interaction) {
            (TurnState::Waiting | TurnState::Running, _) => KnownEnd::Open,
            (TurnState::Saved, Some(interaction)) => KnownEnd::Saved(Box::new(interaction)),
            (TurnState::Saved, None) => KnownEnd::Forgotten { user_id, session_id },
            (TurnState::Failed, _) => KnownEnd::Failed(Box::new(FailedTurn {
                user_id,
                session_id,
                code: self.code.map(failure_code),
                record: self.record.and_then(FailureRecord::read),
                superseded_by: id(self.superseded_by)?,
                ended_at: self.updated_at,
            })),
        })
    }
}

/// A turn in a list, according to its row.
pub(super) struct ListRow<'a> {
    pub(super) workflow: &'a str,
    pub(super) session: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) input_sequence: Option<i64>,
    pub(super) state: &'a str,
    pub(super) waits_for: Option<&'a str>,
    pub(super) code: Option<&'a str>,
    pub(super) superseded_by: Option<&'a str>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) cost_usd: Option<&'a str>,
}

impl ListRow<'_> {
    pub(super) fn turn(&self) -> Result<ListedTurn, sqlx::Error> {
        Ok(ListedTurn {
            workflow_id: WorkflowId::new(self.workflow).map_err(undecodable)?,
            session_id: SessionId::new(self.session).map_err(undecodable)?,
            user_id: id(self.user)?,
            input_sequence: self.input_sequence.map(sequence).transpose()?,
            state: state(self.state)?,
            waits_for: id(self.waits_for)?,
            code: self.code.map(failure_code),
            superseded_by: id(self.superseded_by)?,
            created_at: self.created_at,
            updated_at: self.updated_at,
            cost_usd: cost(self.cost_usd)?,
        })
    }
}

/// The columns `failure` and `superseded_by` of a turn that failed so.
pub(super) fn superseded(failure: &FailureRecord) -> (Option<&'static str>, Option<WorkflowId>) {
    let names = [
        (FailureCode::SessionBusy, "rejected"),
        (FailureCode::NotSessionOwner, "rejected"),
        (FailureCode::TooManyOpen, "rejected"),
        (FailureCode::Interrupted, "interrupted"),
        (FailureCode::Merged, "merged"),
    ];
    let Some((_, name)) = names.into_iter().find(|(code, _)| *code == failure.code()) else {
        return (None, None);
    };
    let by = FailureRecord::read(failure.as_bytes()).and_then(|failed| failed.superseded_by);
    (Some(name), by)
}

/// The states that a list is made of; a turn is listed once, however often its state is named.
pub(super) fn states(wanted: &[TurnState]) -> Vec<&'static str> {
    let is_wanted = |state: &TurnState| wanted.is_empty() || wanted.contains(state);
    TurnState::ALL.into_iter().filter(is_wanted).map(TurnState::as_str).collect()
}

/// What was counted, state by state.
pub(super) fn open_turns(
    counted: impl IntoIterator<Item = Result<(String, i64, Timestamp), sqlx::Error>>,
) -> Result<OpenTurns, sqlx::Error> {
    let mut open = OpenTurns::default();
    for row in counted {
        let (name, turns, oldest) = row?;
        let tally = Tally { turns: sequence(turns)?, oldest: Some(oldest) };
        match state(&name)? {
            TurnState::Waiting => open.waiting = tally,
            TurnState::Running => open.running = tally,
            TurnState::Saved | TurnState::Failed => {}
        }
    }
    Ok(open)
}

pub(super) fn state(name: &str) -> Result<TurnState, sqlx::Error> {
    let unknown = || sqlx::Error::Decode(format!("unknown state {name:?} of a turn").into());
    TurnState::named(name).ok_or_else(unknown)
}

pub(super) fn sequence(number: i64) -> Result<u64, sqlx::Error> {
    u64::try_from(number).map_err(undecodable)
}

pub(super) fn id<T>(text: Option<&str>) -> Result<Option<T>, sqlx::Error>
where
    T: TryFrom<String>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    text.map(|text| T::try_from(text.to_owned())).transpose().map_err(undecodable)
}

fn cost(decimal: Option<&str>) -> Result<Option<Usd>, sqlx::Error> {
    decimal.map(|decimal| Ok(Usd::new(decimal.parse().map_err(undecodable)?))).transpose()
}
