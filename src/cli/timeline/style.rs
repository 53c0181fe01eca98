//! How a timeline looks: with colours or without, and how wide.

use std::{env, io::IsTerminal};

use anstyle::AnsiColor;

/// Width where the terminal's is not known.
const DEFAULT_WIDTH: usize = 120;
/// Narrower would leave no room for text.
const MIN_WIDTH: usize = 80;

/// Colours and width of a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    colour: bool,
    width: usize,
}

/// What a piece of text says about its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Tone {
    Plain,
    Strong,
    Faint,
    Good,
    Caution,
    Bad,
}

impl Style {
    /// No colours, 120 columns.
    pub fn plain() -> Self {
        Self { colour: false, width: DEFAULT_WIDTH }
    }

    /// No colours, this many columns.
    #[cfg(test)]
    pub(super) fn wide(width: usize) -> Self {
        Self { colour: false, width }
    }

    /// Colours if stdout is a terminal and `NO_COLOR` is not set; as wide as `COLUMNS` says.
    pub fn of_stdout() -> Self {
        Self::of(&std::io::stdout())
    }

    /// The same of stderr.
    pub(in crate::cli) fn of_stderr() -> Self {
        Self::of(&std::io::stderr())
    }

    fn of(stream: &impl IsTerminal) -> Self {
        let unset = |name: &str| env::var_os(name).is_none_or(|value| value.is_empty());
        let width = env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
        Self {
            colour: stream.is_terminal() && unset("NO_COLOR"),
            width: width.unwrap_or(DEFAULT_WIDTH).max(MIN_WIDTH),
        }
    }

    /// Columns that are left after `front`.
    pub(in crate::cli) fn room(self, front: usize) -> usize {
        self.width.saturating_sub(front)
    }

    pub(in crate::cli) fn paint(self, tone: Tone, text: &str) -> String {
        let style = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Strong => anstyle::Style::new().bold(),
            Tone::Faint => anstyle::Style::new().dimmed(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Caution => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default(),
        };
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}
