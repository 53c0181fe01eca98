//! Which models are asked: by rules, by what the request says, and after which errors.

use std::time::Duration;

use serde_json::json;
use throughline_actors::{
    policy::{fallback::FallbackOn, routing::Rule},
    ports::{
        memory::{
            model::{answer, failure},
            script::Reply,
        },
        model::{CallFacts, ModelError, ModelFailure, Phase},
    },
};
use throughline_schemas::{
    FailureCode, StageName, WorkflowId,
    event::generation::{AttemptError, ChosenBy, Complexity, CostUnknown, Route},
};

use crate::harness::{PROVIDER, Rig, id};

/// Small models answer unless a request mentions a plan, or its text is long.
fn rig_with_rules() -> Rig {
    let mut rig = Rig::new();
    rig.fall_back_to("large", "anthropic");
    rig.models.always("anthropic", Ok(answer("from the large one")));
    let routing = &mut rig.settings.generation.client.routing;
    routing.complex = vec!["large".to_owned(), "small".to_owned()];
    routing.rules = vec![
        Rule { keywords: vec!["plan".to_owned()], ..Rule::new("plans", Complexity::Complex) },
        Rule { min_chars: Some(200), ..Rule::new("long", Complexity::Complex) },
        Rule { max_chars: Some(20), max_sources: Some(1), ..Rule::new("short", Complexity::Simple) },
    ];
    routing.otherwise = Some(Complexity::Moderate);
    rig
}

fn route(rig: &Rig, workflow: &WorkflowId) -> Route {
    rig.generated(workflow).route.unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_first_rule_that_matches_chooses_the_models_and_is_on_record() {
    let rig = rig_with_rules();
    let _worker = rig.worker().await;
    let cases = [
        ("Make a plan for my week.", ChosenBy::Rule { rule: "plans".to_owned() }, Complexity::Complex),
        ("hello", ChosenBy::Rule { rule: "short".to_owned() }, Complexity::Simple),
        ("Is my order on its way to me?", ChosenBy::NoRule, Complexity::Moderate),
    ];
    for (n, (text, chosen, complexity)) in cases.into_iter().enumerate() {
        let workflow = rig.publish(&format!("w{n}"), "s1", text);
        rig.saved(&workflow).await;
        let route = route(&rig, &workflow);
        assert_eq!((&route.chosen, route.complexity), (&chosen, Some(complexity)), "{text}");
        let first = if complexity == Complexity::Complex { "large" } else { "small" };
        assert_eq!(route.models[0], first, "{text}");
        assert_eq!(rig.generated(&workflow).attempts[0].model, format!("{first}-v1"), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_request_says_about_itself_counts_only_if_it_may() {
    for allowed in [false, true] {
        let mut rig = rig_with_rules();
        let routing = &mut rig.settings.generation.client.routing;
        (routing.requested_model, routing.requested_complexity) = (allowed, allowed);
        let _worker = rig.worker().await;
        let publish = |name: &str, metadata: serde_json::Value| {
            let body = json!({"user_id": "ada", "session_id": name, "workflow_id": name,
                "user_input": "hello", "metadata": metadata});
            rig.publish_raw(&[], &body.to_string());
            id(name)
        };
        let by_model = publish("model", json!({"model": "large"}));
        let by_complexity = publish("complexity", json!({"complexity": "complex"}));
        let nonsense = publish("nonsense", json!({"model": "gpt-9", "complexity": ["very"]}));
        for workflow in [&by_model, &by_complexity, &nonsense] {
            rig.saved(workflow).await;
        }
        let short = ChosenBy::Rule { rule: "short".to_owned() };
        let expected = if allowed {
            [ChosenBy::RequestedModel, ChosenBy::RequestedComplexity, short]
        } else {
            [short.clone(), short.clone(), short]
        };
        let chosen = [&by_model, &by_complexity, &nonsense].map(|workflow| route(&rig, workflow).chosen);
        assert_eq!(chosen, expected, "allowed: {allowed}");
    }
}

fn after_the_wait() -> ModelFailure {
    let facts = CallFacts { retry_after: Some(Duration::from_secs(50)), ..CallFacts::default() };
    ModelFailure { facts, ..failure(ModelError::RateLimited(String::new())) }
}

#[tokio::test(start_paused = true)]
async fn each_class_of_errors_falls_back_if_it_is_named_and_not_otherwise() {
    let words = || "words".to_owned();
    let cases = [
        (FallbackOn::ContextTooLong, failure(ModelError::ContextTooLong(words()))),
        (FallbackOn::ContentFiltered, failure(ModelError::ContentFiltered(words()))),
        (FallbackOn::RateLimited, after_the_wait()),
        (FallbackOn::Down, failure(ModelError::Server(words()))),
        (FallbackOn::Down, failure(ModelError::Unreachable(words()))),
        (FallbackOn::Down, failure(ModelError::TimedOut(Phase::Read))),
        (FallbackOn::Down, failure(ModelError::BadResponse(words()))),
        (FallbackOn::Down, failure(ModelError::LimitUsedUp(words()))),
        (FallbackOn::Quota, failure(ModelError::QuotaExhausted(words()))),
        (FallbackOn::Credentials, failure(ModelError::Forbidden(words()))),
        (FallbackOn::Credentials, failure(ModelError::Credentials(String::new()))),
        (FallbackOn::UnknownModel, failure(ModelError::UnknownModel(words()))),
        (FallbackOn::BadRequest, failure(ModelError::BadRequest(words()))),
    ];
    for (class, error) in cases {
        for named in [true, false] {
            let mut rig = Rig::new();
            rig.fall_back_to("large", "anthropic");
            rig.settings.stages.get_mut(&StageName::Generation).unwrap().retry.max_attempts = 2;
            let on = &mut rig.settings.generation.client.fallback_on;
            *on = FallbackOn::ALL.into_iter().filter(|one| named || *one != class).collect();
            rig.models.always(PROVIDER, Err(error.clone()));
            rig.models.always("anthropic", Ok(answer("from the large one")));
            let _worker = rig.worker().await;
            let workflow = rig.publish("w1", "s1", "hello");
            if named {
                let saved = rig.saved(&workflow).await;
                assert_eq!(saved.response.text, "from the large one", "{class}: {error}");
                let attempts = rig.generated(&workflow).attempts;
                assert!(rig.seconds() < 5.0, "{class}: {} s", rig.seconds());
                assert_eq!(FallbackOn::of(attempts[0].error_code.unwrap()), class);
            } else {
                let failed = rig.failed(&workflow).await;
                assert_eq!(failed.message, error.to_string(), "{class}");
                assert_eq!(rig.models.calls("anthropic"), 0, "{class}: {error}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_breaker_falls_back_at_once() {
    let mut rig = Rig::new();
    rig.fall_back_to("large", "anthropic");
    let stage = rig.settings.stages.get_mut(&StageName::Generation).unwrap();
    (stage.breaker.failure_limit, stage.retry.max_attempts) = (1, 1);
    rig.models.always(PROVIDER, Err(failure(ModelError::Server("down".to_owned()))));
    rig.models.always("anthropic", Ok(answer("from the large one")));
    let _worker = rig.worker().await;
    rig.saved(&rig.publish("w1", "s1", "hello")).await;
    let second = rig.publish("w2", "s2", "hello");
    rig.saved(&second).await;
    let attempts = rig.generated(&second).attempts;
    assert_eq!((attempts[0].sent, attempts[0].error_code), (false, Some(AttemptError::BreakerOpen)));
    assert_eq!(rig.models.calls(PROVIDER), 1);
    assert!(rig.seconds() < 1.0);
}

#[tokio::test(start_paused = true)]
async fn when_all_are_busy_the_one_that_is_free_first_is_asked_and_no_attempt_is_lost() {
    let mut rig = Rig::new();
    rig.fall_back_to("large", "anthropic");
    rig.models.push(PROVIDER, Reply::Now(Err(after_the_wait())));
    let facts = CallFacts { retry_after: Some(Duration::from_secs(20)), ..CallFacts::default() };
    let busy = ModelFailure { facts, ..failure(ModelError::RateLimited(String::new())) };
    rig.models.push("anthropic", Reply::Now(Err(busy)));
    rig.models.push("anthropic", Reply::Now(Ok(answer("from the large one"))));
    let _worker = rig.worker().await;
    let workflow = rig.publish("w1", "s1", "hello");
    assert_eq!(rig.saved(&workflow).await.response.text, "from the large one");
    assert!((20.0..21.0).contains(&rig.seconds()), "{}", rig.seconds());
    let attempts = rig.generated(&workflow).attempts;
    let tried: Vec<_> = attempts.iter().map(|one| (one.model.as_str(), one.retry_in_ms)).collect();
    assert_eq!(tried, [("small-v1", Some(50_000)), ("large-v1", Some(20_000)), ("large-v1", None)]);
}

#[tokio::test(start_paused = true)]
async fn the_bill_says_when_it_is_not_complete() {
    let mut rig = Rig::new();
    rig.fall_back_to("large", "anthropic");
    rig.settings.generation.client.models[1].price = None;
    rig.models.always(PROVIDER, Err(failure(ModelError::Credentials(String::new()))));
    rig.models.always("anthropic", Ok(answer("from the large one")));
    let _worker = rig.worker().await;
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    let generated = rig.generated(&workflow);
    assert_eq!((generated.cost_usd, generated.cost_is_partial), (None, true), "unknown is not zero");
    let costs: Vec<_> = generated.attempts.iter().map(|one| (one.cost_usd, one.cost_unknown)).collect();
    assert_eq!(costs, [(None, None), (None, Some(CostUnknown::NoPrice))], "what was refused cost nothing");
}

#[tokio::test(start_paused = true)]
async fn a_route_to_nowhere_does_not_start() {
    let mut rig = Rig::new();
    rig.settings.generation.client.routing.complex = vec!["giant".to_owned()];
    let Err(error) = rig.try_worker(rig.gate()).await else { panic!("it started") };
    let text = error.to_string();
    assert!(text.contains("\"giant\"") && text.contains("small"), "{text}");
    let mut rig = Rig::new();
    rig.settings.generation.client.routing.default.clear();
    let _worker = rig.worker().await;
    let failed = rig.failed(&rig.publish("w1", "s1", "hello")).await;
    assert_eq!(failed.code, FailureCode::ModelUnavailable);
    assert!(failed.message.contains("generation.model"), "{}", failed.message);
}
