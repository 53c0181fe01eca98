//! The model: what is retried, what is not, and what is written down about it.

use std::time::Duration;

use throughline_actors::{
    model::cost::Price,
    policy::retry::RetryPolicy,
    ports::{
        memory::{
            model::{answer, failure},
            script::Reply,
        },
        model::{CallFacts, ModelError, ModelFailure, Phase},
    },
};
use throughline_schemas::{FailureCode, StageName, Usage, event::generation::ErrorClass};

use crate::harness::{ACK_WAIT, Act, Op, PROVIDER, Rig, Worker, reply_to};

const SECOND: Duration = Duration::from_secs(1);

fn rate_limited(secs: u64) -> ModelFailure {
    ModelFailure {
        error: ModelError::RateLimited(String::new()),
        usage: None,
        facts: CallFacts {
            http_status: Some(429),
            request_id: Some("req-1".to_owned()),
            retry_after: Some(Duration::from_secs(secs)),
            ..CallFacts::default()
        },
    }
}

fn server() -> ModelFailure {
    ModelFailure {
        error: ModelError::Server("overloaded".to_owned()),
        usage: None,
        facts: CallFacts { http_status: Some(503), ..CallFacts::default() },
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_passes_is_retried_and_every_attempt_is_on_record() {
    let (rig, _worker) = Rig::running().await;
    rig.models.push(PROVIDER, Reply::After(SECOND * 2, Err(server())));
    rig.models.push(PROVIDER, Reply::After(SECOND * 3, Ok(answer("at last"))));
    let workflow = rig.publish("w1", "s1", "hello");
    assert_eq!(rig.saved(&workflow).await.response.text, "at last");

    let generated = rig.generated(&workflow);
    let [failed, answered] = &generated.attempts[..] else {
        panic!("two attempts: {:#?}", generated.attempts)
    };
    assert_eq!((failed.duration_ms.duration().as_secs(), failed.http_status), (2, Some(503)));
    assert_eq!(failed.error_class, Some(ErrorClass::Transient));
    assert!(failed.sent && failed.cost_usd.is_none());
    assert!(failed.error.as_ref().is_some_and(|error| error.contains("overloaded")), "{failed:?}");
    assert_eq!((answered.duration_ms.duration().as_secs(), answered.http_status), (3, Some(200)));
    assert_eq!((answered.error_class, &answered.error), (None, &None));
    let waited = answered.started_at.ms_since(failed.started_at) - 2_000;
    assert!((500..=1_000).contains(&waited), "backoff of half to one second, not {waited} ms");
    // 10 tokens in at $1 and 5 out at $2 per million.
    assert_eq!(generated.cost_usd.map(|cost| cost.to_string()).as_deref(), Some("0.00002"));
    assert_eq!(answered.cost_usd, generated.cost_usd);
    assert_eq!(rig.events(&workflow)[3].meta.attempt, 2);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_get_better_is_asked_once() {
    let (rig, _worker) = Rig::running().await;
    let cases = [
        ModelError::Credentials(String::new()),
        ModelError::BadRequest("no such field".to_owned()),
        ModelError::QuotaExhausted("no credit".to_owned()),
        ModelError::UnknownModel("gpt-0".to_owned()),
        ModelError::ContextTooLong("9000 tokens".to_owned()),
    ];
    for (n, error) in cases.into_iter().enumerate() {
        rig.models.push(PROVIDER, Reply::Now(Err(failure(error.clone()))));
        let workflow = rig.publish(&format!("w{n}"), "s1", "hello");
        let failed = rig.failed(&workflow).await;
        assert_eq!(
            (failed.code, failed.stage),
            (FailureCode::ModelRejected, StageName::Generation),
            "{error:?}"
        );
        assert_eq!(failed.attempts, 1, "{error:?}");
        assert!(!failed.retryable && !failed.may_have_happened, "{error:?}: {failed:?}");
        assert_eq!(failed.message, error.to_string());
        assert_eq!(failed.attempt_log.len(), 1);
        assert_eq!(failed.attempt_log[0].error_class, Some(ErrorClass::Permanent));
    }
    assert_eq!(rig.models.calls(PROVIDER), 5);
    assert!(rig.seconds() < 1.0, "nobody waited");
    assert_eq!(rig.meters.count("throughline_workflows_failed_total", &[("code", "model_rejected")]), 5);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_may_have_been_billed_and_the_failure_says_so() {
    let (rig, _worker) = Rig::running().await;
    let timeout = || Reply::After(SECOND * 60, Err(failure(ModelError::TimedOut(Phase::Total))));
    rig.models.otherwise(PROVIDER, move |_| timeout());
    let failed = rig.failed(&rig.publish("w1", "s1", "hello")).await;
    assert_eq!(failed.code, FailureCode::TimedOut);
    assert_eq!((failed.attempts, rig.models.calls(PROVIDER)), (4, 4), "max_attempts");
    assert!(failed.retryable && failed.may_have_happened, "{failed:?}");
    let classes: Vec<_> = failed.attempt_log.iter().map(|attempt| attempt.error_class).collect();
    assert_eq!(classes, [Some(ErrorClass::Unknown); 4]);
}

#[tokio::test(start_paused = true)]
async fn a_model_that_stays_down_fails_with_a_reason_after_all_attempts() {
    let (rig, _worker) = Rig::running().await;
    rig.models.always(PROVIDER, Err(server()));
    let failed = rig.failed(&rig.publish("w1", "s1", "hello")).await;
    assert_eq!((failed.code, failed.attempts), (FailureCode::ModelUnavailable, 4));
    assert!(failed.retryable && !failed.may_have_happened, "{failed:?}");
    assert_eq!(rig.models.calls(PROVIDER), 4);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_obeyed_by_everyone_who_asks_this_provider() {
    let (rig, _worker) = Rig::running().await;
    rig.models.push(PROVIDER, Reply::Now(Err(rate_limited(20))));
    let first = rig.publish("w1", "s1", "hello");
    rig.pass(SECOND).await;
    let second = rig.publish("w2", "s2", "hello");
    rig.pass(SECOND * 18).await;
    assert_eq!(rig.models.calls(PROVIDER), 1, "nobody calls within the 20 s");
    rig.saved(&first).await;
    rig.saved(&second).await;
    assert!((20.0..22.0).contains(&rig.seconds()), "both right after: {} s", rig.seconds());
    let attempts = rig.generated(&first).attempts;
    assert_eq!(attempts[0].retry_after_ms, Some(20_000));
    assert_eq!(attempts[0].request_id.as_deref(), Some("req-1"));
    let waited = rig.generated(&second).attempts[0].waited_ms;
    assert!(waited.is_some_and(|waited| waited >= 18_000), "and the wait is on record: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_too_long_to_hold_goes_back_to_the_server() {
    let mut rig = Rig::new();
    let stage = rig.settings.stages.get_mut(&StageName::Generation).unwrap();
    stage.retry.max_delay = SECOND * 120;
    let _worker = rig.worker().await;
    rig.models.push(PROVIDER, Reply::Now(Err(rate_limited(100))));
    let workflow = rig.publish("w1", "s1", "hello");
    rig.pass(SECOND * 10).await;
    assert_eq!(rig.bus.in_hand(StageName::Generation), 0, "the slot is free meanwhile");
    rig.saved(&workflow).await;
    assert!((100.0..103.0).contains(&rig.seconds()), "after {} s", rig.seconds());
    assert_eq!(rig.models.calls(PROVIDER), 2);
    let generated = rig.generated(&workflow);
    let deliveries: Vec<_> = generated.attempts.iter().map(|one| one.delivery).collect();
    assert_eq!((deliveries, generated.earlier_deliveries), (vec![1, 2], 0), "both are on record");
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

/// A provider that takes money, breaks off, and is waited for too long to hold the message.
async fn breaks_off_for_long(calls: u32) -> (Rig, Worker) {
    let mut rig = Rig::new();
    let stage = rig.settings.stages.get_mut(&StageName::Generation).unwrap();
    stage.retry = RetryPolicy { max_attempts: 3, base_delay: SECOND * 100, max_delay: SECOND * 200 };
    let price = Price {
        input: "1".parse().unwrap(),
        cached_input: None,
        cache_write: None,
        output: "2".parse().unwrap(),
        request: None,
        long_prompt: None,
    };
    rig.settings.generation.client.models[0].price = Some(price);
    let usage = Some(Usage { input_tokens: 100, output_tokens: 50, ..Usage::default() });
    for _ in 0..calls {
        let error = ModelError::CutShort("reset by peer".to_owned());
        let broken = ModelFailure { error, usage, facts: CallFacts::default() };
        rig.models.push(PROVIDER, Reply::Now(Err(broken)));
    }
    let worker = rig.worker().await;
    (rig, worker)
}

#[tokio::test(start_paused = true)]
async fn what_a_delivery_paid_before_it_was_handed_back_is_on_record() {
    let (rig, _worker) = breaks_off_for_long(2).await;
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    let generated = rig.generated(&workflow);
    let told: Vec<_> = generated.attempts.iter().map(|one| (one.delivery, one.cost_usd.is_some())).collect();
    assert_eq!(told, [(1, true), (2, true), (3, true)]);
    // 100 and 50 tokens at 1 and 2 dollars a million, each time.
    let each: Vec<_> =
        generated.attempts[..2].iter().map(|one| one.cost_usd.unwrap().dollars().to_string()).collect();
    assert_eq!(each, ["0.0002", "0.0002"]);
    let sum: rust_decimal::Decimal =
        generated.attempts.iter().map(|one| one.cost_usd.unwrap().dollars()).sum();
    assert_eq!(generated.cost_usd.map(throughline_schemas::Usd::dollars), Some(sum));
    assert_eq!(rig.meters.count("throughline_notes_lost_total", &[]), 0);
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn attempts_are_limited_over_all_deliveries_and_a_failure_tells_them_all() {
    let (rig, _worker) = breaks_off_for_long(9).await;
    let failed = rig.failed(&rig.publish("w1", "s1", "hello")).await;
    let deliveries: Vec<_> = failed.attempt_log.iter().map(|one| one.delivery).collect();
    assert_eq!((failed.attempts, deliveries), (3, vec![1, 2, 3]));
    assert_eq!(rig.models.calls(PROVIDER), 3);
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_note_that_is_lost_is_counted_and_fails_no_workflow() {
    for op in [Op::KeepAttemptLog, Op::AttemptLog] {
        let (rig, worker) = breaks_off_for_long(1).await;
        worker.gate.on(move |of, _| if of == op { Act::Lost } else { Act::Go });
        let workflow = rig.publish("w1", "s1", "hello");
        rig.saved(&workflow).await;
        let generated = rig.generated(&workflow);
        let deliveries: Vec<_> = generated.attempts.iter().map(|one| one.delivery).collect();
        assert_eq!((deliveries, generated.earlier_deliveries), (vec![2], 1), "the record says what it lacks");
        assert_eq!(rig.meters.count("throughline_notes_lost_total", &[("stage", "generation")]), 1);
        assert_eq!(rig.verify().await, Vec::<String>::new());
        let (rig, worker) = breaks_off_for_long(9).await;
        worker.gate.on(move |of, _| if of == op { Act::Lost } else { Act::Go });
        let failed = rig.failed(&rig.publish("w1", "s1", "hello")).await;
        assert_eq!((failed.attempts, failed.earlier_deliveries, rig.models.calls(PROVIDER)), (3, 2, 3));
        assert_eq!(rig.verify().await, Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn waits_that_are_allowed_by_default_are_held_and_lose_no_attempt() {
    let (rig, _worker) = Rig::running().await;
    rig.models.push(PROVIDER, Reply::Now(Err(rate_limited(3600))));
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    assert!((60.0..62.0).contains(&rig.seconds()), "the hint is obeyed up to the cap, not for an hour");
    let generated = rig.generated(&workflow);
    let waits: Vec<_> = generated.attempts.iter().map(|attempt| attempt.retry_in_ms).collect();
    assert_eq!((waits, generated.earlier_deliveries), (vec![Some(60_000), None], 0));
}

#[tokio::test(start_paused = true)]
async fn rate_limits_are_weather_and_do_not_open_the_breaker() {
    let (rig, _worker) = Rig::running().await;
    for _ in 0..20 {
        rig.models.push(PROVIDER, Reply::Now(Err(failure(ModelError::RateLimited(String::new())))));
    }
    let workflows: Vec<_> =
        (0..10).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &workflows {
        rig.saved(workflow).await;
    }
    assert_eq!(rig.models.calls(PROVIDER), 30);
    assert_eq!(rig.meters.count("throughline_breaker_transitions_total", &[]), 0);
    assert!(rig.bus.announcements().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_keeps_asking_to_slow_down_fails_as_rate_limited() {
    let (rig, _worker) = Rig::running().await;
    rig.models.always(PROVIDER, Err(rate_limited(10)));
    let workflows: Vec<_> =
        (0..3).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect();
    for workflow in &workflows {
        let failed = rig.failed(workflow).await;
        assert_eq!(
            failed.code,
            FailureCode::RateLimited,
            "also if the pace of others used up its attempts: {failed:?}"
        );
        assert!(failed.retryable);
    }
}

#[tokio::test(start_paused = true)]
async fn the_fallback_answers_when_the_first_gives_up() {
    let mut rig = Rig::new();
    rig.fall_back_to("large", "anthropic");
    rig.models.always("anthropic", Ok(answer("from the fallback")));
    rig.models.always(PROVIDER, Err(failure(ModelError::Credentials(String::new()))));
    let _worker = rig.worker().await;
    let workflow = rig.publish("w1", "s1", "hello");
    assert_eq!(rig.saved(&workflow).await.response.text, "from the fallback");
    let generated = rig.generated(&workflow);
    assert_eq!(generated.response.provider, "anthropic");
    let models: Vec<_> = generated.attempts.iter().map(|attempt| attempt.model.as_str()).collect();
    assert_eq!(models, ["small-v1", "large-v1"]);
}

#[tokio::test(start_paused = true)]
async fn one_model_asks_for_patience_and_the_other_refuses_then_patience_it_is() {
    let mut rig = Rig::new();
    rig.fall_back_to("large", "anthropic");
    rig.models.push(PROVIDER, Reply::Now(Err(rate_limited(50))));
    rig.models.always("anthropic", Err(failure(ModelError::Credentials(String::new()))));
    let _worker = rig.worker().await;
    let workflow = rig.publish("w1", "s1", "hello");
    assert_eq!(rig.saved(&workflow).await.response.text, "re: hello", "the first model was only busy");
}

#[tokio::test(start_paused = true)]
async fn a_call_of_five_minutes_is_made_once() {
    let (rig, _worker) = Rig::running().await;
    rig.models.otherwise(PROVIDER, |request| Reply::After(SECOND * 300, Ok(answer(&reply_to(request)))));
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    rig.pass(ACK_WAIT * 2).await;
    assert_eq!(rig.models.calls(PROVIDER), 1, "progress keeps the delivery alive over {ACK_WAIT:?}");
    assert_eq!(rig.meters.count("throughline_redeliveries_total", &[]), 0);
}
