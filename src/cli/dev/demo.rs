//! The demo user, and the messages that `dev` sends itself.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use serde_json::{Map, Value};
use throughline_actors::ports::bus::{BusError, EventLog};
use throughline_schemas::{Event, EventData, SessionId, UserId, WorkflowId, decode};

use crate::{
    bus::nats::{NatsBus, ReadRequest},
    cli::{
        Failure, output,
        screen::Screen,
        timeline::{self, Style},
    },
    client::{self, Frames, Input, Transcript},
    storage::Database,
};

const USER: &str = "demo";
const FIRST_MESSAGE: &str = "What is the status of my recent order?";

/// How long `dev` waits for the end of a message that it sent itself. Real models take their time.
const PATIENCE: Duration = Duration::from_mins(5);

/// Gives the demo user preferences, as an application would have stored them.
pub(super) async fn seed(store: &Database) -> Result<(), Failure> {
    let user = UserId::new(USER).map_err(Failure::failed)?;
    let preferences = Map::from_iter([("tone".to_owned(), Value::from("friendly"))]);
    store.set_preferences(&user, &preferences).await.map_err(|error| Failure::unavailable(&error))
}

/// Answers one text and prints the answer.
pub(super) async fn once(bus: &NatsBus, text: &str) -> Result<(), Failure> {
    Box::pin(ask(bus, text)).await.map(|_| ())
}

/// Sends the first message and prints its answer.
pub(super) async fn first_message(bus: &NatsBus) -> Result<(), Failure> {
    output::line(&format!("> {FIRST_MESSAGE}"))?;
    let workflow = Box::pin(ask(bus, FIRST_MESSAGE)).await?;
    output::line("")?;
    let mut reader = bus
        .read(ReadRequest::events(bus.namespace().events_of_workflow(None, &workflow)))
        .await
        .map_err(|error| Failure::unavailable(&error))?;
    let mut events = Vec::new();
    while let Some(event) = reader.next().await.map_err(|error| Failure::unavailable(&error))? {
        events.push(event);
    }
    output::line(timeline::render(&events, Style::of_stdout()).trim_end())
}

/// Publishes `text` as the demo user and prints the answer; on a terminal as it comes.
async fn ask(bus: &NatsBus, text: &str) -> Result<WorkflowId, Failure> {
    let event = user_input(text)?;
    let (session, workflow) = (event.meta.session_id.clone(), event.meta.workflow_id.clone());
    let unavailable = |error: BusError| Failure::unavailable(&error);
    let mut frames = Frames::open(bus, &workflow).await.map_err(unavailable)?;
    let mut ends = bus.ends_of(&session, &workflow).await.map_err(unavailable)?;
    bus.publish(&event).await.map_err(unavailable)?;
    let (mut transcript, mut screen) = (Transcript::default(), Screen::new());
    let live = io::stdout().is_terminal();
    let stored = async { ends.next().await.map_err(|error| Failure::unavailable(&error)) };
    let end = client::follow(&mut frames, stored, |received| {
        if live {
            transcript.observe(&received.frame).iter().try_for_each(|notice| screen.show(notice))
        } else {
            Ok(())
        }
    });
    let end = Box::pin(tokio::time::timeout(PATIENCE, end)).await.unwrap_or_else(|_| {
        Err(Failure::failed(format!("no answer to workflow {workflow} within {PATIENCE:?}")))
    })?;
    match decode(&end.body).map_err(Failure::failed)?.data {
        EventData::InteractionSaved(saved) => {
            screen.finish(&transcript, &saved.response.text)?;
            Ok(workflow)
        }
        EventData::WorkflowFailed(failed) => {
            screen.end_line()?;
            Err(Failure::failed(format!("workflow {workflow} failed: {}: {}", failed.code, failed.message)))
        }
        other @ (EventData::UserInputReceived(_)
        | EventData::InputValidated(_)
        | EventData::ContextRetrieved(_)
        | EventData::ExternalDataFetched(_)
        | EventData::ResponseGenerated(_)) => {
            Err(Failure::failed(format!("{} is not an end", other.event_type())))
        }
    }
}

fn user_input(text: &str) -> Result<Event, Failure> {
    let user = UserId::new(USER).map_err(Failure::failed)?;
    let session = SessionId::new(USER).map_err(Failure::failed)?;
    let input = Input::new(user, session, text);
    Ok(input.event("throughline/dev"))
}
