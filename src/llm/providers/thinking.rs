//! Reasoning that stands in the text, between tags: servers without a parser for their model's template leave it there.
//!
//! A block counts where it begins the answer; several may follow one another. A closing tag whose opening one is part of
//! the template, and therefore was never sent, ends the reasoning as well.

/// Opening and closing tags, as models write them.
const TAGS: [(&str, &str); 8] = [
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
];

/// Takes an answer in pieces of any size, and finds what of it is reasoning.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    state: State,
    /// What may yet turn out to be (a part of) a tag, or the space around one.
    held: String,
    /// A block has ended: the space behind it belongs to it.
    had_block: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing but space and blocks so far.
    #[default]
    Start,
    /// Within a block; with the index of its tags.
    Within(usize),
    /// In the text.
    Text,
}

/// What was split.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    pub reasoning: String,
    pub text: String,
}

impl Splitter {
    /// What is certain by now.
    pub(super) fn push(&mut self, piece: &str) -> Parts {
        let mut parts = Parts::default();
        if self.state == State::Text {
            parts.text.push_str(piece);
            return parts;
        }
        self.held.push_str(piece);
        while self.step(&mut parts) {}
        parts
    }

    /// Nothing more comes: what was held is what it is.
    pub(super) fn finish(&mut self) -> Parts {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Start if self.had_block => {
                Parts { text: held.trim_start().to_owned(), ..Parts::default() }
            }
            State::Start | State::Text => Parts { text: held, ..Parts::default() },
            State::Within(_) => Parts { reasoning: held, ..Parts::default() },
        }
    }

    /// Returns whether there is more to do.
    fn step(&mut self, parts: &mut Parts) -> bool {
        match self.state {
            State::Start => {
                let begin = self.held.trim_start();
                let opened = TAGS.iter().position(|(open, _)| begins_with(begin, open));
                if let Some(index) = opened {
                    let length = self.held.len() - begin.len() + TAGS[index].0.len();
                    self.held.drain(..length);
                    self.state = State::Within(index);
                    return true;
                }
                if begin.is_empty() || TAGS.iter().any(|(open, _)| begins_with(open, begin)) {
                    return false;
                }
                self.state = State::Text;
                parts.text.push_str(if self.had_block { begin } else { &self.held });
                self.held.clear();
                false
            }
            State::Within(index) => {
                let close = TAGS[index].1;
                if let Some(at) = find(&self.held, close) {
                    parts.reasoning.push_str(&self.held[..at]);
                    self.held.drain(..at + close.len());
                    (self.state, self.had_block) = (State::Start, true);
                    return true;
                }
                // The beginning of the closing tag may be there.
                let from = self
                    .held
                    .char_indices()
                    .map(|(at, _)| at)
                    .find(|at| begins_with(close, &self.held[*at..]));
                let certain = from.unwrap_or(self.held.len());
                parts.reasoning.push_str(&self.held[..certain]);
                self.held.drain(..certain);
                false
            }
            State::Text => false,
        }
    }
}

/// Without regard to the case of ASCII letters.
fn begins_with(text: &str, beginning: &str) -> bool {
    text.as_bytes()
        .get(..beginning.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(beginning.as_bytes()))
}

fn find(text: &str, tag: &str) -> Option<usize> {
    let first = tag.chars().next()?;
    text.match_indices(first).map(|(at, _)| at).find(|at| begins_with(&text[*at..], tag))
}

/// The same for a whole text. `Some` only if there is reasoning in it.
pub(super) fn split(text: &str) -> Option<Parts> {
    let mut splitter = Splitter::default();
    let mut parts = splitter.push(text);
    let rest = splitter.finish();
    parts.reasoning.push_str(&rest.reasoning);
    parts.text.push_str(&rest.text);
    if parts.text != text {
        return Some(parts);
    }
    closed_only(text)
}

/// Reasoning whose opening tag was never sent. A closing tag that is quoted, or stands in code, is part of what is said.
pub(super) fn closed_only(text: &str) -> Option<Parts> {
    let (at, (open, close)) =
        TAGS.iter().filter_map(|tags| Some((find(text, tags.1)?, *tags))).min_by_key(|(at, _)| *at)?;
    let (before, after) = (&text[..at], &text[at + close.len()..]);
    let is_quoted = before.ends_with(['`', '"', '\'', '“', '‘', '('])
        || after.starts_with(['`', '"', '\'', '”', '’', ')']);
    let in_code = before.matches("```").count() % 2 == 1;
    if is_quoted || in_code || find(before, open).is_some() {
        return None;
    }
    Some(Parts { reasoning: before.to_owned(), text: after.trim_start().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_pieces(text: &str, size: usize) -> Parts {
        let (mut splitter, mut all) = (Splitter::default(), Parts::default());
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(size) {
            let Parts { reasoning, text } = splitter.push(&piece.iter().collect::<String>());
            all.reasoning.push_str(&reasoning);
            all.text.push_str(&text);
        }
        let rest = splitter.finish();
        all.reasoning.push_str(&rest.reasoning);
        all.text.push_str(&rest.text);
        all
    }

    #[test]
    fn blocks_at_the_beginning_are_reasoning_however_they_are_cut() {
        let cases = [
            ("<think>\na plan\n</think>\n\nHello", "\na plan\n", "Hello"),
            (" \n<THINK>a</Think>Hello </think>", "a", "Hello </think>"),
            ("<think>a</think><think>b < c</think> Hi", "ab < c", "Hi"),
            ("[THINK]a[/THINK]Hi", "a", "Hi"),
            ("◁think▷a◁/think▷Hi", "a", "Hi"),
            ("<think></think>\n\nHi", "", "Hi"),
            ("<think>cut at the limit", "cut at the limit", ""),
            ("<thin", "", "<thin"),
            ("<table>x</table>", "", "<table>x</table>"),
            ("It says <think>no</think>.", "", "It says <think>no</think>."),
            ("  indented", "", "  indented"),
            (" ", "", " "),
        ];
        for (text, reasoning, rest) in cases {
            for size in [1, 2, 3, 7, 100] {
                let parts = in_pieces(text, size);
                assert_eq!(
                    (parts.reasoning.as_str(), parts.text.as_str()),
                    (reasoning, rest),
                    "{text} {size}"
                );
            }
        }
    }

    #[test]
    fn a_closing_tag_alone_ends_the_reasoning_unless_it_is_spoken_of() {
        let closed = |text: &str| split(text).map(|parts| (parts.reasoning, parts.text));
        let plan = |text: &str| Some(("a plan".to_owned(), text.to_owned()));
        assert_eq!(closed("a plan</think>\n\nHello"), plan("Hello"));
        assert_eq!(closed("a plan[/THINK] Hello"), plan("Hello"));
        for said in [
            "Close it with `</think>`.",
            "```\n</think>\n```",
            "The tag \"</think>\" ends it.",
            "Use <think> and </think>.",
            "Hello",
        ] {
            assert_eq!(closed(said), None, "{said}");
        }
    }
}
