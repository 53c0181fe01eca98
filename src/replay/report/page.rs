//! A comparison as one page that needs nothing else: no script is fetched, no style, no picture.

use minijinja::{
    Environment,
    value::{Serde, Value},
};
use serde::Serialize;

use super::{Answer, Comparison, Piece, Row, Side, Totals, diff, words};

/// The name says that what is put into it is escaped for HTML.
const NAME: &str = "report.html";
const TEMPLATE: &str = include_str!("page.html");

/// The page cannot be written; a bug.
#[derive(Debug, thiserror::Error)]
#[error("the page cannot be made; this is a bug")]
pub struct PageError(#[from] minijinja::Error);

#[derive(Serialize)]
struct Shown<'a> {
    comparison: &'a Comparison,
    totals: Totals,
    entries: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    row: &'a Row,
    /// same, changed, answered (before it failed), failed (before it did not), or skipped.
    kind: &'static str,
    pieces: Vec<Piece>,
    words_before: Option<usize>,
    words_after: Option<usize>,
}

/// Writes the page.
pub fn page(comparison: &Comparison) -> Result<String, PageError> {
    let mut environment = Environment::new();
    environment.add_filter("usd", usd);
    environment.add_filter("seconds", |ms: f64| format!("{:.2} s", ms / 1_000.0));
    environment.add_template(NAME, TEMPLATE)?;
    let mut entries: Vec<(f32, Entry<'_>)> = comparison.rows.iter().map(entry).collect();
    // What changed most comes first; what was left out, last.
    entries.sort_by(|a, b| a.0.total_cmp(&b.0));
    let entries: Vec<Entry<'_>> = entries.into_iter().map(|(_, entry)| entry).collect();
    let totals = Totals::of(&comparison.rows);
    Ok(environment.get_template(NAME)?.render(Value::from(Serde(Shown { comparison, totals, entries })))?)
}

/// What an amount is to people: a hundredth of a cent counts.
fn usd(amount: Option<String>) -> String {
    let amount = amount.and_then(|amount| amount.parse::<rust_decimal::Decimal>().ok());
    amount.map_or_else(|| "unknown".to_owned(), |amount| format!("${}", amount.round_dp(4)))
}

fn entry(row: &Row) -> (f32, Entry<'_>) {
    let (kind, pieces, order) = match (&row.before, &row.after) {
        (_, Side::NotRun { .. }) => ("skipped", Vec::new(), 3.0),
        (Side::Answered(_), Side::Failed { .. }) => ("failed", Vec::new(), -2.0),
        (Side::Failed { .. }, Side::Answered(_)) => ("answered", Vec::new(), -1.0),
        (Side::Answered(before), Side::Answered(after)) if before.text == after.text => {
            ("same", Vec::new(), 2.0)
        }
        (Side::Answered(before), Side::Answered(after)) => {
            let diff = diff(&before.text, &after.text);
            ("changed", diff.pieces, diff.similarity)
        }
        (Side::NotRun { .. }, _) | (Side::Failed { .. }, Side::Failed { .. }) => ("same", Vec::new(), 2.0),
    };
    let (words_before, words_after) = (answer(&row.before).map(words), answer(&row.after).map(words));
    (order, Entry { row, kind, pieces, words_before, words_after })
}

fn answer(side: &Side) -> Option<&Answer> {
    match side {
        Side::Answered(answer) => Some(answer),
        Side::Failed { .. } | Side::NotRun { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::replay::report::testing::{answered, failed, row};

    fn comparison() -> Comparison {
        Comparison {
            change: vec!["model <small>".to_owned()],
            selection: "all workflows".to_owned(),
            started_at: serde_json::from_str("\"2026-01-31T09:00:00Z\"").unwrap(),
            took_ms: 1_500,
            budget_usd: None,
            stopped: None,
            rows: vec![
                row("same", answered("one", "0.01", 1), answered("one", "0.01", 1)),
                row("near", answered("one two three", "0.01", 1), answered("one two four", "0.01", 1)),
                row(
                    "far",
                    answered("one two three", "0.01", 1),
                    answered("<script>alert(1)</script>", "0.01", 1),
                ),
                row("broken", answered("one", "0.01", 1), failed("0.01")),
            ],
        }
    }

    #[test]
    fn what_people_and_models_say_is_text_and_nothing_else() {
        let page = page(&comparison()).unwrap();
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>alert"), "{page}");
        assert!(
            page.contains("Where is &lt;b&gt;my order") && page.contains("model &lt;small&gt;"),
            "{page}"
        );
    }

    #[test]
    fn it_needs_nothing_else() {
        let page = page(&comparison()).unwrap();
        for outside in ["http://", "https://", "src=", "<link", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn what_changed_most_comes_first() {
        let page = page(&comparison()).unwrap();
        let at = |id: &str| page.find(&format!("id=\"w-{id}\"")).expect(id);
        assert!(at("broken") < at("far") && at("far") < at("near") && at("near") < at("same"));
        assert!(page.contains("<del>three</del><ins>four</ins>"), "{page}");
    }
}
