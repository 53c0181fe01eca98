//! `--limit`: the newest workflows or events, found by reading ever longer ends of the log.

use std::collections::{HashMap, VecDeque};

use throughline_actors::ports::bus::BusError;
use throughline_schemas::Tokens;

use super::{failed::whole, screen::Screen, select::Selection};
use crate::{
    bus::nats::{NatsBus, StoredEvent},
    cli::{EventsArgs, Failure, bus_error},
};

/// Messages at the end of the log that are read first, for each workflow or event that is asked for: a workflow has six.
const FIRST: u64 = 16;
/// How much longer the next end is than one that had too little.
const LONGER: u64 = 8;

pub(super) async fn show(args: &EventsArgs, bus: &NatsBus, limit: u32) -> Result<(), Failure> {
    let selection = Selection::new(args, bus.namespace())?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    // What is printed line by line is events; otherwise a part of a workflow would say little.
    let workflows = args.r#type.is_none() && (!args.json || args.failed);
    let found = find(bus, &selection, limit, workflows).await?;
    if found.is_empty() {
        return super::nothing_of(args);
    }
    for event in found.iter().rev() {
        // A screen for each: they are not in the order of the log.
        let mut screen = Screen::new(args);
        if workflows {
            for event in whole(bus, event).await? {
                screen.event(&event, None)?;
            }
        } else {
            screen.event(event, None)?;
        }
        screen.finish()?;
    }
    Ok(())
}

/// The newest events, or the newest event of each of the newest workflows; in the order of the log.
async fn find(
    bus: &NatsBus,
    selection: &Selection,
    limit: usize,
    workflows: bool,
) -> Result<VecDeque<StoredEvent>, Failure> {
    let failed = |error: BusError| bus_error::failure(&error);
    let (first, last) = bus.log_state().await.map_err(failed)?.sequences;
    let mut length = u64::try_from(limit).unwrap_or(u64::MAX).saturating_mul(FIRST);
    loop {
        let from = last.saturating_add(1).saturating_sub(length).max(first);
        let mut newest = Newest { limit, by_workflow: workflows.then(HashMap::new), events: VecDeque::new() };
        let mut reached = from <= first;
        let mut reader = bus.read(selection.request_from(from.max(1))).await.map_err(failed)?;
        while let Some(event) = reader.next().await.map_err(failed)? {
            reached = reached || selection.is_before(event.stored_at);
            if selection.is_over(&event) || event.sequence > last {
                break;
            }
            if selection.shows(&event) {
                newest.add(event);
            }
        }
        let found = newest.finish();
        if found.len() >= limit || reached || last == 0 {
            return Ok(found);
        }
        length = length.saturating_mul(LONGER);
    }
}

/// Keeps the newest of what comes in the order of the log.
struct Newest {
    limit: usize,
    /// Where only the newest event of a workflow counts: by the workflow's token. What has none counts by itself.
    by_workflow: Option<HashMap<String, StoredEvent>>,
    events: VecDeque<StoredEvent>,
}

impl Newest {
    fn add(&mut self, event: StoredEvent) {
        if let Some(known) = &mut self.by_workflow {
            // An input without tokens is shown with what it led to.
            if let Some(workflow) = Tokens::of(&event.subject).and_then(|tokens| tokens.workflow) {
                known.insert(workflow.to_owned(), event);
            }
            return;
        }
        self.events.push_back(event);
        if self.events.len() > self.limit {
            self.events.pop_front();
        }
    }

    fn finish(self) -> VecDeque<StoredEvent> {
        let Some(known) = self.by_workflow else { return self.events };
        let mut events: Vec<_> = known.into_values().collect();
        events.sort_unstable_by_key(|event| event.sequence);
        events.drain(..events.len().saturating_sub(self.limit));
        events.into()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bytes::Bytes;
    use throughline_schemas::Timestamp;

    use super::*;

    fn kept(limit: usize, workflows: bool, subjects: &[&str]) -> Vec<u64> {
        let mut newest = Newest { limit, by_workflow: workflows.then(HashMap::new), events: VecDeque::new() };
        for (sequence, subject) in (1..).zip(subjects) {
            newest.add(StoredEvent {
                sequence,
                subject: (*subject).to_owned(),
                stored_at: Timestamp::from_unix_ms(0),
                headers: Vec::new(),
                body: Bytes::new(),
            });
        }
        newest.finish().iter().map(|event| event.sequence).collect()
    }

    #[test]
    fn the_newest_are_kept_in_the_order_of_the_log() {
        let log = [
            "t.v1.input_validated.s.a",
            "t.v1.input_validated.s.b",
            "t.v1.user_input_received",
            "t.v1.input_validated.s.c",
            "t.v1.context_retrieved.s.a",
        ];
        assert_eq!(kept(2, false, &log), [4, 5]);
        assert_eq!(kept(2, true, &log), [4, 5]);
        assert_eq!(kept(3, true, &log), [2, 4, 5], "one of each workflow, the newest");
        assert_eq!(kept(9, true, &log), [2, 4, 5]);
    }
}
