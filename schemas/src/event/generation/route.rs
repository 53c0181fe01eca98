//! Why which models were asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How demanding a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Complexity {
    /// Small talk, a single fact.
    Simple,
    /// Between the two.
    Moderate,
    /// Several facts, reasoning, a long text.
    Complex,
}

impl Complexity {
    /// The name in configuration, metrics and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Moderate => "moderate",
            Self::Complex => "complex",
        }
    }
}

/// What chose the models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum ChosenBy {
    /// No rules are configured: the model of the configuration.
    Default,
    /// A rule of the configuration.
    Rule {
        /// Its name.
        rule: String,
    },
    /// Rules are configured, and none of them matched.
    NoRule,
    /// The request names the model, and may.
    RequestedModel,
    /// The request names its complexity, and may.
    RequestedComplexity,
    /// A choice of a later version; never written.
    #[serde(other)]
    Unrecognised,
}

/// The models that may be asked, and why these.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Route {
    /// Names of the models in the configuration, in the order in which they are asked.
    pub models: Vec<String>,
    /// What chose them.
    pub chosen: ChosenBy,
    /// How demanding the request was taken to be; absent where nobody asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub complexity: Option<Complexity>,
}
