//! What a listener on the live subject hears, and when.

use std::{num::NonZeroU32, time::Duration};

use throughline_actors::{
    model::client::RateLimits,
    policy::limits::HOLD_LIMIT,
    ports::{
        memory::{
            model::{BEGUN, answer, broken_off, failure},
            script::Reply,
        },
        model::{CallFacts, ModelAnswer, ModelError, ModelFailure},
        source::FetchError,
    },
};
use throughline_schemas::{
    FinishReason, LiveFrame, LiveKind, StageName, WaitReason, WorkflowId,
    event::generation::{AttemptError, ErrorClass},
};

use crate::harness::{PROVIDER, Rig};

const SECOND: Duration = Duration::from_secs(1);

/// Everything that is told of a workflow.
fn all_frames(rig: &Rig, workflow: &WorkflowId) -> Vec<LiveFrame> {
    let frames = rig.bus.live_frames(workflow);
    frames.iter().map(|frame| serde_json::from_slice(frame).unwrap()).collect()
}

/// What is told of calls to models.
fn frames(rig: &Rig, workflow: &WorkflowId) -> Vec<LiveFrame> {
    all_frames(rig, workflow).into_iter().filter(|frame| frame.delivery > 0).collect()
}

/// What is told besides.
fn beside(rig: &Rig, workflow: &WorkflowId) -> Vec<LiveFrame> {
    all_frames(rig, workflow).into_iter().filter(|frame| frame.delivery == 0).collect()
}

/// Kind, attempt and what is said, of each frame, whose numbers have no gaps.
fn told(frames: &[LiveFrame]) -> Vec<(LiveKind, u32, &str)> {
    let numbers: Vec<_> = frames.iter().map(|frame| frame.seq).collect();
    assert_eq!(numbers, (0..frames.len() as u64).collect::<Vec<_>>());
    frames
        .iter()
        .map(|frame| {
            let said = frame.text.as_deref().or(frame.reason.as_deref()).or(frame.model.as_deref());
            (frame.kind, frame.attempt, said.unwrap_or_default())
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_heard_as_it_comes() {
    let (rig, _worker) = Rig::running().await;
    rig.models.push(PROVIDER, Reply::Now(Ok(answer("it has been shipped"))));
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    let frames = frames(&rig, &workflow);
    assert_eq!(
        told(&frames),
        [
            (LiveKind::Started, 1, "small-v1"),
            (LiveKind::Text, 1, "it "),
            (LiveKind::Text, 1, "has "),
            (LiveKind::Text, 1, "been "),
            (LiveKind::Text, 1, "shipped"),
            (LiveKind::Completed, 1, ""),
        ]
    );
    assert_eq!(frames[0].provider.as_deref(), Some(PROVIDER));
    assert_eq!(frames[5].finish_reason, Some(FinishReason::Stop));
    assert!(frames.iter().all(|frame| frame.workflow_id == workflow && frame.delivery == 1));
}

#[tokio::test(start_paused = true)]
async fn a_whole_answer_is_one_piece_and_its_reasoning_another() {
    let mut rig = Rig::new();
    rig.settings.generation.client.sampling.stream = false;
    let _worker = rig.worker().await;
    let whole = ModelAnswer { reasoning: Some("let me see".to_owned()), ..answer("one two three") };
    rig.models.push(PROVIDER, Reply::Now(Ok(whole)));
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    assert_eq!(
        told(&frames(&rig, &workflow)),
        [
            (LiveKind::Started, 1, "small-v1"),
            (LiveKind::Reasoning, 1, "let me see"),
            (LiveKind::Text, 1, "one two three"),
            (LiveKind::Completed, 1, ""),
        ]
    );
    assert_eq!(rig.generated(&workflow).response.reasoning.as_deref(), Some("let me see"));
}

#[tokio::test(start_paused = true)]
async fn a_huge_answer_comes_in_several_frames() {
    let mut rig = Rig::new();
    rig.settings.generation.client.sampling.stream = false;
    let _worker = rig.worker().await;
    let text = "äöü ".repeat(40_000);
    rig.models.push(PROVIDER, Reply::Now(Ok(answer(&text))));
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    let frames = frames(&rig, &workflow);
    let pieces: Vec<_> = frames.iter().filter_map(|frame| frame.text.as_deref()).collect();
    assert_eq!(pieces.concat(), text);
    assert!(pieces.iter().all(|piece| piece.len() <= 64 * 1024), "NATS takes each of them");
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_told_at_once_that_what_it_read_is_void() {
    let (rig, _worker) = Rig::running().await;
    rig.models.push(PROVIDER, Reply::Now(Err(broken_off(ModelError::CutShort("reset".to_owned())))));
    rig.models.push(PROVIDER, Reply::After(SECOND * 9, Ok(answer("whole"))));
    let workflow = rig.publish("w1", "s1", "hello");
    rig.pass(SECOND / 10).await;
    let reason = "the connection broke before the answer was complete: reset";
    let broken =
        [(LiveKind::Started, 1, "small-v1"), (LiveKind::Text, 1, BEGUN), (LiveKind::Restarted, 1, reason)];
    assert_eq!(told(&frames(&rig, &workflow)), broken, "before the backoff, not after it");
    rig.saved(&workflow).await;
    let again =
        [(LiveKind::Started, 2, "small-v1"), (LiveKind::Text, 2, "whole"), (LiveKind::Completed, 2, "")];
    assert_eq!(told(&frames(&rig, &workflow)), [&broken[..], &again[..]].concat());
    let generated = rig.generated(&workflow);
    assert_eq!(generated.response.text, "whole", "the durable answer has nothing of the broken one");
    assert!(generated.attempts[0].may_have_been_billed && generated.cost_is_partial);
    assert_eq!(generated.attempts[0].first_token_ms, Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_reader_is_told_who_is_asked_next_and_what_a_rate_limit_holds_back() {
    let mut rig = Rig::new();
    let rates = RateLimits { requests_per_minute: NonZeroU32::new(2), tokens_per_minute: None };
    rig.settings.generation.client.models[0].rates = rates;
    rig.models.push(PROVIDER, Reply::Now(Err(broken_off(ModelError::CutShort("reset".to_owned())))));
    let _worker = rig.worker().await;
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    let frames = frames(&rig, &workflow);
    let next: Vec<_> = frames
        .iter()
        .filter(|frame| frame.again_in_ms.is_some())
        .map(|frame| (frame.kind, frame.provider.as_deref(), frame.model.as_deref()))
        .collect();
    let who = (Some(PROVIDER), Some("small-v1"));
    assert_eq!(next, [(LiveKind::Restarted, who.0, who.1), (LiveKind::HeldBack, who.0, who.1)]);
    let waits: Vec<_> = frames.iter().filter_map(|frame| frame.again_in_ms).collect();
    let attempts = rig.generated(&workflow).attempts;
    assert_eq!(Some(waits[0]), attempts[0].retry_in_ms);
    assert!(waits[1].abs_diff(attempts[1].waited_ms.unwrap()) < 10, "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_void_when_nothing_was_heard() {
    let (rig, _worker) = Rig::running().await;
    rig.models.push(PROVIDER, Reply::Now(Err(failure(ModelError::Server("busy".to_owned())))));
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    let kinds: Vec<_> =
        told(&frames(&rig, &workflow)).into_iter().map(|(kind, attempt, _)| (kind, attempt)).collect();
    assert_eq!(
        kinds,
        [
            (LiveKind::Started, 1),
            (LiveKind::AttemptFailed, 1),
            (LiveKind::Started, 2),
            (LiveKind::Text, 2),
            (LiveKind::Text, 2),
            (LiveKind::Completed, 2)
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_fallback_after_half_an_answer_is_announced_too() {
    let mut rig = Rig::new();
    rig.fall_back_to("large", "anthropic");
    rig.settings.stages.get_mut(&StageName::Generation).unwrap().retry.max_attempts = 1;
    rig.models.always(PROVIDER, Err(broken_off(ModelError::BadResponse("no end".to_owned()))));
    rig.models.always("anthropic", Ok(answer("whole")));
    let _worker = rig.worker().await;
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    assert_eq!(
        told(&frames(&rig, &workflow)),
        [
            (LiveKind::Started, 1, "small-v1"),
            (LiveKind::Text, 1, BEGUN),
            (LiveKind::Restarted, 1, "the provider's answer is not usable: no end"),
            (LiveKind::FellBack, 1, "large-v1"),
            (LiveKind::Started, 2, "large-v1"),
            (LiveKind::Text, 2, "whole"),
            (LiveKind::Completed, 2, ""),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn the_end_without_an_answer_is_told_and_is_no_restart() {
    let (rig, _worker) = Rig::running().await;
    rig.models.always(PROVIDER, Err(broken_off(ModelError::ContentFiltered("violence".to_owned()))));
    let workflow = rig.publish("w1", "s1", "hello");
    let failed = rig.failed(&workflow).await;
    assert!(failed.may_have_happened, "it had begun to answer");
    let frames = frames(&rig, &workflow);
    let kinds: Vec<_> = told(&frames).into_iter().map(|(kind, ..)| kind).collect();
    assert_eq!(kinds, [LiveKind::Started, LiveKind::Text, LiveKind::Failed]);
    assert_eq!(frames[2].reason.as_deref(), Some(failed.message.as_str()));
}

#[tokio::test(start_paused = true)]
async fn the_worker_after_one_that_died_says_that_it_is_another_delivery() {
    let rig = Rig::new();
    let first = rig.worker().await;
    rig.models.push(PROVIDER, Reply::Never);
    let workflow = rig.publish("w1", "s1", "hello");
    rig.pass(SECOND).await;
    first.crash();
    let _second = rig.worker().await;
    rig.saved(&workflow).await;
    let frames = frames(&rig, &workflow);
    let of_second: Vec<_> = frames.iter().filter(|frame| frame.delivery == 2).cloned().collect();
    assert_eq!(frames[0].delivery, 1);
    assert_eq!(told(&of_second)[0], (LiveKind::Started, 1, "small-v1"), "its own count begins anew");
    assert_eq!(rig.generated(&workflow).earlier_deliveries, 1);
}

#[tokio::test(start_paused = true)]
async fn each_stage_up_to_the_answer_says_that_it_begins() {
    let (rig, _worker) = Rig::running().await;
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    let stages: Vec<_> = beside(&rig, &workflow)
        .into_iter()
        .map(|frame| {
            assert_eq!((frame.kind, frame.seq, frame.attempt), (LiveKind::Stage, 0, 0));
            frame.stage.unwrap()
        })
        .collect();
    assert_eq!(stages, [StageName::Context, StageName::External, StageName::Generation]);
    let all = all_frames(&rig, &workflow);
    assert_eq!(all.last().unwrap().kind, LiveKind::Completed, "nothing after it could make the answer void");
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_asks_to_wait_is_told_with_the_length_before_the_first_text() {
    let (rig, _worker) = Rig::running().await;
    let facts = CallFacts { http_status: Some(429), retry_after: Some(SECOND * 12), ..CallFacts::default() };
    let slow_down = ModelFailure { facts, ..failure(ModelError::RateLimited(String::new())) };
    rig.models.push(PROVIDER, Reply::Now(Err(slow_down)));
    let workflow = rig.publish("w1", "s1", "hello");
    rig.pass(SECOND).await;
    let told = frames(&rig, &workflow);
    let kinds: Vec<_> = told.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [LiveKind::Started, LiveKind::AttemptFailed, LiveKind::Waiting], "at once");
    let [_, failed, waiting] = &told[..] else { panic!("{told:?}") };
    assert_eq!(failed.error_code, Some(AttemptError::RateLimited));
    assert_eq!((failed.error_class, failed.http_status), (Some(ErrorClass::Transient), Some(429)));
    assert_eq!((waiting.why, waiting.http_status), (Some(WaitReason::AskedToWait), Some(429)));
    assert_eq!((waiting.model.as_deref(), waiting.stage), (Some("small-v1"), Some(StageName::Generation)));
    let wait = waiting.again_in_ms.unwrap();
    assert!((12_000..15_000).contains(&wait), "{wait}");
    assert_eq!(failed.again_in_ms, Some(wait));
    rig.saved(&workflow).await;
    assert_eq!(rig.generated(&workflow).attempts[0].retry_in_ms, Some(wait), "what was told was done");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_and_an_open_breaker_are_told() {
    let mut rig = Rig::new();
    rig.fall_back_to("large", "anthropic");
    let _worker = rig.worker().await;
    rig.models.push(PROVIDER, Reply::Now(Err(failure(ModelError::ContextTooLong("long".to_owned())))));
    rig.models.always("anthropic", Ok(answer("short")));
    let workflow = rig.publish("w1", "s1", "hello");
    rig.saved(&workflow).await;
    let told = frames(&rig, &workflow);
    let kinds: Vec<_> = told.iter().take(4).map(|frame| (frame.kind, frame.model.as_deref())).collect();
    let (small, large) = (Some("small-v1"), Some("large-v1"));
    assert_eq!(
        kinds,
        [
            (LiveKind::Started, small),
            (LiveKind::AttemptFailed, large),
            (LiveKind::FellBack, large),
            (LiveKind::Started, large)
        ]
    );

    let (rig, _worker) = Rig::running().await;
    rig.models.always(PROVIDER, Err(failure(ModelError::Unreachable("refused".to_owned()))));
    for n in 0..2 {
        let workflow = rig.publish(&format!("a{n}"), "s1", "hello");
        rig.failed(&workflow).await;
    }
    let waiting = rig.publish("b", "s1", "hello");
    rig.pass(SECOND).await;
    let told = frames(&rig, &waiting);
    let waits: Vec<_> = told.iter().filter(|frame| frame.kind == LiveKind::Waiting).collect();
    assert_eq!(waits[0].why, Some(WaitReason::BreakerOpen), "{told:?}");
    assert!((1_000..=30_000).contains(&waits[0].again_in_ms.unwrap()), "{waits:?}");
    assert!(told.iter().all(|frame| frame.kind != LiveKind::Started), "nobody was asked: {told:?}");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_a_source_and_for_the_session_s_turn_is_told() {
    let mut rig = Rig::new();
    let orders = &mut rig.settings.sources[1];
    (orders.required, orders.policy.patience.longest_wait) = (true, HOLD_LIMIT);
    orders.policy.patience.total = HOLD_LIMIT * 2;
    orders.policy.retry.max_delay = SECOND * 60;
    rig.models.otherwise(PROVIDER, |_| Reply::After(SECOND * 5, Ok(answer("shipped"))));
    let _worker = rig.worker().await;
    let retry_after = Some(SECOND * 20);
    rig.sources.push("order_history", Reply::Now(Err(FetchError::RateLimited { retry_after })));
    let first = rig.publish("w1", "s1", "where is my order?");
    let second = rig.publish("w2", "s1", "thanks");
    rig.pass(SECOND).await;
    let waits = |workflow| {
        let waits = beside(&rig, workflow).into_iter().filter(|frame| frame.kind == LiveKind::Waiting);
        waits.map(|frame| (frame.stage.unwrap(), frame.why.unwrap(), frame.source)).collect::<Vec<_>>()
    };
    let source = Some("order_history".to_owned());
    assert_eq!(waits(&first), [(StageName::External, WaitReason::AskedToWait, source)]);
    assert_eq!(waits(&second), [(StageName::Input, WaitReason::Session, None)]);
    rig.saved(&second).await;
}
