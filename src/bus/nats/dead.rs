//! The stream of dead letters: listing, retrying and dropping them.

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::Deserialize;
use throughline_actors::ports::bus::{BusError, Published};
use throughline_schemas::{SessionId, WorkflowId, dead_letter};

use super::{
    NatsBus, StoredEvent,
    error::{unavailable, unavailable_because},
    headers,
    publish::{Expected, Outgoing, publish},
    reader,
    requests::{self, ApiError, NoAnswer},
};

/// What the server says of a message that is not there.
const NO_MESSAGE: u64 = 10_037;
/// The same, where the sequence is beyond the stream's last or was deleted.
const NO_SEQUENCE: u64 = 10_043;

/// A message that tries a dead letter again.
#[derive(Debug, Clone)]
pub struct Repeat {
    /// The workflow that it begins; `None` if that is for the input stage to say.
    pub workflow: Option<WorkflowId>,
    /// The address of the workflow that failed, if it is known.
    pub failed: Option<(SessionId, WorkflowId)>,
    /// On which subject.
    pub subject: String,
    /// De-duplicates.
    pub message_id: String,
    /// Whether the subject is the message's own, so that one message there is enough.
    pub create_only: bool,
    /// Headers to go with it.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

impl NatsBus {
    /// A dead letter by its sequence, with its body; `None` if there is none (any more).
    pub async fn letter(&self, id: u64) -> Result<Option<StoredEvent>, BusError> {
        let found = reader::at(&self.core, self.core.names.dead(), id).await?;
        let letters = self.namespace().dead_letters();
        Ok(found.filter(|stored| stored.subject.starts_with(letters.trim_end_matches('>'))))
    }

    /// What was done with a dead letter.
    pub async fn letter_record(&self, id: u64) -> Result<Option<StoredEvent>, BusError> {
        let subject = self.namespace().dead_record(id);
        let found = requests::last_of_subject(&self.core, self.core.names.dead(), &subject).await?;
        Ok(found.and_then(reader::direct))
    }

    /// Publishes what tries a dead letter again, once.
    pub async fn publish_repeat(&self, repeat: &Repeat, letter: u64) -> Result<Published, BusError> {
        let message = Outgoing {
            stream: self.core.names.events(),
            subject: repeat.subject.clone(),
            message_id: &repeat.message_id,
            expected: if repeat.create_only { Expected::Nothing } else { Expected::Anything },
            body: repeat.body.clone(),
        };
        let fill = |map: &mut HeaderMap| {
            for (name, value) in &repeat.headers {
                headers::append(map, name, value);
            }
            headers::append(map, dead_letter::RETRY_OF, &letter.to_string());
        };
        publish(&self.core, &message, fill).await
    }

    /// Keeps what was done with a dead letter; the first record stays.
    pub async fn publish_record(&self, letter: u64, record: Bytes) -> Result<Published, BusError> {
        let message = Outgoing {
            stream: self.core.names.dead(),
            subject: self.namespace().dead_record(letter),
            message_id: &format!("record.{letter}"),
            expected: Expected::Nothing,
            body: record,
        };
        publish(&self.core, &message, |map| headers::append(map, "Content-Type", "application/json")).await
    }

    /// Removes a dead letter; that it is gone already is no error.
    pub async fn remove_letter(&self, id: u64) -> Result<(), BusError> {
        #[derive(Deserialize)]
        struct Answer {
            error: Option<ApiError>,
        }
        let core = &self.core;
        let what = || format!("removing the dead letter {id}");
        let address = format!("$JS.API.STREAM.MSG.DELETE.{}", core.names.dead());
        let request = format!(r#"{{"seq":{id},"no_erase":true}}"#);
        let limit = core.settings.request_timeout;
        let answer = requests::request(core, address.into(), None, request.into(), limit).await;
        let answer = answer.map_err(|no_answer| match no_answer {
            NoAnswer::Forbidden(words) => BusError::Forbidden(words),
            NoAnswer::Client(source) => unavailable_because(what(), source),
            NoAnswer::TimedOut | NoAnswer::Reconnected | NoAnswer::NoResponders | NoAnswer::TooLarge => {
                unavailable(what())
            }
        })?;
        match serde_json::from_slice::<Answer>(&answer.payload) {
            Ok(Answer { error: Some(error) }) if ![NO_MESSAGE, NO_SEQUENCE].contains(&error.err_code) => {
                Err(unavailable_because(what(), error))
            }
            Ok(Answer { .. }) => Ok(()),
            Err(error) => Err(unavailable_because(what(), error)),
        }
    }
}
