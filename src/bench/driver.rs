//! Publishes inputs in a closed loop and notes when their workflows end.

use std::{collections::HashMap, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use serde_json::json;
use throughline_schemas::{EventType, Tokens};
use tokio::time::Instant;

use super::{
    Plan,
    process::Parts,
    rig::{BenchError, Rig},
};

/// Two texts with a mean of three upstream calls: profile and model; profile, order history, one order and model.
const TEXTS: [&str; 2] = ["Hello, can you help me?", "Where is my order #W10007? Is it delivered soon?"];
/// Sessions that the workflows are spread over, so that few wait for one another.
const SESSIONS: usize = 10_000;
/// Users of the stand-ins' built-in data.
const USER: &str = "demo";
/// Largest latency that the histogram can hold, in microseconds.
const MAX_LATENCY_US: u64 = 600_000_000;

/// What was measured.
pub(super) struct Run {
    /// Of the measured part.
    pub workflows: usize,
    pub elapsed: Duration,
    /// In microseconds.
    pub latency: Histogram<u64>,
    /// Usage when the measured part began and ended.
    pub before: Parts,
    pub after: Parts,
    /// First message of the measured part.
    pub first_sequence: u64,
}

pub(super) async fn run(rig: &Rig, plan: &Plan, progress: impl Fn(usize)) -> Result<Run, BenchError> {
    let mut ends = rig.bus.all_ends(None).await?;
    let mut latency = Histogram::new_with_max(MAX_LATENCY_US, 3)
        .map_err(|error| BenchError::Unreadable(error.to_string()))?;
    let warm_up = plan.workflows / 10;
    let total = warm_up + plan.workflows;

    let mut started_at = HashMap::with_capacity(plan.concurrency);
    let mut publishing = FuturesUnordered::new();
    let (mut published, mut ended) = (0, 0);
    let mut measured = None;
    while ended < total {
        while started_at.len() < plan.concurrency && published < total {
            if published == warm_up {
                measured = Some((Instant::now(), rig.usage(), None));
            }
            let workflow = format!("bench-{published}");
            started_at.insert(workflow.clone(), (published, Instant::now()));
            publishing.push(publish(rig, workflow, published));
            published += 1;
        }
        tokio::select! {
            Some(stored) = publishing.next(), if !publishing.is_empty() => {
                let sequence: u64 = stored?;
                if let Some((_, _, first)) = &mut measured {
                    *first = (*first).or(Some(sequence));
                }
            }
            end = ends.next() => {
                let end = end?;
                let Some(tokens) = Tokens::of(&end.subject) else { continue };
                let (Some(end), Some(workflow)) = (tokens.event_type(), tokens.workflow.map(str::to_owned)) else {
                    continue;
                };
                let Some((number, at)) = started_at.remove(&workflow) else { continue };
                if end != EventType::InteractionSaved {
                    return Err(BenchError::Failed { workflow, end: end.as_str() });
                }
                ended += 1;
                if number >= warm_up {
                    let micros = u64::try_from(at.elapsed().as_micros()).unwrap_or(MAX_LATENCY_US);
                    latency.saturating_record(micros);
                    progress(number + 1 - warm_up);
                }
            }
        }
    }
    let (since, before, first) = measured.ok_or(BenchError::NotReady("the measured part"))?;
    Ok(Run {
        workflows: plan.workflows,
        elapsed: since.elapsed(),
        latency,
        before,
        after: rig.usage(),
        first_sequence: first.unwrap_or(1),
    })
}

fn publish_error(error: async_nats::jetstream::context::PublishError) -> BenchError {
    BenchError::Publish(Box::new(error))
}

async fn publish(rig: &Rig, workflow: String, number: usize) -> Result<u64, BenchError> {
    let session = format!("bench-{}", number % SESSIONS);
    let text = TEXTS[number % TEXTS.len()];
    let body = json!({"user_id": USER, "session_id": session, "user_input": text, "workflow_id": workflow});
    let subject = rig.bus.namespace().bare_input();
    let stored = rig.input.publish(subject, body.to_string().into()).await.map_err(publish_error)?;
    Ok(stored.await.map_err(publish_error)?.sequence)
}
