//! Where each of many interleaved workflows began and was last.

use std::collections::{HashMap, VecDeque};

use crate::cli::timeline::{Moment, Pace};

/// Workflows remembered; beyond it the oldest is forgotten.
const MAX_PACES: usize = 10_000;
/// Longest workflow id in front of a line, in characters.
const PREFIX_CHARS: usize = 10;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Paces {
    known: HashMap<String, Pace>,
    /// The same, oldest first; may name workflows that are over.
    order: VecDeque<String>,
    /// For events that do not tell their workflow.
    unknown: Pace,
}

impl Paces {
    /// The workflow's pace, and whether this is its first event here.
    pub(super) fn of(&mut self, moment: &Moment) -> (&mut Pace, bool) {
        let Some(key) = &moment.key else {
            self.unknown = Pace::default();
            return (&mut self.unknown, true);
        };
        let is_new = !self.known.contains_key(key);
        if is_new {
            self.order.push_back(key.clone());
            while self.order.len() > MAX_PACES {
                if let Some(oldest) = self.order.pop_front() {
                    self.known.remove(&oldest);
                }
            }
        }
        (self.known.entry(key.clone()).or_default(), is_new)
    }

    /// Forgets a workflow that is over.
    pub(super) fn over(&mut self, moment: &Moment) {
        if let Some(key) = &moment.key {
            self.known.remove(key);
        }
    }
}

/// Whose line it is: the id, or the end of a long one, which tells ids of one second apart.
pub(super) fn prefix(moment: &Moment) -> String {
    let id = moment.workflow.as_deref().or(moment.key.as_deref()).unwrap_or("?");
    let chars = id.chars().count();
    if chars <= PREFIX_CHARS {
        return format!("{id:<PREFIX_CHARS$} ");
    }
    let end: String = id.chars().skip(chars - (PREFIX_CHARS - 1)).collect();
    format!("…{end} ")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use throughline_schemas::Timestamp;

    use super::*;
    use crate::{bus::nats::StoredEvent, cli::timeline::Style};

    fn moment(subject: &str) -> Moment {
        let event = StoredEvent {
            sequence: 1,
            subject: subject.to_owned(),
            stored_at: Timestamp::from_unix_ms(0),
            headers: Vec::new(),
            body: Bytes::new(),
        };
        Moment::of(&event, Style::plain())
    }

    #[test]
    fn prefixes_are_of_one_width_and_tell_ids_of_one_second_apart() {
        let prefix = |workflow: &str| prefix(&moment(&format!("t.v1.context_retrieved.s.{workflow}")));
        assert_eq!(prefix("w-1"), "w-1        ");
        assert_eq!(prefix("01a200ec-a716-7c6e-8c99-ef74afb3846c"), "…4afb3846c ");
        assert_eq!(prefix("x").chars().count(), prefix(&"x".repeat(60)).chars().count());
    }

    #[test]
    fn a_workflow_is_new_once_until_it_is_over_and_memory_is_bounded() {
        let mut paces = Paces::default();
        let first = moment("t.v1.context_retrieved.s.first");
        assert!(paces.of(&first).1);
        assert!(!paces.of(&first).1);
        paces.over(&first);
        assert!(paces.of(&first).1);
        for n in 0..2 * MAX_PACES {
            paces.of(&moment(&format!("t.v1.context_retrieved.s.{n}")));
        }
        assert!(paces.known.len() <= MAX_PACES && paces.order.len() <= MAX_PACES);
        assert!(paces.of(&moment("t.v1.user_input_received")).1, "an unknown workflow is always new");
    }
}
