//! The closed set of events, and what each of them carries.
//!
//! An event carries what the next stage needs, so any worker can take any event.

pub mod context;
pub mod error_detail;
pub mod external;
pub mod generation;
pub mod input;
pub mod persistence;
pub mod redo;

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::failure::WorkflowFailed;
pub use context::ContextRetrieved;
pub use error_detail::ErrorDetail;
pub use external::ExternalDataFetched;
pub use generation::ResponseGenerated;
use input::Request;
pub use input::{InputValidated, UserInputReceived};
pub use persistence::InteractionSaved;
pub use redo::Redo;

/// The type of an event, as it stands in subjects and envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    /// A user said something.
    UserInputReceived,
    /// Accepted, normalised, admitted into its session's order.
    InputValidated,
    /// Preferences and recent turns.
    ContextRetrieved,
    /// What each source answered, or why it did not.
    ExternalDataFetched,
    /// The answer, with every attempt made.
    ResponseGenerated,
    /// Stored; the workflow is complete.
    InteractionSaved,
    /// A typed failure; the workflow is over.
    WorkflowFailed,
}

impl EventType {
    /// All types, in the order of the journey.
    pub const ALL: [Self; 7] = [
        Self::UserInputReceived,
        Self::InputValidated,
        Self::ContextRetrieved,
        Self::ExternalDataFetched,
        Self::ResponseGenerated,
        Self::InteractionSaved,
        Self::WorkflowFailed,
    ];

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserInputReceived => "user_input_received",
            Self::InputValidated => "input_validated",
            Self::ContextRetrieved => "context_retrieved",
            Self::ExternalDataFetched => "external_data_fetched",
            Self::ResponseGenerated => "response_generated",
            Self::InteractionSaved => "interaction_saved",
            Self::WorkflowFailed => "workflow_failed",
        }
    }

    /// The types of events with which a workflow ends.
    pub fn ends() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|event_type| event_type.is_end())
    }

    /// Whether a workflow may have several events of this type, one for each step. Those of version 1 so far it has once.
    pub fn has_steps(self) -> bool {
        match self {
            Self::UserInputReceived
            | Self::InputValidated
            | Self::ContextRetrieved
            | Self::ExternalDataFetched
            | Self::ResponseGenerated
            | Self::InteractionSaved
            | Self::WorkflowFailed => false,
        }
    }

    /// Whether a workflow ends with this event.
    pub fn is_end(self) -> bool {
        matches!(self, Self::InteractionSaved | Self::WorkflowFailed)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown event type {0:?}")]
pub struct UnknownEventType(pub String);

impl FromStr for EventType {
    type Err = UnknownEventType;

    fn from_str(name: &str) -> Result<Self, UnknownEventType> {
        Self::ALL.into_iter().find(|t| t.as_str() == name).ok_or_else(|| UnknownEventType(name.to_owned()))
    }
}

/// The data of an event, one variant per type.
#[derive(Debug, Clone, PartialEq)]
pub enum EventData {
    /// See [`UserInputReceived`].
    UserInputReceived(UserInputReceived),
    /// See [`InputValidated`].
    InputValidated(InputValidated),
    /// See [`ContextRetrieved`].
    ContextRetrieved(ContextRetrieved),
    /// See [`ExternalDataFetched`].
    ExternalDataFetched(ExternalDataFetched),
    /// See [`ResponseGenerated`].
    ResponseGenerated(Box<ResponseGenerated>),
    /// See [`InteractionSaved`].
    InteractionSaved(InteractionSaved),
    /// See [`WorkflowFailed`].
    WorkflowFailed(WorkflowFailed),
}

impl EventData {
    /// The validated request, where the event carries it: from `input_validated` to `response_generated`.
    pub fn request(&self) -> Option<&Request> {
        match self {
            Self::InputValidated(data) => Some(&data.request),
            Self::ContextRetrieved(data) => Some(&data.request),
            Self::ExternalDataFetched(data) => Some(&data.request),
            Self::ResponseGenerated(data) => Some(&data.request),
            Self::UserInputReceived(_) | Self::InteractionSaved(_) | Self::WorkflowFailed(_) => None,
        }
    }

    /// The same, to be changed.
    pub fn request_mut(&mut self) -> Option<&mut Request> {
        match self {
            Self::InputValidated(data) => Some(&mut data.request),
            Self::ContextRetrieved(data) => Some(&mut data.request),
            Self::ExternalDataFetched(data) => Some(&mut data.request),
            Self::ResponseGenerated(data) => Some(&mut data.request),
            Self::UserInputReceived(_) | Self::InteractionSaved(_) | Self::WorkflowFailed(_) => None,
        }
    }

    /// The type whose data this is.
    pub fn event_type(&self) -> EventType {
        match self {
            Self::UserInputReceived(_) => EventType::UserInputReceived,
            Self::InputValidated(_) => EventType::InputValidated,
            Self::ContextRetrieved(_) => EventType::ContextRetrieved,
            Self::ExternalDataFetched(_) => EventType::ExternalDataFetched,
            Self::ResponseGenerated(_) => EventType::ResponseGenerated,
            Self::InteractionSaved(_) => EventType::InteractionSaved,
            Self::WorkflowFailed(_) => EventType::WorkflowFailed,
        }
    }
}
