//! What each of the five stages does.

pub mod context;
pub mod external;
pub mod generation;
pub mod input;
pub mod persistence;

use throughline_schemas::{Event, FailureCode};

use crate::{delivery::handler::Stopped, policy::settle::Outcome};

/// A consumer's filter decides which events come; another type means that someone published it on this subject.
fn wrong_event(event: &Event) -> Stopped {
    let error = format!("an event of type {} came on a subject of another type", event.event_type());
    Stopped::Otherwise(Outcome::Unusable { code: FailureCode::UnreadableEvent, error })
}
