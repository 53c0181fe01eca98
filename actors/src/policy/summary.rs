//! A summary without a model: the sentences of a conversation that say most about it, in their order. The same text
//! gives the same summary.
//!
//! A sentence's score is the mean weight of its distinct words, a word's weight the number of sentences that it is in
//! (Luhn 1958, "The automatic creation of literature abstracts", with sentence frequency in place of a stop list:
//! words of three letters and fewer do not count). Sentences with a number or a code in them are preferred: those are
//! what later turns refer to.

use std::collections::{BTreeMap, BTreeSet};

/// Shortest word that counts, in characters.
const SHORTEST_WORD: usize = 4;
/// What a sentence with a digit in it is worth more than one without.
const FACT_BONUS: f64 = 1.5;
/// Longest sentence, in characters; a longer one is cut.
const LONGEST_SENTENCE: usize = 300;

/// A text that was said, and who said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<'a> {
    /// Who.
    pub who: &'a str,
    /// What.
    pub text: &'a str,
}

struct Sentence<'a> {
    place: usize,
    who: &'a str,
    text: String,
    words: BTreeSet<String>,
}

/// The most significant sentences, one a line with who said it, of at most `max_chars` characters in all. Empty if there is
/// no room for any.
pub fn extract(said: &[Said<'_>], max_chars: usize) -> String {
    let sentences = sentences(said);
    let mut frequency: BTreeMap<&str, u32> = BTreeMap::new();
    for sentence in &sentences {
        for word in &sentence.words {
            *frequency.entry(word).or_default() += 1;
        }
    }
    let mut ranked: Vec<(f64, &Sentence<'_>)> =
        sentences.iter().map(|sentence| (score(sentence, &frequency), sentence)).collect();
    // Of equals the later one: it is the fresher memory.
    ranked.sort_by(|(a, left), (b, right)| b.total_cmp(a).then(right.place.cmp(&left.place)));
    let mut left = max_chars;
    let mut chosen: Vec<&Sentence<'_>> = ranked
        .into_iter()
        .map(|(_, sentence)| sentence)
        .filter(|sentence| {
            let size = line(sentence).chars().count() + 1;
            let fits = size <= left;
            left -= if fits { size } else { 0 };
            fits
        })
        .collect();
    chosen.sort_by_key(|sentence| sentence.place);
    chosen.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn line(sentence: &Sentence<'_>) -> String {
    format!("{}: {}", sentence.who, sentence.text)
}

fn score(sentence: &Sentence<'_>, frequency: &BTreeMap<&str, u32>) -> f64 {
    let weights = sentence.words.iter().filter_map(|word| frequency.get(word.as_str()));
    let sum: u32 = weights.sum();
    let count = u32::try_from(sentence.words.len()).unwrap_or(u32::MAX).max(1);
    let mean = f64::from(sum) / f64::from(count);
    if sentence.text.contains(|c: char| c.is_ascii_digit()) { (mean + 1.0) * FACT_BONUS } else { mean }
}

fn sentences<'a>(said: &[Said<'a>]) -> Vec<Sentence<'a>> {
    let mut sentences = Vec::new();
    for Said { who, text } in said {
        for text in split(text) {
            let words = text
                .split(|c: char| !c.is_alphanumeric())
                .filter(|word| word.chars().count() >= SHORTEST_WORD)
                .map(str::to_lowercase)
                .collect();
            sentences.push(Sentence { place: sentences.len(), who, text, words });
        }
    }
    sentences
}

/// Sentences end with a line, or with a full stop, question or exclamation mark before white space.
fn split(text: &str) -> Vec<String> {
    let mut sentences = Vec::new();
    for line in text.lines() {
        let mut rest = line.trim();
        while !rest.is_empty() {
            let end = rest
                .char_indices()
                .find(|(at, c)| {
                    let after = rest.get(at + c.len_utf8()..).and_then(|tail| tail.chars().next());
                    let full = matches!(c, '。' | '！' | '？');
                    full || (matches!(c, '.' | '?' | '!') && after.is_some_and(char::is_whitespace))
                })
                .map_or(rest.len(), |(at, c)| at + c.len_utf8());
            let (sentence, tail) = rest.split_at(end);
            sentences.push(cut(sentence.trim()));
            rest = tail.trim_start();
        }
    }
    sentences
}

fn cut(sentence: &str) -> String {
    match sentence.char_indices().nth(LONGEST_SENTENCE) {
        Some((end, _)) => format!("{}…", &sentence[..end]),
        None => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALK: [Said<'static>; 4] = [
        Said { who: "user", text: "Hello there. My order #W10007 has not arrived!" },
        Said {
            who: "assistant",
            text: "I am sorry to hear that.\nYour order #W10007 is with Northwind Express. Anything else?",
        },
        Said { who: "user", text: "Thanks. When will the order arrive?" },
        Said { who: "assistant", text: "Northwind Express says that the order will arrive on 24 March." },
    ];

    #[test]
    fn facts_stay_and_small_talk_goes() {
        let summary = extract(&TALK, 180);
        assert_eq!(
            summary,
            "user: My order #W10007 has not arrived!\n\
             assistant: Your order #W10007 is with Northwind Express.\n\
             assistant: Northwind Express says that the order will arrive on 24 March."
        );
        assert!(!summary.contains("sorry"));
    }

    #[test]
    fn it_is_never_longer_than_allowed_and_always_the_same() {
        for max in 0..300 {
            let summary = extract(&TALK, max);
            assert!(summary.chars().count() <= max, "{max}: {summary}");
            assert_eq!(summary, extract(&TALK, max));
        }
        assert_eq!(extract(&TALK, 0), "");
        assert_eq!(extract(&[], 100), "");
    }

    #[test]
    fn any_text_can_be_cut() {
        let long = "ü".repeat(1_000);
        let said = [Said { who: "user", text: &long }];
        assert_eq!(extract(&said, 1_000).chars().count(), "user: ".len() + LONGEST_SENTENCE + 1);
        let chinese = [Said { who: "user", text: "你好。我的订单W10007还没到！谢谢" }];
        assert_eq!(extract(&chinese, 25), "user: 我的订单W10007还没到！");
    }
}
