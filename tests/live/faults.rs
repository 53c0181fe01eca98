//! A data source or the model that is down, slow or lying: answers degrade or fail with a typed reason, only the
//! breaker of what is broken opens, and recovery needs no restart.

use std::{collections::BTreeSet, time::Duration};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::{
    Cluster, Log, SOON, Settings,
    stand_ins::{model, of},
};

/// Small delays, and breakers that stay out of the way.
const PATIENT: &str = r#"
[stages.external]
max_attempts = 2
breaker_failures = 1000
[stages.generation]
max_attempts = 3
max_delay_ms = 2000
breaker_failures = 1000
[generation]
first_token_timeout_ms = 400
read_timeout_ms = 400
total_timeout_ms = 500
[[sources]]
name = "order_history"
timeout_ms = 300
"#;
/// Breakers that open quickly and close quickly.
const BREAKERS: &str = r"
[stages.external]
max_attempts = 1
breaker_failures = 3
breaker_cooldown_ms = 500
[stages.generation]
max_attempts = 2
breaker_failures = 3
breaker_cooldown_ms = 500
";
const QUESTION: &str = "What is the status of my recent order?";

/// Says something in a session of its own, and waits for the end.
async fn ask(cluster: &Cluster, log: &mut Log, workflow: &str) {
    cluster.say(workflow, "demo", workflow, QUESTION).await;
    log.until_ended(&[workflow]).await;
}

#[tokio::test]
async fn a_source_that_fails_degrades_the_answer_and_nothing_else() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new(PATIENT)).await else { return };
    let mut log = cluster.log().await;
    let many = format!("[{}1]", "1,".repeat(50_000));
    // Each fault, the code in the event, and how many calls are made.
    let cases = [
        ("down", json!({"status": 503}), "status", 2),
        ("hasty", json!({"status": 429, "headers": {"retry-after": "0"}}), "rate_limited", 2),
        ("forbidden", json!({"status": 403}), "status", 1),
        ("moved", json!({"status": 302, "headers": {"location": "http://127.0.0.1:1/"}}), "status", 1),
        ("gone", json!({"status": 404}), "not_found", 1),
        ("slow", json!({"delay_ms": 1500}), "timed_out", 2),
        ("html", json!({"status": 200, "body": "<html>Welcome</html>"}), "not_json", 1),
        ("empty", json!({"status": 200, "body": ""}), "not_json", 1),
        ("huge", json!({"status": 200, "body": many}), "too_large", 1),
        ("cut", json!({"cut": true}), "unreachable", 2),
    ];
    for (name, fault, code, calls) in cases {
        let before = cluster.stand_ins.count("customer_orders").await;
        cluster.stand_ins.fault(of("orders", fault)).await;
        ask(&cluster, &mut log, name).await;
        cluster.stand_ins.heal().await;
        let answer = log.answer(name);
        assert!(answer.contains("cannot see your orders"), "{name}: {answer}");
        let external = &log.event(name, "external_data_fetched").unwrap().data()["external"];
        let (orders, profile) = (&external["order_history"], &external["user_profile"]);
        assert_eq!((&orders["status"], &orders["error"]["code"]), (&json!("failed"), &json!(code)), "{name}");
        assert!(orders["error"]["message"].as_str().is_some_and(|text| !text.is_empty()));
        assert!(orders.get("data").is_none_or(Value::is_null), "{name}: {orders}");
        assert_eq!(profile["status"], "ok", "{name}: {profile}");
        assert_eq!(external["product_info"]["status"], "skipped");
        assert_eq!(orders["calls"], calls, "{name}");
        assert_eq!(cluster.stand_ins.count("customer_orders").await - before, calls, "{name}");
    }
    ask(&cluster, &mut log, "healed").await;
    assert!(log.answer("healed").contains("#W10007"));
    cluster.assert_workers_run();
}

/// What was announced on the control subject since the last look, as (stage, dependency, to).
fn moves(announced: &[Value]) -> Vec<(&str, &str, &str)> {
    announced
        .iter()
        .map(|moved| {
            let text = |key: &str| moved[key].as_str().unwrap();
            (text("stage"), text("dependency"), text("to"))
        })
        .collect()
}

/// Listens until `dependency` moved to `state`.
async fn until_moved(
    control: &mut async_nats::Subscriber,
    seen: &mut Vec<Value>,
    dependency: &str,
    state: &str,
) {
    let deadline = Instant::now() + SOON;
    loop {
        let next = tokio::time::timeout_at(deadline, control.next()).await.expect("a transition").unwrap();
        let moved: Value = serde_json::from_slice(&next.payload).unwrap();
        let done = moved["dependency"] == dependency && moved["to"] == state;
        seen.push(moved);
        if done {
            return;
        }
    }
}

#[tokio::test]
async fn the_breaker_of_a_source_opens_alone_and_closes_by_itself() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new(BREAKERS)).await else { return };
    let mut log = cluster.log().await;
    let mut control = cluster.client.subscribe("throughline.control.breaker").await.unwrap();
    cluster.client.flush().await.unwrap();
    let mut seen = Vec::new();
    cluster.stand_ins.fault(of("orders", json!({"status": 503}))).await;
    let down = Instant::now();
    let workflows: Vec<_> = (0..20).map(|n| format!("down-{n}")).collect();
    for workflow in &workflows {
        ask(&cluster, &mut log, workflow).await;
        assert!(log.answer(workflow).contains("cannot see your orders"));
    }
    let lasted = down.elapsed();
    until_moved(&mut control, &mut seen, "order_history", "open").await;
    // Three failures open it; then one probe for each cooldown.
    let calls = cluster.stand_ins.count("customer_orders").await;
    let probes = lasted.as_millis() / 500 + 1;
    assert!((3..=3 + u64::try_from(probes).unwrap()).contains(&calls), "{calls} calls in {lasted:?}");
    let figures =
        cluster.figures(19, "a source answers 503 until its breaker is open", 1, &log, &workflows).await;
    figures.show();
    let codes: BTreeSet<_> = workflows
        .iter()
        .map(|workflow| {
            log.event(workflow, "external_data_fetched").unwrap().data()["external"]["order_history"]["error"]
                ["code"]
                .to_string()
        })
        .collect();
    assert!(codes.contains("\"breaker_open\""), "{codes:?}");
    assert_eq!(cluster.stand_ins.count("customers").await, 20, "the profile was asked every time");

    cluster.stand_ins.heal().await;
    let mut n = 0;
    while !seen.iter().any(|moved| moved["to"] == "closed") {
        n += 1;
        ask(&cluster, &mut log, &format!("after-{n}")).await;
        while let Ok(Some(next)) = tokio::time::timeout(Duration::from_millis(50), control.next()).await {
            seen.push(serde_json::from_slice(&next.payload).unwrap());
        }
        assert!(n < 200, "the breaker stays open");
    }
    ask(&cluster, &mut log, "healed").await;
    assert!(log.answer("healed").contains("#W10007"));
    assert!(moves(&seen).iter().all(|moved| (moved.0, moved.1) == ("external", "order_history")), "{seen:?}");
    cluster.assert_workers_run();
}

/// Ends of a workflow whose model call goes wrong.
enum End {
    Failed { code: &'static str, billed: bool },
    Saved,
}

/// Each fault, what becomes of the workflow, how many calls are made, and the shortest time between the first two
/// in milliseconds.
fn model_cases() -> [(&'static str, Value, End, u64, u64); 20] {
    let failed = |code| End::Failed { code, billed: false };
    let unsure = |code| End::Failed { code, billed: true };
    let quota = json!({"error": {"message": "You exceeded your current quota", "type": "insufficient_quota", "param": null, "code": "insufficient_quota"}});
    let cut_json =
        r#"{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assist"#;
    let no_text = json!({"id": "x", "object": "chat.completion", "model": "m", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": null}}]});
    [
        ("down", json!({"status": 503}), failed("model_unavailable"), 3, 0),
        ("error-500", json!({"status": 500}), failed("model_unavailable"), 3, 0),
        ("overloaded-once", json!({"status": 529, "remaining": 1}), End::Saved, 2, 0),
        ("bad-request", json!({"status": 400}), failed("model_rejected"), 1, 0),
        ("unauthorized", json!({"status": 401}), failed("model_rejected"), 1, 0),
        ("forbidden", json!({"status": 403}), failed("model_rejected"), 1, 0),
        ("unknown", json!({"status": 404}), failed("model_rejected"), 1, 0),
        ("unprocessable", json!({"status": 422}), failed("model_rejected"), 1, 0),
        ("quota", json!({"status": 429, "body": quota}), failed("model_rejected"), 1, 0),
        ("limited", json!({"status": 429}), failed("rate_limited"), 3, 0),
        (
            "wait-1s",
            json!({"status": 429, "headers": {"retry-after": "1"}, "remaining": 1}),
            End::Saved,
            2,
            1000,
        ),
        (
            "wait-700ms",
            json!({"status": 429, "headers": {"retry-after-ms": "700"}, "remaining": 1}),
            End::Saved,
            2,
            700,
        ),
        (
            "busy-1s",
            json!({"status": 503, "headers": {"retry-after": "1"}, "remaining": 1}),
            End::Saved,
            2,
            1000,
        ),
        ("slow", json!({"delay_ms": 2000}), unsure("timed_out"), 3, 0),
        ("slow-once", json!({"delay_ms": 2000, "remaining": 1}), End::Saved, 2, 0),
        (
            "html",
            json!({"status": 200, "body": "<html>Sign in to the Wi-Fi</html>"}),
            unsure("bad_response"),
            3,
            0,
        ),
        ("truncated", json!({"status": 200, "body": cut_json}), unsure("bad_response"), 3, 0),
        ("cut", json!({"cut": true}), unsure("bad_response"), 3, 0),
        ("cut-once", json!({"cut": true, "remaining": 1}), End::Saved, 2, 0),
        ("no-text", json!({"status": 200, "body": no_text}), unsure("bad_response"), 3, 0),
    ]
}

#[tokio::test]
async fn a_model_that_fails_is_asked_again_or_the_reason_is_given() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new(PATIENT)).await else { return };
    let mut log = cluster.log().await;
    for (name, fault, end, calls, gap) in model_cases() {
        let before = cluster.stand_ins.count("model").await;
        cluster.stand_ins.fault(model(fault)).await;
        ask(&cluster, &mut log, name).await;
        cluster.stand_ins.heal().await;
        assert_eq!(cluster.stand_ins.count("model").await - before, calls, "{name}: calls");
        let attempts = match end {
            End::Saved => {
                assert!(log.answer(name).contains("#W10007"), "{name}");
                let generated = log.event(name, "response_generated").unwrap();
                assert_eq!(generated.json()["attempt"], calls, "{name}");
                &generated.data()["attempts"]
            }
            End::Failed { code, billed } => {
                let failed = log.failure(name);
                assert_eq!(
                    (&failed["code"], &failed["stage"]),
                    (&json!(code), &json!("generation")),
                    "{name}"
                );
                assert_eq!(failed["attempts"], calls, "{name}");
                assert_eq!(failed["may_have_happened"], billed, "{name}: {failed}");
                assert_eq!(failed["retryable"], code != "model_rejected", "{name}");
                assert!(failed["message"].as_str().is_some_and(|text| !text.is_empty()));
                &failed["attempt_log"]
            }
        };
        let attempts = attempts.as_array().unwrap();
        assert_eq!(attempts.len() as u64, calls, "{name}: every attempt is on record");
        if gap > 0 {
            let ledger = cluster.stand_ins.ledger().await;
            // A call whose caller gave up is recorded when the stand-in notices.
            let mut times: Vec<_> = ledger["model"]
                .as_array()
                .unwrap()
                .iter()
                .map(|entry| entry["at_ms"].as_u64().unwrap())
                .collect();
            times.sort_unstable();
            let newest = &times[times.len() - usize::try_from(calls).unwrap()..];
            assert!(newest[1] - newest[0] >= gap, "{name}: {} ms", newest[1] - newest[0]);
        }
    }
    ask(&cluster, &mut log, "healed").await;
    assert!(log.answer("healed").contains("#W10007"));
    let mut all: Vec<_> = model_cases().iter().map(|case| case.0.to_owned()).collect();
    all.push("healed".to_owned());
    let fault = "the model fails in 20 ways (4xx 5xx 429 slow cut)";
    cluster.figures(13, fault, model_cases().len(), &log, &all).await.show();
    let rows = cluster.rows();
    let kept: BTreeSet<_> = rows.iter().map(|row| row["workflow_id"].as_str().unwrap()).collect();
    let saved = ["overloaded-once", "wait-1s", "wait-700ms", "busy-1s", "slow-once", "cut-once", "healed"];
    assert_eq!(kept, BTreeSet::from(saved), "what failed left no row");
    cluster.assert_workers_run();
}

#[tokio::test]
async fn the_breaker_of_the_model_opens_alone_and_closes_by_itself() {
    let Some(mut cluster) = Cluster::start(1, &Settings::new(BREAKERS)).await else { return };
    let mut log = cluster.log().await;
    let mut control = cluster.client.subscribe("throughline.control.breaker").await.unwrap();
    cluster.client.flush().await.unwrap();
    let mut seen = Vec::new();
    cluster.stand_ins.fault(model(json!({"status": 503}))).await;
    let down = Instant::now();
    let workflows: Vec<_> = (0..20).map(|n| format!("down-{n}")).collect();
    for workflow in &workflows {
        cluster.say(workflow, "demo", workflow, QUESTION).await;
    }
    until_moved(&mut control, &mut seen, "sandbox", "open").await;
    log.until_ended(&workflows).await;
    let lasted = down.elapsed();
    for workflow in &workflows {
        assert_eq!(log.failure(workflow)["code"], "model_unavailable");
    }
    let calls = cluster.stand_ins.count("model").await;
    // All twenty may be under way when the breaker opens, and the two that failed before the third one did may have been
    // tried again; after that there is one probe for each cooldown.
    let bound = 20 + 2 + lasted.as_millis() / 500 + 1;
    assert!(u128::from(calls) <= bound, "{calls} calls in {lasted:?}");

    cluster.stand_ins.heal().await;
    // It waits for the breaker and is answered then; nobody restarts anything.
    let healed = Instant::now();
    ask(&cluster, &mut log, "healed").await;
    let all = [&workflows[..], &["healed".to_owned()]].concat();
    let figures = cluster.figures(19, "the model answers 503 until its breaker is open", 1, &log, &all).await;
    figures.recovered(healed.elapsed()).show();
    until_moved(&mut control, &mut seen, "sandbox", "closed").await;
    assert!(log.answer("healed").contains("#W10007"));
    assert!(moves(&seen).iter().all(|moved| (moved.0, moved.1) == ("generation", "sandbox")), "{seen:?}");
    cluster.assert_workers_run();
}
