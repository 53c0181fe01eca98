//! Rate limits: how fast providers are asked, how long anybody is held back, and what is written down about it.

use std::{num::NonZeroU32, sync::Mutex, time::Duration};

use throughline_actors::{
    model::client::RateLimits,
    ports::{
        memory::{
            model::{answer, failure},
            script::Reply,
        },
        model::{Allowance, Allowances, CallFacts, ModelAnswer, ModelError, ModelFailure},
    },
};
use throughline_schemas::{FailureCode, StageName, Usage, WorkflowId, event::generation::AttemptError};

use tokio::time::Instant;

use crate::harness::{PROVIDER, Rig, reply_to};

const SECOND: Duration = Duration::from_secs(1);

fn limited(requests: Option<u32>, tokens: Option<u32>) -> RateLimits {
    RateLimits {
        requests_per_minute: requests.and_then(NonZeroU32::new),
        tokens_per_minute: tokens.and_then(NonZeroU32::new),
    }
}

fn publish_all(rig: &Rig, count: usize) -> Vec<WorkflowId> {
    (0..count).map(|n| rig.publish(&format!("w{n}"), &format!("s{n}"), "hello")).collect()
}

/// When each workflow's call began, in milliseconds from the first.
async fn starts(rig: &Rig, workflows: &[WorkflowId]) -> Vec<u64> {
    let mut all = Vec::new();
    for workflow in workflows {
        rig.saved(workflow).await;
        all.extend(rig.generated(workflow).attempts.iter().filter(|one| one.sent).map(|one| one.started_at));
    }
    all.sort_unstable();
    all.iter().map(|at| at.ms_since(all[0])).collect()
}

fn most_in_a_minute(starts: &[u64]) -> usize {
    let within = |first: &u64| starts.iter().filter(|at| (*first..first + 60_000).contains(at)).count();
    starts.iter().map(within).max().unwrap_or_default()
}

fn tells(allowances: Allowances) -> ModelAnswer {
    let facts = CallFacts { allowances: Some(Box::new(allowances)), ..CallFacts::default() };
    ModelAnswer { facts, ..answer("ok") }
}

#[tokio::test(start_paused = true)]
async fn requests_in_a_minute_stay_within_the_provider_s_limit() {
    let mut rig = Rig::new();
    let client = &mut rig.settings.generation.client;
    client.provider_rates.insert(PROVIDER.to_owned(), limited(Some(30), None));
    client.rate_patience = SECOND * 3_600;
    let _worker = rig.worker().await;
    let workflows = publish_all(&rig, 64);
    let starts = starts(&rig, &workflows).await;
    assert_eq!((starts.len(), most_in_a_minute(&starts)), (64, 30), "{starts:?}");
    assert_eq!(starts[..3], [0, 0, 0], "a burst goes out at once");
    let waited: Vec<_> = workflows.iter().filter_map(|w| rig.generated(w).attempts[0].waited_ms).collect();
    assert_eq!(waited.len(), 61, "who was held back is on record, and who was not, too");
    assert!(rig.seconds() < 140.0, "and nobody longer than needed: {} s", rig.seconds());
}

#[tokio::test(start_paused = true)]
async fn tokens_are_estimated_before_and_corrected_after_each_call() {
    let mut rig = Rig::new();
    let client = &mut rig.settings.generation.client;
    client.models[0].rates = limited(None, Some(3_000));
    client.sampling.max_tokens = 1_000;
    client.rate_patience = SECOND * 3_600;
    // 50 tokens are used of more than a thousand that are reserved.
    let usage = Usage { input_tokens: 40, output_tokens: 10, ..Usage::default() };
    rig.models.otherwise(PROVIDER, move |request| {
        Reply::After(SECOND, Ok(ModelAnswer { usage: Some(usage), ..answer(&reply_to(request)) }))
    });
    let _worker = rig.worker().await;
    let workflows = publish_all(&rig, 20);
    let starts = starts(&rig, &workflows).await;
    assert!(starts[19] < 60_000, "20 requests of 50 tokens are a third of the limit: {starts:?}");
    let at_once = starts.iter().filter(|at| **at < 1_000).count();
    assert!(at_once <= 2, "but until it is known, what may be used counts: {starts:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_model_may_not_take_at_all_is_refused_at_once_and_goes_to_the_next() {
    let mut rig = Rig::new();
    rig.settings.generation.client.models[0].rates = limited(None, Some(50));
    rig.fall_back_to("large", "anthropic");
    rig.models.always("anthropic", Ok(answer("from the fallback")));
    let _worker = rig.worker().await;
    let workflow = rig.publish("w1", "s1", "hello");
    assert_eq!(rig.saved(&workflow).await.response.text, "from the fallback");
    let attempts = rig.generated(&workflow).attempts;
    assert_eq!((attempts[0].sent, attempts[0].error_code), (false, Some(AttemptError::OwnRateLimit)));
    assert!(rig.seconds() < 1.0);
}

#[tokio::test(start_paused = true)]
async fn who_would_wait_too_long_falls_back_instead() {
    let mut rig = Rig::new();
    let client = &mut rig.settings.generation.client;
    client.models[0].rates = limited(Some(1), None);
    client.rate_patience = SECOND * 10;
    rig.fall_back_to("large", "anthropic");
    rig.models.always("anthropic", Ok(answer("from the fallback")));
    let _worker = rig.worker().await;
    let first = rig.publish("w1", "s1", "hello");
    rig.saved(&first).await;
    let second = rig.publish("w2", "s2", "hello");
    assert_eq!(rig.saved(&second).await.response.text, "from the fallback");
    assert!(rig.seconds() < 1.0, "nobody waits for what will not come in time");
    assert_eq!(rig.generated(&second).attempts[0].error_code, Some(AttemptError::OwnRateLimit));
    assert_eq!(rig.meters.count("throughline_rate_limit_refused_total", &[("model", "small")]), 1);
    assert_eq!(
        rig.meters.count("throughline_model_fallbacks_total", &[("from", "small"), ("to", "large")]),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_is_bounded_and_then_the_workflow_fails_as_rate_limited() {
    let mut rig = Rig::new();
    let client = &mut rig.settings.generation.client;
    client.models[0].rates = limited(Some(1), None);
    client.rate_total = SECOND * 59;
    let _worker = rig.worker().await;
    rig.saved(&rig.publish("w1", "s1", "hello")).await;
    let failed = rig.failed(&rig.publish("w2", "s2", "hello")).await;
    assert_eq!((failed.code, failed.retryable), (FailureCode::RateLimited, true));
    assert!(failed.message.contains("generation.rate_total_ms"), "{}", failed.message);
    assert!(!failed.may_have_happened);
    assert!((59.0..60.0).contains(&rig.seconds()), "{} s", rig.seconds());
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

/// Has many workflows published at once under a limit on requests, and one attempt each; says how long they took.
async fn all_at_once(count: usize, per_minute: u32, slots: usize) -> f64 {
    let mut rig = Rig::new();
    let client = &mut rig.settings.generation.client;
    client.provider_rates.insert(PROVIDER.to_owned(), limited(Some(per_minute), None));
    let stage = rig.settings.stages.get_mut(&StageName::Generation).unwrap();
    stage.retry.max_attempts = 1;
    stage.concurrency = slots;
    // As a provider would: whoever asks more often is refused.
    let asked = Mutex::new(Vec::<Instant>::new());
    rig.models.otherwise(PROVIDER, move |request| {
        let (now, mut asked) = (Instant::now(), asked.lock().unwrap());
        asked.retain(|at| now - *at < Duration::from_mins(1));
        if asked.len() >= per_minute as usize {
            return Reply::Now(Err(failure(ModelError::RateLimited(String::new()))));
        }
        asked.push(now);
        Reply::Now(Ok(answer(&reply_to(request))))
    });
    let _worker = rig.worker().await;
    let workflows = publish_all(&rig, count);
    let starts = starts(&rig, &workflows).await;
    assert_eq!((starts.len(), rig.models.calls(PROVIDER)), (count, count), "one call each");
    assert!(most_in_a_minute(&starts) <= per_minute as usize);
    let took = rig.seconds();
    assert_eq!(rig.verify().await, Vec::<String>::new());
    took
}

#[tokio::test(start_paused = true)]
async fn a_hundred_workflows_at_once_under_sixty_a_minute_all_get_through_in_their_time() {
    let took = all_at_once(100, 60, 64).await;
    // The first minute sees sixty, and the second the other forty.
    assert!((60.0..110.0).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn what_a_worker_may_not_hold_is_handed_back_and_uses_no_attempt_either() {
    // The 64 that wait would wait for nine minutes; five are held.
    let took = all_at_once(80, 8, 64).await;
    assert!((540.0..800.0).contains(&took), "{took} s");
}

#[tokio::test(start_paused = true)]
async fn a_pace_that_a_provider_asks_for_uses_no_attempt_of_those_who_hear_of_it() {
    let mut rig = Rig::new();
    let stage = rig.settings.stages.get_mut(&StageName::Generation).unwrap();
    stage.retry.max_attempts = 2;
    let facts = CallFacts { retry_after: Some(SECOND * 20), ..CallFacts::default() };
    let slow_down = ModelFailure { error: ModelError::RateLimited(String::new()), usage: None, facts };
    rig.models.push(PROVIDER, Reply::Now(Err(slow_down)));
    let _worker = rig.worker().await;
    let first = rig.publish("first", "s", "hello");
    rig.pass(SECOND).await;
    let workflows = publish_all(&rig, 5);
    rig.pass(SECOND * 18).await;
    assert_eq!(rig.models.calls(PROVIDER), 1, "nobody asks within the 20 s");
    rig.saved(&first).await;
    for workflow in &workflows {
        rig.saved(workflow).await;
        let attempts = rig.generated(workflow).attempts;
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        assert!((18_000..=20_000).contains(&attempts[0].waited_ms.unwrap()), "{attempts:?}");
    }
    assert_eq!(rig.verify().await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn nothing_left_by_the_provider_s_own_word_means_that_everybody_waits_for_the_reset() {
    let (rig, _worker) = Rig::running().await;
    let requests = Allowance { limit: Some(100), remaining: Some(0), resets_in: Some(SECOND * 20) };
    rig.models.push(PROVIDER, Reply::Now(Ok(tells(Allowances { requests, ..Allowances::default() }))));
    rig.saved(&rig.publish("first", "s", "hello")).await;
    let workflows = publish_all(&rig, 5);
    rig.pass(SECOND * 19).await;
    assert_eq!(rig.models.calls(PROVIDER), 1, "nobody asks within the 20 s");
    for workflow in &workflows {
        rig.saved(workflow).await;
        let attempts = rig.generated(workflow).attempts;
        assert_eq!(attempts.len(), 1, "waiting for a limit uses up no attempt");
        assert!((19_000..=20_001).contains(&attempts[0].waited_ms.unwrap()), "{attempts:?}");
    }
    assert!(rig.seconds() < 21.0, "{}", rig.seconds());
}

#[tokio::test(start_paused = true)]
async fn another_model_of_the_provider_has_limits_of_its_own() {
    let mut rig = Rig::new();
    rig.fall_back_to("large", PROVIDER);
    rig.settings.generation.client.routing.requested_model = true;
    rig.settings.generation.client.rate_patience = SECOND;
    let requests = Allowance { limit: Some(100), remaining: Some(0), resets_in: Some(SECOND * 20) };
    rig.models.push(PROVIDER, Reply::Now(Ok(tells(Allowances { requests, ..Allowances::default() }))));
    let _worker = rig.worker().await;
    rig.saved(&rig.publish("w1", "s1", "hello")).await;
    let second = rig.publish("w2", "s2", "hello");
    rig.saved(&second).await;
    let models: Vec<_> =
        rig.generated(&second).attempts.iter().map(|one| (one.model.clone(), one.sent)).collect();
    assert_eq!(models, [("small-v1".to_owned(), false), ("large-v1".to_owned(), true)]);
}
