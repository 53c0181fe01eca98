//! Ends on record: how they are told again, put right, and forgotten.

use throughline_schemas::{
    FailureCode, Metadata, Usage, Usd, WorkflowFailed,
    event::{
        generation::ToolCall,
        input::WhenBusy::{Interrupt, Merge, Reject},
    },
};

use super::{UnderTest, material::*};
use crate::ports::store::{
    AdmissionResult::{Ended, Merged, Refused, Running, Waiting},
    FailedTurn, Failing, FailureRecord, Interaction, KnownEnd, RestoredTurn,
};

async fn end<S: UnderTest>(store: &S, id: &str) -> Option<KnownEnd> {
    store.end(&workflow(id)).await.expect("the store answers")
}

async fn failed<S: UnderTest>(store: &S, id: &str) -> FailedTurn {
    match end(store, id).await {
        Some(KnownEnd::Failed(turn)) => *turn,
        other => panic!("{id}: {other:?}"),
    }
}

async fn restore<S: UnderTest>(store: &S, turn: RestoredTurn) -> crate::ports::store::Closed {
    store.restore(turn).await.expect("the store answers")
}

/// Everything that a response may have.
fn rich(id: &str, of: &str, input_sequence: u64) -> Interaction {
    let mut rich = interaction(id, of, input_sequence);
    rich.response.finish_reason_raw = Some("end_turn".to_owned());
    rich.response.reasoning = Some("it \"thought\"\u{0} so".to_owned());
    let arguments = serde_json::json!({"city": "Z\u{fc}rich", "n": [1, null]});
    rich.response.tool_calls =
        vec![ToolCall { id: "t1".to_owned(), name: "weather".to_owned(), arguments: arguments.to_string() }];
    rich.usage = Usage { cache_write_input_tokens: 5, ..rich.usage };
    let exact = r#"{"z":12345678901234567890123,"n":[0.1000000000000000055,1e400,-0,1.50,{"a\u0000":"\u0000\u001a0"}],"a":1}"#;
    rich.request.metadata = Metadata::read(exact).expect("an object");
    rich.degraded = vec!["order_history".to_owned()];
    rich.cost_usd = Some(Usd::new("0.000195".parse().expect("a number")));
    rich
}

/// An answer comes back as it was stored, to be told again.
pub async fn an_answer_on_record_can_be_told_again<S: UnderTest>(store: &S) {
    admit(store, &[accepted("w", "s", 1), accepted("v", "s", 2)]).await;
    assert_eq!(end(store, "w").await, Some(KnownEnd::Open));
    assert_eq!(end(store, "v").await, Some(KnownEnd::Open));
    assert_eq!(end(store, "nobody").await, None);
    for saved in [interaction("w", "s", 1), rich("v", "s", 2)] {
        save(store, saved.clone()).await;
        assert_eq!(end(store, saved.workflow_id.as_str()).await, Some(KnownEnd::Saved(Box::new(saved))));
    }
}

/// The end of a turn says why, once; those that a busy session had no place for have their codes.
pub async fn the_reason_of_a_failure_is_on_record<S: UnderTest>(store: &S) {
    admit(store, &[accepted("w", "s", 1), refused("bad", "s", 2), asking(Reject, "no", "s", 3)]).await;
    fail(store, "w", "s", 1).await;
    let second = FailureRecord::of(&failure(FailureCode::Stalled, "another reason"));
    store.fail(Failing { failure: second, ..failing("w", "s", 1) }).await.expect("the store answers");
    let known = FailedTurn {
        user_id: Some(user("ann")),
        session_id: session("s"),
        code: Some(FailureCode::ModelRejected),
        record: Some(failure(FailureCode::ModelRejected, "the key was refused")),
        superseded_by: None,
        ended_at: at(900),
    };
    assert_eq!(failed(store, "w").await, known);
    fail(store, "early", "s", 4).await;
    assert_eq!(failed(store, "early").await, known, "a turn that nobody admitted");
    let refused = failed(store, "bad").await;
    assert_eq!(refused.code, Some(FailureCode::InvalidInput));
    assert_eq!(refused.record, Some(failure(FailureCode::InvalidInput, "user_input is empty")));
    let turned_away = |id: &str, superseded_by: Option<&str>| (id.to_owned(), superseded_by.map(workflow));
    let batch = [accepted("x", "t", 11), asking(Merge, "y", "t", 12), asking(Merge, "z", "t", 13)];
    admit(store, &batch).await;
    admit(store, &[asking(Interrupt, "i", "t", 14)]).await;
    for (id, code, by) in [
        ("no", FailureCode::SessionBusy, None),
        ("x", FailureCode::Interrupted, Some("i")),
        ("z", FailureCode::Merged, Some("y")),
    ] {
        let turn = failed(store, id).await;
        assert_eq!((turn.code, turn.record), (Some(code), None), "{id}");
        assert_eq!(turned_away(id, by), (id.to_owned(), turn.superseded_by));
    }
}

/// The oldest input that may still have to be read from the log.
pub async fn the_oldest_open_turn_is_known<S: UnderTest>(store: &S) {
    let oldest = async || store.oldest_open().await.expect("the store answers");
    assert_eq!(oldest().await, None);
    admit(store, &[accepted("c", "t", 7), accepted("a", "s", 3), accepted("b", "s", 5)]).await;
    admit(store, &[refused("bad", "s", 1), asking(Reject, "no", "s", 2)]).await;
    assert_eq!(oldest().await, Some(3));
    save(store, interaction("a", "s", 3)).await;
    assert_eq!(oldest().await, Some(5));
    fail(store, "b", "s", 5).await;
    assert_eq!(oldest().await, Some(7));
    save(store, interaction("c", "t", 7)).await;
    assert_eq!(oldest().await, None);
}

/// The oldest go first, with their interactions; nothing that is open, nor what an open turn is made from.
pub async fn ended_turns_are_forgotten_oldest_first<S: UnderTest>(store: &S) {
    for sequence in 1..=4 {
        save(store, interaction(&format!("w{sequence}"), "s", sequence)).await;
    }
    fail(store, "f", "s", 5).await;
    let batch = [accepted("open", "t", 6), asking(Merge, "waits", "t", 7), asking(Merge, "part", "t", 8)];
    assert_eq!(admit(store, &batch).await, [Running, Waiting, Merged { into: workflow("waits") }]);
    let forget = async |before, most| store.forget_ended(at(before), most).await.expect("the store answers");
    assert_eq!(forget(501, 9).await, 0, "w1 ended then, not before");
    assert_eq!(forget(504, 2).await, 2);
    assert_eq!(recent(store, "ann", "s", 9).await, ["w3", "w4"]);
    assert_eq!(end(store, "w1").await, None);
    assert_eq!(forget(504, 2).await, 1);
    assert_eq!(forget(9_999, 0).await, 0);
    assert_eq!(forget(9_999, 9).await, 2, "w4 and f");
    assert_eq!(end(store, "f").await, None);
    assert_eq!(save(store, interaction("open", "t", 6)).await.next, Some(opening("waits", &["part"])));
    assert_eq!(save(store, interaction("waits", "t", 7)).await, ended(None));
    assert_eq!(forget(9_999, 9).await, 3);
    assert_eq!(admit(store, &[accepted("w1", "s", 1)]).await, [Running], "its id is free again");
}

/// Whatever is on record, an end that was told is what the record says afterwards, and the session goes on.
pub async fn an_end_that_was_told_is_put_on_record<S: UnderTest>(store: &S) {
    let saved = || RestoredTurn::Saved(Box::new(rich("w", "s", 1)));
    let told = KnownEnd::Saved(Box::new(rich("w", "s", 1)));
    // It is missing.
    for _ in 0..2 {
        assert_eq!(restore(store, saved()).await, ended(None));
        assert_eq!(end(store, "w").await, Some(told.clone()));
    }
    assert_eq!(admit(store, &[accepted("w", "s", 1)]).await, [Ended]);
    assert_eq!(recent(store, "ann", "s", 9).await, ["w"]);
    // It ended otherwise, both ways.
    for _ in 0..2 {
        assert_eq!(restore(store, RestoredTurn::Failed(failing("w", "s", 1))).await, ended(None));
    }
    assert_eq!(
        failed(store, "w").await.record,
        Some(failure(FailureCode::ModelRejected, "the key was refused"))
    );
    assert!(recent(store, "ann", "s", 9).await.is_empty());
    assert_eq!(restore(store, saved()).await, ended(None));
    assert_eq!(end(store, "w").await, Some(told));
    // It has another answer.
    let mut second = rich("w", "s", 1);
    "what was told".clone_into(&mut second.response.text);
    restore(store, RestoredTurn::Saved(Box::new(second.clone()))).await;
    assert_eq!(end(store, "w").await, Some(KnownEnd::Saved(Box::new(second))));
}

/// A turn that is restored frees its session, as every ending does.
pub async fn a_restored_end_starts_the_next_turn<S: UnderTest>(store: &S) {
    let batch = [
        accepted("a", "s", 1),
        accepted("b", "s", 2),
        asking(Merge, "c", "s", 3),
        asking(Merge, "d", "s", 4),
    ];
    admit(store, &batch).await;
    let of_b = RestoredTurn::Saved(Box::new(interaction("b", "s", 2)));
    for _ in 0..2 {
        assert_eq!(restore(store, of_b.clone()).await, ended(Some("a")), "one that waits");
    }
    let of_a = RestoredTurn::Failed(failing("a", "s", 1));
    for _ in 0..2 {
        assert_eq!(restore(store, of_a.clone()).await.next, Some(opening("c", &["d"])), "the one that runs");
    }
    assert_eq!(admit(store, &batch[..2]).await, [Ended, Ended]);
    // One that was merged ends as the log says, and its text is not lost.
    let merged = WorkflowFailed {
        superseded_by: Some(workflow("c")),
        ..failure(FailureCode::Merged, "its text is part of another turn")
    };
    let merged =
        RestoredTurn::Failed(Failing { failure: FailureRecord::of(&merged), ..failing("d", "s", 4) });
    assert_eq!(restore(store, merged).await.next, Some(opening("c", &["d"])));
    assert_eq!(failed(store, "d").await.superseded_by, Some(workflow("c")));
    // The log has it in another session than the database.
    let elsewhere = RestoredTurn::Saved(Box::new(interaction("c", "t", 9)));
    assert_eq!(restore(store, elsewhere).await, ended(None));
    assert_eq!(admit(store, &[accepted("e", "s", 5), refused("bad", "s", 6)]).await, [Running, Refused]);
    assert_eq!(recent(store, "ann", "t", 9).await, ["c"]);
}
