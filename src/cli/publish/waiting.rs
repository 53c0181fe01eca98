//! Says to a user who waits for a workflow that it waits for another one of its session, and for which.

use std::{convert::Infallible, time::Duration};

use throughline_actors::ports::clock::Clock;

use crate::{
    bus::nats::NatsBus,
    cli::{
        output,
        standing::Reasons,
        timeline::{Style, Tone},
    },
    client::Message,
    config::{Config, Env},
    system::SystemClock,
};

/// Nobody wonders sooner; most workflows that wait have had their turn by then.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Between two looks, each a question to the database for one row.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Says it once, and again whenever it changes, until the workflow has its turn. Where there is no database to look at,
/// nothing is said.
pub(super) async fn report(bus: &NatsBus, config: &Config, env: &Env, message: &Message) -> Infallible {
    tokio::time::sleep(FIRST_LOOK).await;
    let Some(reasons) = Reasons::open(config, env, bus).await else { return std::future::pending().await };
    let mut reported = None;
    loop {
        // Of another message with the same id nothing is said.
        if let Ok(Some(reason)) = reasons.of(&message.workflow).await
            && reason.is_of(&message.user, &message.session)
        {
            if !reason.is_waiting() {
                if reported.is_some() {
                    say("its turn has come");
                }
                reasons.close();
                return std::future::pending().await;
            }
            if reported.as_ref().is_none_or(|reported| !reason.is_as(reported)) {
                say(&reason.words(SystemClock.now()));
                reported = Some(reason);
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn say(words: &str) {
    output::note(&Style::of_stderr().paint(Tone::Faint, &format!("[{words}]")));
}
