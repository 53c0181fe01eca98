//! Workflow ids that belong, by the word of the log, to another message than the one at hand.
//!
//! The database knows which message has an id. One that went back in time (a backup was restored, a file was lost) has
//! forgotten ids whose workflows are in the log, and takes the next message with such an id for the first one. What was
//! published stays true: the id is the first one's, and the publisher of the other one gets a conflict.

use throughline_schemas::{Event, EventType, Subject, decode, event::input::Request};

use crate::{
    policy::{
        merge::{self, SEPARATOR},
        settle::Outcome,
    },
    ports::store::Opening,
    workflow::{
        end_from_log, repetition,
        stage_context::{PublishFailed, StageContext},
    },
};

/// Whose workflow began in the log under the id and in the session of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// No message's, as far as the log reaches back.
    Nobody,
    /// This message's.
    This,
    /// That of a message of another user, or with another text.
    Another,
}

/// Asks the log. A message that was refused begins nothing and holds no id.
pub(crate) async fn holder(context: &StageContext, message: &Event) -> Result<Holder, PublishFailed> {
    let Some(request) = message.data.request() else { return Ok(Holder::Nobody) };
    let meta = &message.meta;
    let beginning = Subject::new(EventType::InputValidated, &meta.session_id, &meta.workflow_id);
    let Some(body) = context.recorded(&beginning).await? else { return Ok(Holder::Nobody) };
    // What a later version wrote says nothing of whose it is.
    let Ok(first) = decode(&body) else { return Ok(Holder::This) };
    let is_same = first.meta.user_id == meta.user_id
        && first.data.request().is_none_or(|first| is_one_message(first, request));
    Ok(if is_same { Holder::This } else { Holder::Another })
}

/// Whether two requests of one user in one session are of one message: they have one place in the stream, or say the same.
/// The texts that were merged into one of them count for nothing.
fn is_one_message(one: &Request, other: &Request) -> bool {
    let carries =
        |one: &Request, other: &Request| !one.merged.is_empty() && begins_with(&one.user_input, other);
    (one.input_sequence, one.received_at) == (other.input_sequence, other.received_at)
        || one.user_input == other.user_input
        || carries(one, other)
        || carries(other, one)
}

/// Whether a text is that of a message, or has it as the first of several that were merged.
pub(crate) fn begins_with(text: &str, message: &Request) -> bool {
    let rest = text.strip_prefix(&*message.user_input);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(SEPARATOR))
}

/// Whether a turn that the database has begun, or is about to, is of another message than the one that the log has.
pub(crate) async fn is_anothers(context: &StageContext, opening: &Opening) -> Result<bool, PublishFailed> {
    // What this version cannot read is handled elsewhere.
    let Ok((beginning, _)) = merge::opened(opening) else { return Ok(false) };
    Ok(holder(context, &beginning).await? == Holder::Another)
}

/// The beginning of a turn stands in the log already. As a rule it is this very one; if it is another message's, this one
/// is refused, and the turn is closed as the log says that the other one ended. Says what its session goes on with then.
pub(crate) async fn refused(context: &StageContext, beginning: &Event) -> Result<Option<Opening>, Outcome> {
    let holder = holder(context, beginning).await.map_err(PublishFailed::outcome)?;
    let request = match (holder, beginning.data.request()) {
        (Holder::Another, Some(request)) => request,
        (Holder::Another | Holder::Nobody | Holder::This, _) => return Ok(None),
    };
    let meta = &beginning.meta;
    // First of all: a process that is killed after this finds the turn as it was, and does it again.
    match repetition::conflict(context, beginning, request.input_sequence, &meta.session_id).await {
        Outcome::Done => {}
        outcome @ (Outcome::Later { .. }
        | Outcome::Unusable { .. }
        | Outcome::Died { .. }
        | Outcome::TakenOver) => return Err(outcome),
    }
    let end = end_from_log::of(context, &meta.session_id, &meta.workflow_id).await;
    // Without an end the other one is under way, and its end ends this turn.
    let Some(end) = end.map_err(PublishFailed::outcome)? else { return Ok(None) };
    Ok(end_from_log::close(context, &end, 0).await?.and_then(|closed| closed.next))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::{Metadata, Timestamp, WorkflowId};

    use super::*;

    fn request(text: &str, input_sequence: u64) -> Request {
        let merged = text.split(SEPARATOR).skip(1).filter_map(|part| WorkflowId::new(part).ok());
        Request {
            user_input: text.to_owned(),
            metadata: Metadata::default(),
            input_sequence,
            received_at: Timestamp::from_unix_ms(0),
            merged: merged.collect(),
            redo: None,
        }
    }

    #[test]
    fn a_message_is_its_place_or_its_text_whatever_was_merged_into_it() {
        let cases = [
            ("hello", 1, "hello", 2, true),
            ("hello", 1, "hello\n\nand then?", 2, true),
            ("hello\n\nand then?", 1, "hello", 2, true),
            ("hello", 1, "hello there", 2, false),
            ("hello", 1, "goodbye", 2, false),
            ("hello\n\nand then?", 1, "hello\n\nor else?", 2, false),
            ("hello\n\nand then?", 1, "hello\n\nor else?", 1, true),
        ];
        for (one, place, other, another_place, expected) in cases {
            let same = is_one_message(&request(one, place), &request(other, another_place));
            assert_eq!(same, expected, "{one:?} {other:?}");
        }
        // One text of several paragraphs is not what begins like it.
        let paragraphs = Request { merged: Vec::new(), ..request("hello\n\nand then?", 1) };
        assert!(!is_one_message(&paragraphs, &request("hello", 2)));
    }
}
