//! A comparison in a terminal.

use comfy_table::{CellAlignment, Table, presets::NOTHING};
use rust_decimal::Decimal;
use throughline_schemas::Usd;

use crate::{
    cli::timeline::{Style, Tone, clean},
    replay::report::{Comparison, Diff, Part, Row, Side, SideTotals, Totals, diff},
};

/// Longest text of one workflow shown, in characters; the page and the JSON have all of it.
const MAX_SHOWN: usize = 1_200;
/// Longest piece of what a user said shown.
const MAX_SAID: usize = 90;

/// The totals, and the workflows that changed most.
pub(super) fn render(comparison: &Comparison, most: usize, style: Style) -> String {
    let totals = Totals::of(&comparison.rows);
    let mut changed: Vec<(f32, &Row, Option<Diff>)> = comparison.rows.iter().filter_map(changed).collect();
    changed.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut lines = Vec::new();
    for (_, row, diff) in changed.iter().take(most) {
        lines.extend([entry(row, diff.as_ref(), style), String::new()]);
    }
    if changed.len() > most {
        let rest = format!("{} more changed; --show N shows more of them", changed.len() - most);
        lines.extend([style.paint(Tone::Faint, &rest), String::new()]);
    }
    let change = if comparison.change.is_empty() {
        "nothing changed".to_owned()
    } else {
        comparison.change.join(", ")
    };
    lines.push(style.paint(Tone::Strong, &clean(&change, MAX_SHOWN)));
    lines.push(table(&totals));
    lines.push(format!(
        "{} of {} run again: {} answers changed, {} are the same, {} newly failed, {} newly answered",
        totals.run,
        totals.run + totals.not_run,
        totals.changed,
        totals.same,
        totals.newly_failed,
        totals.newly_answered
    ));
    if let Some(stopped) = &comparison.stopped {
        let why = format!("not all were run: {}", clean(stopped, MAX_SHOWN));
        lines.push(style.paint(Tone::Caution, &why));
    }
    for (reason, count) in &totals.not_run_because {
        let of = totals.run + totals.not_run;
        let why = format!("{count} of {of} left out: {}", clean(reason, MAX_SHOWN));
        lines.push(style.paint(Tone::Caution, &why));
    }
    lines.join("\n")
}

/// How much a workflow changed, if it did: what fails or is answered now comes first.
fn changed(row: &Row) -> Option<(f32, &Row, Option<Diff>)> {
    match (&row.before, &row.after) {
        (Side::Answered(_), Side::Failed { .. }) => Some((-2.0, row, None)),
        (Side::Failed { .. }, Side::Answered(_)) => Some((-1.0, row, None)),
        (Side::Answered(before), Side::Answered(after)) if before.text != after.text => {
            let diff = diff(&before.text, &after.text);
            Some((diff.similarity, row, Some(diff)))
        }
        (Side::Answered(_) | Side::NotRun { .. }, _)
        | (Side::Failed { .. }, Side::Failed { .. } | Side::NotRun { .. }) => None,
    }
}

fn entry(row: &Row, diff: Option<&Diff>, style: Style) -> String {
    let head = format!(
        "{}  {}",
        style.paint(Tone::Strong, row.workflow.as_str()),
        style.paint(Tone::Faint, &clean(&row.user_input, MAX_SAID))
    );
    let text = match diff {
        Some(diff) => words(diff, style),
        None => format!(
            "{}\n{}",
            side("-", &row.before, Tone::Bad, style),
            side("+", &row.after, Tone::Good, style)
        ),
    };
    format!("{head}\n{text}")
}

/// As `git diff --word-diff` shows it, with marks that need no colours.
fn words(diff: &Diff, style: Style) -> String {
    let mut left = MAX_SHOWN;
    let mut text = String::new();
    for piece in &diff.pieces {
        let shown = clean(&piece.text, left);
        left = left.saturating_sub(shown.chars().count());
        match piece.part {
            Part::Same => text.push_str(&shown),
            Part::Removed => text.push_str(&style.paint(Tone::Bad, &format!("[-{shown}-]"))),
            Part::Added => text.push_str(&style.paint(Tone::Good, &format!("{{+{shown}+}}"))),
        }
        if left == 0 {
            text.push('…');
            break;
        }
    }
    text
}

fn side(mark: &str, side: &Side, tone: Tone, style: Style) -> String {
    let text = match side {
        Side::Answered(answer) => clean(&answer.text, MAX_SHOWN),
        Side::Failed { code, message, .. } => format!("failed ({code}): {}", clean(message, MAX_SHOWN)),
        Side::NotRun { reason } => clean(reason, MAX_SHOWN),
    };
    style.paint(tone, &format!("{mark} {text}"))
}

fn table(totals: &Totals) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table.set_header(["", "before", "now", ""]);
    let (before, after) = (&totals.before, &totals.after);
    let mut row = |name: &str, value: &dyn Fn(&SideTotals) -> String, change: String| {
        table.add_row([name.to_owned(), value(before), value(after), change]);
    };
    row("answered", &|side| side.answered.to_string(), String::new());
    row("failed", &|side| side.failed.to_string(), String::new());
    row("answered by", &|side| counts(&side.models), String::new());
    row("stopped because of", &|side| counts(&side.finish_reasons), String::new());
    row(
        "words of an answer",
        &|side| side.words_mean.map_or_else(unknown, |mean| format!("{mean:.1}")),
        before
            .words_mean
            .zip(after.words_mean)
            .map_or_else(String::new, |(before, after)| percent(before, after)),
    );
    row(
        "tokens of prompts",
        &|side| side.input_tokens.to_string(),
        of(before.input_tokens, after.input_tokens),
    );
    row(
        "tokens of answers",
        &|side| side.output_tokens.to_string(),
        of(before.output_tokens, after.output_tokens),
    );
    row("calls", &|side| side.attempts.to_string(), of(before.attempts, after.attempts));
    row("cost", &cost, cost_change(before.cost_usd, after.cost_usd));
    for (name, of_side) in [
        ("half took no longer than", (|side| side.latency_p50_ms) as fn(&SideTotals) -> Option<u64>),
        ("19 of 20 took no longer than", |side| side.latency_p95_ms),
    ] {
        let change =
            of_side(before).zip(of_side(after)).map_or_else(String::new, |(before, after)| of(before, after));
        row(name, &|side| of_side(side).map_or_else(unknown, |ms| format!("{ms} ms")), change);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

fn unknown() -> String {
    "-".to_owned()
}

fn counts<K: ToString>(of: &std::collections::BTreeMap<K, usize>) -> String {
    if of.is_empty() {
        return unknown();
    }
    of.iter()
        .map(|(name, count)| format!("{} {count}", clean(&name.to_string(), 40)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn cost(side: &SideTotals) -> String {
    let known = format!("${}", side.cost_usd.dollars().round_dp(4));
    if side.cost_unknown == 0 { known } else { format!("{known} and more of {}", side.cost_unknown) }
}

fn cost_change(before: Usd, after: Usd) -> String {
    if before.dollars().is_zero() {
        return String::new();
    }
    let change = (after.dollars() - before.dollars()) * Decimal::ONE_HUNDRED / before.dollars();
    format!("{:+} %", change.round())
}

#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn of(before: u64, after: u64) -> String {
    percent(before as f64, after as f64)
}

fn percent(before: f64, after: f64) -> String {
    if before == 0.0 { String::new() } else { format!("{:+.0} %", (after - before) * 100.0 / before) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_is_read_without_colours_and_says_nothing_to_the_terminal() {
        let text = words(&diff("ship on Monday", "ship \u{1b}[2Jon Friday"), Style::plain());
        assert!(text.contains("[-Monday-]") && text.contains("{+Friday+}") || text.contains("{+"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn changes_are_in_percent_of_what_was() {
        assert_eq!(
            (of(200, 150), of(0, 5), of(100, 100)),
            ("-25 %".to_owned(), String::new(), "+0 %".to_owned())
        );
    }
}
