//! Progress on stderr: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use rust_decimal::Decimal;
use tokio::time::Instant;

use super::Done;
use crate::cli::{output, timeline::clean};

/// Between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);
/// Complaints about single lines printed at most; each is in the output, too.
const MAX_COMPLAINTS: u64 = 20;
/// Longest complaint, in characters.
const COMPLAINT_CHARS: usize = 300;

/// What earlier runs did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Before {
    /// Lines that are not asked any more.
    pub(super) done: u64,
    /// How many of them have no answer.
    pub(super) failed: u64,
    /// Lines that had no answer and are asked again.
    pub(super) again: u64,
}

/// What has become of the lines.
#[derive(Debug, Default)]
pub(super) struct Tally {
    before: Before,
    answered: u64,
    failed: u64,
    cost: Decimal,
    cost_is_partial: bool,
}

impl Tally {
    pub(super) fn after(before: Before) -> Self {
        Self { before, ..Self::default() }
    }

    pub(super) fn add(&mut self, done: &Done) {
        match &done.result {
            Ok(answer) => {
                self.answered += 1;
                match answer.cost_usd {
                    Some(cost) => self.cost = self.cost.saturating_add(cost.dollars()),
                    None => self.cost_is_partial = true,
                }
                self.cost_is_partial |= answer.cost_is_partial;
            }
            Err(_) => self.failed += 1,
        }
    }

    /// Lines without an answer, those of earlier runs included.
    pub(super) fn unanswered(&self) -> u64 {
        self.failed + self.before.failed
    }

    pub(super) fn summary(&self) -> String {
        let cost = match (self.answered, self.cost.is_zero(), self.cost_is_partial) {
            (0, _, _) => String::new(),
            (_, true, true) => ", cost unknown".to_owned(),
            (_, false, true) => format!(", at least ${}", self.cost.normalize()),
            (_, _, false) => format!(", ${}", self.cost.normalize()),
        };
        let before = match self.before {
            Before { done: 0, again: 0, .. } => String::new(),
            Before { done, failed: 0, again: 0 } => format!("; {done} were done before"),
            Before { done, failed: 0, again } => {
                format!("; {done} were done before, and {again} without an answer are asked again")
            }
            Before { done, failed, .. } => {
                format!("; {done} were done before, {failed} of them without an answer")
            }
        };
        format!("{} answered, {} failed{cost}{before}", self.answered, self.failed)
    }
}

pub(super) struct Progress {
    shape: Shape,
    complaints: u64,
}

enum Shape {
    Bar(ProgressBar),
    Lines { next: Instant },
}

impl Progress {
    /// `lines`: how many there are, if that is known.
    pub(super) fn new(lines: Option<u64>) -> Self {
        let shape = if io::stderr().is_terminal() {
            let (bar, template) = match lines {
                Some(lines) => {
                    (ProgressBar::new(lines), "{bar:30} {pos}/{len}  {elapsed}, {eta} left  {msg}")
                }
                None => (ProgressBar::no_length(), "{spinner} {pos}  {elapsed}  {msg}"),
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            Shape::Bar(bar)
        } else {
            Shape::Lines { next: Instant::now() + EVERY }
        };
        Self { shape, complaints: 0 }
    }

    pub(super) fn show(&mut self, tally: &Tally) {
        match &mut self.shape {
            Shape::Bar(bar) => {
                bar.set_position(tally.before.done + tally.answered + tally.failed);
                bar.set_message(tally.summary());
            }
            Shape::Lines { next } if Instant::now() >= *next => {
                output::note(&tally.summary());
                *next = Instant::now() + EVERY;
            }
            Shape::Lines { .. } => {}
        }
    }

    /// Says what is wrong with one line, unless that was said of too many others.
    pub(super) fn complain(&mut self, text: &str) {
        self.complaints += 1;
        if self.complaints <= MAX_COMPLAINTS {
            self.note(&clean(text, COMPLAINT_CHARS));
        } else if self.complaints == MAX_COMPLAINTS + 1 {
            self.note("further lines without an answer are only counted; the output names them all");
        }
    }

    pub(super) fn note(&self, text: &str) {
        match &self.shape {
            Shape::Bar(bar) => bar.suspend(|| output::note(text)),
            Shape::Lines { .. } => output::note(text),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        if let Shape::Bar(bar) = &self.shape {
            bar.finish_and_clear();
        }
    }
}
