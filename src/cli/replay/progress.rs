//! How far a replay has come: a bar on a terminal, nothing elsewhere.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::{Failure, output};

/// Between two pictures.
const EVERY: Duration = Duration::from_millis(100);

/// See the module's documentation.
pub(super) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Counts workflows, of which it is not known how many there are.
    pub(super) fn new(total: Option<u64>) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::no_length();
        let template = if total.is_some() {
            "{bar:30} {pos}/{len}  {elapsed}  {msg}"
        } else {
            "{spinner} {pos} workflows  {elapsed}  {msg}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        if let Some(total) = total {
            bar.set_length(total);
        }
        bar.enable_steady_tick(EVERY);
        Self(Some(bar))
    }

    /// One more is done.
    pub(super) fn one(&self, message: &str) {
        if let Some(bar) = &self.0 {
            bar.inc(1);
            bar.set_message(message.to_owned());
        }
    }

    /// Writes a line to stdout without tearing the bar.
    pub(super) fn print(&self, line: &str) -> Result<(), Failure> {
        match &self.0 {
            Some(bar) => bar.suspend(|| output::line(line)),
            None => output::line(line),
        }
    }

    /// Removes the bar.
    pub(super) fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
