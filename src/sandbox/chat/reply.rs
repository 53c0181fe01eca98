//! The answer in the protocol's words, whole.

use serde::Serialize;

use crate::sandbox::answer::Turn;
use crate::sandbox::ledger::unix_ms;

/// A token of the sandbox, in bytes of text: close to what tokenisers make of English.
const TOKEN_BYTES: usize = 4;
/// What the protocol adds to each message, in tokens.
const TOKENS_PER_MESSAGE: u64 = 4;

#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: u64,
    pub(super) completion_tokens: u64,
    pub(super) total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct PromptDetails {
    cached_tokens: u64,
    audio_tokens: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
#[expect(clippy::struct_field_names, reason = "the protocol's names")]
struct CompletionDetails {
    reasoning_tokens: u64,
    audio_tokens: u64,
    accepted_prediction_tokens: u64,
    rejected_prediction_tokens: u64,
}

/// What is said about one answer, streamed or not.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    pub(super) id: String,
    pub(super) created: u64,
    pub(super) model: &'a str,
    pub(super) text: String,
    pub(super) finish_reason: &'static str,
    pub(super) usage: Usage,
}

/// An answer, cut where its limit ends.
#[derive(Debug)]
pub(in crate::sandbox) struct Cut {
    pub(in crate::sandbox) text: String,
    pub(in crate::sandbox) shortened: bool,
    pub(in crate::sandbox) tokens: u64,
}

impl Cut {
    pub(in crate::sandbox) fn new(answer: &str, max_tokens: Option<u64>) -> Self {
        let allowed = max_tokens
            .and_then(|tokens| usize::try_from(tokens).ok()?.checked_mul(TOKEN_BYTES))
            .unwrap_or(usize::MAX);
        let text = &answer[..answer.floor_char_boundary(allowed)];
        Self { text: text.to_owned(), shortened: text.len() < answer.len(), tokens: tokens(text) }
    }
}

pub(super) const FINGERPRINT: &str = "fp_sandbox";
pub(super) const SERVICE_TIER: &str = "default";

impl<'a> Reply<'a> {
    /// Cuts `answer` where `max_tokens` ends.
    pub(super) fn new(
        id: &str,
        model: &'a str,
        answer: &str,
        prompt_tokens: u64,
        max_tokens: Option<u64>,
    ) -> Self {
        let Cut { text, shortened, tokens: completion_tokens } = Cut::new(answer, max_tokens);
        Self {
            id: format!("chatcmpl-{id}"),
            created: unix_ms() / 1_000,
            model,
            text,
            finish_reason: if shortened { "length" } else { "stop" },
            usage: Usage {
                prompt_tokens,
                completion_tokens,
                total_tokens: prompt_tokens + completion_tokens,
                prompt_tokens_details: PromptDetails::default(),
                completion_tokens_details: CompletionDetails::default(),
            },
        }
    }

    pub(super) fn completion(&self) -> Completion<'_> {
        Completion {
            id: &self.id,
            object: "chat.completion",
            created: self.created,
            model: self.model,
            choices: [Choice {
                index: 0,
                message: Message { role: "assistant", content: &self.text, refusal: None, annotations: [] },
                logprobs: None,
                finish_reason: self.finish_reason,
            }],
            usage: self.usage,
            service_tier: SERVICE_TIER,
            system_fingerprint: FINGERPRINT,
        }
    }
}

/// `chat.completion`.
#[derive(Debug, Serialize)]
pub(super) struct Completion<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    choices: [Choice<'a>; 1],
    usage: Usage,
    service_tier: &'static str,
    system_fingerprint: &'static str,
}

#[derive(Debug, Serialize)]
struct Choice<'a> {
    index: u32,
    message: Message<'a>,
    logprobs: Option<()>,
    finish_reason: &'static str,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
    refusal: Option<()>,
    annotations: [(); 0],
}

pub(in crate::sandbox) fn prompt_tokens(turns: &[Turn<'_>]) -> u64 {
    turns.iter().map(|turn| tokens(turn.text) + TOKENS_PER_MESSAGE).sum()
}

fn tokens(text: &str) -> u64 {
    text.len().div_ceil(TOKEN_BYTES) as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn max_tokens_ends_the_answer_on_a_whole_character() {
        let whole = Reply::new("1", "m", "Grüße!", 10, Some(2));
        assert_eq!((whole.text.as_str(), whole.finish_reason), ("Grüße!", "stop"));
        let short = Reply::new("1", "m", "abcüß", 10, Some(1));
        assert_eq!((short.text.as_str(), short.finish_reason), ("abc", "length"), "ü does not fit");
        assert_eq!((short.usage.completion_tokens, short.usage.total_tokens), (1, 11));
    }
}
