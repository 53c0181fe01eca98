//! Which messages of a full log are not needed although something before them is needed. Pure.
//!
//! Retention removes a log from its beginning. One message that is still needed keeps everything behind it, and what needs
//! it may be waiting for the very room that it keeps: an open turn cannot end in a log that takes no event. So from a full
//! log the results of workflows that have ended go, too, wherever they lie. Their ends stay for a while, for those who wait
//! for them; inputs stay, since a stage may not have read them.

use std::collections::HashMap;

use throughline_schemas::{EventType, Subject, Timestamp};

/// Messages of the log, looked at in their order.
#[derive(Debug)]
pub struct Thinning {
    /// Ends that were stored before go, too.
    ended_before: Timestamp,
    /// Results of workflows of which no end was seen, by session and workflow.
    open: HashMap<(String, String), Vec<(u64, u64)>>,
    finished: Vec<u64>,
    bytes: u64,
}

impl Thinning {
    /// Ends that were stored before an instant, by the log's clock, go with their results.
    pub fn new(ended_before: Timestamp) -> Self {
        Self { ended_before, open: HashMap::new(), finished: Vec::new(), bytes: 0 }
    }

    /// Looks at an event of the log. That it is the event of its subject is for the caller to find out.
    pub fn see(&mut self, subject: &Subject, sequence: u64, bytes: u64, stored_at: Timestamp) {
        let workflow = || (subject.session_token().to_owned(), subject.workflow_token().to_owned());
        match subject.event_type() {
            EventType::UserInputReceived => {}
            EventType::InputValidated
            | EventType::ContextRetrieved
            | EventType::ExternalDataFetched
            | EventType::ResponseGenerated => {
                self.open.entry(workflow()).or_default().push((sequence, bytes));
            }
            EventType::InteractionSaved | EventType::WorkflowFailed => {
                let results = self.open.remove(&workflow()).unwrap_or_default();
                let end = (stored_at < self.ended_before).then_some((sequence, bytes));
                for (sequence, bytes) in results.into_iter().chain(end) {
                    self.finished.push(sequence);
                    self.bytes = self.bytes.saturating_add(bytes);
                }
            }
        }
    }

    /// What may go takes so many bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The sequences of what may go, in their order.
    pub fn finished(mut self) -> Vec<u64> {
        self.finished.sort_unstable();
        self.finished
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::{SessionId, WorkflowId};

    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    fn subject(event_type: EventType, workflow: &str) -> Subject {
        Subject::new(event_type, &SessionId::new("s").unwrap(), &WorkflowId::new(workflow).unwrap())
    }

    #[test]
    fn results_of_what_has_ended_go_and_nothing_else() {
        use EventType::{
            ContextRetrieved, InputValidated, InteractionSaved, UserInputReceived, WorkflowFailed,
        };
        let mut thinning = Thinning::new(at(0));
        let log = [
            (UserInputReceived, "open"),
            (InputValidated, "open"),
            (UserInputReceived, "saved"),
            (InputValidated, "saved"),
            (InputValidated, "failed"),
            (ContextRetrieved, "saved"),
            (WorkflowFailed, "failed"),
            (InteractionSaved, "saved"),
            (WorkflowFailed, "refused"),
            (ContextRetrieved, "open"),
        ];
        for (sequence, (event_type, workflow)) in (1..).zip(log) {
            thinning.see(&subject(event_type, workflow), sequence, 10, at(1));
        }
        assert_eq!(thinning.bytes(), 30);
        assert_eq!(thinning.finished(), [4, 5, 6]);
    }

    #[test]
    fn ends_go_when_nobody_waits_for_them_any_more() {
        let mut thinning = Thinning::new(at(5));
        for sequence in 1..=6 {
            let (event_type, workflow) = match sequence {
                ..3 => (EventType::InputValidated, sequence),
                _ => (EventType::InteractionSaved, sequence - 2),
            };
            let subject = subject(event_type, &format!("w{workflow}"));
            thinning.see(&subject, sequence, 10, at(i64::try_from(sequence).unwrap()));
        }
        assert_eq!(thinning.finished(), [1, 2, 3, 4]);
    }

    #[test]
    fn what_comes_behind_an_end_stays() {
        let mut thinning = Thinning::new(at(0));
        thinning.see(&subject(EventType::InteractionSaved, "w"), 1, 10, at(1));
        thinning.see(&subject(EventType::InputValidated, "w"), 2, 10, at(2));
        assert_eq!(thinning.finished(), Vec::<u64>::new());
    }
}
