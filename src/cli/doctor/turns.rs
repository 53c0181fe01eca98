//! How many workflows run and wait, and why the oldest one has not ended.

use throughline_actors::ports::{
    clock::Clock,
    store::{StoreError, Tally, TurnState},
};
use throughline_schemas::Timestamp;

use super::finding::Finding;
use crate::{
    bus::nats::NatsBus,
    cli::{
        exit::with_causes,
        standing::{Reason, Reasons, span},
    },
    config::{Config, Env},
    system::SystemClock,
};

const NAME: &str = "turns";

/// Nothing if the database cannot be looked at: another check says why.
pub(super) async fn check(config: &Config, env: &Env, bus: &NatsBus) -> Option<Finding> {
    let reasons = Reasons::open(config, env, bus).await?;
    let found = look(&reasons).await;
    reasons.close();
    Some(
        found.unwrap_or_else(|error| {
            Finding::warn(NAME, with_causes(&error), "see the check of the database")
        }),
    )
}

async fn look(reasons: &Reasons<'_>) -> Result<Finding, StoreError> {
    let open = reasons.open_turns().await?;
    let now = SystemClock.now();
    // A turn that waits needs more explanation than one that runs.
    let oldest = [(TurnState::Waiting, open.waiting), (TurnState::Running, open.running)]
        .into_iter()
        .find_map(|(state, tally)| Some((state, tally.oldest?)));
    let reason = match oldest {
        Some((state, oldest)) => reasons.of_oldest(state, oldest).await?,
        None => None,
    };
    Ok(Finding::ok(NAME, words(open.running, open.waiting, reason.as_ref(), now)))
}

fn words(running: Tally, waiting: Tally, reason: Option<&Reason>, now: Timestamp) -> String {
    let count = |tally: Tally, verb: &str| {
        let age = tally.oldest.map(|oldest| span(now.ms_since(oldest)));
        let age = age.map_or_else(String::new, |age| format!(", the oldest admitted {age} ago"));
        match tally.turns {
            1 => format!("1 workflow {verb}s{age}"),
            some => format!("{some} workflows {verb}{age}"),
        }
    };
    let why =
        reason.map_or_else(String::new, |reason| format!(": {} {}", reason.workflow(), reason.words(now)));
    match (running.turns, waiting.turns) {
        (0, 0) => "no workflow runs or waits".to_owned(),
        (_, 0) => format!("{}{why}", count(running, "run")),
        (0, _) => format!("{}{why}", count(waiting, "wait")),
        (_, _) => format!("{}; {}{why}", count(running, "run"), count(waiting, "wait")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::standing::tests::at;

    #[test]
    fn counts_are_told_with_the_age_of_the_oldest() {
        let tally = |turns, ms| Tally { turns, oldest: Some(at(ms)) };
        let told = |running, waiting| words(running, waiting, None, at(20_000));
        assert_eq!(told(Tally::default(), Tally::default()), "no workflow runs or waits");
        assert_eq!(told(tally(1, 0), Tally::default()), "1 workflow runs, the oldest admitted 20 s ago");
        assert_eq!(
            told(tally(2, 0), tally(3, 8_000)),
            "2 workflows run, the oldest admitted 20 s ago; 3 workflows wait, the oldest admitted 12 s ago"
        );
    }
}
