//! Workflows as a table that fits the terminal: one line each, whatever their ids are.

use comfy_table::{
    ColumnConstraint::LowerBoundary, ContentArrangement, Row, Width::Fixed, presets::UTF8_BORDERS_ONLY,
};
use throughline_schemas::Timestamp;

use super::terminal;
use crate::cli::{
    standing::{Standing, span},
    timeline::{Style, clean},
};

/// Lines of a table that are no workflows: its borders and its header.
pub(super) const FRAME_LINES: usize = 4;
/// Longest id shown, in characters.
const MAX_ID_CHARS: usize = 36;
/// Longest words on a state.
const MAX_STATE_CHARS: usize = 48;

/// In a narrower terminal all columns shrink alike.
const NARROW: usize = 80;
/// What the columns with the most to tell have at least.
const WORKFLOW_COLUMNS: u16 = 12;
const STATE_COLUMNS: u16 = 28;
/// Stands in no text that was cleaned.
const NO_DELIMITER: char = '\0';

/// A table that grows workflow by workflow.
pub(super) struct Table {
    table: comfy_table::Table,
    now: Timestamp,
}

impl Table {
    pub(super) fn new(now: Timestamp) -> Self {
        Self::wide(terminal::columns().unwrap_or_else(|| Style::of_stdout().room(0)), now)
    }

    fn wide(columns: usize, now: Timestamp) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        let mut header = Row::from(["workflow", "state", "session", "user", "age", "took", "cost"]);
        header.max_height(1);
        table.set_header(header);
        // What is cut is cut at the end, not at a space: for whom a workflow waits stands there.
        table.set_delimiter(NO_DELIMITER);
        if columns >= NARROW {
            table.set_constraints(
                [WORKFLOW_COLUMNS, STATE_COLUMNS].map(|columns| LowerBoundary(Fixed(columns))),
            );
        }
        if let Ok(width) = u16::try_from(columns) {
            table.set_width(width);
        }
        Self { table, now }
    }

    pub(super) fn add(&mut self, standing: &Standing) {
        let turn = &standing.turn;
        let took = turn.state.is_end().then(|| span(turn.updated_at.ms_since(turn.created_at)));
        let mut row = Row::from([
            clean(turn.workflow_id.as_str(), MAX_ID_CHARS),
            clean(&standing.words(self.now), MAX_STATE_CHARS),
            clean(turn.session_id.as_str(), MAX_ID_CHARS),
            turn.user_id.as_ref().map_or_else(unknown, |user| clean(user.as_str(), MAX_ID_CHARS)),
            span(self.now.ms_since(turn.created_at)),
            took.unwrap_or_else(unknown),
            turn.cost_usd.map_or_else(unknown, |cost| format!("${}", cost.dollars().normalize())),
        ]);
        row.max_height(1);
        self.table.add_row(row);
    }

    pub(super) fn render(&self) -> String {
        self.table.to_string()
    }
}

fn unknown() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_actors::ports::store::{ListedTurn, TurnState};
    use throughline_schemas::{StageName, Usd, WorkflowId};

    use super::*;
    use crate::cli::standing::{
        Step,
        tests::{at, turn},
    };

    fn lines(columns: usize, standings: &[Standing]) -> Vec<String> {
        let mut table = Table::wide(columns, at(14_000));
        for standing in standings {
            table.add(standing);
        }
        table.render().lines().map(str::to_owned).collect()
    }

    #[test]
    fn every_workflow_has_one_line_in_a_terminal_of_any_width() {
        let cost_usd = Some(Usd::new("0.000134250".parse().unwrap()));
        let waits_for = Some(WorkflowId::new("qq-1").unwrap());
        let long = "0198c5d2-7d3e-7cc0-9d3a-0123456789ab".repeat(3);
        let standings = [
            Standing::new(ListedTurn { waits_for, ..turn("qq-2", TurnState::Waiting) }),
            Standing {
                turn: turn("qq-1", TurnState::Running),
                step: Some(Step { stage: StageName::Generation, since: at(2_000) }),
            },
            Standing::new(ListedTurn { cost_usd, ..turn(&long, TurnState::Saved) }),
        ];
        for columns in [60, 80, 120, 200] {
            let lines = lines(columns, &standings);
            assert_eq!(lines.len(), FRAME_LINES + standings.len(), "{columns}: {lines:#?}");
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{columns}: {lines:#?}");
        }
        for columns in [80, 200] {
            let text = lines(columns, &standings).join("\n");
            for said in ["waits for qq-1", "runs: generation for 12 s"] {
                assert!(text.contains(said), "{said} is not in\n{text}");
            }
        }
        let wide = lines(200, &standings).join("\n");
        for said in ["1.5 s", "$0.00013425", "demo"] {
            assert!(wide.contains(said), "{said} is not in\n{wide}");
        }
    }
}
