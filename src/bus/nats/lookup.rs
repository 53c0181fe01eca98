//! Finding the few events of one workflow in a log of any size.
//!
//! A consumer with wildcards before the workflow's token costs the server seconds in a log of a million events: it looks
//! at every block for every filter. The subjects themselves it has in memory: asking for those takes a tenth of a second
//! there, and reading the last message of an exact subject no time at all.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::Deserialize;
use serde_json::json;
use throughline_actors::ports::bus::BusError;
use throughline_schemas::{EventType, SessionId, Subject, Timestamp, WorkflowId};

use super::{Core, EventReader, Log, ReadRequest, StoredEvent, error::unavailable_because, reader, requests};

/// Events of one workflow, at most: seven types, and the same again for some inputs that were published more than once.
const MAX_EVENTS: u64 = 1000;

#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    error: Option<requests::ApiError>,
    #[serde(default)]
    state: State,
}

#[derive(Default, Deserialize)]
struct State {
    /// How many messages there are of each subject; null if there are none.
    #[serde(default)]
    subjects: Option<BTreeMap<String, u64>>,
}

/// See [`super::NatsBus::few`].
pub(super) async fn few(core: &Arc<Core>, filter: &str) -> Result<Option<Vec<StoredEvent>>, BusError> {
    let subjects = subjects(core, filter).await?;
    let count: u64 = subjects.values().sum();
    if count > MAX_EVENTS {
        return Ok(None);
    }
    let mut events = Vec::new();
    if subjects.values().all(|count| *count == 1) {
        for subject in subjects.keys() {
            // Gone if it has expired meanwhile.
            events.extend(reader::last_of(core, subject).await?);
        }
    } else {
        // The same input, published again after the server had forgotten its id.
        let filters = subjects.into_keys().collect();
        let request = ReadRequest { log: Log::Events, filters, since: None, from: None, follow: false };
        let mut reader = EventReader::open(Arc::clone(core), request).await?;
        while let Some(event) = reader.next().await? {
            events.push(event);
        }
    }
    events.sort_by_key(|event| event.sequence);
    Ok(Some(events))
}

/// See [`super::NatsBus::latest_step`].
pub(super) async fn latest_step(
    core: &Core,
    session: &SessionId,
    workflow: &WorkflowId,
) -> Result<Option<(EventType, Timestamp)>, BusError> {
    let last = async |subject: &str| {
        let found = requests::last_of_subject(core, core.names.events(), subject).await?;
        let event = found.and_then(reader::direct);
        Ok::<_, BusError>(
            event.and_then(|event| Some((event.event_type()?, event.sequence, event.stored_at))),
        )
    };
    let ns = &core.settings.namespace;
    let one = |event_type| Subject::new(event_type, session, workflow).live(ns);
    let mut found = last(&ns.events_with(None, Some(session), Some(workflow))).await?;
    if found.is_some_and(|(event_type, ..)| event_type == EventType::UserInputReceived) {
        // It may have been said again at any time.
        let steps =
            EventType::ALL.into_iter().filter(|event_type| *event_type != EventType::UserInputReceived);
        let steps = try_join_all(steps.map(async |step| last(&one(step)).await)).await?;
        found = steps.into_iter().flatten().max_by_key(|(_, sequence, _)| *sequence);
    }
    Ok(found.map(|(event_type, _, stored_at)| (event_type, stored_at)))
}

/// The subjects that match, with the number of their messages.
async fn subjects(core: &Core, filter: &str) -> Result<BTreeMap<String, u64>, BusError> {
    let stream = core.names.events();
    let context = || format!("looking up the subjects of {filter}");
    let body = Bytes::from(json!({"subjects_filter": filter}).to_string());
    let address = format!("$JS.API.STREAM.INFO.{stream}");
    let asked = requests::request(core, address.into(), None, body, core.settings.request_timeout).await;
    let message = match asked {
        Ok(message) => message,
        Err(no_answer) => return Err(requests::explain(core, no_answer, stream, context()).await),
    };
    let info: Info =
        serde_json::from_slice(&message.payload).map_err(|error| unavailable_because(context(), error))?;
    match info.error {
        Some(error) if error.is_not_found() => {
            Err(BusError::NotSetUp(format!("the stream {stream} does not exist")))
        }
        Some(error) => Err(unavailable_because(context(), error)),
        None => Ok(info.state.subjects.unwrap_or_default()),
    }
}
