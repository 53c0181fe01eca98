//! Printing events as they are read: JSON lines, whole workflows, or interleaved lines.

use throughline_schemas::EventType;

use super::{
    breakers::Moved,
    json,
    paces::{Paces, prefix},
};
use crate::{
    bus::nats::StoredEvent,
    cli::{
        EventsArgs, Failure, output,
        timeline::{self, Groups, Moment, Style, Tone},
    },
};

/// Where events go.
pub(super) struct Screen {
    style: Style,
    mode: Mode,
    /// Only one workflow is shown: lines need not say whose they are, and nothing comes after its end.
    alone: bool,
    complete: bool,
}

enum Mode {
    Json,
    /// Whole workflows, each printed when it is complete.
    Grouped(Groups),
    /// Each event at once.
    Interleaved(Paces),
}

impl Screen {
    pub(super) fn new(args: &EventsArgs) -> Self {
        let mode = if args.json {
            Mode::Json
        } else if args.failed {
            // Its events come one after the other even while following.
            Mode::Grouped(Groups::default())
        } else if args.follow || args.r#type.is_some() {
            Mode::Interleaved(Paces::default())
        } else {
            Mode::Grouped(Groups::default())
        };
        Self { style: Style::of_stdout(), mode, alone: args.workflow.is_some(), complete: false }
    }

    /// Whether the one workflow that was asked for is over.
    pub(super) fn is_complete(&self) -> bool {
        self.complete
    }

    /// `led_to`: the event by which this input was found.
    pub(super) fn event(&mut self, event: &StoredEvent, led_to: Option<&StoredEvent>) -> Result<(), Failure> {
        let style = self.style;
        self.complete = self.alone && event.event_type().is_some_and(EventType::is_end);
        let moment = || {
            let moment = Moment::of(event, style);
            match led_to {
                Some(found_by) => moment.of_workflow(&Moment::of(found_by, style)),
                None => moment,
            }
        };
        match &mut self.mode {
            Mode::Json => output::line(&json::line(event, led_to)),
            Mode::Grouped(groups) => {
                groups.add(moment()).iter().try_for_each(|group| print(&timeline::render_group(group, style)))
            }
            Mode::Interleaved(paces) => {
                let moment = moment();
                let prefix = if self.alone { String::new() } else { prefix(&moment) };
                let (pace, is_new) = paces.of(&moment);
                let mut text = String::new();
                if is_new {
                    text.push_str(&timeline::header(std::slice::from_ref(&moment), style));
                }
                text.push_str(&timeline::line(&moment, pace, &style.paint(Tone::Strong, &prefix), style));
                if moment.is_end {
                    paces.over(&moment);
                }
                print(&text)
            }
        }
    }

    pub(super) fn breaker(&self, moved: &Moved) -> Result<(), Failure> {
        if matches!(self.mode, Mode::Json) {
            return moved.json().map_or(Ok(()), |line| output::line(&line));
        }
        let Some((text, is_bad)) = moved.words() else { return Ok(()) };
        output::line(&self.style.paint(if is_bad { Tone::Bad } else { Tone::Good }, &text))
    }

    /// Prints what is not complete.
    pub(super) fn finish(self) -> Result<(), Failure> {
        if let Mode::Grouped(groups) = self.mode {
            for group in groups.finish() {
                print(&timeline::render_group(&group, self.style))?;
            }
        }
        Ok(())
    }
}

/// Prints lines that bring their last line break along.
fn print(text: &str) -> Result<(), Failure> {
    output::line(text.strip_suffix('\n').unwrap_or(text))
}
