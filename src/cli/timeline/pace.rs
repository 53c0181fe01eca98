//! When the work for each event began, how long it had waited, and what was slow.

use std::{fmt::Write as _, time::Duration};

use throughline_schemas::{StageName, Timestamp};
use time::OffsetDateTime;

use super::{INDENT, Moment, Style, Tone, duration};

/// Work or a wait of at least this long is marked.
const SLOW: Duration = Duration::from_secs(1);
/// Work with a model of at least this long is marked: most of a workflow's time is a model's, and a long answer takes tens
/// of seconds.
const SLOW_MODEL: Duration = Duration::from_secs(30);
/// What stands above the columns of a timeline.
const HEADING: [&str; 5] = ["start", "waited", "took", "stage", "event"];

/// Where a workflow began and where it was last.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::cli) struct Pace {
    start: Option<Timestamp>,
    last: Option<Timestamp>,
}

/// The time of one event, as far as it is on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    /// From the start of the workflow to when its work began; if that is not known, to when it could begin.
    pub(super) start: Duration,
    /// From the event before to when the work began; `None` if that is not on record.
    pub(super) waited: Option<Duration>,
    /// From then on until the event was stored; `None` for what begins a workflow.
    pub(super) took: Option<Duration>,
}

impl Pace {
    /// Goes on to the next event.
    pub(super) fn step(&mut self, moment: &Moment) -> Step {
        let start = *self.start.get_or_insert(moment.started.unwrap_or(moment.at));
        let Some(last) = self.last.replace(moment.at) else {
            return Step { start: between(start, moment.at), waited: None, took: None };
        };
        let since_last = between(last, moment.at);
        // Clocks differ, and work that was started again may have begun before: never longer than the whole step.
        let worked = moment.worked.map(|worked| worked.min(since_last));
        let waited = worked.map(|worked| since_last.saturating_sub(worked));
        Step {
            start: between(start, last) + waited.unwrap_or_default(),
            waited,
            took: Some(worked.unwrap_or(since_last)),
        }
    }
}

/// Whether work of a stage that took so long is to be marked.
pub(super) fn is_slow(stage: &str, took: Duration) -> bool {
    took >= if stage == StageName::Generation.as_str() { SLOW_MODEL } else { SLOW }
}

/// The names of the columns.
pub(super) fn heading(style: Style) -> String {
    let [start, waited, took, stage, event] = HEADING;
    let text = format!("{start:>9} {waited:>12} {took:>12}  {stage:<11}  {event}\n");
    style.paint(Tone::Faint, &text)
}

/// One event: a line, and indented lines for what does not fit there.
pub(in crate::cli) fn line(moment: &Moment, pace: &mut Pace, prefix: &str, style: Style) -> String {
    let step = pace.step(moment);
    let offset = format!("{:>9}", format!("+{}", duration(step.start)));
    let column = |time: Option<Duration>, is_slow: bool| match time {
        Some(time) if is_slow => {
            style.paint(Tone::Caution, &format!("{:>12}", format!("{} slow", duration(time))))
        }
        Some(time) => style.paint(Tone::Faint, &format!("{:>12}", duration(time))),
        None => format!("{:>12}", ""),
    };
    let waited = column(step.waited, step.waited.is_some_and(|waited| waited >= SLOW));
    let took = column(step.took, step.took.is_some_and(|took| is_slow(moment.stage, took)));
    let kind = style.paint(moment.tone, &format!("{:<21}", moment.kind));
    let what =
        if moment.tone == Tone::Bad { style.paint(Tone::Bad, &moment.what) } else { moment.what.clone() };
    let stage = moment.stage;
    let mut text =
        format!("{prefix}{offset} {waited} {took}  {stage:<11}  {kind}  {what}").trim_end().to_owned();
    text.push('\n');
    for detail in &moment.details {
        let _ = writeln!(text, "{prefix}{:INDENT$}{}", "", style.paint(Tone::Faint, detail));
    }
    text
}

/// From one instant to another; nothing if the clock went backwards.
pub(in crate::cli) fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    (OffsetDateTime::from(later) - OffsetDateTime::from(earlier)).try_into().unwrap_or_default()
}
