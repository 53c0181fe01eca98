//! What a reader of live frames sees: a pure function of the frames, whatever is lost, late or doubled.

use std::fmt;

use sha2::{Digest, Sha256};
use throughline_actors::policy::limits::NOTICEABLE_WAIT;
use throughline_schemas::{LiveFrame, LiveKind, WaitReason};

/// Shorter waits are not worth a line, in milliseconds.
const NOTICEABLE_MS: u64 = NOTICEABLE_WAIT.as_secs() * 1_000;

/// A model, as far as it is known who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// Name of the provider in the configuration.
    pub provider: Option<String>,
    /// The provider's name of the model.
    pub model: Option<String>,
}

impl Who {
    fn of(frame: &LiveFrame) -> Self {
        Self { provider: frame.provider.clone(), model: frame.model.clone() }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.provider, &self.model) {
            (Some(provider), Some(model)) => write!(f, "{provider} ({model})"),
            (Some(one), None) | (None, Some(one)) => f.write_str(one),
            (None, None) => f.write_str("the model"),
        }
    }
}

/// Counts the words of a text that comes in pieces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Words {
    /// So many so far.
    pub count: u64,
    within: bool,
}

impl Words {
    /// Takes the next piece; a word may go on from the one before.
    pub fn add(&mut self, piece: &str) {
        for c in piece.chars() {
            self.count += u64::from(!self.within && !c.is_whitespace());
            self.within = !c.is_whitespace();
        }
    }
}

/// Something to show the reader, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// The next piece of the answer.
    Text(String),
    /// The model thinks before it answers; shown once an attempt.
    Thinking,
    /// What was shown so far is void.
    BrokeOff {
        /// Whose answer it was.
        who: Who,
        /// How much of it was shown.
        words: u64,
        /// Why, in words.
        reason: String,
        /// Who is asked next, after how many milliseconds, if that is known.
        next: Option<(Who, u64)>,
    },
    /// A rate limit holds the next question back, for about so many milliseconds.
    HeldBack {
        /// To whom it is put.
        who: Who,
        /// For how long.
        wait_ms: u64,
        /// Whether that is what the provider asked for.
        asked: bool,
    },
    /// A question had no answer, and is put again without a wait worth a word.
    Failed {
        /// To whom it was put.
        who: Who,
        /// Why, in words.
        reason: String,
        /// To whom it is put next.
        next: Who,
    },
    /// Nothing happens for a while.
    Waiting {
        /// Who is waited for.
        whom: Whom,
        /// For about how many milliseconds, if that is known.
        wait_ms: Option<u64>,
        /// Because of what.
        why: WaitReason,
        /// The same in words.
        reason: String,
        /// The HTTP status that said so, if one did.
        http_status: Option<u16>,
    },
    /// The text that follows is the answer from its beginning.
    Again {
        /// Who gives it.
        who: Who,
    },
    /// So many frames did not arrive: text may be missing here.
    Lost(u64),
    /// Nothing follows.
    Complete,
    /// There is no answer for now.
    NoAnswer {
        /// Why, in words.
        reason: String,
    },
}

impl Notice {
    /// Whether it says why nothing comes, and nothing of the answer.
    pub fn is_about_waiting(&self) -> bool {
        match self {
            Self::HeldBack { .. } | Self::Failed { .. } | Self::Waiting { .. } => true,
            Self::Text(_)
            | Self::Thinking
            | Self::BrokeOff { .. }
            | Self::Again { .. }
            | Self::Lost(_)
            | Self::Complete
            | Self::NoAnswer { .. } => false,
        }
    }
}

/// Who is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// A model.
    Model(Who),
    /// A data source.
    Source(String),
    /// The earlier messages of the session.
    Session,
    /// Other workflows of its user.
    User,
}

/// How to end, so that the reader has the whole answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending<'a> {
    /// This much is still to be shown; nothing, if all went well.
    Rest(&'a str),
    /// What was shown is not the answer's beginning: the whole answer has to be shown apart from it.
    Whole,
}

/// Which attempt of which delivery.
type Place = (u32, u32);

/// What has been shown so far. Keeps no text, so its size does not depend on the answer's.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each says one thing of its own about what was shown")]
pub struct Transcript {
    place: Option<Place>,
    next_seq: u64,
    /// Bytes of the current attempt's text, and their hash.
    shown: usize,
    digest: Sha256,
    thinking: bool,
    /// The words among them.
    words: Words,
    /// Who is asked in the current attempt.
    who: Who,
    /// Whether anything broke off.
    broke_off: bool,
    /// Text was shown that is void now, and nothing since.
    discarded: bool,
    /// A wait before the next attempt was shown along with what came before it.
    wait_shown: bool,
}

impl Transcript {
    /// Takes a frame. Frames of an attempt that was given up, or that came already, show nothing.
    pub fn observe(&mut self, frame: &LiveFrame) -> Vec<Notice> {
        if frame.delivery == 0 {
            return Self::beside(frame).into_iter().collect();
        }
        let mut notices = Vec::new();
        let place = (frame.delivery, frame.attempt);
        let same_delivery = self.place.is_some_and(|(delivery, _)| delivery == frame.delivery);
        if self.place.is_some_and(|current| place < current) || (same_delivery && frame.seq < self.next_seq) {
            return notices;
        }
        if self.place.is_some_and(|current| current != place) && frame.kind != LiveKind::Restarted {
            // Usually this was announced; the announcement may be lost, or its worker may have died before it.
            let reason = if same_delivery { "its end was lost" } else { "its worker went away" };
            self.break_off(reason, None, &mut notices);
            self.begin();
        }
        let expected = if same_delivery { self.next_seq } else { 0 };
        if frame.seq > expected {
            notices.push(Notice::Lost(frame.seq - expected));
        }
        (self.place, self.next_seq) = (Some(place), frame.seq.saturating_add(1));

        let reason = frame.reason.as_deref().unwrap_or("no reason is given");
        match frame.kind {
            LiveKind::Started => (self.who, self.wait_shown) = (Who::of(frame), false),
            LiveKind::Text => {
                // Only now is it known which model answers: one that was asked may have said nothing.
                if std::mem::take(&mut self.discarded) {
                    notices.push(Notice::Again { who: self.who.clone() });
                }
                let text = frame.text.clone().unwrap_or_default();
                self.shown += text.len();
                self.words.add(&text);
                self.digest.update(&text);
                notices.push(Notice::Text(text));
            }
            LiveKind::Reasoning => {
                if !std::mem::replace(&mut self.thinking, true) {
                    notices.push(Notice::Thinking);
                }
            }
            LiveKind::Restarted => {
                let next = frame.again_in_ms.map(|wait| (Who::of(frame), wait));
                self.wait_shown = self.shown > 0;
                self.break_off(reason, next, &mut notices);
                self.begin();
            }
            LiveKind::HeldBack => {
                let wait_ms = frame.again_in_ms.unwrap_or_default();
                let asked = frame.why == Some(WaitReason::AskedToWait);
                notices.push(Notice::HeldBack { who: Who::of(frame), wait_ms, asked });
            }
            LiveKind::AttemptFailed => {
                // A longer wait has a frame of its own, with the reason.
                if frame.again_in_ms.is_none_or(|wait| wait < NOTICEABLE_MS) {
                    let (who, next) = (self.who.clone(), Who::of(frame));
                    notices.push(Notice::Failed { who, reason: reason.to_owned(), next });
                }
            }
            LiveKind::Waiting if std::mem::take(&mut self.wait_shown) => {}
            LiveKind::Waiting => notices.extend(waiting(frame, Whom::Model(Who::of(frame)))),
            LiveKind::Completed => notices.push(Notice::Complete),
            LiveKind::Failed => {
                self.discarded |= self.shown > 0;
                self.begin();
                notices.push(Notice::NoAnswer { reason: reason.to_owned() });
            }
            LiveKind::FellBack | LiveKind::Stage | LiveKind::Unrecognised => {}
        }
        notices
    }

    /// What a frame shows that is not about a call to a model.
    fn beside(frame: &LiveFrame) -> Option<Notice> {
        if frame.kind != LiveKind::Waiting {
            return None;
        }
        match (&frame.source, frame.why) {
            (Some(source), _) => waiting(frame, Whom::Source(source.clone())),
            (None, Some(WaitReason::Session)) => waiting(frame, Whom::Session),
            (None, Some(WaitReason::UserShare)) => waiting(frame, Whom::User),
            (None, _) => None,
        }
    }

    /// What is missing of `answer`, the one that counts.
    pub fn ending<'a>(&self, answer: &'a str) -> Ending<'a> {
        match answer.split_at_checked(self.shown) {
            Some((shown, rest))
                if !self.discarded && Sha256::digest(shown) == self.digest.clone().finalize() =>
            {
                Ending::Rest(rest)
            }
            _ => Ending::Whole,
        }
    }

    fn begin(&mut self) {
        (self.shown, self.digest, self.thinking) = (0, Sha256::new(), false);
        (self.words, self.who) = (Words::default(), Who::default());
    }

    /// Whether anything broke off, so that more may have been charged than is known.
    pub fn broke_off(&self) -> bool {
        self.broke_off
    }

    fn break_off(&mut self, reason: &str, next: Option<(Who, u64)>, notices: &mut Vec<Notice>) {
        if self.shown > 0 {
            (self.discarded, self.broke_off) = (true, true);
            let (who, words) = (self.who.clone(), self.words.count);
            notices.push(Notice::BrokeOff { who, words, reason: reason.to_owned(), next });
        }
    }
}

fn waiting(frame: &LiveFrame, whom: Whom) -> Option<Notice> {
    Some(Notice::Waiting {
        whom,
        wait_ms: frame.again_in_ms,
        why: frame.why?,
        reason: frame.reason.clone().unwrap_or_default(),
        http_status: frame.http_status,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use throughline_schemas::WorkflowId;

    use super::*;

    fn frame((delivery, attempt, seq): (u32, u32, u64), kind: LiveKind, word: &str) -> LiveFrame {
        let word = || Some(word.to_owned());
        let mut frame =
            LiveFrame { delivery, seq, attempt, ..LiveFrame::new(WorkflowId::new("w").unwrap(), kind) };
        match kind {
            LiveKind::Text | LiveKind::Reasoning => frame.text = word(),
            LiveKind::Started => frame.model = word(),
            LiveKind::Restarted | LiveKind::Failed | LiveKind::AttemptFailed | LiveKind::Waiting => {
                frame.reason = word();
            }
            LiveKind::Completed
            | LiveKind::HeldBack
            | LiveKind::Stage
            | LiveKind::FellBack
            | LiveKind::Unrecognised => {}
        }
        frame
    }

    fn observe(transcript: &mut Transcript, frames: &[((u32, u32, u64), LiveKind, &str)]) -> Vec<Notice> {
        frames.iter().flat_map(|(at, kind, word)| transcript.observe(&frame(*at, *kind, word))).collect()
    }

    fn text(text: &str) -> Notice {
        Notice::Text(text.to_owned())
    }

    fn named(model: &str) -> Who {
        Who { provider: None, model: Some(model.to_owned()) }
    }

    fn broke_off(who: Who, reason: &str) -> Notice {
        Notice::BrokeOff { who, words: 1, reason: reason.to_owned(), next: None }
    }

    use LiveKind::{
        AttemptFailed, Completed, Failed, FellBack, HeldBack, Reasoning, Restarted, Stage, Started, Text,
        Waiting,
    };

    #[test]
    fn a_calm_answer_is_told_as_it_comes() {
        let mut transcript = Transcript::default();
        let shown = observe(
            &mut transcript,
            &[
                ((1, 1, 0), Started, "m"),
                ((1, 1, 1), Reasoning, "hm"),
                ((1, 1, 2), Reasoning, "hm"),
                ((1, 1, 3), Text, "Hel"),
                ((1, 1, 4), Text, "lo"),
                ((1, 1, 5), Completed, ""),
            ],
        );
        assert_eq!(shown, [Notice::Thinking, text("Hel"), text("lo"), Notice::Complete]);
        assert_eq!(transcript.ending("Hello"), Ending::Rest(""));
        assert_eq!(transcript.ending("Hello, you"), Ending::Rest(", you"), "the last frames were lost");
        assert_eq!(transcript.ending("Help"), Ending::Whole);
        assert_eq!(transcript.ending("H"), Ending::Whole);
        assert_eq!(Transcript::default().ending("Hi"), Ending::Rest("Hi"), "nothing came live");
    }

    #[test]
    fn a_restart_is_told_before_any_new_text() {
        let mut transcript = Transcript::default();
        let shown = observe(
            &mut transcript,
            &[
                ((1, 1, 0), Started, "a"),
                ((1, 1, 1), Text, "Hel"),
                ((1, 1, 2), Restarted, "connection lost"),
                ((1, 2, 3), Started, "b"),
                ((1, 2, 4), Text, "Hello"),
            ],
        );
        let broke_off = broke_off(named("a"), "connection lost");
        assert_eq!(shown, [text("Hel"), broke_off, Notice::Again { who: named("b") }, text("Hello")]);
        assert!(transcript.broke_off());
        assert_eq!(transcript.ending("Hello"), Ending::Rest(""));
    }

    #[test]
    fn who_begins_again_is_who_answers_and_not_who_is_asked_in_vain_before() {
        let mut transcript = Transcript::default();
        let shown = observe(
            &mut transcript,
            &[
                ((1, 1, 0), Started, "a"),
                ((1, 1, 1), Text, "Hel"),
                ((1, 1, 2), Restarted, "connection lost"),
                ((1, 2, 3), Started, "a"),
                ((1, 3, 4), Started, "b"),
                ((1, 3, 5), Text, "Hello"),
            ],
        );
        assert_eq!(shown[2..], [Notice::Again { who: named("b") }, text("Hello")]);
    }

    #[test]
    fn what_holds_an_answer_up_is_told_with_who_is_asked_next_and_when() {
        let mut transcript = Transcript::default();
        let mut frames: Vec<LiveFrame> = [
            ((1, 1, 0), Started, "a"),
            ((1, 1, 1), Text, "one tw"),
            ((1, 1, 2), Text, "o three"),
            ((1, 1, 3), Restarted, "connection lost"),
            ((1, 1, 4), HeldBack, ""),
        ]
        .map(|(at, kind, word)| frame(at, kind, word))
        .into();
        frames[0].provider = Some("openai".to_owned());
        for frame in &mut frames[3..] {
            (frame.provider, frame.model, frame.again_in_ms) =
                (Some("anthropic".to_owned()), Some("b".to_owned()), Some(300));
        }
        let shown: Vec<_> = frames.iter().flat_map(|frame| transcript.observe(frame)).collect();
        let [
            ..,
            Notice::BrokeOff { who, words, next: Some((next, 300)), .. },
            Notice::HeldBack { wait_ms: 300, .. },
        ] = &shown[..]
        else {
            panic!("{shown:?}");
        };
        assert_eq!((who.to_string(), *words), ("openai (a)".to_owned(), 3));
        assert_eq!(next.to_string(), "anthropic (b)");
    }

    #[test]
    fn a_restart_is_told_even_if_its_announcement_was_lost_or_its_worker_died() {
        for (next, reason) in [((1, 2, 4), "its end was lost"), ((2, 1, 0), "its worker went away")] {
            let mut transcript = Transcript::default();
            let shown = observe(&mut transcript, &[((1, 1, 0), Text, "Hel"), (next, Text, "Hello")]);
            assert_eq!(shown[0], text("Hel"));
            assert_eq!(shown[1], broke_off(Who::default(), reason));
            assert!(shown.ends_with(&[Notice::Again { who: Who::default() }, text("Hello")]), "{shown:?}");
        }
    }

    #[test]
    fn attempts_without_text_are_not_worth_a_word() {
        let mut transcript = Transcript::default();
        let shown = observe(
            &mut transcript,
            &[
                ((1, 1, 0), Started, "a"),
                ((1, 2, 1), Started, "b"),
                ((2, 1, 0), Started, "b"),
                ((2, 1, 1), Text, "Hi"),
            ],
        );
        assert_eq!(shown, [text("Hi")]);
    }

    #[test]
    fn what_happens_before_the_first_text_is_told_once_with_its_length() {
        let mut transcript = Transcript::default();
        let mut asked_to_wait = frame((1, 1, 2), Waiting, "too many requests");
        (asked_to_wait.why, asked_to_wait.again_in_ms) = (Some(WaitReason::AskedToWait), Some(12_000));
        asked_to_wait.http_status = Some(429);
        let long =
            LiveFrame { again_in_ms: Some(12_000), ..frame((1, 1, 1), AttemptFailed, "too many requests") };
        let short = LiveFrame { again_in_ms: Some(340), ..frame((1, 2, 4), AttemptFailed, "busy") };
        let source = LiveFrame {
            source: Some("crm".to_owned()),
            why: Some(WaitReason::BreakerOpen),
            again_in_ms: Some(30_000),
            ..frame((0, 0, 0), Waiting, "refused")
        };
        let frames = [
            frame((0, 0, 0), Stage, ""),
            source,
            frame((1, 1, 0), Started, "a"),
            long,
            asked_to_wait,
            frame((1, 2, 3), Started, "a"),
            short,
            frame((1, 2, 5), FellBack, ""),
            frame((1, 3, 6), Started, "b"),
            frame((0, 0, 0), Stage, ""),
            frame((1, 3, 7), Text, "Hi"),
        ];
        let shown: Vec<_> = frames.iter().flat_map(|frame| transcript.observe(frame)).collect();
        let [
            Notice::Waiting { whom: Whom::Source(source), wait_ms: Some(30_000), .. },
            Notice::Waiting { whom: Whom::Model(_), wait_ms: Some(12_000), http_status: Some(429), .. },
            Notice::Failed { who, reason, .. },
            Notice::Text(text),
        ] = &shown[..]
        else {
            panic!("{shown:?}");
        };
        assert_eq!(
            (source.as_str(), who, reason.as_str(), text.as_str()),
            ("crm", &named("a"), "busy", "Hi")
        );
        assert_eq!(transcript.ending("Hi"), Ending::Rest(""));
    }

    #[test]
    fn a_wait_that_was_told_with_the_restart_is_not_told_again() {
        let mut transcript = Transcript::default();
        let mut waiting = frame((1, 1, 3), Waiting, "lost");
        (waiting.why, waiting.again_in_ms) = (Some(WaitReason::Backoff), Some(2_000));
        let frames = [
            frame((1, 1, 0), Started, "a"),
            frame((1, 1, 1), Text, "Hel"),
            frame((1, 1, 2), Restarted, "lost"),
        ];
        for frame in &frames {
            drop(transcript.observe(frame));
        }
        assert_eq!(transcript.observe(&waiting), []);
    }

    #[test]
    fn what_is_late_or_doubled_tells_nothing() {
        let mut transcript = Transcript::default();
        observe(&mut transcript, &[((2, 1, 0), Started, "a"), ((2, 1, 1), Text, "Hi")]);
        let late = [((1, 1, 9), Text, "zombie"), ((1, 2, 9), Failed, "x"), ((2, 1, 1), Text, "Hi")];
        assert_eq!(observe(&mut transcript, &late), []);
        assert_eq!(transcript.ending("Hi"), Ending::Rest(""));
    }

    #[test]
    fn a_gap_is_told_where_it_is_and_only_matters_if_text_is_missing() {
        let mut transcript = Transcript::default();
        let shown = observe(&mut transcript, &[((1, 1, 2), Text, "a"), ((1, 1, 5), Text, "c")]);
        assert_eq!(shown, [Notice::Lost(2), text("a"), Notice::Lost(2), text("c")]);
        assert_eq!(transcript.ending("abc"), Ending::Whole);
        assert_eq!(transcript.ending("ac"), Ending::Rest(""), "no text was in the lost frames");
    }

    #[test]
    fn what_failed_is_void_and_the_answer_that_comes_later_is_told_apart() {
        let mut transcript = Transcript::default();
        let shown = observe(&mut transcript, &[((1, 1, 0), Text, "Hel"), ((1, 1, 1), Failed, "too busy")]);
        assert_eq!(shown, [text("Hel"), Notice::NoAnswer { reason: "too busy".to_owned() }]);
        assert_eq!(transcript.ending("Hello"), Ending::Whole);
        let shown = observe(&mut transcript, &[((2, 1, 0), Started, "m"), ((2, 1, 1), Text, "Hello")]);
        assert_eq!(shown, [Notice::Again { who: named("m") }, text("Hello")]);
        assert_eq!(transcript.ending("Hello"), Ending::Rest(""));
    }
}
