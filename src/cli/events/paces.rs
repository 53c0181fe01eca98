//! Where each of many interleaved workflows began and was last.

use std::collections::{HashMap, VecDeque};

use crate::cli::timeline::{Moment, Pace};

/// Workflows remembered; beyond it the oldest starts anew.
const MAX_PACES: usize = 10_000;
/// Longest workflow id in front of a line, in characters.
const PREFIX_CHARS: usize = 10;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Paces {
    paces: HashMap<String, Pace>,
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
        let is_new = !self.paces.contains_key(key);
        if is_new {
            self.order.push_back(key.clone());
            while self.order.len() > MAX_PACES {
                if let Some(oldest) = self.order.pop_front() {
                    self.paces.remove(&oldest);
                }
            }
        }
        (self.paces.entry(key.clone()).or_default(), is_new)
    }

    /// Forgets a workflow that is over.
    pub(super) fn over(&mut self, moment: &Moment) {
        if let Some(key) = &moment.key {
            self.paces.remove(key);
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
