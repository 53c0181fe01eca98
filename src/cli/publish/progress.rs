//! Progress on stderr: a bar on a terminal, a line now and then elsewhere, nothing beside JSON.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::tally::Tally;
use crate::cli::output;

/// Between two lines where there is no terminal.
const EVERY: Duration = Duration::from_secs(5);
/// Complaints about single lines printed at most; the summary counts them all.
const MAX_COMPLAINTS: u64 = 20;

/// How the work goes on.
pub(super) struct Progress {
    shape: Shape,
    complaints: u64,
}

enum Shape {
    Bar(ProgressBar),
    Lines { next: Instant },
    Silent,
}

impl Progress {
    /// `wait`: whether the work is done with the ends, or with publishing.
    pub(super) fn new(json: bool, wait: bool) -> Self {
        let shape = if io::stderr().is_terminal() {
            let bar = ProgressBar::no_length();
            let template =
                if wait { "{bar:30} {pos}/{len} ended  {elapsed}  {msg}" } else { "{spinner} {msg}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            Shape::Bar(bar)
        } else if json {
            Shape::Silent
        } else {
            Shape::Lines { next: Instant::now() + EVERY }
        };
        Self { shape, complaints: 0 }
    }

    /// Shows the state. To be called a few times a second.
    pub(super) fn show(&mut self, tally: &Tally, unfinished: usize) {
        let failed: u64 = tally.failed.values().sum();
        let state = format!(
            "{} published, {} saved, {failed} failed, {} bad",
            tally.published, tally.saved, tally.bad
        );
        match &mut self.shape {
            Shape::Bar(bar) => {
                bar.set_length(tally.ended() + u64::try_from(unfinished).unwrap_or(u64::MAX));
                bar.set_position(tally.ended());
                bar.set_message(state);
                bar.tick();
            }
            Shape::Lines { next } => {
                if Instant::now() >= *next {
                    output::note(&state);
                    *next = Instant::now() + EVERY;
                }
            }
            Shape::Silent => {}
        }
    }

    /// Says what is wrong with one line, unless that was said of too many others.
    pub(super) fn complain(&mut self, text: &str) {
        self.complaints += 1;
        if self.complaints <= MAX_COMPLAINTS {
            self.note(text);
        } else if self.complaints == MAX_COMPLAINTS + 1 {
            self.note("further lines with problems are only counted; --json names them all");
        }
    }

    fn note(&self, text: &str) {
        match &self.shape {
            Shape::Bar(bar) => bar.suspend(|| output::note(text)),
            Shape::Lines { .. } | Shape::Silent => output::note(text),
        }
    }

    /// Writes a line to stdout without tearing the bar.
    pub(super) fn print(&self, text: &str) -> Result<(), crate::cli::Failure> {
        match &self.shape {
            Shape::Bar(bar) => bar.suspend(|| output::line(text)),
            Shape::Lines { .. } | Shape::Silent => output::line(text),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        if let Shape::Bar(bar) = &self.shape {
            bar.finish_and_clear();
        }
    }
}
