//! Counting tokens: exactly where the model's tokenizer is public, by a stated estimate elsewhere.
//!
//! `OpenAI`'s encodings come with the `tiktoken-rs` crate; which model has which is told by its name, with or without
//! the name of a vendor before it (`openai/gpt-4o`). An encoding is unpacked when it is first needed, which takes a
//! few tenths of a second, and is kept.
//!
//! # The estimate
//!
//! For other models the tokens of `o200k_base` are counted and multiplied: by [`CLAUDE_PERCENT`] for Anthropic's, by
//! [`OTHER_PERCENT`] otherwise. Counting with a tokenizer of another vendor is nearer to the truth than counting bytes:
//! code, numbers and languages other than English take more tokens with all of them. How far it is off is measured in
//! `tests/wire/tokens.rs` against what providers counted.

use throughline_actors::ports::tokenizer::{TokenCount, Tokenizer};
use tiktoken_rs::{
    CoreBPE, cl100k_base_singleton, o200k_base_singleton, o200k_harmony_singleton,
    tokenizer::{Tokenizer as Encoding, get_tokenizer},
};

/// Tokens of Anthropic's models for a hundred of `o200k_base`.
pub const CLAUDE_PERCENT: u64 = 125;
/// Tokens of models of which nothing is known for a hundred of `o200k_base`.
pub const OTHER_PERCENT: u64 = 110;

/// Longest piece of text that is encoded at once, in bytes. The encodings' regular expressions step back once for
/// each of many spaces in a row, and give up after a million steps.
const MAX_PIECE: usize = 64 * 1024;

/// Counts tokens; see the module's documentation.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tokenizers;

impl Tokenizer for Tokenizers {
    fn count(&self, model: &str, text: &str) -> TokenCount {
        let name = model.rsplit('/').next().unwrap_or(model);
        let encoding = match get_tokenizer(name) {
            Some(Encoding::O200kBase) => Some(o200k_base_singleton as fn() -> &'static CoreBPE),
            Some(Encoding::O200kHarmony) => Some(o200k_harmony_singleton as _),
            Some(Encoding::Cl100kBase) => Some(cl100k_base_singleton as _),
            // Models that nobody serves any more.
            Some(Encoding::P50kBase | Encoding::R50kBase | Encoding::P50kEdit | Encoding::Gpt2) | None => {
                None
            }
        };
        // Nothing is unpacked for nothing.
        if text.is_empty() {
            return TokenCount { tokens: 0, estimated: encoding.is_none() };
        }
        let Some(encoding) = encoding else {
            let percent = if name.contains("claude") { CLAUDE_PERCENT } else { OTHER_PERCENT };
            let tokens = encoded(o200k_base_singleton(), text).saturating_mul(percent).div_ceil(100);
            return TokenCount { tokens, estimated: true };
        };
        TokenCount { tokens: encoded(encoding(), text), estimated: false }
    }
}

fn encoded(encoding: &CoreBPE, mut text: &str) -> u64 {
    let mut tokens = 0;
    while !text.is_empty() {
        let (piece, rest) = text.split_at(end_of_piece(text));
        tokens += encoding.count_ordinary(piece) as u64;
        text = rest;
    }
    tokens
}

/// Where to divide a long text: before the last word of the piece, where the encodings divide it as well; anywhere,
/// at the cost of a token, if it has no words.
fn end_of_piece(text: &str) -> usize {
    if text.len() <= MAX_PIECE {
        return text.len();
    }
    let piece = &text[..text.floor_char_boundary(MAX_PIECE)];
    let mut words = piece.as_bytes().windows(3);
    let last = words.rposition(|around| {
        matches!(around, [before, b' ', after] if before.is_ascii_alphabetic() && after.is_ascii_alphabetic())
    });
    last.map_or(piece.len(), |before| before + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(model: &str, text: &str) -> (u64, bool) {
        let count = Tokenizers.count(model, text);
        (count.tokens, count.estimated)
    }

    #[test]
    fn a_model_s_encoding_is_told_by_its_name() {
        // One token in o200k_base, more in cl100k_base.
        let text = "hasOwnProperty";
        for model in
            ["gpt-4o", "gpt-4o-mini-2024-07-18", "openai/gpt-4.1-mini", "o3-mini", "gpt-5.2", "gpt-oss-20b"]
        {
            assert_eq!(tokens(model, text), (3, false), "{model}");
        }
        for model in ["gpt-4", "gpt-4-0613", "gpt-3.5-turbo", "ft:gpt-3.5-turbo:acme::7p4l"] {
            assert_eq!(tokens(model, text), (2, false), "{model}");
        }
        assert_eq!(tokens("claude-sonnet-4-5", text), (4, true));
        assert_eq!(tokens("gemini-2.5-flash", text), (4, true));
        assert_eq!(tokens("llama3.2", ""), (0, true));
    }

    #[test]
    fn what_looks_like_a_special_token_is_text() {
        assert!(tokens("gpt-4o", "<|endoftext|>").0 > 1);
    }

    #[test]
    fn long_texts_of_any_kind_are_counted() {
        let words = "The quick brown fox jumps over the lazy dog. ".repeat(5_000);
        let each = tokens("gpt-4o", &words[..words.len() / 5_000 * 10]).0;
        let all = tokens("gpt-4o", &words).0;
        assert!(all.abs_diff(each * 500) <= 500, "{all} of 500 times {each}");
        for text in
            [" ".repeat(300_000), "a".repeat(300_000), "\u{1f600}".repeat(50_000), "\n \n".repeat(50_000)]
        {
            assert!(tokens("gpt-4o", &text).0 > 100, "{}", &text[..4]);
        }
        let spaces_then_word = format!("{}word", " ".repeat(200_000));
        assert!(tokens("gpt-4o", &spaces_then_word).0 > 100);
    }
}
