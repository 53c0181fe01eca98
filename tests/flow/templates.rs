//! A prompt template that breaks: while it makes no prompt of any message, messages wait; a message that alone breaks
//! it fails alone.

use std::time::Duration;

use serde_json::json;
use throughline_actors::{dependency::vitals::DependencyKind, model::prompt::PromptTemplate};
use throughline_schemas::{FailureCode, StageName, WorkflowId};

use crate::harness::{PROVIDER, Rig};

/// Fails of messages whose `n` is 0.
const BREAKS_OF_ZERO: &str =
    "{% if metadata.n is defined and metadata.n is number %}{{ 10 // metadata.n }}{% endif %}";

fn template(system: &str) -> PromptTemplate {
    PromptTemplate::new("assistant", system, "{{ sources }}").expect("it compiles")
}

#[tokio::test(start_paused = true)]
async fn messages_wait_for_a_better_template_and_are_then_answered() {
    let rig = Rig::new();
    let worker = rig.worker_with_template(template("Today is {{ 1 // 0 }}.")).await;
    let workflows = ["w1", "w2", "w3"].map(|id| rig.publish(id, &format!("session {id}"), "hello"));
    rig.pass(Duration::from_secs(150)).await;
    assert_eq!(rig.models.calls(PROVIDER), 0);
    for workflow in &workflows {
        assert!(!rig.types(workflow).iter().any(|event_type| event_type.is_end()), "{workflow} waits");
    }
    let troubles = worker.engine.observer().troubles();
    let [trouble] = &troubles[..] else { panic!("one trouble, not {troubles:?}") };
    assert_eq!((trouble.stage, trouble.kind), (StageName::Generation, DependencyKind::Prompt));
    assert!(trouble.cause.text.contains("system.j2:1"), "{}", trouble.cause.text);
    worker.drain(Duration::from_secs(5)).await;

    let worker = rig.worker_with_template(template("Today is {{ date }}.")).await;
    for workflow in &workflows {
        rig.saved(workflow).await;
    }
    assert!(worker.engine.observer().troubles().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_message_that_alone_breaks_the_template_fails_alone() {
    let rig = Rig::new();
    let worker = rig.worker_with_template(template(BREAKS_OF_ZERO)).await;
    let publish = |id: &str, n: u64| {
        let input = json!({"user_id": "u", "session_id": id, "workflow_id": id, "user_input": "hello", "metadata": {"n": n}});
        rig.publish_raw(&[], &input.to_string());
        WorkflowId::new(id).expect("an id")
    };
    let (broken, whole) = (publish("w1", 0), publish("w2", 5));
    let failed = rig.failed(&broken).await;
    assert_eq!((failed.code, failed.stage), (FailureCode::PromptFailed, StageName::Generation));
    assert!(failed.message.contains("system.j2:1") && !failed.retryable, "{}", failed.message);
    rig.saved(&whole).await;
    assert!(worker.engine.observer().troubles().is_empty());
    assert_eq!(rig.verify_with(&rig.settings, template(BREAKS_OF_ZERO)).await, Vec::<String>::new());
}
