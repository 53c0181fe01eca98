//! Where the time went: read back from the events of the run.

use std::{collections::HashMap, time::Duration};

use hdrhistogram::Histogram;
use throughline_schemas::{EventData, EventType, Timestamp, decode};

use super::rig::BenchError;
use crate::bus::nats::{NatsBus, ReadRequest};

/// Most events that are read back; enough for exact percentiles, few enough for memory.
const MAX_EVENTS: usize = 200_000;
/// Largest time that a histogram can hold, in microseconds.
const MAX_US: u64 = 600_000_000;

/// Times of the run, in microseconds.
pub(super) struct Times {
    /// From the event before to the event of this type, in the order of the journey.
    pub stages: Vec<(EventType, Histogram<u64>)>,
    /// Of a workflow: what was not spent inside calls to upstreams.
    pub overhead: Histogram<u64>,
}

/// Stages in the order of the journey, by the event that ends them.
const JOURNEY: [EventType; 6] = [
    EventType::UserInputReceived,
    EventType::InputValidated,
    EventType::ContextRetrieved,
    EventType::ExternalDataFetched,
    EventType::ResponseGenerated,
    EventType::InteractionSaved,
];

#[derive(Default)]
struct Workflow {
    stored: [Option<Timestamp>; JOURNEY.len()],
    in_calls: Duration,
}

pub(super) async fn times(bus: &NatsBus, first_sequence: u64) -> Result<Times, BenchError> {
    let mut reader = bus.read(ReadRequest::all_events(bus.namespace())).await?;
    let mut workflows: HashMap<String, Workflow> = HashMap::new();
    let mut inputs = HashMap::new();
    let mut read = 0;
    while read < MAX_EVENTS {
        let Some(stored) = reader.next().await? else { break };
        if stored.sequence < first_sequence {
            continue;
        }
        read += 1;
        if stored.subject == bus.namespace().bare_input() {
            inputs.insert(stored.sequence, stored.stored_at);
            continue;
        }
        let event = decode(&stored.body).map_err(|error| BenchError::Unreadable(error.to_string()))?;
        let event_type = event.event_type();
        let workflow = workflows.entry(event.meta.workflow_id.to_string()).or_default();
        if let Some(at) = JOURNEY.iter().position(|of| *of == event_type) {
            workflow.stored[at] = Some(stored.stored_at);
        }
        match &event.data {
            EventData::InputValidated(validated) => {
                workflow.stored[0] = inputs.remove(&validated.request.input_sequence);
            }
            // The sources are asked at the same time, so the slowest one counts.
            EventData::ExternalDataFetched(fetched) => {
                let slowest = fetched.external.values().map(|result| result.duration_ms.duration()).max();
                workflow.in_calls += slowest.unwrap_or_default();
            }
            EventData::ResponseGenerated(generated) => {
                workflow.in_calls +=
                    generated.attempts.iter().map(|attempt| attempt.duration_ms.duration()).sum::<Duration>();
            }
            EventData::UserInputReceived(_)
            | EventData::ContextRetrieved(_)
            | EventData::InteractionSaved(_)
            | EventData::WorkflowFailed(_) => {}
        }
    }
    Times::of(workflows.values())
}

impl Times {
    fn of<'a>(workflows: impl Iterator<Item = &'a Workflow>) -> Result<Self, BenchError> {
        let new =
            || Histogram::new_with_max(MAX_US, 3).map_err(|error| BenchError::Unreadable(error.to_string()));
        let mut stages = Vec::new();
        for event_type in &JOURNEY[1..] {
            stages.push((*event_type, new()?));
        }
        let mut overhead = new()?;
        for workflow in workflows {
            // A workflow of which not all was read is left out whole.
            let Some(stored) = workflow.stored.iter().copied().collect::<Option<Vec<_>>>() else { continue };
            for (pair, (_, histogram)) in stored.windows(2).zip(&mut stages) {
                histogram.saturating_record(micros_between(pair[0], pair[1]));
            }
            let total = micros_between(stored[0], stored[JOURNEY.len() - 1]);
            let in_calls = u64::try_from(workflow.in_calls.as_micros()).unwrap_or(MAX_US);
            overhead.saturating_record(total.saturating_sub(in_calls));
        }
        Ok(Self { stages, overhead })
    }
}

fn micros_between(earlier: Timestamp, later: Timestamp) -> u64 {
    let (earlier, later): (time::OffsetDateTime, time::OffsetDateTime) = (earlier.into(), later.into());
    u64::try_from((later - earlier).whole_microseconds()).unwrap_or(0)
}
