//! Stored events as a readable timeline: one header per workflow, one line per event with when its work began, how long
//! it had waited, and how long it took.

mod calls;
mod describe;
mod groups;
mod pace;
mod style;
mod text;

use std::{fmt::Write as _, time::Duration};

use throughline_schemas::Timestamp;

use crate::bus::nats::StoredEvent;

pub(super) use calls::{attempt_line, cost, count, failed_call_line, model_words, tokens};
pub(super) use describe::Moment;
pub(super) use groups::Groups;
pub(super) use pace::{Pace, between, line};
pub use style::Style;
pub(super) use style::Tone;
pub(super) use text::{clean, clean_lines};

/// Columns in front of the text: start, wait, work, stage, type and the gaps between them.
const FRONT: usize = 73;
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
    text.push_str(&pace::heading(style));
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
        // Whole milliseconds: as a point in time nobody reads more digits.
        let began = Timestamp::from_unix_ms(first.started.unwrap_or(first.at).unix_ms());
        let _ = write!(text, "  {}", style.paint(Tone::Faint, &began.to_string()));
    }
    text.push('\n');
    text
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
