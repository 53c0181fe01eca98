//! `throughline events`: what is stored, and what comes.

mod breakers;
mod failed;
mod inputs;
mod json;
mod newest;
mod paces;
mod reading;
mod screen;
mod select;
mod unfinished;

use std::time::Duration;

use throughline_schemas::WorkflowId;

use super::{
    EventsArgs, Exit, Failure, bus_error, doctor::space::removed, output, signal::Signals, standing::Reason,
    timeline::clean,
};
use crate::{
    app::connect_bus,
    bus::nats::{NatsBus, StoredEvent},
    config::{Config, Env},
    replay::redo::{self, MAX_ATTEMPTS},
};
use breakers::Breakers;
use inputs::BareInputs;
use reading::Reading;
use screen::Screen;
use select::Selection;

/// How long closing the connection may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

pub(super) async fn run(args: &EventsArgs, config: &Config, env: &Env) -> Result<(), Failure> {
    let bus = connect_bus(config, env, "events").await?;
    let shown = Box::pin(show(args, config, env, &bus)).await;
    bus.close(CLOSE_LIMIT).await;
    shown
}

async fn show(args: &EventsArgs, config: &Config, env: &Env, bus: &NatsBus) -> Result<(), Failure> {
    if let Some(limit) = args.limit {
        return newest::show(args, bus, limit).await;
    }
    let mut selection = Selection::new(args, bus.namespace())?;
    let mut show = Show {
        reader: Reading::open(bus, &mut selection).await?,
        inputs: BareInputs::new(bus, &selection),
        screen: Screen::new(args),
        selection,
        failed: args.failed,
        count: 0,
    };
    if !args.follow {
        while show.more(bus).await? {}
        let (shown, is_over) = (show.count, show.screen.is_complete());
        let finished = show.finish(args);
        if !is_over && let Some(reason) = unfinished::reason(args, config, env, bus).await {
            return unfinished::report(&reason, shown == 0);
        }
        if let Err(failure) = finished {
            return Err(with_what_was_removed(failure, shown, bus).await);
        }
        return taken_up(args, bus).await;
    }
    if let Some(reason) = unfinished::reason(args, config, env, bus).await.filter(Reason::is_waiting) {
        unfinished::report(&reason, false)?;
    }
    let mut signals = Signals::install()?;
    // A breaker may be why a workflow waits, so it is shown beside any selection but one of a type.
    let mut breakers =
        if args.r#type.is_none() && !args.failed { Some(Breakers::open(bus).await?) } else { None };
    loop {
        tokio::select! {
            more = show.more(bus) => {
                if !more? || show.screen.is_complete() {
                    return Ok(());
                }
            }
            moved = Breakers::next(&mut breakers) => show.screen.breaker(&moved)?,
            _ = signals.next() => return Ok(()),
        }
    }
}

/// Who looks for what is not there is told what retention has removed.
async fn with_what_was_removed(failure: Failure, shown: u64, bus: &NatsBus) -> Failure {
    match bus.last_purge().await {
        Ok(Some(purge)) if shown == 0 => {
            Failure { message: format!("{}{}", failure.message, removed(&purge)), ..failure }
        }
        Ok(_) | Err(_) => failure,
    }
}

/// Says under which ids a workflow was taken up; scripts find that in the events of its session.
async fn taken_up(args: &EventsArgs, bus: &NatsBus) -> Result<(), Failure> {
    let Some(workflow) = args.workflow.as_ref().filter(|_| !args.json) else { return Ok(()) };
    let Ok(workflow) = WorkflowId::new(workflow) else { return Ok(()) };
    for id in (1..=MAX_ATTEMPTS).map(|attempt| redo::id(&workflow, attempt)) {
        if !bus.has_any(&id).await.map_err(|error| bus_error::failure(&error))? {
            break;
        }
        output::line(&format!("taken up as {}", clean(id.as_str(), 256)))?;
    }
    Ok(())
}

/// Nothing was found, and no workflow was asked for. A session of which nothing is stored is as unknown as a workflow would
/// be; that none of its workflows failed is an answer.
fn nothing_of(args: &EventsArgs) -> Result<(), Failure> {
    if let Some(session) = args.session.as_ref().filter(|_| !args.failed) {
        return Err(Failure::failed(format!(
            "no event of session {} is stored that matches: the id is wrong, its input has not been taken up yet (is a \
             worker running?), or its events have expired",
            clean(session, 256)
        )));
    }
    output::note("no stored event matches");
    Ok(())
}

struct Show<'a> {
    reader: Reading,
    selection: Selection,
    inputs: BareInputs<'a>,
    screen: Screen,
    failed: bool,
    /// Events that were shown; of those that failed, workflows.
    count: u64,
}

impl Show<'_> {
    async fn more(&mut self, bus: &NatsBus) -> Result<bool, Failure> {
        if self.failed { self.next_failed(bus).await } else { self.next().await }
    }

    /// Shows the next event; false after the last one.
    async fn next(&mut self) -> Result<bool, Failure> {
        let Some(event) = self.reader.next().await? else {
            return Ok(false);
        };
        if self.selection.is_over(&event) {
            return Ok(false);
        }
        // An input without tokens in its subject is not among what is read; what it led to names it.
        if let Some(input) = self.inputs.missing(&event).await? {
            self.print(&input, Some(&event))?;
        }
        self.print(&event, None)?;
        Ok(true)
    }

    fn print(&mut self, event: &StoredEvent, led_to: Option<&StoredEvent>) -> Result<(), Failure> {
        if !self.selection.shows(event) {
            return Ok(());
        }
        self.count += 1;
        self.screen.event(event, led_to)
    }

    fn finish(self, args: &EventsArgs) -> Result<(), Failure> {
        self.screen.finish()?;
        match (&args.workflow, self.count) {
            (Some(workflow), 0) if args.failed => Err(Failure::failed(format!(
                "no failure of workflow {} is stored in that time: it has not failed, or is not known; see \
                 `throughline events --workflow`",
                clean(workflow, 256)
            ))),
            (Some(workflow), 0) => Err(Failure {
                exit: Exit::Failed,
                message: format!(
                    "no event of workflow {} is stored{}: the id is wrong, its input has not been taken up yet (is a \
                     worker running?), or its events have expired",
                    clean(workflow, 256),
                    if args.since.is_some() || args.until.is_some() { " in that time" } else { "" }
                ),
            }),
            (None, 0) => nothing_of(args),
            _ => Ok(()),
        }
    }
}
