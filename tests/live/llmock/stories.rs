//! What happens around a call: a worker dies, another provider answers, many ask at once.

use std::collections::BTreeSet;

use serde_json::json;
use throughline_schemas::LiveKind;

use super::{ANSWER, Court, Dialect, SETTINGS, judged::assert_obedient, provider, question};
use crate::harness::{Cluster, Frames, LlMock, Settings, cluster::said};

#[tokio::test]
async fn a_worker_that_dies_in_the_middle_of_a_stream_is_followed_by_another() {
    let patient = "[generation]\nread_timeout_ms = 25000\ntotal_timeout_ms = 30000";
    let Some(mut court) = Court::open_with(Dialect::Openai, true, patient, &[]).await else { return };
    let stall = json!({"type": "stream_fault", "kind": "stall", "after_chunks": 4, "stall_seconds": 30.0});
    court.llmock.behave(&[stall]).await;
    court.cluster.say("survivor", "demo", "survivor", &question("survivor")).await;
    let third = |text: &str| text == "from ";
    court.frames.until("survivor", |frame| frame.text.as_deref().is_some_and(third)).await;
    court.cluster.workers[0].kill();
    court.cluster.workers.clear();
    court.cluster.add_worker();
    court.log.until_ended(&["survivor"]).await;

    assert_eq!(court.log.answer("survivor"), ANSWER);
    // Whoever listened saw the first words twice, of two deliveries, and was left with the answer once.
    assert_eq!(court.frames.read("survivor").await, ANSWER);
    let frames = court.frames.of("survivor");
    // What is not about a call of a model has no delivery.
    let deliveries: BTreeSet<_> =
        frames.iter().map(|frame| frame.delivery).filter(|delivery| *delivery > 0).collect();
    assert_eq!(deliveries, BTreeSet::from([1, 2]));
    assert_eq!(court.llmock.calls().await.len(), 2);
    assert_eq!(court.cluster.rows().len(), 1);
    let verdict = court.llmock.verdict().await;
    assert!(verdict.findings.is_empty(), "{verdict:#?}");
    court.cluster.assert_workers_run();
}

#[tokio::test]
async fn another_provider_answers_when_the_first_one_cannot() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Some(first) = LlMock::start(&dir.path().join("first"), &[]).await else { return };
    let second = LlMock::start(&dir.path().join("second"), &[]).await.expect("as the first one");
    let settings = Settings::new(SETTINGS)
        .with(&provider("first", Dialect::Openai, &first))
        .with(&provider("second", Dialect::Anthropic, &second))
        .with("[generation]\nmodel = \"first-model\"\nfallback = [\"second-model\"]");
    let Some(mut cluster) = Cluster::start(1, &settings).await else { return };
    let (mut log, frames) = (cluster.log().await, Frames::listen(&cluster.client).await);
    let broken_off = json!({"type": "stream_fault", "kind": "disconnect", "after_chunks": 3, "times": null});
    let cases = [
        ("down", json!({"type": "fail", "status": 503, "times": null})),
        ("refused", json!({"type": "fail", "status": 401, "times": null})),
        ("broken-off", broken_off),
    ];
    for (name, fault) in cases {
        first.behave(&[fault]).await;
        cluster.say(name, "demo", name, &question(name)).await;
        log.until_ended(&[name]).await;
        first.heal().await;
        let answer = "Mock response from second-model.";
        assert_eq!(log.answer(name), answer, "{name}");
        let generated = log.event(name, "response_generated").expect("generated").data();
        assert_eq!(generated["response"]["provider"], "second", "{name}");
        let attempts = generated["attempts"].as_array().expect("attempts");
        let models: Vec<_> = attempts.iter().map(|attempt| attempt["model"].as_str().unwrap()).collect();
        assert!(models.starts_with(&["first-model"]) && models.ends_with(&["second-model"]), "{models:?}");
        assert_eq!(models.iter().filter(|model| **model == "second-model").count(), 1);
        assert_eq!(frames.read(name).await, answer, "{name}");
        let asked: Vec<_> = frames.of(name).into_iter().filter_map(|frame| frame.model).collect();
        assert_eq!(asked.last().map(String::as_str), Some("second-model"), "{name}");
        let restarted = frames.of(name).iter().any(|frame| frame.kind == LiveKind::Restarted);
        assert_eq!(restarted, name == "broken-off", "only what a reader has seen is taken back: {name}");
    }
    let verdict = second.verdict().await;
    assert!(verdict.findings.is_empty(), "{verdict:#?}");
    // The first one cannot know that another was asked in its place; nothing else is amiss.
    let verdict = first.verdict().await;
    assert!(verdict.findings.iter().all(|finding| finding.code == "gave_up"), "{verdict:#?}");
    assert_obedient(&first.calls().await);
    cluster.assert_workers_run();
}

#[tokio::test]
async fn a_hint_is_for_everybody_who_asks_that_provider() {
    let Some(mut court) = Court::open(Dialect::Openai, true, &[]).await else { return };
    court.llmock.behave(&[json!({"type": "fail", "status": 429, "retry_after": 2.0})]).await;
    let messages = ["first", "second"].map(|name| said(name, "demo", name, &question(name)));
    let [first, second] = messages;
    court.cluster.publish_all(vec![first]).await;
    // What is told to readers is known to the client.
    court.frames.until("first", |frame| frame.again_in_ms.is_some()).await;
    court.cluster.publish_all(vec![second]).await;
    court.log.until_ended(&["first", "second"]).await;
    let calls = court.llmock.calls().await;
    let refused = &calls[0];
    assert_eq!((refused.status, calls.len()), (429, 3), "{calls:#?}");
    for call in &calls[1..] {
        assert!(call.started_at >= refused.ended_at + 2.0 - super::judged::CLOCKS, "{calls:#?}");
    }
    let verdict = court.llmock.verdict().await;
    assert!(verdict.findings.is_empty(), "{verdict:#?}");
}

#[tokio::test]
async fn many_who_are_told_to_wait_wait_and_are_answered() {
    let Some(mut court) = Court::open(Dialect::Openai, true, &[]).await else { return };
    court.llmock.behave(&[json!({"type": "fail", "status": 429, "retry_after": 0.5, "times": 8})]).await;
    let names: Vec<_> = (0..20).map(|n| format!("many-{n}")).collect();
    let messages = names.iter().map(|name| said(name, "demo", name, &question(name)));
    court.cluster.publish_all(messages.collect()).await;
    court.log.until_ended(&names).await;
    for name in &names {
        assert_eq!(court.log.answer(name), ANSWER);
    }
    let calls = court.llmock.calls().await;
    let figures = court.cluster.figures(13, "429 with Retry-After, 8 times", 8, &court.log, &names).await;
    figures.calls(calls.len() as u64).show();
    assert_eq!(calls.iter().filter(|call| call.status == 429).count(), 8);
    assert_obedient(&calls);
    let verdict = court.llmock.verdict().await;
    assert!(verdict.findings.is_empty(), "{verdict:#?}");
}

#[tokio::test]
async fn a_prompt_that_is_too_long_is_refused_once_and_called_so() {
    for dialect in [Dialect::Openai, Dialect::Anthropic, Dialect::Gemini] {
        let window = [("LLMOCK_CONTEXT_WINDOW", "2000")];
        let Some(mut court) = Court::open(dialect, true, &window).await else { return };
        let long = "Where is my order? ".repeat(1000);
        court.cluster.say("long", "demo", "long", &long).await;
        court.log.until_ended(&["long"]).await;
        let failure = court.log.failure("long");
        assert_eq!(
            (&failure["code"], &failure["attempts"]),
            (&json!("model_rejected"), &json!(1)),
            "{failure}"
        );
        assert!(failure["message"].as_str().unwrap().contains("too long"), "{failure}");
        assert_eq!(court.llmock.calls().await.len(), 1);
        let verdict = court.llmock.verdict().await;
        assert!(verdict.findings.is_empty(), "{verdict:#?}");
    }
}

/// llmock judges by what it sees of a call. Where that is not enough, the events prove that its finding is not true.
#[tokio::test]
async fn where_the_judge_cannot_see_the_events_tell() {
    let Some(mut court) = Court::open(Dialect::Openai, true, &[]).await else { return };
    // "gave_up": it takes every 429 for one that passes. This one says in so many words that waiting does not help;
    // OpenAI's own guide to its error codes says the same ("buy more credits"), and its client is blamed for retrying it.
    let quota = json!({"type": "fail", "status": 429, "code": "insufficient_quota",
        "message": "You exceeded your current quota, please check your plan and billing details."});
    court.llmock.behave(&[quota]).await;
    court.ask("no-credit").await;
    let failure = court.log.failure("no-credit");
    assert_eq!((&failure["code"], &failure["attempts"]), (&json!("model_rejected"), &json!(1)), "{failure}");
    assert_eq!(codes(&court).await, ["gave_up"]);

    // "truncated_stream_accepted": it believes that of any cut stream after which no call follows. Nobody was given
    // the half answer: the workflow failed, after as many attempts as are allowed.
    court.llmock.forget().await;
    let cut = json!({"type": "stream_fault", "kind": "truncate", "after_chunks": 3, "times": null});
    court.llmock.behave(&[cut]).await;
    court.ask("always-cut").await;
    let failure = court.log.failure("always-cut");
    assert_eq!((&failure["code"], &failure["attempts"]), (&json!("bad_response"), &json!(4)), "{failure}");
    assert_eq!(failure["may_have_happened"], true, "{failure}");
    assert!(court.cluster.rows().iter().all(|row| row["response"].is_null()), "{:?}", court.cluster.rows());
    assert_eq!(codes(&court).await, ["truncated_stream_accepted"]);
}

async fn codes(court: &Court) -> Vec<String> {
    court.llmock.verdict().await.findings.into_iter().map(|finding| finding.code).collect()
}
