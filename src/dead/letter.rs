//! One dead letter, as it is stored.

use bytes::Bytes;
use throughline_schemas::{
    Event, FailureCode, Ingress, IngressError, IngressLimits, Refused, StageName, Timestamp, WorkflowId,
    dead_letter, decode,
};

use crate::bus::nats::StoredEvent;

/// What an original header is kept under if its own name means something to the server or to us.
const KEPT_AS: &str = "original-";
/// Headers that say something about the letter and are none of the original's.
const OWN_PREFIX: &str = "throughline-";
/// Headers that the server reads or writes.
const SERVER_PREFIX: &str = "nats-";
/// A message that no stage could handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// Its sequence in the stream of dead letters: what it is called.
    pub id: u64,
    /// When it was dead-lettered.
    pub at: Timestamp,
    /// The stage that dead-lettered it, if the letter says so.
    pub stage: Option<StageName>,
    /// Why, for a machine.
    pub code: Option<FailureCode>,
    /// Why, for a person.
    pub error: String,
    /// How often it had been delivered.
    pub attempts: Option<u32>,
    /// The stream that it was in.
    pub stream: Option<String>,
    /// Its sequence there.
    pub sequence: Option<u64>,
    /// The consumer that delivered it.
    pub consumer: Option<String>,
    /// The process that dead-lettered it.
    pub worker: Option<String>,
    /// The subject on which it was published.
    pub subject: Option<String>,
    /// Its headers, under their own names.
    pub headers: Vec<(String, String)>,
    /// Its body, byte for byte; its beginning, if it was cut.
    pub body: Bytes,
    /// How long the whole body was, if this is its beginning.
    pub cut_from: Option<u64>,
}

impl Letter {
    /// Reads what is stored. Whatever is missing in it is left out.
    pub fn read(stored: StoredEvent) -> Self {
        let of = |name: &str| {
            let found = stored.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        Self {
            id: stored.sequence,
            at: of(dead_letter::TIME).and_then(|at| instant(&at)).unwrap_or(stored.stored_at),
            stage: of(dead_letter::STAGE).and_then(|stage| stage.parse().ok()),
            code: of(dead_letter::CODE).and_then(|code| failure_code(&code)),
            error: of(dead_letter::ERROR).unwrap_or_default(),
            attempts: of(dead_letter::ATTEMPTS).and_then(|attempts| attempts.parse().ok()),
            stream: of(dead_letter::STREAM),
            sequence: of(dead_letter::SEQUENCE).and_then(|sequence| sequence.parse().ok()),
            consumer: of(dead_letter::CONSUMER),
            worker: of(dead_letter::WORKER),
            subject: of(dead_letter::SUBJECT),
            headers: stored.headers.iter().filter_map(original).collect(),
            cut_from: of(dead_letter::BODY_BYTES).and_then(|bytes| bytes.parse().ok()),
            body: stored.body,
        }
    }

    /// The event that it is, unless it is an input or cannot be read.
    pub fn event(&self) -> Option<Event> {
        decode(&self.body).ok().filter(|event| event.data.request().is_some())
    }

    /// The input that it is, read as the input stage reads it; `fallback` is the id of a message that names none.
    pub fn input(&self, fallback: WorkflowId) -> Option<Ingress> {
        self.ingress(fallback).ok()?.ok()
    }

    fn ingress(&self, fallback: WorkflowId) -> Result<Result<Ingress, Box<Refused>>, IngressError> {
        let subject = self.subject.as_deref().unwrap_or_default();
        Ingress::read(subject, &self.body, |name| self.header(name), fallback, &IngressLimits::UNLIMITED)
    }

    /// Why no stage can read it, if none can: it is neither an event nor anything that could be an input.
    pub fn unreadable(&self) -> Option<IngressError> {
        if decode(&self.body).is_ok() {
            return None;
        }
        self.ingress(WorkflowId::unknown()).err()
    }

    /// Whose message it is, if it says so.
    pub fn workflow(&self) -> Option<WorkflowId> {
        if let Some(event) = self.event() {
            return Some(event.meta.workflow_id);
        }
        let nobody = WorkflowId::unknown();
        self.input(nobody.clone()).map(|input| input.workflow_id).filter(|workflow| *workflow != nobody)
    }

    fn header(&self, lower_case: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(lower_case));
        found.map(|(_, value)| value.as_str())
    }
}

/// An original header under its own name; `None` for one of the letter's own.
fn original((name, value): &(String, String)) -> Option<(String, String)> {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with(KEPT_AS) {
        return Some((name[KEPT_AS.len()..].to_owned(), value.clone()));
    }
    (!lower.starts_with(OWN_PREFIX) && !lower.starts_with(SERVER_PREFIX))
        .then(|| (name.clone(), value.clone()))
}

/// A failure code by its name.
pub fn failure_code(name: &str) -> Option<FailureCode> {
    let code: FailureCode = serde_json::from_value(name.into()).ok()?;
    (code != FailureCode::Unrecognised).then_some(code)
}

fn instant(text: &str) -> Option<Timestamp> {
    serde_json::from_value(text.into()).ok()
}
