//! Making a prompt fit one model.

use std::sync::Arc;

use throughline_schemas::event::generation::{Message, Role, Window};

use super::{GenerationError, GenerationRequest, Model, ModelClient, ModelTarget, OlderTurns, Sent};
use crate::{
    model::prompt::delimited_json,
    policy::{
        summary::{Said, extract},
        window::{Parts, first_kept, message_tokens, most_tokens, prompt_tokens},
    },
};

/// Longest summary of earlier turns, in tokens; it also takes at most half of the room for earlier turns.
const MAX_SUMMARY_TOKENS: u64 = 400;
/// Characters of English text in a token, about: where the search for a summary that fits begins.
const CHARS_PER_TOKEN: u64 = 4;
/// What the block of a summary is called.
pub(crate) const EARLIER_TURNS: &str = "earlier_turns";
/// A summary of fewer characters says nothing.
const MIN_SUMMARY_CHARS: usize = 20;

/// A prompt that fits.
#[derive(Debug, Clone)]
pub(super) struct Fitted {
    pub(super) sent: Sent,
    /// Tokens of the prompt, where they were counted.
    pub(super) tokens: Option<u64>,
}

/// A prompt from which turns have to be left out.
pub(super) struct TooLong<'a> {
    pub(super) request: &'a GenerationRequest,
    max_tokens: u32,
    /// The turns that go.
    pub(super) leaving: Vec<Message>,
    first_turn: usize,
    first_kept: usize,
    dropped: usize,
    /// Room for a summary, in tokens.
    pub(super) summary_tokens: u64,
}

/// What fitting came to.
pub(super) enum Fit<'a> {
    /// Nothing has to be left out.
    Whole(Fitted),
    /// Something has.
    TooLong(TooLong<'a>),
}

impl ModelClient {
    /// Whether the tokens of a request to this model matter.
    pub(super) fn counts_tokens(&self, model: &Model) -> bool {
        let recorded = self.collaborators.recorded_gates.as_ref();
        let ModelTarget { provider, model: name, .. } = &model.target;
        let recorded = recorded.and_then(|recorded| recorded.counts_tokens(provider, name));
        recorded.unwrap_or_else(|| model.limits.count_tokens())
    }

    /// Finds out what has to be left out of a prompt for a model, if anything.
    pub(super) fn fit<'a>(
        &self,
        model: &Model,
        request: &'a GenerationRequest,
    ) -> Result<Fit<'a>, GenerationError> {
        let target = &model.target;
        let max_tokens = target.max_output_tokens.unwrap_or(u32::MAX).min(request.sampling.max_tokens);
        let tokenizer = self.tokenizer.as_ref();
        let whole = |counted: Option<(u64, bool)>| {
            let window = counted.map(|(tokens, estimated)| Window {
                prompt_tokens: Some(tokens),
                estimated,
                context_tokens: target.context_tokens,
                ..Window::default()
            });
            let sent = Sent { messages: Arc::clone(&request.messages), max_tokens, window };
            Ok(Fit::Whole(Fitted { sent, tokens: counted.map(|(tokens, _)| tokens) }))
        };
        let room = target.context_tokens.map(|window| u64::from(window.saturating_sub(max_tokens)));
        let fits_for_sure = room.is_none_or(|room| most_tokens(&request.messages) <= room);
        if fits_for_sure && !self.counts_tokens(model) {
            return whole(None);
        }
        let total = prompt_tokens(tokenizer, &target.model, &request.messages);
        let (Some(room), Some(window)) = (room, target.context_tokens) else {
            return whole(Some((total.tokens, total.estimated)));
        };
        if total.tokens <= room {
            return whole(Some((total.tokens, total.estimated)));
        }
        let turns = Parts::of(&request.messages).turns;
        let tokens: Vec<u64> = turns
            .iter()
            .map(|turn| {
                let messages = request.messages.get(turn.clone()).unwrap_or_default();
                messages.iter().map(|message| message_tokens(tokenizer, &target.model, message).tokens).sum()
            })
            .collect();
        let needed = total.tokens.saturating_sub(tokens.iter().sum());
        let Some(for_turns) = room.checked_sub(needed) else {
            return Err(GenerationError::DoesNotFit { needed, answer: max_tokens, window });
        };
        let summary_tokens = match self.settings.older_turns {
            OlderTurns::Drop => 0,
            OlderTurns::Extract | OlderTurns::Summarise(_) => MAX_SUMMARY_TOKENS.min(for_turns / 2),
        };
        let kept = first_kept(&tokens, for_turns - summary_tokens);
        let first_turn = turns.first().map_or(0, |turn| turn.start);
        let first_kept =
            kept.checked_sub(1).and_then(|last| turns.get(last)).map_or(first_turn, |turn| turn.end);
        let leaving = request.messages.get(first_turn..first_kept).unwrap_or_default();
        let leaving = leaving.iter().filter(|message| message.role != Role::System).cloned().collect();
        Ok(Fit::TooLong(TooLong {
            request,
            max_tokens,
            leaving,
            first_turn,
            first_kept,
            dropped: kept,
            summary_tokens,
        }))
    }

    /// The prompt without the turns that go, with a summary of them if there is one.
    pub(super) fn shorten(&self, model: &Model, long: &TooLong<'_>, summary: Option<Message>) -> Fitted {
        let messages = &long.request.messages;
        let gone = long.first_turn..long.first_kept;
        let mut kept: Vec<Message> = messages
            .iter()
            .enumerate()
            // Instructions between turns stay.
            .filter(|(at, message)| !gone.contains(at) || message.role == Role::System)
            .map(|(_, message)| message.clone())
            .collect();
        let turns = u32::try_from(long.dropped).unwrap_or(u32::MAX);
        let (dropped_turns, summarised_turns) = if summary.is_some() { (0, turns) } else { (turns, 0) };
        if let Some(summary) = summary {
            kept.insert(long.first_turn.min(kept.len()), summary);
        }
        let total = prompt_tokens(self.tokenizer.as_ref(), &model.target.model, &kept);
        let window = Window {
            prompt_tokens: Some(total.tokens),
            estimated: total.estimated,
            context_tokens: model.target.context_tokens,
            dropped_turns,
            summarised_turns,
        };
        let sent = Sent { messages: Arc::new(kept), max_tokens: long.max_tokens, window: Some(window) };
        Fitted { sent, tokens: Some(total.tokens) }
    }

    /// A summary of the turns that go, taken from them; `None` if there is no room for one that says anything.
    pub(super) fn extract(&self, model: &Model, long: &TooLong<'_>) -> Option<Message> {
        let said: Vec<Said<'_>> =
            long.leaving.iter().map(|one| Said { who: speaker(one.role), text: &one.content }).collect();
        let mut chars = usize::try_from(long.summary_tokens * CHARS_PER_TOKEN).unwrap_or(usize::MAX);
        while chars >= MIN_SUMMARY_CHARS {
            let text = extract(&said, chars);
            if text.is_empty() {
                return None;
            }
            if let Some(message) = self.summary_message(model, long, &text) {
                return Some(message);
            }
            chars = chars / 4 * 3;
        }
        None
    }

    /// A summary as a message, if it fits.
    pub(super) fn summary_message(&self, model: &Model, long: &TooLong<'_>, text: &str) -> Option<Message> {
        let message = Message {
            role: Role::User,
            content: long.request.tag.enclose(EARLIER_TURNS, &delimited_json(&text)),
        };
        let tokens = message_tokens(self.tokenizer.as_ref(), &model.target.model, &message).tokens;
        (tokens <= long.summary_tokens).then_some(message)
    }
}

pub(super) fn speaker(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
    }
}
