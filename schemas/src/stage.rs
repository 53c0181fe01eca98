//! The stages of the workflow, and in one table what each of them consumes, publishes and decides.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::EventType;

/// The five stages of the workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StageName {
    /// Validates and admits user input into its session's order.
    Input,
    /// Reads preferences and recent turns.
    Context,
    /// Fetches external data.
    External,
    /// Asks the model.
    Generation,
    /// Stores the interaction.
    Persistence,
}

/// What a stage does in the workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageDefinition {
    /// Which one.
    pub stage: StageName,
    /// The name used in configuration, metrics and consumer names.
    pub name: &'static str,
    /// The events that it is given.
    pub consumes: EventType,
    /// The event that it publishes when all goes well. (Each may publish `workflow_failed` instead.)
    pub publishes: EventType,
    /// Whether work under way stops for a hint that its turn was interrupted.
    pub stops_for_interruptions: bool,
}

impl StageDefinition {
    /// Whether the workflow is over once it has published.
    pub fn ends_workflow(&self) -> bool {
        self.publishes.is_end()
    }
}

/// The workflow: its stages in the order of an event's journey.
pub const STAGES: [StageDefinition; 5] = [
    StageDefinition {
        stage: StageName::Input,
        name: "input",
        consumes: EventType::UserInputReceived,
        publishes: EventType::InputValidated,
        stops_for_interruptions: true,
    },
    StageDefinition {
        stage: StageName::Context,
        name: "context",
        consumes: EventType::InputValidated,
        publishes: EventType::ContextRetrieved,
        stops_for_interruptions: true,
    },
    StageDefinition {
        stage: StageName::External,
        name: "external",
        consumes: EventType::ContextRetrieved,
        publishes: EventType::ExternalDataFetched,
        stops_for_interruptions: true,
    },
    StageDefinition {
        stage: StageName::Generation,
        name: "generation",
        consumes: EventType::ExternalDataFetched,
        publishes: EventType::ResponseGenerated,
        stops_for_interruptions: true,
    },
    StageDefinition {
        stage: StageName::Persistence,
        name: "persistence",
        consumes: EventType::ResponseGenerated,
        publishes: EventType::InteractionSaved,
        // The database decides what becomes of an answer, and the session's next turn has to be released.
        stops_for_interruptions: false,
    },
];

impl StageName {
    /// All stages, in the order of an event's journey.
    pub const ALL: [Self; STAGES.len()] = {
        let mut all = [Self::Input; STAGES.len()];
        let mut at = 0;
        while at < all.len() {
            all[at] = STAGES[at].stage;
            at += 1;
        }
        all
    };

    /// What it does in the workflow.
    pub const fn definition(self) -> &'static StageDefinition {
        // The table has the order of the variants; a test says so.
        &STAGES[self as usize]
    }

    /// The name used in configuration, metrics and consumer names.
    pub const fn as_str(self) -> &'static str {
        self.definition().name
    }

    /// The type of the events that it is given.
    pub const fn consumes(self) -> EventType {
        self.definition().consumes
    }

    /// The type of the event that it publishes when all goes well.
    pub const fn publishes(self) -> EventType {
        self.definition().publishes
    }

    /// The stage that is given events of a type; none is given an end.
    pub fn consumer_of(event_type: EventType) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.consumes() == event_type)
    }

    /// The stage that publishes events of a type when all goes well.
    pub fn publisher_of(event_type: EventType) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.publishes() == event_type)
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown stage {name:?}; the stages are {}", StageName::ALL.map(StageName::as_str).join(", "), name = .0)]
pub struct UnknownStage(pub String);

impl FromStr for StageName {
    type Err = UnknownStage;

    fn from_str(name: &str) -> Result<Self, UnknownStage> {
        Self::ALL
            .into_iter()
            .find(|stage| stage.as_str() == name)
            .ok_or_else(|| UnknownStage(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_journey_of_an_event() {
        for (at, definition) in STAGES.iter().enumerate() {
            assert_eq!(definition.stage.definition(), definition);
            assert_eq!(StageName::ALL.get(at), Some(&definition.stage));
            assert_eq!(definition.name.parse(), Ok(definition.stage));
            // Each takes up what the one before it has published, and only the last one ends the workflow.
            assert_eq!(STAGES.get(at + 1).map(|next| next.consumes), {
                (!definition.ends_workflow()).then_some(definition.publishes)
            });
        }
        assert_eq!(STAGES[0].consumes, EventType::UserInputReceived);
    }

    #[test]
    fn every_type_but_the_ends_has_one_stage_that_is_given_it() {
        for event_type in EventType::ALL {
            assert_eq!(StageName::consumer_of(event_type).is_none(), event_type.is_end(), "{event_type}");
        }
        assert_eq!(StageName::publisher_of(EventType::UserInputReceived), None, "people publish it");
        assert_eq!(StageName::publisher_of(EventType::WorkflowFailed), None, "every stage publishes it");
    }

    #[test]
    fn an_unknown_stage_is_told_the_stages() {
        let told = "outpt".parse::<StageName>().map_err(|error| error.to_string());
        let words =
            "unknown stage \"outpt\"; the stages are input, context, external, generation, persistence";
        assert_eq!(told, Err(words.to_owned()));
    }
}
