//! What is on record can be made again, and what does not come out as it was is named by event and field.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use throughline_actors::{
    model::{
        client::{OlderTurns, RateLimits},
        cost::Price,
        prompt::PromptTemplate,
    },
    policy::routing::Rule,
    ports::{
        memory::{
            model::{answer, failure},
            script::Reply,
        },
        model::{CallFacts, ModelError, ModelFailure, Phase},
        source::FetchError,
        tokenizer::FourBytes,
    },
    replay::{self, Recorded, RecordedWorkflow, Simulated, Simulation},
    supervision::settings::EngineSettings,
};
use throughline_schemas::{EventType, StageName, event::generation::Complexity};

use crate::harness::{PROVIDER, Rig, defaults};

const NOTHING: [String; 0] = [];

fn asked_to_wait(seconds: u64) -> ModelFailure {
    let facts = CallFacts {
        http_status: Some(429),
        retry_after: Some(Duration::from_secs(seconds)),
        ..CallFacts::default()
    };
    ModelFailure { error: ModelError::RateLimited(String::new()), usage: None, facts }
}

/// A world in which much goes wrong, and its workflows.
async fn stormy() -> Rig {
    let mut rig = Rig::new();
    rig.fall_back_to("large", "anthropic");
    rig.models.always("anthropic", Ok(answer("from the large one")));
    let worker = rig.worker().await;
    let model_errors = [
        failure(ModelError::Server("overloaded: 12 of 12".to_owned())),
        asked_to_wait(3),
        failure(ModelError::TimedOut(Phase::FirstToken)),
        failure(ModelError::CutShort("reset by peer".to_owned())),
        failure(ModelError::BadRequest("temperature: too hot".to_owned())),
        failure(ModelError::ContextTooLong("8193 of 8192".to_owned())),
        failure(ModelError::TooLarge(1_000_000)),
    ];
    for (n, error) in model_errors.into_iter().enumerate() {
        rig.models.push(PROVIDER, Reply::After(Duration::from_millis(40), Err(error)));
        if n % 2 == 0 {
            let error = FetchError::Server { status: 503, retry_after: Some(Duration::from_secs(1)) };
            rig.sources.push("order_history", Reply::After(Duration::from_millis(7), Err(error)));
        }
        let workflow = rig.publish(&format!("model-{n}"), &format!("s{}", n % 2), "where is my order?");
        rig.ended(&workflow).await;
    }
    for n in 0..8 {
        rig.sources.push("order_history", Reply::Now(Err(FetchError::Unreachable("refused".to_owned()))));
        let workflow =
            rig.publish(&format!("source-{n}"), "s3", "Where is my order, and the product PROD-7?");
        rig.ended(&workflow).await;
    }
    rig.publish_raw(&[], &json!({"user_id": "ada", "session_id": "s", "user_input": " "}).to_string());
    let last = rig.publish("last", "s4", "thank you");
    rig.saved(&last).await;
    drop(worker);
    rig
}

#[tokio::test(start_paused = true)]
async fn everything_comes_out_as_it_was_whatever_went_wrong() {
    let rig = stormy().await;
    assert!(rig.recorded_workflows().len() >= 17);
    assert_eq!(rig.verify().await, NOTHING);
}

/// A world in which breaker, pace and rate limits have much to decide.
async fn limited() -> Rig {
    let mut rig = Rig::new();
    rig.settings.generation.client.models[0].rates =
        RateLimits { requests_per_minute: Some(30.try_into().unwrap()), tokens_per_minute: None };
    rig.settings.stages.get_mut(&StageName::Generation).unwrap().breaker.failure_limit = 3;
    rig.settings.generation.client.rate_hold = Duration::from_secs(5);
    let worker = rig.worker().await;
    rig.models.push(PROVIDER, Reply::Now(Err(asked_to_wait(20))));
    for _ in 0..4 {
        let error = failure(ModelError::Server("down".to_owned()));
        rig.models.push(PROVIDER, Reply::Now(Err(error)));
    }
    let workflows: Vec<_> =
        (0..20).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), &format!("question {n}"))).collect();
    for workflow in &workflows {
        rig.ended(workflow).await;
    }
    drop(worker);
    rig
}

#[tokio::test(start_paused = true)]
async fn what_breaker_pace_and_rate_limits_decided_comes_from_the_record() {
    let rig = limited().await;
    let log: String =
        rig.bus.stored().iter().map(|stored| String::from_utf8_lossy(&stored.body).into_owned()).collect();
    for decided in ["\"breaker_open\"", "\"paced\"", "\"waited_ms\"", "\"own_rate_limit\""] {
        assert!(log.contains(decided), "{decided} is on record");
    }
    assert_eq!(rig.verify().await, NOTHING);
}

/// Everything that is on record of calls that failed, of models and of sources.
fn failed_calls(event: &mut Value) -> Vec<&mut Value> {
    let mut found = Vec::new();
    for (name, value) in event["data"].as_object_mut().into_iter().flatten() {
        match name.as_str() {
            "attempts" | "attempt_log" => found.extend(value.as_array_mut().into_iter().flatten()),
            "external" => {
                let sources = value.as_object_mut().into_iter().flat_map(|sources| sources.values_mut());
                let calls = sources.filter_map(|source| source.get_mut("failed_calls")?.as_array_mut());
                found.extend(calls.flatten());
            }
            _ => {}
        }
    }
    found.retain(|call| call.get("error").is_some());
    found
}

#[tokio::test(start_paused = true)]
async fn the_texts_of_errors_are_not_read_where_their_parts_are_on_record() {
    const OTHERWISE: &str = "worded otherwise: its breaker is open (x) for another 77 ms";
    for rig in [stormy().await, limited().await] {
        let reworded = AtomicU32::new(0);
        let reword = |event: &mut Value| {
            for call in failed_calls(event) {
                assert!(call["error_detail"].is_object(), "{call}");
                let text = if call["error"].is_string() { "/error" } else { "/error/message" };
                let text = call.pointer_mut(text).unwrap();
                *text = OTHERWISE.into();
                reworded.fetch_add(1, Ordering::Relaxed);
            }
            // A workflow fails of the last of them.
            if !failed_calls(event).is_empty() && event["data"]["message"].is_string() {
                event["data"]["message"] = OTHERWISE.into();
            }
        };
        assert_eq!(rig.verify_as(reword).await, NOTHING);
        assert!(reworded.into_inner() > 10);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_version_recorded_without_parts_of_errors_comes_out_as_it_was() {
    for rig in [stormy().await, limited().await] {
        let strip = |event: &mut Value| {
            for call in failed_calls(event) {
                for part in ["error_detail", "jitter", "should_retry"] {
                    call.as_object_mut().unwrap().remove(part);
                }
            }
        };
        assert_eq!(rig.verify_as(strip).await, NOTHING);
    }
}

#[tokio::test(start_paused = true)]
async fn a_prompt_that_had_to_be_shortened_is_shortened_again_in_the_same_way() {
    for older_turns in [OlderTurns::Drop, OlderTurns::Extract, OlderTurns::Summarise("small".to_owned())] {
        let mut rig = Rig::new();
        let client = &mut rig.settings.generation.client;
        client.models[0].context_tokens = Some(700);
        client.sampling.max_tokens = 100;
        client.older_turns = older_turns;
        let worker = rig.worker().await;
        for n in 0..8 {
            let text = format!("Order W-{n} is late. {}", "It was to come on Monday at noon. ".repeat(8));
            let workflow = rig.publish(&format!("w{n}"), "s", &text);
            rig.saved(&workflow).await;
        }
        drop(worker);
        let shortened = |past: &RecordedWorkflow| {
            let stored = past.event(EventType::ResponseGenerated).unwrap();
            String::from_utf8_lossy(&stored.message.body).contains("\"dropped_turns\"")
        };
        assert!(
            rig.recorded_workflows().iter().filter(|past| shortened(past)).count() > 2,
            "prompts were shortened"
        );
        assert_eq!(rig.verify().await, NOTHING);
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_prompt_rule_or_policy_is_found_at_its_event_and_field() {
    let rig = stormy().await;

    let prompt = PromptTemplate::new("assistant", "Answer in one word.", "{{ preferences }}").unwrap();
    let found = rig.verify_with(&rig.settings, prompt).await;
    assert!(found.len() > 10, "{found:#?}");
    for line in &found {
        let pointer = line.split_whitespace().nth(2).unwrap();
        assert!(
            line.contains("response_generated") && pointer.starts_with("/data/prompt/"),
            "every prompt, and nothing but prompts: {line}"
        );
    }

    let mut settings = rig.settings.clone();
    let routing = &mut settings.generation.client.routing;
    routing.complex = vec!["large".to_owned()];
    routing.rules =
        vec![Rule { keywords: vec!["thank".to_owned()], ..Rule::new("polite", Complexity::Complex) }];
    let found = rig.verify_with(&settings, defaults::template()).await;
    let last = found.iter().find(|line| line.starts_with("last ")).unwrap();
    assert!(last.contains("no such call to large-v1 of anthropic on record"), "{last}");
    assert!(found.iter().any(|line| line.contains("response_generated /data/route/chosen/by")), "{found:#?}");

    let mut settings = rig.settings.clone();
    settings.recent_turns = 1;
    let found = rig.verify_with(&settings, defaults::template()).await;
    assert!(!found.is_empty());
    for line in &found {
        assert!(line.contains("context_retrieved /data/context/recent_turns/"), "{line}");
    }

    let mut settings = rig.settings.clone();
    settings.sources[1].keywords = vec!["parcel".to_owned()];
    let found = rig.verify_with(&settings, defaults::template()).await;
    assert!(!found.is_empty());
    for line in &found {
        assert!(line.contains("external_data_fetched /data/external/order_history/"), "{line}");
    }

    let mut settings = rig.settings.clone();
    settings.ingress.max_input_bytes = 20;
    let found = rig.verify_with(&settings, defaults::template()).await;
    assert!(
        found.iter().all(|line| line.contains("input_validated: now workflow_failed (invalid_input)")),
        "{found:#?}"
    );

    // A policy that makes other waits of the random numbers on record. Where they are too long to wait for, another model
    // would have been asked.
    let mut settings = rig.settings.clone();
    if let Some(stage) = settings.stages.get_mut(&StageName::Generation) {
        stage.retry.base_delay *= 7;
    }
    let found = rig.verify_with(&settings, defaults::template()).await;
    assert!(found.iter().any(|line| line.contains("/retry_in_ms: recorded")), "{found:#?}");
    for line in &found {
        let is_of_waits = line.contains("/retry_in_ms: recorded") || line.contains("now nothing");
        assert!(is_of_waits || line.contains("no such call to large-v1 of anthropic on record"), "{line}");
    }
}

/// Everything under other settings, by workflow.
async fn simulated(rig: &Rig, settings: &EngineSettings, redecided: &[&str]) -> BTreeMap<String, Simulated> {
    let (results, mut decided) = replay::results();
    let simulation = Simulation {
        settings: settings.clone(),
        recorded_settings: rig.settings.clone(),
        template: Arc::new(defaults::template()),
        tokenizer: Arc::new(FourBytes),
        redecided: redecided.iter().map(|name| (*name).to_owned()).collect(),
    };
    let workflows = rig.recorded_workflows().iter().filter_map(Recorded::of).collect();
    let running =
        tokio::spawn(async move { simulation.run(workflows, results).await.expect("stages can be made") });
    let mut all = BTreeMap::new();
    while let Some(one) = decided.recv().await {
        all.insert(one.workflow.to_string(), one);
    }
    running.await.expect("it does not panic");
    all
}

#[tokio::test(start_paused = true)]
async fn under_its_own_configuration_a_log_is_decided_as_it_was() {
    for rig in [stormy().await, limited().await] {
        let all = simulated(&rig, &rig.settings, &[]).await;
        assert!(all.len() >= 15, "{}", all.len());
        for one in all.values() {
            assert!(!one.is_changed(), "{one:#?}");
            assert_eq!(one.assumed_calls, 0, "{one:#?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_rate_limit_holds_back_whom_it_must_and_nobody_else() {
    let rig = Rig::new();
    let worker = rig.worker().await;
    let mut arrivals = Vec::new();
    for n in 0..40_u32 {
        let workflow = rig.publish(&format!("w{n:02}"), &format!("s{n}"), "hello");
        rig.saved(&workflow).await;
        arrivals.push((workflow.to_string(), rig.seconds()));
        rig.pass(Duration::from_millis(if n % 10 < 7 { 100 } else { 4_000 })).await;
    }
    drop(worker);
    let mut settings = rig.settings.clone();
    settings.generation.client.models[0].rates.requests_per_minute = Some(60.try_into().unwrap());
    let all = simulated(&rig, &settings, &[PROVIDER]).await;

    // One a second, six of them at once: the same arithmetic by other means, a bucket that is filled by time.
    let (mut tokens, mut before) = (6.0_f64, 0.0);
    let mut held = BTreeSet::new();
    for (workflow, at) in &arrivals {
        tokens = (tokens + at - before).min(6.0);
        before = *at;
        if tokens < 1.0 {
            held.insert(workflow.clone());
        }
        tokens -= 1.0;
    }
    assert!((4..30).contains(&held.len()), "the log is one that tells something: {}", held.len());
    let changed: BTreeSet<_> =
        all.values().filter(|one| one.is_changed()).map(|one| one.workflow.to_string()).collect();
    assert_eq!(changed, held);
    for one in all.values().filter(|one| one.is_changed()) {
        let now = one.now.as_ref().expect("it comes to an end");
        assert!(now.attempts[0].waited_ms > 0 && now.failed.is_none(), "{one:#?}");
        assert_eq!(now.cost_usd, one.recorded.cost_usd);
    }
}

#[tokio::test(start_paused = true)]
async fn another_price_changes_costs_and_another_policy_changes_attempts() {
    let rig = stormy().await;
    let mut settings = rig.settings.clone();
    let price = Price {
        input: 10.into(),
        cached_input: None,
        cache_write: None,
        output: 20.into(),
        request: None,
        long_prompt: None,
    };
    settings.generation.client.models[0].price = Some(price);
    let all = simulated(&rig, &settings, &[]).await;
    // Ten tokens in, five out, at ten and twenty dollars a million.
    let cost = all["last"].now.as_ref().unwrap().cost_usd.unwrap();
    assert_eq!(cost.to_string(), "0.0002");

    let mut settings = rig.settings.clone();
    settings.stages.get_mut(&StageName::Generation).unwrap().retry.max_attempts = 1;
    let all = simulated(&rig, &settings, &[]).await;
    for one in all.values() {
        let once = one.now.as_ref().unwrap();
        let of_first = once.attempts.iter().filter(|attempt| attempt.provider == PROVIDER).count();
        assert_eq!(of_first, 1, "nobody is asked twice: {one:#?}");
        assert_eq!(one.is_changed(), *once != one.recorded);
    }
    assert!(all.values().any(Simulated::is_changed) && !all["last"].is_changed());
}
