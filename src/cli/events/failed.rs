//! `--failed`: each failure leads to everything that is stored of its workflow.

use throughline_schemas::{EventType, Namespace, Subject};

use super::{Show, inputs::fetch_input};
use crate::{
    bus::nats::{Log, NatsBus, ReadRequest, StoredEvent},
    cli::{Failure, bus_error},
};

impl Show<'_> {
    /// Shows the workflow of the next failure; false after the last one.
    pub(super) async fn next_failed(&mut self, bus: &NatsBus) -> Result<bool, Failure> {
        let next = self.reader.next().await.map_err(|error| bus_error::failure(&error))?;
        let Some(failure) = next.filter(|event| !self.selection.is_over(event)) else { return Ok(false) };
        self.count += 1;
        for event in whole(bus, &failure).await? {
            self.screen.event(&event, None)?;
        }
        Ok(true)
    }
}

/// Everything that is stored of the workflow of a failure, up to it. Only its exact subjects are read, so that the size of
/// the log does not matter.
async fn whole(bus: &NatsBus, failure: &StoredEvent) -> Result<Vec<StoredEvent>, Failure> {
    let failed = |error| bus_error::failure(&error);
    let filters = subjects(bus.namespace(), &failure.subject);
    if filters.is_empty() {
        return Ok(vec![failure.clone()]);
    }
    let request = ReadRequest { log: Log::Events, filters, since: None, follow: false, apart: false };
    let mut reader = bus.read(request).await.map_err(failed)?;
    let mut events: Vec<StoredEvent> = Vec::new();
    while let Some(event) = reader.next().await.map_err(failed)? {
        let input = fetch_input(bus, &event).await?;
        // It may have been published with tokens in its subject, and is there already then.
        let input = input.filter(|input| !events.iter().any(|event| event.sequence == input.sequence));
        let last = event.sequence >= failure.sequence;
        events.extend(input);
        events.push(event);
        if last {
            break;
        }
    }
    events.sort_by_key(|event| event.sequence);
    Ok(events)
}

/// The subjects of the workflow that this one belongs to; none if it is not read that way.
fn subjects(ns: &Namespace, subject: &str) -> Vec<String> {
    let Some(failed) = Subject::parse(ns, subject).map(|subject| subject.live(ns)) else { return Vec::new() };
    let own = format!(".{}.", EventType::WorkflowFailed);
    EventType::ALL.into_iter().map(|kind| failed.replacen(&own, &format!(".{kind}."), 1)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failure_leads_to_the_exact_subjects_of_its_workflow() {
        let ns = Namespace::new("t").unwrap();
        let all = subjects(&ns, "t.v1.workflow_failed.workflow_failed.w");
        assert_eq!(all.len(), EventType::ALL.len());
        assert_eq!(all[0], "t.v1.user_input_received.workflow_failed.w");
        assert_eq!(subjects(&ns, "t.v1.workflow_failed"), Vec::<String>::new());
    }
}
