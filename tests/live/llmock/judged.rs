//! Every fault in every dialect, streamed and whole; then the verdict and the ledger.

use std::collections::{BTreeMap, BTreeSet};

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
    let calls = run_all(&mut court, &cases, stream).await;
    acquitted(&court).await;
    eprintln!("{dialect:?}, stream {stream}: {} cases, {} calls, 0 FAIL, 0 WARN", cases.len(), calls.len());
    let names: Vec<_> = cases.iter().map(|case| case.name.clone()).collect();
    let form = if stream { "streams" } else { "answers" };
    let fault = format!("{dialect:?} {form} that fail or break off, verdict 0 FAIL 0 WARN");
    let figures = court.cluster.figures(16, fault, cases.len(), &court.log, &names).await;
    figures.calls(calls.len() as u64).show();
    if stream {
        court.llmock.forget().await;
        let calls = run_all(&mut court, &cases::of_chunks(0..dialect.chunks_of_json()), stream).await;
        refuted(&court, &calls).await;
        court.llmock.forget().await;
        let ends = cases::of_ends(dialect);
        run_all(&mut court, &ends, stream).await;
        whole_all_the_same(&court, ends.len()).await;
    }
}

/// llmock takes a stream that it cuts for one without a reason to stop, wherever it cuts it. Behind that reason, the whole
/// answer is there, as the event that was stored proves, and asking again would only be paid for again.
async fn whole_all_the_same(court: &Court, cases: usize) {
    let verdict = court.llmock.verdict().await;
    assert_eq!((verdict.findings.len(), verdict.warnings), (cases, 0), "{verdict:#?}");
    assert!(
        verdict.findings.iter().all(|finding| finding.code == "truncated_stream_accepted"),
        "{verdict:#?}"
    );
}

/// The verdict is without any finding.
async fn acquitted(court: &Court) {
    let verdict = court.llmock.verdict().await;
    assert!(verdict.findings.is_empty(), "{verdict:#?}");
    assert_eq!((verdict.errors, verdict.warnings), (0, 0));
}

/// llmock takes a call with a malformed chunk for one that went well if it could write the rest of its stream before it
/// noticed that nobody reads it any more. It then takes the next attempt for another request, and warns of
/// `malformed_chunk_ignored`: "neither retried nor stopped reading". Its own ledger has the retry. Where it writes no
/// faster than a model, it does not err: see [`malformed_chunks`].
async fn refuted(court: &Court, calls: &[Call]) {
    let verdict = court.llmock.verdict().await;
    assert_eq!(verdict.errors, 0, "{verdict:#?}");
    for finding in &verdict.findings {
        assert_eq!(finding.code, "malformed_chunk_ignored", "{finding:#?}");
        let accused = calls.iter().find(|call| finding.requests == [call.seq]).expect("in the ledger");
        let again = |call: &&Call| call.seq > accused.seq && call.fingerprint == accused.fingerprint;
        assert!(calls.iter().any(|call| again(&call)), "{finding:#?}");
    }
}

/// Runs these one after the other; returns the ledger, which has nothing else.
async fn run_all(court: &mut Court, cases: &[Case], stream: bool) -> Vec<Call> {
    for case in cases {
        run(court, case).await;
    }
    court.cluster.assert_workers_run();
    let calls = court.llmock.calls().await;
    assert_eq!(calls.len(), cases.iter().map(|case| case.calls).sum::<usize>());
    assert!(calls.iter().all(|call| call.stream == stream));
    assert_obedient(&calls);
    calls
}

async fn run(court: &mut Court, case: &Case) {
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

/// With a pause before each chunk, as a model makes one.
#[tokio::test]
async fn malformed_chunks() {
    for dialect in [Dialect::Openai, Dialect::Anthropic, Dialect::Gemini] {
        let paced = [("LLMOCK_STREAM_CHUNK_DELAY_MS", "200")];
        let Some(mut court) = Court::open(dialect, true, &paced).await else { return };
        // The last ones are written before anybody can have hung up.
        let places = BTreeSet::from([0, 1, dialect.chunks() - 3]);
        run_all(&mut court, &cases::of_chunks(places), true).await;
        acquitted(&court).await;
    }
}
