//! Sessions that belong to their first user.

use std::time::Duration;

use serde_json::json;
use throughline_actors::ports::{
    memory::{model::answer, script::Reply},
    store::SessionOwner,
};
use throughline_schemas::{EventType, FailureCode, WorkflowId};

use crate::harness::{JOURNEY, PROVIDER, Rig, id, reply_to};

const MINUTE: Duration = Duration::from_mins(1);

fn say(rig: &Rig, user: &str, workflow: &str, when_busy: &str) -> WorkflowId {
    let body = json!({
        "user_id": user, "session_id": "s", "workflow_id": workflow, "user_input": workflow, "when_busy": when_busy,
    });
    rig.publish_raw(&[], &body.to_string());
    id(workflow)
}

/// A world in which sessions belong to somebody, with a model that takes a minute.
fn owned() -> Rig {
    let mut rig = Rig::new();
    rig.settings.sessions.owner = SessionOwner::FirstUser;
    rig.models.otherwise(PROVIDER, |request| Reply::After(MINUTE, Ok(answer(&reply_to(request)))));
    rig
}

#[tokio::test(start_paused = true)]
async fn a_stranger_neither_interrupts_nor_holds_up_and_is_told_why() {
    let rig = owned();
    let _worker = rig.worker().await;
    let first = say(&rig, "ada", "w1", "enqueue");
    rig.pass(MINUTE / 2).await;
    let strangers: Vec<WorkflowId> = ["enqueue", "reject", "interrupt", "merge"]
        .map(|when_busy| say(&rig, "eve", &format!("eve-{when_busy}"), when_busy))
        .to_vec();
    let second = say(&rig, "ada", "w2", "enqueue");
    for stranger in &strangers {
        let failed = rig.failed(stranger).await;
        assert_eq!((failed.code, failed.retryable), (FailureCode::NotSessionOwner, false));
        assert!(
            failed.message.contains("belongs to another user") && !failed.message.contains("ada"),
            "{failed:?}"
        );
        assert_eq!(rig.types(stranger), [EventType::WorkflowFailed]);
    }
    assert!(rig.seconds() < 31.0, "at once");
    for own in [&first, &second] {
        rig.saved(own).await;
        assert_eq!(rig.types(own), JOURNEY);
    }
    assert!(rig.seconds() < 122.0, "nobody of theirs was in between: {} s", rig.seconds());
    assert_eq!(rig.models.calls(PROVIDER), 2);
    // The message of the stranger comes again, and is answered as before; and all of it can be made again.
    say(&rig, "eve", "eve-enqueue", "enqueue");
    rig.pass(MINUTE).await;
    assert_eq!(rig.types(&strangers[0]), [EventType::WorkflowFailed]);
    assert!(rig.verify().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn where_sessions_belong_to_nobody_everybody_speaks() {
    let rig = Rig::new();
    let _worker = rig.worker().await;
    rig.saved(&say(&rig, "ada", "w1", "enqueue")).await;
    rig.saved(&say(&rig, "eve", "w2", "enqueue")).await;
}
