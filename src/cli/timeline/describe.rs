//! What one stored event says, in a few words.

use std::time::Duration;

use throughline_actors::model::cost::total;
use throughline_schemas::{
    Event, EventData, EventType, Ingress, IngressLimits, StageName, Timestamp, Tokens, WorkflowFailed,
    WorkflowId, decode,
    event::{
        ExternalDataFetched, InteractionSaved, ResponseGenerated,
        context::Context,
        external::{SourceResult, SourceStatus},
        generation::Attempt,
    },
    token,
};

use super::{
    FRONT, INDENT, Style, Tone, between,
    calls::{attempts, cost, count, failed_calls, model_words, tokens},
    duration,
    text::{clean, quoted},
};
use crate::{bus::nats::StoredEvent, client::attempts_made};

/// Longest id shown in full, in characters.
const ID_CHARS: usize = 80;
/// One event of a timeline, in words. All texts are fit for a terminal.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::cli) struct Moment {
    pub(super) sequence: u64,
    pub(super) at: Timestamp,
    /// When the workflow's input was stored, if the event says so.
    pub(super) started: Option<Timestamp>,
    /// How long the work for it had gone on when it was published, if that is on record.
    pub(super) worked: Option<Duration>,
    /// The stage that made it; empty for what somebody published.
    pub(super) stage: &'static str,
    /// The workflow's token, if the event tells its workflow.
    pub(in crate::cli) key: Option<String>,
    pub(in crate::cli) workflow: Option<String>,
    pub(super) session: Option<String>,
    pub(super) user: Option<String>,
    pub(super) trace: Option<String>,
    /// The event's type as it is called in its subject.
    pub(super) kind: String,
    /// Sequence of the input that this event validated.
    pub(super) input_sequence: Option<u64>,
    pub(in crate::cli) is_end: bool,
    pub(super) what: String,
    pub(super) details: Vec<String>,
    pub(super) tone: Tone,
}

impl Moment {
    /// Reads an event; one that cannot be read says so in its text.
    pub(in crate::cli) fn of(event: &StoredEvent, style: Style) -> Self {
        let tokens = Tokens::of(&event.subject);
        let name = tokens.map_or("", |tokens| tokens.kind);
        let kind = event.event_type();
        let blank = Self {
            sequence: event.sequence,
            at: event.stored_at,
            started: None,
            worked: None,
            stage: kind.map_or("", stage_of),
            key: tokens.and_then(|tokens| tokens.workflow).map(str::to_owned),
            workflow: None,
            session: None,
            user: None,
            trace: None,
            kind: clean(name, ID_CHARS),
            input_sequence: None,
            is_end: kind.is_some_and(EventType::is_end),
            what: String::new(),
            details: Vec::new(),
            tone: Tone::Plain,
        };
        if kind == Some(EventType::UserInputReceived) {
            return blank.input(event, style);
        }
        match decode(&event.body) {
            Ok(event) => blank.known(&event, style),
            Err(error) => Self {
                what: format!("cannot be read: {}", clean(&error.to_string(), 200)),
                tone: Tone::Bad,
                ..blank
            },
        }
    }

    /// The same, as the input of the workflow that this other moment belongs to.
    pub(in crate::cli) fn of_workflow(self, other: &Self) -> Self {
        Self {
            key: other.key.clone(),
            workflow: other.workflow.clone(),
            session: other.session.clone(),
            user: other.user.clone(),
            ..self
        }
    }

    /// Inputs come in three forms; their subjects may say nothing, or anything.
    fn input(self, event: &StoredEvent, style: Style) -> Self {
        let header = |name: &str| event.header(name);
        let nobody = WorkflowId::unknown();
        let known =
            |id: &WorkflowId| (*id != nobody).then(|| (id.token(), clean(id.as_str(), ID_CHARS))).unzip();
        match Ingress::read(&event.subject, &event.body, header, nobody.clone(), &IngressLimits::UNLIMITED) {
            Ok(Ok(input)) => {
                let (key, workflow) = known(&input.workflow_id);
                Self {
                    key,
                    workflow,
                    session: Some(clean(input.session_id.as_str(), ID_CHARS)),
                    user: Some(clean(input.user_id.as_str(), ID_CHARS)),
                    trace: input.traceparent.map(|trace| format!("{:032x}", trace.trace_id())),
                    what: quoted(&input.user_input, style.room(FRONT)),
                    ..self
                }
            }
            Ok(Err(refused)) => {
                let (key, workflow) = known(&refused.workflow_id);
                let what = format!("not acceptable: {}", clean(&refused.message, style.room(FRONT)));
                Self { key, workflow, what, tone: Tone::Caution, ..self }
            }
            Err(error) => Self {
                key: None,
                what: clean(&error.to_string(), style.room(FRONT)),
                tone: Tone::Bad,
                ..self
            },
        }
    }

    fn known(self, event: &Event, style: Style) -> Self {
        let meta = &event.meta;
        let base = Self {
            key: Some(token(meta.workflow_id.as_str())),
            workflow: Some(clean(meta.workflow_id.as_str(), ID_CHARS)),
            session: Some(clean(meta.session_id.as_str(), ID_CHARS)),
            user: Some(clean(meta.user_id.as_str(), ID_CHARS)),
            trace: Some(format!("{:032x}", meta.traceparent.trace_id())),
            ..self
        };
        let (started, what) = match &event.data {
            EventData::UserInputReceived(data) => (None, quoted(&data.user_input, style.room(FRONT))),
            EventData::InputValidated(data) => {
                let chars = data.request.user_input.chars().count();
                let sequence = data.request.input_sequence;
                let redo = data.request.redo.as_ref().map_or_else(String::new, |redo| {
                    format!(", takes up {} from {}", clean(redo.of.as_str(), ID_CHARS), redo.from)
                });
                return Self {
                    started: Some(data.request.received_at),
                    input_sequence: Some(sequence),
                    what: format!("{}, stream sequence {sequence}{redo}", count(chars, "character")),
                    ..base
                };
            }
            EventData::ContextRetrieved(data) => (Some(data.request.received_at), context(&data.context)),
            EventData::ExternalDataFetched(data) => {
                let worst = sources_tone(data);
                // All are asked at the same time.
                let longest = data.external.values().map(|source| source.duration_ms.duration()).max();
                return Self {
                    started: Some(data.request.received_at),
                    worked: longest,
                    what: sources(data),
                    details: failed_calls(&data.external),
                    tone: worst,
                    ..base
                };
            }
            EventData::ResponseGenerated(data) => return base.response(data, meta.time, style),
            EventData::InteractionSaved(data) => {
                return Self {
                    started: Some(data.received_at),
                    what: saved(data, base.at),
                    tone: Tone::Good,
                    ..base
                };
            }
            EventData::WorkflowFailed(data) => return base.failed(data, meta.time, style),
        };
        Self { started, what, ..base }
    }

    fn response(self, data: &ResponseGenerated, published: Timestamp, style: Style) -> Self {
        let response = &data.response;
        let asked = data.attempts.iter().rev().find(|attempt| attempt.error.is_none());
        let other_name =
            asked.and_then(|attempt| attempt.name.as_deref().filter(|name| *name != attempt.model));
        let model = model_words(other_name, &response.model);
        let mut parts = vec![clean(&model, ID_CHARS), tokens(data.usage)];
        parts.extend(data.cost_usd.map(|known| cost(known, data.cost_is_partial)));
        parts.push(count(data.attempts.len(), "attempt"));
        let mut details = attempts(&data.attempts);
        details.push(quoted(&response.text, style.room(INDENT)));
        Self {
            started: Some(data.request.received_at),
            worked: worked(&data.attempts, published),
            what: parts.join(", "),
            details,
            tone: if data.attempts.len() > 1 { Tone::Caution } else { Tone::Plain },
            ..self
        }
    }

    fn failed(self, data: &WorkflowFailed, published: Timestamp, style: Style) -> Self {
        let attempts_made = count(attempts_made(data), "attempt");
        let mut details = failed_calls(&data.external);
        details.extend(attempts(&data.attempt_log));
        details.push(clean(&data.message, style.room(INDENT)));
        if data.may_have_happened {
            details.push("it may have happened, and may have been billed".to_owned());
        }
        let total = total(&data.attempt_log);
        let spent =
            total.known.map_or_else(String::new, |known| format!(", {}", cost(known, total.is_partial)));
        Self {
            worked: worked(&data.attempt_log, published),
            stage: data.stage.as_str(),
            what: format!("{} in {}, after {attempts_made}{spent}", data.code, data.stage),
            details,
            tone: Tone::Bad,
            ..self
        }
    }
}

/// The stage whose result an event of this type is; of a failure the event itself says it.
fn stage_of(kind: EventType) -> &'static str {
    let stage = StageName::ALL.into_iter().find(|stage| stage.publishes() == kind);
    stage.map_or("", StageName::as_str)
}

/// How long ago the first call to a model began when the event was published; both are of the clock of one worker.
fn worked(attempts: &[Attempt], published: Timestamp) -> Option<Duration> {
    let first = attempts.iter().map(|attempt| attempt.started_at).min()?;
    Some(between(first, published))
}

fn context(context: &Context) -> String {
    let turns = count(context.recent_turns.len(), "earlier turn");
    format!("{turns}, {}", count(context.preferences.len(), "preference"))
}

fn sources(data: &ExternalDataFetched) -> String {
    if data.external.is_empty() {
        return "no sources".to_owned();
    }
    let one = |(name, source): (&String, &SourceResult)| {
        let name = clean(name, ID_CHARS);
        let took = duration(source.duration_ms.duration());
        let calls = if source.calls > 1 { format!(" in {} calls", source.calls) } else { String::new() };
        match source.status {
            SourceStatus::Ok => format!("{name} ok {took}{calls}{}", amount(source)),
            SourceStatus::Skipped => format!("{name} skipped"),
            SourceStatus::Failed => {
                let code = source.error.as_ref().map_or("failed", |error| error.code.as_str());
                format!("{name} failed ({}) {took}{calls}", clean(code, ID_CHARS))
            }
        }
    };
    data.external.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn sources_tone(data: &ExternalDataFetched) -> Tone {
    if data.external.values().any(|source| source.status == SourceStatus::Failed) {
        Tone::Caution
    } else {
        Tone::Plain
    }
}

fn saved(data: &InteractionSaved, at: Timestamp) -> String {
    let took = duration(between(data.received_at, at));
    if data.degraded.is_empty() {
        return format!("complete in {took}");
    }
    let without: Vec<String> = data.degraded.iter().map(|name| clean(name, ID_CHARS)).collect();
    format!("complete in {took}, without {}", without.join(", "))
}

/// How much a source answered, as JSON.
fn amount(source: &SourceResult) -> String {
    let bytes = source.data.as_ref().map_or(0, |data| data.to_string().len());
    match bytes {
        0 => String::new(),
        1..10_000 => format!(" ({bytes} B)"),
        _ => format!(" ({} kB)", bytes / 1000),
    }
}
