//! Doing the same to many letters, with a bar on a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::json;
use crate::{
    bus::nats::NatsBus,
    cli::{Failure, exit::with_causes, output, timeline::clean},
    dead::{Action, ActionError, Outcome, act_on},
};

/// From so many on, a bar is worth its line.
const WORTH_A_BAR: usize = 2;

/// Acts on each letter in its order, the oldest first, so that a session's letters stay in theirs. A letter that cannot
/// be retried or dropped keeps none of the others from it.
pub(super) async fn perform(
    bus: &NatsBus,
    letters: &[u64],
    action: Action,
    json: bool,
) -> Result<(), Failure> {
    let bar = if letters.len() >= WORTH_A_BAR && std::io::stderr().is_terminal() {
        ProgressBar::new(letters.len() as u64)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}  {eta} left") {
        bar.set_style(style);
    }
    bar.set_message(action.to_string());
    let mut failed = 0_usize;
    for &id in letters {
        let result = act_on(bus, id, action).await;
        let said = if json {
            bar.suspend(|| output::line(&json::result(id, action, &result)))
        } else {
            bar.suspend(|| say(id, &result))
        };
        failed += usize::from(result.is_err());
        if said.is_err() {
            bar.finish_and_clear();
            return said;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let done = letters.len() - failed;
    if failed > 0 {
        let of = letters.len();
        return Err(Failure::failed(format!(
            "{action} {done} of {of} dead letters; the others are still there"
        )));
    }
    if !json {
        output::note(&format!("{action} {done} dead letter{}", if done == 1 { "" } else { "s" }));
    }
    Ok(())
}

fn say(id: u64, result: &Result<Outcome, ActionError>) -> Result<(), Failure> {
    match result {
        Ok(Outcome { record, again }) => {
            let before = if *again { " (had been before)" } else { "" };
            let how = match &record.retry {
                Some(workflow) => format!(" as workflow {}", clean(workflow, usize::MAX)),
                None => String::new(),
            };
            output::line(&format!("{id} {}{how}{before}", record.action))
        }
        Err(error) => {
            output::note(&format!("{id}: {}", with_causes(error)));
            Ok(())
        }
    }
}
