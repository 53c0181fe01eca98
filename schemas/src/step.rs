//! Which event of a workflow: its type, and for types of which a workflow may have several, the path of the step.

use std::{fmt, str::FromStr};

use serde::Deserialize;

use crate::EventType;

/// Longest name of a step, in characters.
pub const MAX_STEP_NAME: usize = 32;

/// Where in a workflow an event belongs: nothing, a step, or an item of a step. As text the parts have a point between them:
/// `draft`, `draft-2` (its second round), `draft-2.7` (item 7 of that round).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct StepPath(String);

impl TryFrom<String> for StepPath {
    type Error = StepPathError;
    fn try_from(text: String) -> Result<Self, StepPathError> {
        text.parse()
    }
}

/// The text is not the path of a step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "step path {0:?} must be a name of 1 to {MAX_STEP_NAME} characters of a-z, 0-9 and _, then -ROUND from the second \
     round on, then .ITEM for an item"
)]
pub struct StepPathError(pub String);

impl StepPath {
    /// The path of events of which a workflow has one.
    pub const NONE: Self = Self(String::new());

    /// A step in a round; rounds count from 1.
    pub fn new(step: &str, round: u32) -> Result<Self, StepPathError> {
        match round {
            0 | 1 => step.parse(),
            later => format!("{step}-{later}").parse(),
        }
    }

    /// An item of this step, or of another item's step.
    #[must_use]
    pub fn item(&self, item: u32) -> Self {
        let step = self.0.split('.').next().unwrap_or_default();
        Self(format!("{step}.{item}"))
    }

    /// Whether it names no step.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }

    /// As text; empty if it names no step.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Digits as a program writes a number, so that there is one path for each round and item.
fn is_number(digits: &str, least: u32) -> bool {
    digits.parse::<u32>().is_ok_and(|number| number >= least && number.to_string() == digits)
}

impl FromStr for StepPath {
    type Err = StepPathError;

    /// Reads the path of a step; an empty text is not one.
    fn from_str(text: &str) -> Result<Self, StepPathError> {
        let (step, item) = text.split_once('.').map_or((text, None), |(step, item)| (step, Some(item)));
        let (name, round) = step.split_once('-').map_or((step, None), |(name, round)| (name, Some(round)));
        let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        let good = plain
            && (1..=MAX_STEP_NAME).contains(&name.len())
            && round.is_none_or(|round| is_number(round, 2))
            && item.is_none_or(|item| is_number(item, 0));
        if good { Ok(Self(text.to_owned())) } else { Err(StepPathError(text.to_owned())) }
    }
}

/// What is unique in a workflow: a workflow has one event of each key. In ids it is `{event type}`, or
/// `{event type}.{step path}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey {
    /// The type.
    pub event_type: EventType,
    /// The step, for a type of which a workflow may have several events.
    pub step: StepPath,
}

impl EventKey {
    /// The event of a step.
    pub fn of_step(event_type: EventType, step: StepPath) -> Self {
        Self { event_type, step }
    }
}

impl From<EventType> for EventKey {
    /// The one event of a type.
    fn from(event_type: EventType) -> Self {
        Self { event_type, step: StepPath::NONE }
    }
}

impl fmt::Display for EventKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step.as_str() {
            "" => write!(f, "{}", self.event_type),
            step => write!(f, "{}.{step}", self.event_type),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_path_reads_back_and_each_round_and_item_has_one() {
        let draft = StepPath::new("draft", 1).unwrap();
        for (path, text) in [
            (draft.clone(), "draft"),
            (StepPath::new("draft", 2).unwrap(), "draft-2"),
            (draft.item(0), "draft.0"),
            (draft.item(7).item(8), "draft.8"),
            (StepPath::new("a_1", 10).unwrap().item(499), "a_1-10.499"),
        ] {
            assert_eq!(path.as_str(), text);
            assert_eq!(text.parse(), Ok(path));
        }
    }

    #[test]
    fn nothing_that_could_be_another_subject_or_another_name_of_a_step_is_a_path() {
        let long = "x".repeat(MAX_STEP_NAME + 1);
        for bad in [
            "",
            "Draft",
            "a b",
            "*",
            ">",
            "draft-1",
            "draft-02",
            "draft-x",
            "draft-",
            "draft.",
            "draft.01",
            "draft.x",
            "draft.1.2",
            ".1",
            "-2",
            "ä",
            "draft-4294967296",
            &long,
        ] {
            assert_eq!(bad.parse::<StepPath>(), Err(StepPathError(bad.to_owned())));
        }
    }

    #[test]
    fn the_key_of_a_type_without_steps_is_its_name() {
        assert_eq!(EventKey::from(EventType::ContextRetrieved).to_string(), "context_retrieved");
        let of_step = EventKey::of_step(EventType::ResponseGenerated, "draft-2".parse().unwrap());
        assert_eq!(of_step.to_string(), "response_generated.draft-2");
        assert!(EventKey::from(EventType::ResponseGenerated) < of_step);
    }
}
