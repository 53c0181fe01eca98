//! Where turns stand: what waits and for whom, and which stage works on what runs.

mod reason;

use std::time::Duration;

use futures_util::{StreamExt, stream};
use throughline_actors::ports::store::{ListedTurn, TurnState};
use throughline_schemas::{StageName, Timestamp};

pub(super) use reason::{Reason, Reasons};

use super::timeline::clean;
use crate::bus::nats::NatsBus;

/// Longest id in words, in characters.
const ID_CHARS: usize = 80;
/// Running turns whose events are looked up at most, each with one small request.
const MAX_LOOK_UPS: usize = 500;
/// Look-ups at the same time.
const LOOK_UPS_AT_ONCE: usize = 32;
/// How long all look-ups together may take; what is not known by then is shown without its stage.
const LOOK_UP_LIMIT: Duration = Duration::from_secs(2);

/// The stage that has to act now, and since when that is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) stage: StageName,
    pub(super) since: Timestamp,
}

/// How a turn stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) turn: ListedTurn,
    /// Of a turn that runs, where its events tell.
    pub(super) step: Option<Step>,
}

impl Standing {
    pub(super) fn new(turn: ListedTurn) -> Self {
        Self { turn, step: None }
    }

    /// In the words of a list.
    pub(super) fn words(&self, now: Timestamp) -> String {
        let Self { turn, step } = self;
        match turn.state {
            TurnState::Waiting => match &turn.waits_for {
                Some(ahead) => format!("waits for {}", clean(ahead.as_str(), ID_CHARS)),
                // Its session is free, or the first that waits there is held.
                None => "waits for running workflows of its user".to_owned(),
            },
            TurnState::Running => match step {
                Some(Step { stage, since }) => format!("runs: {stage} for {}", span(now.ms_since(*since))),
                None => "runs".to_owned(),
            },
            TurnState::Saved => "saved".to_owned(),
            TurnState::Failed => {
                let code = turn.code.map_or_else(String::new, |code| format!(": {code}"));
                let by = turn.superseded_by.as_ref();
                let by = by.map_or_else(String::new, |by| format!(" by {}", clean(by.as_str(), ID_CHARS)));
                format!("failed{code}{by}")
            }
        }
    }
}

/// Looks up in which stage turns are that run. Without an answer of the log they stand as they stood.
pub(super) async fn look_up_steps(bus: &NatsBus, standings: &mut [Standing]) {
    let deadline = tokio::time::Instant::now() + LOOK_UP_LIMIT;
    let running = standings.iter_mut().filter(|standing| standing.turn.state == TurnState::Running);
    stream::iter(running.take(MAX_LOOK_UPS))
        .for_each_concurrent(LOOK_UPS_AT_ONCE, async |standing| {
            let turn = &standing.turn;
            let asked = bus.latest_step(&turn.session_id, &turn.workflow_id);
            standing.step = match tokio::time::timeout_at(deadline, asked).await {
                // Its end is in the log, and the database has not heard of it yet.
                Ok(Ok(Some((event_type, since)))) => StageName::consumer_of(event_type).map(|stage| Step { stage, since }),
                // What it begins with is on its way.
                Ok(Ok(None)) => Some(Step { stage: StageName::Input, since: turn.updated_at }),
                Ok(Err(error)) => {
                    tracing::debug!(%error, workflow = %turn.workflow_id, "the stage of a workflow is not known");
                    None
                }
                Err(_) => None,
            };
        })
        .await;
}

/// A span of time in its two largest units.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        0 => format!("{ms} ms"),
        1..10 => format!("{seconds}.{} s", ms % 1_000 / 100),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min {} s", seconds / 60, seconds % 60),
        7_200..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use throughline_schemas::{FailureCode, SessionId, UserId, WorkflowId};

    use super::*;

    pub(in crate::cli) fn at(ms: i64) -> Timestamp {
        Timestamp::from_unix_ms(1_760_000_000_000 + ms)
    }

    pub(in crate::cli) fn turn(id: &str, state: TurnState) -> ListedTurn {
        ListedTurn {
            workflow_id: WorkflowId::new(id).unwrap(),
            session_id: SessionId::new("s1").unwrap(),
            user_id: Some(UserId::new("demo").unwrap()),
            input_sequence: Some(7),
            state,
            waits_for: None,
            code: None,
            superseded_by: None,
            created_at: at(0),
            updated_at: at(1_500),
            cost_usd: None,
        }
    }

    #[test]
    fn every_state_says_what_a_person_wants_to_know_of_it() {
        let said = |standing: &Standing| standing.words(at(14_000));
        let waiting = ListedTurn {
            waits_for: Some(WorkflowId::new("qq\u{1b}1").unwrap()),
            ..turn("a", TurnState::Waiting)
        };
        assert_eq!(said(&Standing::new(waiting)), r"waits for qq\u{1b}1");
        assert_eq!(
            said(&Standing::new(turn("a", TurnState::Waiting))),
            "waits for running workflows of its user"
        );
        let running = Standing::new(turn("a", TurnState::Running));
        assert_eq!(said(&running), "runs");
        let step = Some(Step { stage: StageName::Generation, since: at(2_000) });
        assert_eq!(said(&Standing { step, ..running }), "runs: generation for 12 s");
        assert_eq!(said(&Standing::new(turn("a", TurnState::Saved))), "saved");
        assert_eq!(said(&Standing::new(turn("a", TurnState::Failed))), "failed");
        let interrupted = ListedTurn {
            code: Some(FailureCode::Interrupted),
            superseded_by: Some(WorkflowId::new("b").unwrap()),
            ..turn("a", TurnState::Failed)
        };
        assert_eq!(said(&Standing::new(interrupted)), "failed: interrupted by b");
    }

    #[test]
    fn spans_have_the_units_that_people_read() {
        let spans = [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_250, "1.2 s"),
            (59_999, "59 s"),
            (863_000, "14 min 23 s"),
            (7_200_000, "2 h 0 min"),
            (400_000_000, "4 d 15 h"),
        ];
        for (ms, said) in spans {
            assert_eq!(span(ms), said);
        }
    }
}
