//! Breakers: when they open, what gets through meanwhile, and how they close. Calls are counted at the far side.

use std::time::Duration;

use serde_json::{Value, json};
use throughline_actors::{
    policy::retry::RetryPolicy,
    ports::{
        memory::{
            model::{answer, failure},
            script::Reply,
        },
        model::ModelError,
    },
};
use throughline_schemas::{FailureCode, StageName};

use crate::harness::{PROVIDER, Rig, Worker};

const SECOND: Duration = Duration::from_secs(1);
const LABELS: [(&str, &str); 2] = [("dependency", PROVIDER), ("stage", "generation")];

fn down() -> throughline_actors::ports::model::ModelFailure {
    failure(ModelError::Server("down".to_owned()))
}

/// One attempt per workflow, so that one workflow is one failure.
async fn impatient() -> (Rig, Worker) {
    let mut rig = Rig::new();
    let generation = rig.settings.stages.get_mut(&StageName::Generation).unwrap();
    generation.retry = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    let worker = rig.worker().await;
    (rig, worker)
}

async fn fail_times(rig: &Rig, prefix: &str, times: usize) {
    for n in 0..times {
        let failed = rig.failed(&rig.publish(&format!("{prefix}{n}"), "s1", "hello")).await;
        assert_eq!(failed.code, FailureCode::ModelUnavailable);
    }
}

fn state(rig: &Rig) -> Option<f64> {
    rig.meters.gauge("throughline_breaker_state", &LABELS)
}

#[tokio::test(start_paused = true)]
async fn five_failures_in_a_row_open_it_and_then_nobody_calls() {
    let (rig, _worker) = impatient().await;
    rig.models.always(PROVIDER, Err(down()));
    fail_times(&rig, "a", 4).await;
    assert_eq!(state(&rig), Some(0.0));
    fail_times(&rig, "b", 1).await;
    assert_eq!((rig.models.calls(PROVIDER), state(&rig)), (5, Some(2.0)));

    let refused = rig.failed(&rig.publish("c", "s1", "hello")).await;
    assert_eq!(refused.code, FailureCode::ModelUnavailable);
    assert!(
        refused.message.contains("breaker is open (the provider failed: down) for another "),
        "{}",
        refused.message
    );
    assert!(!refused.attempt_log[0].sent, "no request was sent: {refused:?}");
    fail_times(&rig, "d", 20).await;
    assert_eq!(rig.models.calls(PROVIDER), 5, "no call while it is open");
    assert_eq!(rig.meters.count("throughline_calls_refused_total", &LABELS), 21);
}

#[tokio::test(start_paused = true)]
async fn a_success_in_between_starts_the_count_again() {
    let (rig, _worker) = impatient().await;
    for _ in 0..3 {
        for _ in 0..4 {
            rig.models.push(PROVIDER, Reply::Now(Err(down())));
        }
        rig.models.push(PROVIDER, Reply::Now(Ok(answer("well"))));
    }
    for n in 0..15 {
        rig.ended(&rig.publish(&format!("w{n}"), "s1", "hello")).await;
    }
    assert_eq!((rig.models.calls(PROVIDER), rig.store.interactions()), (15, 3));
    assert_eq!(rig.meters.count("throughline_breaker_transitions_total", &[]), 0);
}

#[tokio::test(start_paused = true)]
async fn after_the_cooldown_one_probe_decides() {
    let (rig, _worker) = impatient().await;
    rig.models.always(PROVIDER, Err(down()));
    fail_times(&rig, "a", 5).await;
    rig.pass(SECOND * 31).await;
    // Twenty at once, and the probe takes a while: it is the only one that calls.
    rig.models.otherwise(PROVIDER, |_| Reply::After(SECOND * 2, Err(down())));
    let crowd: Vec<_> = (0..20).map(|n| rig.publish(&format!("b{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &crowd {
        rig.failed(workflow).await;
    }
    assert_eq!((rig.models.calls(PROVIDER), state(&rig)), (6, Some(2.0)), "one probe, and it is open again");

    rig.pass(SECOND * 31).await;
    rig.models.always(PROVIDER, Ok(answer("well again")));
    rig.saved(&rig.publish("c", "s1", "hello")).await;
    assert_eq!((rig.models.calls(PROVIDER), state(&rig)), (7, Some(0.0)), "closed without a restart");
    let crowd: Vec<_> = (0..20).map(|n| rig.publish(&format!("d{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &crowd {
        rig.saved(workflow).await;
    }

    let moves: Vec<_> = rig.bus.announcements().into_iter().collect();
    let told = moves.iter().map(|(topic, body)| {
        assert_eq!(topic, "breaker", "on {{ns}}.control.breaker");
        let body: Value = serde_json::from_slice(body).unwrap();
        assert_eq!((&body["stage"], &body["dependency"]), (&json!("generation"), &json!(PROVIDER)));
        assert!(body["at"].is_string(), "{body}");
        let cause = (body["to"] == "open").then_some("the provider failed: down");
        assert_eq!(body["cause"].as_str(), cause, "{body}");
        format!("{}->{}", body["from"].as_str().unwrap(), body["to"].as_str().unwrap())
    });
    let told: Vec<_> = told.collect();
    assert_eq!(
        told,
        ["closed->open", "open->half_open", "half_open->open", "open->half_open", "half_open->closed"]
    );
    for (to, times) in [("open", 2), ("half_open", 2), ("closed", 1)] {
        let labels = [("dependency", PROVIDER), ("to", to)];
        assert_eq!(rig.meters.count("throughline_breaker_transitions_total", &labels), times, "{to}");
    }
}

#[tokio::test(start_paused = true)]
async fn with_the_usual_retries_a_short_outage_fails_nobody() {
    let (rig, _worker) = Rig::running().await;
    rig.models.always(PROVIDER, Err(down()));
    let workflows: Vec<_> =
        (0..30).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    rig.pass(SECOND * 20).await;
    assert_eq!(rig.models.calls(PROVIDER), 5);
    rig.models.always(PROVIDER, Ok(answer("well again")));
    for workflow in &workflows {
        rig.saved(workflow).await;
    }
    assert_eq!(rig.models.calls(PROVIDER), 35, "five failures and one answer each");
    assert!(rig.seconds() < 35.0, "all go on when the probe succeeds: {} s", rig.seconds());
}

#[tokio::test(start_paused = true)]
async fn with_a_fallback_an_open_breaker_is_not_waited_out() {
    let mut rig = Rig::new();
    rig.fall_back_to("large", "anthropic");
    rig.models.always(PROVIDER, Err(down()));
    rig.models.always("anthropic", Ok(answer("from the fallback")));
    let _worker = rig.worker().await;
    let crowd: Vec<_> = (0..5).map(|n| rig.publish(&format!("a{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &crowd {
        rig.saved(workflow).await;
    }
    let before = rig.seconds();
    rig.saved(&rig.publish("b", "s1", "hello")).await;
    assert!(
        rig.seconds() - before < 1.0,
        "the fallback was there all the time: {} s",
        rig.seconds() - before
    );
}

/// One user's prompt to which the model says nothing, however often it is asked, is no reason not to ask it for others.
#[tokio::test(start_paused = true)]
async fn answers_that_are_none_do_not_open_it() {
    let (rig, _worker) = impatient().await;
    rig.models.always(PROVIDER, Err(failure(ModelError::Unfit("it has no content".to_owned()))));
    for n in 0..20 {
        let failed = rig.failed(&rig.publish(&format!("a{n}"), "s1", "hello")).await;
        assert_eq!(failed.code, FailureCode::BadResponse);
    }
    assert_eq!((rig.models.calls(PROVIDER), state(&rig)), (20, Some(0.0)));
    rig.models.always(PROVIDER, Ok(answer("well")));
    rig.saved(&rig.publish("b", "s2", "hello")).await;
}

/// Nor does such an answer waste the probe of a breaker that is open for another reason.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_none_closes_it_as_any_answer_does() {
    let (rig, _worker) = impatient().await;
    rig.models.always(PROVIDER, Err(down()));
    fail_times(&rig, "a", 5).await;
    assert_eq!(state(&rig), Some(2.0));
    rig.pass(SECOND * 31).await;
    rig.models.always(PROVIDER, Err(failure(ModelError::Unfit("it has no content".to_owned()))));
    rig.failed(&rig.publish("b", "s1", "hello")).await;
    assert_eq!((rig.models.calls(PROVIDER), state(&rig)), (6, Some(0.0)));
}
