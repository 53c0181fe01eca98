//! `--failed`: each failure leads to everything that is stored of its workflow.

use throughline_schemas::{Namespace, Subject};

use super::{Show, inputs::fetch_input};
use crate::{
    bus::nats::{NatsBus, StoredEvent},
    cli::{Failure, bus_error},
};

impl Show<'_> {
    /// Shows the workflow of the next failure; false after the last one.
    pub(super) async fn next_failed(&mut self, bus: &NatsBus) -> Result<bool, Failure> {
        let next = self.reader.next().await?;
        let Some(failure) = next.filter(|event| !self.selection.is_over(event)) else { return Ok(false) };
        if !self.selection.shows(&failure) {
            return Ok(true);
        }
        self.count += 1;
        for event in whole(bus, &failure).await? {
            self.screen.event(&event, None)?;
        }
        Ok(true)
    }
}

/// Everything that is stored of the workflow of an event. Its exact subjects are looked up, so that the size of the log does
/// not matter.
pub(super) async fn whole(bus: &NatsBus, failure: &StoredEvent) -> Result<Vec<StoredEvent>, Failure> {
    let Some(filter) = same_workflow(bus.namespace(), &failure.subject) else {
        return Ok(vec![failure.clone()]);
    };
    let found = bus.few(&filter).await.map_err(|error| bus_error::failure(&error))?;
    let mut events = found.unwrap_or_else(|| vec![failure.clone()]);
    let mut inputs = Vec::new();
    for event in &events {
        let input = fetch_input(bus, event).await?;
        // It may have been published with tokens in its subject, and is there already then.
        inputs.extend(input.filter(|input| !events.iter().any(|event| event.sequence == input.sequence)));
    }
    events.append(&mut inputs);
    events.sort_by_key(|event| event.sequence);
    Ok(events)
}

/// Subjects of the workflow that this one belongs to; none if it is not read that way.
fn same_workflow(ns: &Namespace, subject: &str) -> Option<String> {
    let subject = Subject::parse(ns, subject)?;
    let words = subject.live(ns);
    let (front, back) = words.split_once(&format!(".{}.", subject.event_type()))?;
    Some(format!("{front}.*.{back}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_failure_leads_to_the_subjects_of_its_workflow() {
        let ns = Namespace::new("t").unwrap();
        let all = same_workflow(&ns, "t.v1.workflow_failed.workflow_failed.w");
        assert_eq!(all.as_deref(), Some("t.v1.*.workflow_failed.w"));
        let all = same_workflow(&ns, "t.v1.input_validated.s.w");
        assert_eq!(all.as_deref(), Some("t.v1.*.s.w"));
        assert_eq!(same_workflow(&ns, "t.v1.workflow_failed"), None);
    }
}
