//! What came of it.

use serde_json::Value;
use throughline_actors::{
    model::{
        client::{Generated, Record},
        cost::{self, Total},
    },
    ports::model::ToolCall,
};
use throughline_schemas::{
    FinishReason, Usage, Usd,
    event::generation::{Attempt, Route, Window},
};

/// An answer, and how it came about.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// What the model said.
    pub text: String,
    /// What it thought before, where the provider passes it on.
    pub reasoning: Option<String>,
    /// Tools that it wants to be called.
    pub tool_calls: Vec<ToolCall>,
    /// Why it stopped. [`FinishReason::Length`]: the answer is cut.
    pub finish_reason: FinishReason,
    /// The model's name in the configuration.
    pub model: String,
    /// Its provider's name in the configuration.
    pub provider: String,
    /// The model, as the provider named it.
    pub provider_model: String,
    /// Tokens of the answering call, if they were reported.
    pub usage: Option<Usage>,
    /// What all attempts cost together, as far as that is known; `None` if nothing is known of it.
    pub cost_usd: Option<Usd>,
    /// Whether an attempt was or may have been charged for, and how much is not known.
    pub cost_is_partial: bool,
    /// Which models might have been asked, and why these.
    pub route: Route,
    /// Every attempt, in order; the last one is the answer's.
    pub attempts: Vec<Attempt>,
    /// How the prompt was made to fit the model's window; `None` if there was nothing to do.
    pub window: Option<Window>,
    /// The provider's answer as it came.
    pub raw: Value,
}

impl Answer {
    pub(super) fn of(generated: Generated) -> Self {
        let Generated { answer, target, sent, record: Record { route, attempts } } = generated;
        let Total { known, is_partial } = cost::total(&attempts);
        Self {
            text: answer.text,
            reasoning: answer.reasoning,
            tool_calls: answer.tool_calls,
            finish_reason: answer.finish_reason,
            model: target.name,
            provider: target.provider,
            provider_model: answer.model,
            usage: answer.usage,
            cost_usd: known,
            cost_is_partial: is_partial,
            route,
            attempts,
            window: sent.window,
            raw: answer.raw,
        }
    }
}
