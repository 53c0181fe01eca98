//! Whose message it is that cannot be read.

use super::{IngressError, Refused, is_structured, percent_decode};
use crate::{SessionId, Tokens, UserId, WorkflowId, dead_letter::RETRY_OF, json::salvage, token};

/// The refusal of a message that cannot be read; `None` if nothing names its workflow.
pub(super) fn refused<'h>(
    error: &IngressError,
    subject: &str,
    body: &[u8],
    header: &impl Fn(&str) -> Option<&'h str>,
) -> Option<Refused> {
    let found = salvage(body);
    let member = |name: &str| found.get(name).cloned();
    let is_binary = header("ce-specversion").is_some();
    let attribute = |name: &str| {
        if is_binary {
            return header(&format!("ce-{name}")).map(percent_decode);
        }
        let is_event = found.contains_key("specversion") || is_structured(header("content-type"));
        member(name).filter(|_| is_event)
    };
    let named = Named::by(subject);
    // Whoever retries a dead letter gave it this id only to be heard once. It is a dead letter again.
    let is_retry = header(&RETRY_OF.to_ascii_lowercase()).is_some();
    let message_id = header("nats-msg-id").filter(|_| !is_retry);
    let event_id = attribute("id");
    let source = attribute("source").filter(|_| !found.contains_key("workflow_id") && event_id.is_some());
    let workflow = member("workflow_id")
        .or_else(|| event_id.clone())
        .or_else(|| message_id.map(str::to_owned))
        .or(named.workflow)?;
    let session = member("session_id").or_else(|| attribute("sessionid")).or(named.session);
    let user = member("user_id").or_else(|| attribute("userid"));
    Some(Refused {
        workflow_id: WorkflowId::of_refused(&workflow),
        session_id: session.map_or_else(SessionId::unknown, |id| SessionId::of_refused(&id)),
        user_id: user.map_or_else(UserId::unknown, |id| UserId::of_refused(&id)),
        traceparent: header("traceparent").and_then(|text| text.parse().ok()),
        event_id: event_id.filter(|id| WorkflowId::new(id.as_str()).is_ok()),
        source,
        message: error.to_string(),
    })
}

/// The ids that a subject names, as far as its tokens are not hashes of them.
#[derive(Default)]
pub(super) struct Named {
    pub(super) session: Option<String>,
    pub(super) workflow: Option<String>,
}

impl Named {
    pub(super) fn by(subject: &str) -> Self {
        let id = |of: Option<&str>| of.filter(|of| token(of) == *of).map(str::to_owned);
        let Some(tokens) = Tokens::of(subject) else { return Self::default() };
        Self { session: id(tokens.session), workflow: id(tokens.workflow) }
    }
}
