//! A workflow as one line of JSON.

use serde::Serialize;
use throughline_actors::ports::store::ListedTurn;
use throughline_schemas::{FailureCode, SessionId, StageName, Timestamp, Usd, UserId, WorkflowId};

use crate::cli::{Failure, standing::Standing};

/// The fields are described in `list --help`.
#[derive(Serialize)]
struct Line<'a> {
    workflow_id: &'a WorkflowId,
    session_id: &'a SessionId,
    user_id: Option<&'a UserId>,
    state: &'static str,
    waits_for: Option<&'a WorkflowId>,
    stage: Option<StageName>,
    stage_since: Option<Timestamp>,
    code: Option<FailureCode>,
    superseded_by: Option<&'a WorkflowId>,
    input_sequence: Option<u64>,
    created_at: Timestamp,
    updated_at: Timestamp,
    age_ms: u64,
    duration_ms: Option<u64>,
    cost_usd: Option<Usd>,
}

pub(super) fn line(standing: &Standing, now: Timestamp) -> Result<String, Failure> {
    let ListedTurn { created_at, updated_at, .. } = standing.turn;
    let turn = &standing.turn;
    let line = Line {
        workflow_id: &turn.workflow_id,
        session_id: &turn.session_id,
        user_id: turn.user_id.as_ref(),
        state: turn.state.as_str(),
        waits_for: turn.waits_for.as_ref(),
        stage: standing.step.map(|step| step.stage),
        stage_since: standing.step.map(|step| step.since),
        code: turn.code,
        superseded_by: turn.superseded_by.as_ref(),
        input_sequence: turn.input_sequence,
        created_at,
        updated_at,
        age_ms: now.ms_since(created_at),
        duration_ms: turn.state.is_end().then(|| updated_at.ms_since(created_at)),
        cost_usd: turn.cost_usd,
    };
    serde_json::to_string(&line).map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};
    use throughline_actors::ports::store::TurnState;

    use super::*;
    use crate::cli::{
        list::ListArgs,
        standing::{
            Step,
            tests::{at, turn},
        },
    };

    #[test]
    fn a_line_has_every_field_that_the_help_names() {
        let step = Some(Step { stage: StageName::External, since: at(2_000) });
        let running = Standing { turn: turn("w", TurnState::Running), step };
        let found: Value = serde_json::from_str(&line(&running, at(9_000)).unwrap()).unwrap();
        let expected = json!({
            "workflow_id": "w", "session_id": "s1", "user_id": "demo", "state": "running", "waits_for": null,
            "stage": "external", "stage_since": at(2_000), "code": null, "superseded_by": null, "input_sequence": 7,
            "created_at": at(0), "updated_at": at(1_500), "age_ms": 9_000, "duration_ms": null, "cost_usd": null,
        });
        assert_eq!(found, expected);
        let command = <ListArgs as clap::Args>::augment_args(clap::Command::new("list"));
        let help = command.get_after_help().unwrap().to_string();
        for field in found.as_object().unwrap().keys() {
            assert!(help.contains(field), "{field} is not in the help");
        }
        let cost_usd = Some(Usd::new("0.00013425".parse().unwrap()));
        let saved = Standing::new(ListedTurn { cost_usd, ..turn("w", TurnState::Saved) });
        let found: Value = serde_json::from_str(&line(&saved, at(9_000)).unwrap()).unwrap();
        assert_eq!((&found["duration_ms"], &found["cost_usd"]), (&json!(1_500), &json!("0.00013425")));
    }
}
