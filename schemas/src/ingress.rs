//! The three accepted forms of `user_input_received`: bare JSON, structured CloudEvents, binary CloudEvents.
//!
//! A message is taken as it came, or refused with words that say what is wrong and where. Whoever can be made out as the
//! publisher's workflow, in a text that is broken too, is told so; only what names no workflow becomes a dead letter.

mod broken;
mod form;

use serde_json::value::RawValue;

use crate::{
    Metadata, SessionId, TraceParent, UserId, WorkflowId,
    event::{Redo, input::WhenBusy},
    json::{self, JsonProblem, Kind, Members},
};
use form::Form;
pub use form::normalise;

/// How large an input may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IngressLimits {
    /// Longest `user_input`, in bytes of UTF-8.
    pub max_input_bytes: usize,
    /// Largest `metadata`, in bytes of JSON.
    pub max_metadata_bytes: usize,
}

impl IngressLimits {
    /// For reading what is stored, however large it is.
    pub const UNLIMITED: Self = Self { max_input_bytes: usize::MAX, max_metadata_bytes: usize::MAX };
}

/// The message cannot be read and names no workflow; it becomes a dead letter.
#[derive(Debug, thiserror::Error)]
pub enum IngressError {
    /// The body is empty.
    #[error("the message is empty; send a JSON object with user_id, session_id and user_input")]
    Empty,
    /// The body is not JSON.
    #[error("the message is not JSON that can be read: {0}")]
    NotJson(#[from] JsonProblem),
    /// The body is JSON, but not an object.
    #[error("the message is JSON but {0}; send an object with user_id, session_id and user_input")]
    NotAnObject(&'static str),
}

/// A message that is not acceptable and names its workflow, or can be read; it becomes a `workflow_failed` with code
/// `invalid_input`.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The workflow it would have been.
    pub workflow_id: WorkflowId,
    /// The session, or `unknown`.
    pub session_id: SessionId,
    /// The user, or `unknown`.
    pub user_id: UserId,
    /// The publisher's trace, if it sent one.
    pub traceparent: Option<TraceParent>,
    /// The CloudEvents `id` of the message, if it is a CloudEvent: what its workflow's first event was caused by.
    pub event_id: Option<String>,
    /// The CloudEvents `source`, where the workflow has the CloudEvents `id`, which is unique within its source only.
    pub source: Option<String>,
    /// Everything that is wrong, for a person.
    pub message: String,
}

/// An acceptable message, normalised.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingress {
    /// From, in order: `workflow_id` in the data, CloudEvents `id`, `Nats-Msg-Id`, the fallback.
    pub workflow_id: WorkflowId,
    /// The session.
    pub session_id: SessionId,
    /// The user.
    pub user_id: UserId,
    /// Trimmed, line ends as `\n`, NUL replaced by U+FFFD.
    pub user_input: String,
    /// Passed through, digit by digit.
    pub metadata: Metadata,
    /// What to do if the session is busy, if the publisher said so.
    pub when_busy: Option<WhenBusy>,
    /// The earlier workflow that it takes up.
    pub redo: Option<Redo>,
    /// The publisher's trace, if it sent one.
    pub traceparent: Option<TraceParent>,
    /// The CloudEvents `id` of the message, if it is a CloudEvent: what its workflow's first event was caused by.
    pub event_id: Option<String>,
    /// The CloudEvents `source`, where the workflow has the CloudEvents `id`, which is unique within its source only.
    pub source: Option<String>,
}

impl Ingress {
    /// Reads one message. `header` looks a header up by its lower-case name; the tokens of the `subject`, which publishers
    /// may choose, are believed of a refused message that names nothing else. `fallback` is the workflow id for a
    /// message that names none; it must be the same for each delivery of the same message.
    pub fn read<'h>(
        subject: &str,
        body: &[u8],
        header: impl Fn(&str) -> Option<&'h str>,
        fallback: WorkflowId,
        limits: &IngressLimits,
    ) -> Result<Result<Self, Box<Refused>>, IngressError> {
        let error = match json::read(body).map_err(IngressError::from) {
            Ok(text) => match members(&text) {
                Ok(top) => return Ok(Form::read(top, subject, &header, fallback, limits)),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match broken::refused(&error, subject, body, &header) {
            Some(refused) => Ok(Err(Box::new(refused))),
            None => Err(error),
        }
    }
}

fn members(text: &str) -> Result<Members<'_>, IngressError> {
    if text.is_empty() {
        return Err(IngressError::Empty);
    }
    // Read as any value first, so that an error is about JSON and not about objects.
    let whole: &RawValue = serde_json::from_str(text).map_err(JsonProblem::from)?;
    match Kind::of(whole) {
        Kind::Object => Ok(serde_json::from_str(whole.get()).map_err(JsonProblem::from)?),
        other @ (Kind::Null | Kind::Boolean | Kind::Number | Kind::Text | Kind::Array) => {
            Err(IngressError::NotAnObject(other.said()))
        }
    }
}

fn is_structured(content_type: Option<&str>) -> bool {
    content_type.is_some_and(|t| t.trim_start().to_ascii_lowercase().starts_with("application/cloudevents"))
}

/// Decodes `%XX` as the CloudEvents NATS and HTTP bindings write header values; anything else stands for itself.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests;
