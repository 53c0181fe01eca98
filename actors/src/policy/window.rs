//! Making a prompt fit a model's window: which parts are kept, and which of the earlier turns go.
//!
//! Kept are system messages and everything after the model's last answer: the data and the user's own words. Between
//! them are the earlier turns, of which the newest are kept as far as there is room.

use std::ops::Range;

use throughline_schemas::event::generation::{Message, Role};

use crate::ports::tokenizer::{TokenCount, Tokenizer};

/// Tokens that frame one message, beside its role and its content; and those that begin the answer. Source:
/// <https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken>, checked against what providers counted.
const PER_MESSAGE: u64 = 3;
const BEGINNING: u64 = 3;
/// Every role is one token.
const ROLE: u64 = 1;

/// Tokens of a prompt, as a chat model counts them.
pub fn prompt_tokens(tokenizer: &dyn Tokenizer, model: &str, messages: &[Message]) -> TokenCount {
    messages.iter().fold(TokenCount { tokens: BEGINNING, estimated: false }, |sum, message| {
        let one = message_tokens(tokenizer, model, message);
        TokenCount { tokens: sum.tokens + one.tokens, estimated: sum.estimated || one.estimated }
    })
}

/// Tokens that one message adds to a prompt.
pub fn message_tokens(tokenizer: &dyn Tokenizer, model: &str, message: &Message) -> TokenCount {
    let content = tokenizer.count(model, &message.content);
    TokenCount { tokens: content.tokens + PER_MESSAGE + ROLE, ..content }
}

/// Tokens that a prompt has at most, without counting: no token is shorter than a byte.
pub fn most_tokens(messages: &[Message]) -> u64 {
    let of = |message: &Message| message.content.len() as u64 + PER_MESSAGE + ROLE;
    messages.iter().map(of).sum::<u64>() + BEGINNING
}

/// The parts of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Earlier turns, the oldest first: each the messages of the user and the model's answer to them.
    pub turns: Vec<Range<usize>>,
}

impl Parts {
    /// Finds the earlier turns.
    pub fn of(messages: &[Message]) -> Self {
        let mut turns = Vec::new();
        let mut start = None;
        for (at, message) in messages.iter().enumerate() {
            match message.role {
                Role::System => start = None,
                Role::User => start = start.or(Some(at)),
                Role::Assistant => {
                    let begins = start.take().unwrap_or(at);
                    // An answer in two messages is one answer.
                    match turns.last_mut() {
                        Some(last @ Range { .. }) if last.end == begins && begins == at => last.end = at + 1,
                        Some(_) | None => turns.push(begins..at + 1),
                    }
                }
            }
        }
        Self { turns }
    }
}

/// Which of the turns stay, given the tokens of each, oldest first, and the room there is: the newest ones.
pub fn first_kept(turn_tokens: &[u64], room: u64) -> usize {
    let mut left = room;
    let dropped = turn_tokens.iter().rposition(|tokens| {
        let fits = *tokens <= left;
        left = left.saturating_sub(*tokens);
        !fits
    });
    dropped.map_or(0, |dropped| dropped + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::tokenizer::FourBytes;

    fn said(role: Role, content: &str) -> Message {
        Message { role, content: content.to_owned() }
    }

    #[test]
    fn turns_are_what_stands_between_the_instructions_and_the_last_answer() {
        let messages = [
            said(Role::System, "be brief"),
            said(Role::User, "a"),
            said(Role::Assistant, "b"),
            said(Role::User, "data"),
            said(Role::User, "c"),
            said(Role::Assistant, "d"),
            said(Role::Assistant, "e"),
            said(Role::User, "data"),
            said(Role::User, "question"),
        ];
        assert_eq!(Parts::of(&messages).turns, [1..3, 3..7]);
        assert!(Parts::of(&messages[..1]).turns.is_empty());
        assert!(Parts::of(&messages[7..]).turns.is_empty(), "a prompt without answers has no earlier turns");
        assert_eq!(Parts::of(&messages[2..]).turns, [0..1, 1..5]);
    }

    #[test]
    fn the_newest_turns_stay() {
        assert_eq!(first_kept(&[10, 20, 30], 60), 0);
        assert_eq!(first_kept(&[10, 20, 30], 59), 1);
        assert_eq!(first_kept(&[10, 20, 30], 49), 2);
        assert_eq!(first_kept(&[10, 20, 30], 29), 3);
        assert_eq!(first_kept(&[100, 1, 1], 50), 1, "nothing older than what was left out stays");
        assert_eq!(first_kept(&[], 0), 0);
    }

    #[test]
    fn counts_are_never_over_the_bound_without_counting() {
        let messages = [said(Role::System, "12345678"), said(Role::User, "")];
        let count = prompt_tokens(&FourBytes, "m", &messages);
        assert_eq!(count, TokenCount { tokens: 3 + 4 + 2 + 4, estimated: true });
        assert!(count.tokens <= most_tokens(&messages));
    }
}
