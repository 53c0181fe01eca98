//! Dead letters as a table.

use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets::UTF8_BORDERS_ONLY};
use throughline_schemas::Timestamp;

use crate::{
    cli::timeline::{Style, clean},
    dead::Letter,
};

/// Longest error shown, in characters; `dead show` has all of it.
const MAX_ERROR_CHARS: usize = 160;
/// Longest workflow id shown.
const MAX_ID_CHARS: usize = 48;

/// A table that grows letter by letter, without their bodies.
pub(super) struct Rows {
    table: Table,
    now: Timestamp,
}

impl Rows {
    pub(super) fn new(now: Timestamp) -> Self {
        let mut table = Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["id", "buried", "stage", "code", "attempts", "workflow", "error"]);
        if let Ok(width) = u16::try_from(Style::of_stdout().room(0)) {
            table.set_width(width);
        }
        Self { table, now }
    }

    pub(super) fn add(&mut self, letter: &Letter) {
        self.table.add_row([
            letter.id.to_string(),
            age(self.now, letter.at),
            letter.stage.map_or_else(unknown, |stage| stage.to_string()),
            letter.code.map_or_else(unknown, |code| code.to_string()),
            letter.attempts.map_or_else(unknown, |attempts| attempts.to_string()),
            letter.workflow().map_or_else(unknown, |workflow| clean(workflow.as_str(), MAX_ID_CHARS)),
            clean(&letter.error, MAX_ERROR_CHARS),
        ]);
    }

    /// The table; `None` without a letter.
    pub(super) fn render(&self) -> Option<String> {
        (!self.table.is_empty()).then(|| self.table.to_string())
    }
}

pub(super) fn unknown() -> String {
    "-".to_owned()
}

/// How long ago, in its largest unit.
pub(super) fn age(now: Timestamp, at: Timestamp) -> String {
    let seconds = Duration::from_millis(now.ms_since(at)).as_secs();
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..86_400 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}
