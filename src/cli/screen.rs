//! An answer on stdout as it comes, and on stderr what befell it.
//!
//! On a terminal, a dim line between two pieces of text says that the first is void. Where stdout goes elsewhere, that
//! line would not be seen next to the text, so a rule stands in stdout, too. Either way, what is on stdout after
//! the last such line is the whole answer.

use std::io::{self, IsTerminal, Stderr, Stdout, Write};

use throughline_schemas::WaitReason;

use crate::{
    cli::{
        Failure, output,
        timeline::{Style, Tone, clean, clean_lines},
    },
    client::{Ending, Notice, Transcript, Who, Whom},
};

/// Longest notice, in characters.
const NOTICE_CHARS: usize = 300;

/// Where the answer and the notices go.
pub(in crate::cli) struct Screen<O = Stdout, E = Stderr> {
    out: O,
    err: E,
    /// Whether stdout is a terminal: control characters are then shown instead of obeyed.
    out_terminal: bool,
    err_terminal: bool,
    notices: Style,
    /// Whether the next text on stdout begins a line.
    at_line_start: bool,
}

impl Screen {
    /// The process's own.
    pub(in crate::cli) fn new() -> Self {
        Self {
            out: io::stdout(),
            err: io::stderr(),
            out_terminal: io::stdout().is_terminal(),
            err_terminal: io::stderr().is_terminal(),
            notices: Style::of_stderr(),
            at_line_start: true,
        }
    }
}

impl<O: Write, E: Write> Screen<O, E> {
    /// Shows a notice of the transcript.
    pub(in crate::cli) fn show(&mut self, notice: &Notice) -> Result<(), Failure> {
        match notice {
            Notice::Text(text) => self.text(text),
            Notice::Thinking if self.is_one() => self.notice("the model is thinking"),
            Notice::Thinking => Ok(()),
            Notice::BrokeOff { who, words, reason, next } => {
                let counted = if *words == 1 { "word" } else { "words" };
                self.notice(&format!(
                    "{who} broke off after {words} {counted}: {reason}{}",
                    what_next(who, next.as_ref())
                ))
            }
            Notice::HeldBack { who, wait_ms, asked: true } => {
                self.notice(&format!("waiting about {}: {who} asked to wait", seconds(*wait_ms)))
            }
            Notice::HeldBack { who, wait_ms, asked: false } => {
                self.notice(&format!("waiting about {} for the rate limit of {who}", seconds(*wait_ms)))
            }
            // On a terminal somebody wonders why nothing comes; a file of notices is about what stands in the answer.
            Notice::Failed { .. } | Notice::Waiting { .. } if !self.err_terminal => Ok(()),
            Notice::Failed { who, reason, next } => {
                self.notice(&format!("{who} failed: {reason}{}", what_next(who, Some(&(next.clone(), 0)))))
            }
            Notice::Waiting { whom, wait_ms, why, reason, http_status } => {
                self.notice(&waits(whom, *wait_ms, *why, reason, *http_status))
            }
            Notice::Again { who } => {
                self.notice(&format!(
                    "the answer of {who} from the beginning; what came before does not count"
                ))?;
                if self.is_one() { Ok(()) } else { self.rule("the answer begins again") }
            }
            Notice::Lost(1) => self.notice("a piece of the answer got lost on the way"),
            Notice::Lost(some) => self.notice(&format!("{some} pieces of the answer got lost on the way")),
            Notice::Complete => self.end_line(),
            Notice::NoAnswer { reason } => self.notice(&format!("there is no answer for now: {reason}")),
        }
    }

    /// Ends with the answer that counts.
    pub(in crate::cli) fn finish(&mut self, transcript: &Transcript, answer: &str) -> Result<(), Failure> {
        match transcript.ending(answer) {
            Ending::Rest("") => {}
            Ending::Rest(rest) => self.text(rest)?,
            Ending::Whole => {
                self.rule("the whole answer")?;
                self.text(answer)?;
            }
        }
        self.end_line()
    }

    /// Says on a terminal who gave the answer, and for how much.
    pub(in crate::cli) fn sign(&mut self, says: &str) -> Result<(), Failure> {
        if self.err_terminal { self.notice(says) } else { Ok(()) }
    }

    /// Ends the line on stdout, if one has begun.
    pub(in crate::cli) fn end_line(&mut self) -> Result<(), Failure> {
        if self.at_line_start { Ok(()) } else { self.text("\n") }
    }

    /// Whether notices and answer are read in one place.
    fn is_one(&self) -> bool {
        self.out_terminal && self.err_terminal
    }

    fn text(&mut self, text: &str) -> Result<(), Failure> {
        let Some(last) = text.chars().last() else { return Ok(()) };
        self.at_line_start = last == '\n';
        // Character by character, so that a sequence that is split over pieces is no sequence either.
        let written = if self.out_terminal {
            self.out.write_all(clean_lines(text).as_bytes())
        } else {
            self.out.write_all(text.as_bytes())
        };
        written.and_then(|()| self.out.flush()).map_err(|error| output::closed(&error))
    }

    fn rule(&mut self, says: &str) -> Result<(), Failure> {
        self.end_line()?;
        self.text(&format!("----- {says} -----\n"))
    }

    fn notice(&mut self, says: &str) -> Result<(), Failure> {
        if self.is_one() {
            self.end_line()?;
        }
        let line = self.notices.paint(Tone::Faint, &format!("[{}]", clean(says, NOTICE_CHARS)));
        // Nobody can be told if that fails.
        let _ = writeln!(self.err, "{line}");
        Ok(())
    }
}

/// What is waited for.
fn waits(
    whom: &Whom,
    wait_ms: Option<u64>,
    why: WaitReason,
    reason: &str,
    http_status: Option<u16>,
) -> String {
    let who = match whom {
        Whom::Session => {
            return "waiting for its session's turn: an earlier message of the session has not ended"
                .to_owned();
        }
        Whom::User => {
            return "waiting for its turn: its user has its share of running workflows".to_owned();
        }
        Whom::Model(who) => who.to_string(),
        Whom::Source(source) => format!("the data source {source}"),
    };
    let length = wait_ms.map_or_else(|| "waiting".to_owned(), |ms| format!("waiting {}", seconds(ms)));
    let status = http_status.map_or_else(String::new, |status| format!(" (HTTP {status})"));
    match why {
        WaitReason::AskedToWait => format!("{length}: {who} asked to wait{status}"),
        WaitReason::BreakerOpen => {
            format!("{length}: calls to {who} are stopped, because they kept failing: {reason}")
        }
        WaitReason::RateLimit => format!("{length} for the rate limit of {who}"),
        WaitReason::Backoff | WaitReason::Session | WaitReason::UserShare | WaitReason::Unrecognised => {
            format!("{length}: {who} failed{status}: {reason}")
        }
    }
}

/// What is done about an answer that broke off.
fn what_next(who: &Who, next: Option<&(Who, u64)>) -> String {
    match next {
        Some((next, 0)) if next == who => "; asking again now".to_owned(),
        Some((next, wait)) if next == who => format!("; asking again in {}", seconds(*wait)),
        Some((next, 0)) => format!("; asking {next} instead"),
        Some((next, wait)) => format!("; asking {next} instead, in {}", seconds(*wait)),
        None => String::new(),
    }
}

fn seconds(ms: u64) -> String {
    if ms < 10_000 { format!("{}.{} s", ms / 1_000, ms % 1_000 / 100) } else { format!("{} s", ms / 1_000) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn show(terminals: (bool, bool), notices: &[Notice], answer: Option<&str>) -> (String, String) {
        let mut screen = Screen {
            out: Vec::new(),
            err: Vec::new(),
            out_terminal: terminals.0,
            err_terminal: terminals.1,
            notices: Style::plain(),
            at_line_start: true,
        };
        for notice in notices {
            screen.show(notice).unwrap();
        }
        if let Some(answer) = answer {
            screen.finish(&Transcript::default(), answer).unwrap();
        }
        (String::from_utf8(screen.out).unwrap(), String::from_utf8(screen.err).unwrap())
    }

    fn who(model: &str) -> Who {
        Who { provider: Some("openai".to_owned()), model: Some(model.to_owned()) }
    }

    fn restarted() -> Vec<Notice> {
        vec![
            Notice::Thinking,
            Notice::Text("Hel".to_owned()),
            Notice::BrokeOff {
                who: who("a"),
                words: 12,
                reason: "lost\u{1b}[2J".to_owned(),
                next: Some((who("b"), 340)),
            },
            Notice::Again { who: who("b") },
            Notice::Text("Hello".to_owned()),
            Notice::Complete,
        ]
    }

    #[test]
    fn on_a_terminal_notices_stand_between_the_texts_on_lines_of_their_own() {
        let (out, err) = show((true, true), &restarted(), None);
        assert_eq!(out, "Hel\nHello\n");
        assert_eq!(
            err,
            "[the model is thinking]\n\
             [openai (a) broke off after 12 words: lost\\u{1b}[2J; asking openai (b) instead, in 0.3 s]\n\
             [the answer of openai (b) from the beginning; what came before does not count]\n"
        );
    }

    #[test]
    fn elsewhere_a_rule_stands_in_the_text_so_that_what_follows_it_is_the_answer() {
        for terminals in [(false, true), (false, false), (true, false)] {
            let (out, err) = show(terminals, &restarted(), None);
            assert_eq!(out, "Hel\n----- the answer begins again -----\nHello\n");
            assert_eq!(err.lines().count(), 2, "thinking is for terminals: {err}");
        }
    }

    #[test]
    fn a_wait_is_told_on_a_terminal_and_nowhere_else() {
        let notices = [
            Notice::Waiting {
                whom: Whom::Model(who("a")),
                wait_ms: Some(12_000),
                why: WaitReason::AskedToWait,
                reason: "slow down".to_owned(),
                http_status: Some(429),
            },
            Notice::Waiting {
                whom: Whom::Source("crm".to_owned()),
                wait_ms: Some(30_000),
                why: WaitReason::BreakerOpen,
                reason: "refused\u{1b}".to_owned(),
                http_status: None,
            },
            Notice::Failed { who: who("a"), reason: "busy".to_owned(), next: who("b") },
        ];
        for terminals in [(true, true), (false, true)] {
            let (out, err) = show(terminals, &notices, None);
            assert_eq!(out, "");
            assert_eq!(
                err,
                "[waiting 12 s: openai (a) asked to wait (HTTP 429)]\n\
                 [waiting 30 s: calls to the data source crm are stopped, because they kept failing: refused\\u{1b}]\n\
                 [openai (a) failed: busy; asking openai (b) instead]\n"
            );
        }
        assert_eq!(show((false, false), &notices, None), (String::new(), String::new()));
    }

    #[test]
    fn what_came_is_ended_with_what_is_missing() {
        assert_eq!(show((false, false), &[], Some("Hi")).0, "Hi\n");
        let mut transcript = Transcript::default();
        let mut screen = Screen {
            out: Vec::new(),
            err: Vec::new(),
            out_terminal: false,
            err_terminal: false,
            notices: Style::plain(),
            at_line_start: true,
        };
        let frame = |seq, text| {
            serde_json::from_value(serde_json::json!({
                "workflow_id": "w", "delivery": 1, "attempt": 1, "seq": seq, "kind": "text", "text": text
            }))
            .unwrap()
        };
        for frame in [frame(0, "a"), frame(2, "c")] {
            for notice in transcript.observe(&frame) {
                screen.show(&notice).unwrap();
            }
        }
        screen.finish(&transcript, "abc").unwrap();
        assert_eq!(String::from_utf8(screen.out).unwrap(), "ac\n----- the whole answer -----\nabc\n");
    }

    #[test]
    fn a_sequence_that_is_split_over_pieces_does_not_reach_a_terminal() {
        let pieces =
            ["\u{1b}", "]0;owned", "\u{7}", "\u{9b}", "2J"].map(|text| Notice::Text(text.to_owned()));
        let (out, _) = show((true, true), &pieces, None);
        assert!(!out.contains(|c: char| c.is_control()), "{out:?}");
        let (out, _) = show((false, false), &pieces, None);
        assert_eq!(out, "\u{1b}]0;owned\u{7}\u{9b}2J", "a file gets what was said");
    }
}
