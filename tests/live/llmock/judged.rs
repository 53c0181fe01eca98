//! Every fault in every dialect, streamed and whole; then the verdict and the ledger.

use std::collections::BTreeMap;

use serde_json::json;

use super::{
    Court, Dialect, MAX_ATTEMPTS,
    cases::{self, Case, End},
    question,
};
use crate::harness::llmock::Call;

/// What llmock's clock and ours may differ by, in seconds; it grants itself 50 ms and 5 %.
pub(super) const CLOCKS: f64 = 0.005;

async fn judge(dialect: Dialect, stream: bool) {
    let Some(mut court) = Court::open(dialect, stream, &[]).await else { return };
    let mut cases = cases::of_answers();
    if stream {
        cases.extend(cases::of_streams(dialect));
    }
    for case in &cases {
        run(&mut court, case, stream).await;
    }
    court.cluster.assert_workers_run();
    let calls = court.llmock.calls().await;
    assert_eq!(calls.len(), cases.iter().map(|case| case.calls).sum::<usize>());
    assert!(calls.iter().all(|call| call.stream == stream));
    assert_obedient(&calls);
    let verdict = court.llmock.verdict().await;
    assert!(verdict.findings.is_empty(), "{verdict:#?}");
    assert_eq!((verdict.errors, verdict.warnings), (0, 0));
    eprintln!("{dialect:?}, stream {stream}: {} faults, {} calls, 0 FAIL, 0 WARN", cases.len(), calls.len());
}

async fn run(court: &mut Court, case: &Case, stream: bool) {
    let name = case.name.as_str();
    court.llmock.behave(&case.behaviors).await;
    court.ask(name).await;
    let calls = court.llmock.calls_about(&question(name)).await;
    let attempts = court.attempts(name);
    assert_eq!(calls.len(), case.calls, "{name}: {attempts:#?}");
    assert_eq!(
        attempts.iter().filter(|attempt| attempt["sent"] == json!(true)).count(),
        case.calls,
        "{name}"
    );
    match case.end {
        End::Saved(text, finish) => {
            assert_eq!(court.log.answer(name), text, "{name}");
            let generated = court.log.event(name, "response_generated").unwrap().data();
            assert_eq!(generated["response"]["finish_reason"], finish, "{name}");
            assert!(generated["usage"]["output_tokens"].as_u64() > Some(0), "{name}");
            assert_eq!(court.frames.read(name).await, text, "{name}");
        }
        End::Failed(code) => {
            let failure = court.log.failure(name);
            assert_eq!(
                (&failure["code"], &failure["stage"]),
                (&json!(code), &json!("generation")),
                "{failure}"
            );
        }
    }
    // A fault that nobody met would prove nothing.
    court.llmock.heal().await;
    let met = calls.iter().filter(|call| call.fault.is_some()).count();
    let streams_only = case.behaviors.iter().filter(|behavior| behavior["type"] == "stream_fault").count();
    assert!(stream || streams_only == 0, "{name}");
    let expected =
        case.behaviors.iter().filter(|b| b["type"] == "fail" || b["type"] == "stream_fault").count();
    assert!(met >= expected, "{name}: {calls:#?}");
}

/// By llmock's own ledger: nothing before the time that was asked for, and no more attempts than are allowed.
pub(super) fn assert_obedient(calls: &[Call]) {
    let mut requests: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        requests.entry(&call.fingerprint).or_default().push(call);
    }
    for attempts in requests.values() {
        assert!(attempts.len() <= MAX_ATTEMPTS, "{attempts:#?}");
        for pair in attempts.windows(2) {
            let Some(asked) = pair[0].retry_after else { continue };
            let waited = pair[1].started_at - pair[0].ended_at;
            assert!(waited + CLOCKS >= asked, "waited {waited} s of {asked}: {pair:#?}");
        }
        for call in &attempts[..attempts.len() - 1] {
            let permanent = matches!(call.status, 400..=407 | 410..=424 | 426..=428 | 430..=499);
            assert!(!permanent, "tried again: {call:#?}");
        }
    }
}

#[tokio::test]
async fn openai_whole() {
    judge(Dialect::Openai, false).await;
}

#[tokio::test]
async fn openai_streamed() {
    judge(Dialect::Openai, true).await;
}

#[tokio::test]
async fn anthropic_whole() {
    judge(Dialect::Anthropic, false).await;
}

#[tokio::test]
async fn anthropic_streamed() {
    judge(Dialect::Anthropic, true).await;
}

#[tokio::test]
async fn gemini_whole() {
    judge(Dialect::Gemini, false).await;
}

#[tokio::test]
async fn gemini_streamed() {
    judge(Dialect::Gemini, true).await;
}
