//! Puts the events of one workflow together while reading a stream in which they are interleaved.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::Moment;

/// Workflows that may be open at once; beyond it the oldest is given out as it is. Bounds memory at about a
/// kilobyte each.
const MAX_OPEN: usize = 10_000;

/// Workflows whose end has not been read yet.
#[derive(Debug, Default)]
pub(in crate::cli) struct Groups {
    open: HashMap<String, Vec<Moment>>,
    /// The same, oldest first; may name workflows that are closed by now.
    order: VecDeque<String>,
    /// Inputs whose workflow is told by the `input_validated` that names their sequence.
    orphans: BTreeMap<u64, Moment>,
}

impl Groups {
    /// Takes the next moment; gives out workflows that are complete with it.
    pub(in crate::cli) fn add(&mut self, moment: Moment) -> Vec<Vec<Moment>> {
        let mut done = Vec::new();
        let Some(key) = moment.key.clone() else {
            self.orphans.insert(moment.sequence, moment);
            if self.orphans.len() > MAX_OPEN {
                done.extend(self.orphans.pop_first().map(|(_, orphan)| vec![orphan]));
            }
            return done;
        };
        let claimed = moment.input_sequence.and_then(|sequence| self.orphans.remove(&sequence));
        let ended = moment.is_end;
        let order = &mut self.order;
        let group = self.open.entry(key.clone()).or_insert_with(|| {
            order.push_back(key.clone());
            Vec::new()
        });
        group.extend(claimed);
        group.push(moment);
        if ended {
            done.extend(self.take(&key));
        }
        while self.open.len() > MAX_OPEN {
            let Some(oldest) = self.order.pop_front() else { break };
            done.extend(self.take(&oldest));
        }
        if self.order.len() > 2 * MAX_OPEN {
            self.order.retain(|key| self.open.contains_key(key));
        }
        done
    }

    /// Gives out what is open, oldest first.
    pub(in crate::cli) fn finish(mut self) -> Vec<Vec<Moment>> {
        let mut rest: Vec<Vec<Moment>> = self.open.drain().map(|(_, group)| sorted(group)).collect();
        rest.extend(self.orphans.into_values().map(|orphan| vec![orphan]));
        rest.sort_by_key(|group| group.first().map(|moment| moment.sequence));
        rest
    }

    fn take(&mut self, key: &str) -> Option<Vec<Moment>> {
        self.open.remove(key).map(sorted)
    }
}

fn sorted(mut group: Vec<Moment>) -> Vec<Moment> {
    group.sort_by_key(|moment| moment.sequence);
    group
}
