//! Stored events as a readable timeline: one header per workflow, one line per event with its distance from the
//! start and from the event before it.

mod describe;
mod groups;
mod style;
mod text;

use std::{fmt::Write as _, time::Duration};

use throughline_schemas::Timestamp;
use time::OffsetDateTime;

use crate::bus::nats::StoredEvent;

pub(super) use describe::Moment;
pub(super) use groups::Groups;
pub use style::Style;
pub(super) use style::Tone;
pub(super) use text::{clean, clean_lines};

/// A step that takes at least this long is marked.
const SLOW: Duration = Duration::from_secs(1);
/// Columns in front of the text: offset, step, type and the gaps between them.
const FRONT: usize = 47;
/// Where the text of a second line of an event begins.
const INDENT: usize = 8;

/// Renders events, each workflow on its own, in the order of their first events. Nothing in an event can move the
/// terminal's cursor or change its colours: control characters are escaped.
pub fn render(events: &[StoredEvent], style: Style) -> String {
    let mut groups = Groups::default();
    let mut text = String::new();
    let mut done = Vec::new();
    for event in events {
        done.extend(groups.add(Moment::of(event, style)));
    }
    done.extend(groups.finish());
    done.sort_by_key(|group| group.first().map(|moment| moment.sequence));
    for group in done {
        text.push_str(&render_group(&group, style));
    }
    text
}

/// The moments of one workflow, with a header.
pub(super) fn render_group(moments: &[Moment], style: Style) -> String {
    let mut text = header(moments, style);
    let mut pace = Pace::default();
    for moment in moments {
        text.push_str(&line(moment, &mut pace, "", style));
    }
    text
}

/// The header of a workflow, as far as these moments tell who it is.
pub(super) fn header(moments: &[Moment], style: Style) -> String {
    let of = |field: fn(&Moment) -> Option<&String>| moments.iter().find_map(field);
    let id = of(|moment| moment.workflow.as_ref()).map_or("of unknown id", String::as_str);
    let mut text = style.paint(Tone::Strong, &format!("workflow {id}"));
    for (name, value) in [
        ("user", of(|moment| moment.user.as_ref())),
        ("session", of(|moment| moment.session.as_ref())),
        ("trace", of(|moment| moment.trace.as_ref())),
    ] {
        if let Some(value) = value {
            let _ = write!(text, "  {name} {value}");
        }
    }
    if let Some(first) = moments.first() {
        let _ =
            write!(text, "  {}", style.paint(Tone::Faint, &first.started.unwrap_or(first.at).to_string()));
    }
    text.push('\n');
    text
}

/// Where a workflow began and where it was last.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pace {
    start: Option<Timestamp>,
    last: Option<Timestamp>,
}

/// One event: a line, and indented lines for what does not fit there.
pub(super) fn line(moment: &Moment, pace: &mut Pace, prefix: &str, style: Style) -> String {
    let start = *pace.start.get_or_insert(moment.started.unwrap_or(moment.at));
    let step = pace.last.map(|last| between(last, moment.at));
    pace.last = Some(moment.at);
    let offset = format!("{:>9}", format!("+{}", duration(between(start, moment.at))));
    let step = match step {
        Some(step) if step >= SLOW => {
            style.paint(Tone::Caution, &format!("{:>12}", format!("{} slow", duration(step))))
        }
        Some(step) => style.paint(Tone::Faint, &format!("{:>12}", duration(step))),
        None => format!("{:>12}", ""),
    };
    let kind = style.paint(moment.tone, &format!("{:<21}", moment.kind));
    let what =
        if moment.tone == Tone::Bad { style.paint(Tone::Bad, &moment.what) } else { moment.what.clone() };
    let mut text = format!("{prefix}{offset} {step}  {kind}  {what}").trim_end().to_owned();
    text.push('\n');
    for detail in &moment.details {
        let _ = writeln!(text, "{prefix}{:INDENT$}{}", "", style.paint(Tone::Faint, detail));
    }
    text
}

/// From one instant to another; nothing if the clock went backwards.
pub(super) fn between(earlier: Timestamp, later: Timestamp) -> Duration {
    (OffsetDateTime::from(later) - OffsetDateTime::from(earlier)).try_into().unwrap_or_default()
}

/// A duration with as many digits as people read.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let ms = duration.as_millis();
    match seconds {
        0 if ms < 10 => format!("{ms}.{} ms", duration.subsec_micros() % 1000 / 100),
        0..10 => format!("{ms} ms"),
        10..120 => format!("{seconds}.{} s", duration.subsec_millis() / 100),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests;
