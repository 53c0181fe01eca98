//! What a person sees who publishes a message and waits, whatever the provider does.

use serde_json::{Value, json};

use super::{Court, Dialect, question};
use crate::harness::SOON;

#[tokio::test]
async fn every_failure_says_what_went_wrong_and_what_to_do() {
    let Some(court) = Court::open(Dialect::Openai, true, &[]).await else { return };
    let fail = |status: u16| json!({"type": "fail", "status": status, "retry_after": 0.1, "times": null});
    let quota =
        json!({"type": "fail", "status": 429, "code": "insufficient_quota", "message": "No credit left."});
    let cut = |kind: &str| json!({"type": "stream_fault", "kind": kind, "after_chunks": 3, "stall_seconds": 30.0, "times": null});
    // Each fault, and what its message must say.
    let cases: [(&str, Value, &[&str]); 12] = [
        ("key", fail(401), &["credentials", "api_key"]),
        ("forbidden", fail(403), &["credentials", "api_key"]),
        ("model", fail(404), &["model"]),
        ("request", fail(400), &["refused the request"]),
        ("credit", quota, &["quota", "No credit left."]),
        ("limit", fail(429), &["slow down"]),
        ("down", fail(503), &["failed", "503"]),
        ("overloaded", fail(529), &["failed", "529"]),
        ("dropped", cut("disconnect"), &["broke"]),
        ("truncated", cut("truncate"), &["not usable"]),
        ("garbled", cut("malformed"), &["not usable"]),
        ("stalled", cut("stall"), &["too long", "read_timeout_ms"]),
    ];
    for (name, fault, words) in cases {
        court.llmock.behave(&[fault]).await;
        let arguments = ["publish", "--user", "demo", "--session", name, "--workflow-id", name, "--wait"];
        let mut publish = court.cluster.run(name, &[&arguments[..], &[&question(name)]].concat());
        let status = publish.ended(SOON).await;
        court.llmock.heal().await;
        let (out, err) = (publish.stdout(), publish.stderr());
        eprintln!("{name}: {}", err.trim_end());
        assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{name}: {err}");
        for word in words {
            assert!(err.contains(word), "{name}: {word} is not in: {err}");
        }
        // Words, not data structures.
        for foreign in ["Some(", "None", "Err(", " { ", "\\n", "reqwest", "hyper"] {
            assert!(!err.contains(foreign), "{name}: {err}");
        }
    }
}
