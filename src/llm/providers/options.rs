//! How requests to certain models differ.

use std::collections::HashMap;

use super::ProviderKind;

/// How requests to one model differ from what its protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelOptions {
    /// What the limit on the answer is called. Only `OpenAI`'s protocol has more than one name.
    pub max_tokens_field: MaxTokensField,
    /// Whether `temperature` and `top_p` are sent; some reasoning models refuse them.
    pub send_temperature: bool,
}

/// The name of the limit on the answer, in `OpenAI`'s protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MaxTokensField {
    /// `max_tokens`, which every compatible server knows.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`, which `OpenAI`'s reasoning models insist on.
    MaxCompletionTokens,
}

impl Default for ModelOptions {
    /// `max_tokens`, and sampling parameters are sent.
    fn default() -> Self {
        Self { max_tokens_field: MaxTokensField::MaxTokens, send_temperature: true }
    }
}

/// How the names of `OpenAI`'s reasoning models begin, as of November 2025.
const OPENAI_REASONING: [&str; 4] = ["o1", "o3", "o4", "gpt-5"];

impl ModelOptions {
    /// What a model is known to need: `OpenAI`'s reasoning models (`o1`, `o3`, `o4`, `gpt-5`) refuse `max_tokens` and
    /// sampling parameters.
    pub fn usual(kind: ProviderKind, model: &str) -> Self {
        let is_reasoning = OPENAI_REASONING.iter().any(|family| {
            model.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '.']))
        });
        if kind == ProviderKind::OpenAi && is_reasoning {
            Self { max_tokens_field: MaxTokensField::MaxCompletionTokens, send_temperature: false }
        } else {
            Self::default()
        }
    }
}

/// The options of one provider's models.
#[derive(Debug)]
pub(super) struct OptionsByModel {
    pub kind: ProviderKind,
    pub configured: HashMap<String, ModelOptions>,
}

impl OptionsByModel {
    pub(super) fn of(&self, model: &str) -> ModelOptions {
        self.configured.get(model).copied().unwrap_or_else(|| ModelOptions::usual(self.kind, model))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_models_are_known_unless_configured_otherwise() {
        let is_usual = |kind, model| ModelOptions::usual(kind, model) == ModelOptions::default();
        for model in ["o1", "o3-mini", "o4-mini-2025-04-16", "gpt-5", "gpt-5-nano", "gpt-5.1"] {
            assert!(!is_usual(ProviderKind::OpenAi, model), "{model}");
            assert!(is_usual(ProviderKind::Anthropic, model), "{model}");
        }
        for model in ["gpt-4o", "o10", "olmo", "gpt-50", "openai/o1"] {
            assert!(is_usual(ProviderKind::OpenAi, model), "{model}");
        }
        let options = OptionsByModel {
            kind: ProviderKind::OpenAi,
            configured: HashMap::from([("o1".to_owned(), ModelOptions::default())]),
        };
        assert_eq!(options.of("o1"), ModelOptions::default());
        assert_ne!(options.of("o3"), ModelOptions::default());
    }
}
