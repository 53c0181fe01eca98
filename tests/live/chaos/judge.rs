//! The promises, and whether the ledgers show one broken. The names are those of the project's invariants:
//!
//! 1. Every acknowledged input ends in exactly one way; one that nobody acknowledged, in at most one.
//! 2. There is exactly one row for each saved workflow and none for another.
//! 3. A workflow is asked of the model once, and again only for a retryable fault of the model, or for a worker
//!    that was disturbed while it had the call in hand (or before its answer was in the log).
//! 4. Whoever hears that an interaction is saved finds its row.
//! 5. Turns of one session run in the order of their publishing, one at a time.
//! 6. What broke off is not stored as an answer: each answer is whole.
//! 7. No worker's memory grows without bound.
//! 8. A secret stands nowhere.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use super::rig::{Call, Ledgers, Logged, RECOVERY};
use crate::harness::Figures;

/// Far more than a worker with these loads needs, far less than a leak makes of it.
const MOST_RSS_KIB: u64 = 300 * 1024;
/// Clocks of several processes on one machine.
const SLACK_S: f64 = 0.05;

/// What was found.
pub struct Verdict {
    pub broken: Vec<String>,
    pub figures: String,
    pub table: Figures,
}

#[derive(Default)]
struct Workflow<'a> {
    events: Vec<&'a Logged>,
    calls: Vec<&'a Call>,
}

impl Workflow<'_> {
    fn all(&self, kind: &str) -> impl Iterator<Item = &Logged> {
        self.events.iter().copied().filter(move |event| event.kind == kind)
    }

    fn first(&self, kind: &str) -> Option<&Logged> {
        self.all(kind).next()
    }
}

pub fn judge(ledgers: &Ledgers) -> Verdict {
    let mut workflows: HashMap<&str, Workflow<'_>> = HashMap::new();
    for event in &ledgers.events {
        workflows.entry(&event.workflow).or_default().events.push(event);
    }
    for call in &ledgers.calls {
        workflows.entry(&call.id).or_default().calls.push(call);
    }
    let mut broken = Vec::new();
    ends(ledgers, &workflows, &mut broken);
    rows(ledgers, &workflows, &mut broken);
    let extra = calls(ledgers, &workflows, &mut broken);
    let disordered = order(ledgers, &workflows, &mut broken);
    broken.extend(
        ledgers.watched.without_row.iter().map(|id| format!("4: {id} was told saved and had no row")),
    );
    broken.extend(ledgers.dead.iter().map(|letter| format!("1: a dead letter: {letter}")));
    if ledgers.peak_rss_kib > MOST_RSS_KIB {
        broken.push(format!("7: a worker had {} KiB", ledgers.peak_rss_kib));
    }
    broken.extend(ledgers.leaks.iter().map(|file| format!("8: the canary stands in {file}")));
    let figures = figures(ledgers, &workflows, extra, disordered);
    let table = table(ledgers, &workflows, extra, disordered);
    Verdict { broken, figures, table }
}

fn is_end(event: &Logged) -> bool {
    matches!(event.kind.as_str(), "interaction_saved" | "workflow_failed")
}

/// How long after the last fault the last workflow ended, in seconds.
fn over_after(ledgers: &Ledgers) -> f64 {
    let last = ledgers.events.iter().filter(|event| is_end(event)).map(|event| event.at).fold(0.0, f64::max);
    (last - ledgers.calm_at).max(0.0)
}

/// The same in one line of the table of all tests.
fn table(
    ledgers: &Ledgers,
    workflows: &HashMap<&str, Workflow<'_>>,
    extra: usize,
    disordered: usize,
) -> Figures {
    let acked = ledgers.published.iter().filter(|one| one.state == "acked");
    let ends = acked.map(|one| {
        workflows
            .get(one.id.as_str())
            .map_or(0, |workflow| workflow.events.iter().filter(|event| is_end(event)).count())
    });
    let over = Duration::from_secs_f64(over_after(ledgers));
    let figures = Figures::of_ends(1, "", ledgers.faults.len(), ends);
    figures.out_of_order(disordered).more_calls(extra).recovered(over)
}

fn ends(ledgers: &Ledgers, workflows: &HashMap<&str, Workflow<'_>>, broken: &mut Vec<String>) {
    for published in &ledgers.published {
        let workflow = workflows.get(published.id.as_str());
        let count = |kind| workflow.map_or(0, |workflow| workflow.all(kind).count());
        let (saved, failed) = (count("interaction_saved"), count("workflow_failed"));
        let acked = published.state == "acked";
        if saved + failed > 1 || (acked && saved + failed == 0) {
            let (id, state, tries) = (&published.id, &published.state, published.tries);
            broken.push(format!("1: {id} ({state} after {tries} tries): {saved} saved, {failed} failed"));
        }
    }
    let over = over_after(ledgers);
    if over > RECOVERY.as_secs_f64() {
        broken.push(format!("1: the last workflow ended {over:.1} s after the last fault"));
    }
    let known: HashSet<_> = ledgers.published.iter().map(|one| one.id.as_str()).collect();
    let strangers = ledgers.events.iter().filter(|event| !known.contains(event.workflow.as_str()));
    broken.extend(strangers.map(|event| format!("1: nobody published {}", event.workflow)));
}

fn rows(ledgers: &Ledgers, workflows: &HashMap<&str, Workflow<'_>>, broken: &mut Vec<String>) {
    let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &ledgers.rows {
        let id = row["workflow_id"].as_str().expect("an id");
        *rows.entry(id).or_default() += 1;
        let whole = format!("Answer to {id}.");
        if row["response"] != whole.as_str() {
            broken.push(format!("6: the answer of {id} is {}", row["response"]));
        }
    }
    for (id, workflow) in workflows {
        let saved = workflow.first("interaction_saved").is_some();
        let count = rows.get(id).copied().unwrap_or(0);
        if count != usize::from(saved) {
            broken.push(format!("2: {id} has {count} rows, saved: {saved}"));
        }
    }
}

/// How many calls were made beyond one for each workflow that was asked.
fn calls(ledgers: &Ledgers, workflows: &HashMap<&str, Workflow<'_>>, broken: &mut Vec<String>) -> usize {
    let mut extra = 0;
    for (id, workflow) in workflows {
        let answered_at = workflow.first("response_generated").map_or(f64::INFINITY, |event| event.at);
        let excusable = |call: &&&Call| {
            let faulty = matches!(call.fate.as_deref(), Some("503" | "429" | "cut"));
            faulty
                || ledgers.disturbances.iter().any(|disturbance| {
                    let his = disturbance.worker.as_ref().is_none_or(|worker| *worker == call.worker);
                    his && disturbance.until >= call.began - SLACK_S
                        && disturbance.from <= answered_at + SLACK_S
                })
        };
        let excuses = workflow.calls.iter().filter(excusable).count();
        if workflow.calls.len() > 1 + excuses {
            broken.push(format!(
                "3: {id} was asked {} times with {excuses} excuses: {:#?}",
                workflow.calls.len(),
                workflow.calls
            ));
        }
        extra += workflow.calls.len().saturating_sub(1);
    }
    extra
}

/// How many turns began before the one before them had ended.
fn order(ledgers: &Ledgers, workflows: &HashMap<&str, Workflow<'_>>, broken: &mut Vec<String>) -> usize {
    let mut sessions: BTreeMap<usize, Vec<(usize, &str)>> = BTreeMap::new();
    for published in ledgers.published.iter().filter(|one| one.state == "acked") {
        sessions.entry(published.session).or_default().push((published.turn, &published.id));
    }
    let mut disordered = 0;
    for turns in sessions.values_mut() {
        turns.sort_unstable();
        for pair in turns.windows(2) {
            let [(_, before), (_, after)] = pair else { continue };
            let ended = workflows.get(before).and_then(|workflow| {
                workflow
                    .events
                    .iter()
                    .find(|event| matches!(event.kind.as_str(), "interaction_saved" | "workflow_failed"))
            });
            let began = workflows.get(after).and_then(|workflow| workflow.first("input_validated"));
            if let (Some(ended), Some(began)) = (ended, began) {
                assert_eq!(ended.stream, began.stream, "sequences of one stream can be compared");
                if began.sequence < ended.sequence {
                    disordered += 1;
                    let events = |id: &str| workflows.get(id).map(|workflow| &workflow.events);
                    broken.push(format!(
                        "5: {after} began before {before} had ended: {:#?} {:#?}",
                        events(after),
                        events(before)
                    ));
                }
            }
        }
    }
    disordered
}

fn figures(
    ledgers: &Ledgers,
    workflows: &HashMap<&str, Workflow<'_>>,
    extra: usize,
    disordered: usize,
) -> String {
    let acked = ledgers.published.iter().filter(|one| one.state == "acked").count();
    let ends: Vec<_> = ledgers.events.iter().filter(|event| is_end(event)).collect();
    let saved = ends.iter().filter(|event| event.kind == "interaction_saved").count();
    let longest = ledgers.published.iter().filter_map(|one| {
        let ended = workflows.get(one.id.as_str())?.events.iter().find(|event| is_end(event))?;
        Some(ended.at - one.at)
    });
    let longest = longest.fold(0.0, f64::max);
    let repeats = ledgers.published.iter().filter(|one| one.tries > 1).count();
    format!(
        "published {} (acknowledged {acked}, tried again {repeats}, repeated {}); faults {}; saved {saved}, failed {}, \
         lost {}, disordered {disordered}; model calls {} ({extra} more than one each); ends heard at once {}; \
         longest from publishing to the end {longest:.1} s; last end {:.1} s after the last fault; peak RSS {} MiB",
        ledgers.published.len(),
        ledgers.repeated,
        ledgers.faults.len(),
        ends.len() - saved,
        acked.saturating_sub(ends.len()),
        ledgers.calls.len(),
        ledgers.watched.heard,
        over_after(ledgers),
        ledgers.peak_rss_kib / 1024,
    )
}
