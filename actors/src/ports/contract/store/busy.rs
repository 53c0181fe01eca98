//! What becomes of a message that finds its session busy.

use throughline_schemas::{
    FailureCode,
    event::input::WhenBusy::{Enqueue, Interrupt, Merge, Reject},
};

use super::{UnderTest, material::*};
use crate::ports::store::{
    Admission,
    AdmissionResult::{self, Ended, Merged, NotOwner, Refused, Rejected, Running, Waiting},
    Admitted, Fingerprint, KnownEnd, MERGE_LIMIT_BYTES, SessionOwner, Verdict,
};

/// The answer to a message that asked to be merged or to interrupt.
fn stands(result: AdmissionResult, running: Option<&str>) -> Admitted {
    Admitted { result, interrupted: None, opening: running.map(|id| opening(id, &[])) }
}

fn merged_into(id: &str) -> AdmissionResult {
    Merged { into: workflow(id) }
}

/// In a session without an open turn every message runs, whatever it asks for.
pub async fn a_session_that_is_not_busy_runs_whatever_comes<S: UnderTest>(store: &S) {
    for (n, when_busy) in [Enqueue, Reject, Interrupt, Merge].into_iter().enumerate() {
        let (id, sequence) = (format!("w{n}"), n as u64 + 1);
        let asked = [asking(when_busy, &id, "s", sequence)];
        for _ in 0..2 {
            assert_eq!(admit(store, &asked).await, [Running], "{when_busy}");
        }
        assert_eq!(save(store, interaction(&id, "s", sequence)).await, ended(None), "{when_busy}");
        assert_eq!(admit(store, &asked).await, [Ended], "{when_busy}");
    }
}

/// It fails, is told so for ever, and the session does not know it.
pub async fn a_message_may_be_rejected_by_a_busy_session<S: UnderTest>(store: &S) {
    let second = [asking(Reject, "b", "s", 2)];
    admit(store, &[accepted("a", "s", 1)]).await;
    assert_eq!(admit(store, &second).await, [Rejected]);
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(None));
    assert_eq!(admit(store, &second).await, [Rejected]);
    assert_eq!(fail(store, "b", "s", 2).await, ended(None));
    assert_eq!(admit(store, &[asking(Reject, "c", "s", 3)]).await, [Running]);
    // In one batch, too; and a turn that waits makes a session busy as well.
    let batch = [accepted("d", "t", 4), asking(Reject, "e", "t", 5), accepted("f", "t", 6)];
    assert_eq!(admit(store, &batch).await, [Running, Rejected, Waiting]);
    assert_eq!(admit(store, &batch).await, [Running, Rejected, Waiting]);
    assert_eq!(save(store, interaction("d", "t", 4)).await, ended(Some("f")));
}

/// The running turn ends as failed; asked again, the store says so again, and ends nothing more.
pub async fn a_message_may_interrupt_the_running_turn<S: UnderTest>(store: &S) {
    let second = [asking(Interrupt, "b", "s", 2)];
    admit(store, &[accepted("a", "s", 1)]).await;
    let answer = [Admitted { interrupted: Some(event("a")), ..stands(Running, Some("b")) }];
    for _ in 0..2 {
        assert_eq!(ask(store, &second).await, answer);
    }
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended_otherwise(Some("b")));
    assert_eq!(fail(store, "a", "s", 1).await, ended(Some("b")));
    assert_eq!(admit(store, &[accepted("a", "s", 1)]).await, [Ended]);
    assert_eq!(save(store, interaction("b", "s", 2)).await, ended(None));
    let after = [Admitted { interrupted: Some(event("a")), ..stands(Ended, None) }];
    assert_eq!(ask(store, &second).await, after, "the other's end may still have to be told");
    assert_eq!(recent(store, "ann", "s", 9).await, ["b"]);
}

/// Turns that wait before it keep their place, and it never ends a turn that came after it.
pub async fn an_interruption_takes_no_place_of_others<S: UnderTest>(store: &S) {
    admit(store, &[accepted("a", "s", 1), accepted("b", "s", 2)]).await;
    let third = [asking(Interrupt, "c", "s", 3)];
    let answer = [Admitted { interrupted: Some(event("a")), ..stands(Waiting, Some("b")) }];
    for _ in 0..2 {
        assert_eq!(ask(store, &third).await, answer, "b runs now, and must be published");
    }
    assert_eq!(save(store, interaction("b", "s", 2)).await, ended(Some("c")));
    admit(store, &[accepted("five", "t", 5)]).await;
    let late = [asking(Interrupt, "four", "t", 4)];
    assert_eq!(ask(store, &late).await, [stands(Waiting, Some("five"))]);
    // In one batch with the turn that it ends.
    let batch = [accepted("x", "u", 10), asking(Interrupt, "y", "u", 11), accepted("z", "u", 12)];
    assert_eq!(admit(store, &batch).await, [Ended, Running, Waiting]);
    assert_eq!(ask(store, &batch[1..2]).await[0].interrupted, Some(event("x")));
}

/// Waiting messages that want it become one turn, that of the first; it begins with all of them, in order, for as
/// long as it runs.
pub async fn waiting_messages_may_become_one_turn<S: UnderTest>(store: &S) {
    admit(store, &[accepted("a", "s", 1)]).await;
    let batch = [asking(Merge, "b", "s", 2), asking(Merge, "c", "s", 3), asking(Merge, "d", "s", 4)];
    for _ in 0..2 {
        assert_eq!(admit(store, &batch).await, [Waiting, merged_into("b"), merged_into("b")]);
    }
    let next = save(store, interaction("a", "s", 1)).await.next;
    assert_eq!(next, Some(opening("b", &["c", "d"])));
    assert_eq!(store.opening(&workflow("b")).await.expect("the store answers"), next);
    assert_eq!(
        ask(store, &batch[..1]).await,
        [Admitted { result: Running, interrupted: None, opening: next }]
    );
    // Once it runs, nothing joins it.
    assert_eq!(admit(store, &[asking(Merge, "e", "s", 5)]).await, [Waiting]);
    assert_eq!(fail(store, "c", "s", 3).await, ended(Some("b")).with(&["c", "d"]));
    assert_eq!(save(store, interaction("b", "s", 2)).await, ended(Some("e")));
    assert_eq!(admit(store, &batch).await, [Ended, merged_into("b"), merged_into("b")]);
    assert_eq!(save(store, interaction("c", "s", 3)).await, ended_otherwise(Some("e")));
}

/// A message joins its neighbour only: one of the same user, that wants it too, and not beyond what a turn may hold.
pub async fn only_neighbours_who_want_it_are_merged<S: UnderTest>(store: &S) {
    let of_ben = |admission| Admission { user_id: user("ben"), ..admission };
    let batch = [
        accepted("a", "s", 1),
        accepted("b", "s", 2),
        asking(Merge, "c", "s", 3),
        asking(Merge, "d", "s", 4),
        accepted("e", "s", 5),
        asking(Merge, "f", "s", 6),
        of_ben(asking(Merge, "g", "s", 7)),
        of_ben(asking(Merge, "h", "s", 8)),
    ];
    let expected = [Running, Waiting, Waiting, merged_into("c"), Waiting, Waiting, Waiting, merged_into("g")];
    assert_eq!(admit(store, &batch).await, expected);
    let event = vec![b'x'; MERGE_LIMIT_BYTES / 2];
    let large = |id, sequence| Admission {
        verdict: Verdict::Accepted { event: event.clone(), when_busy: Merge, owner: SessionOwner::Any },
        ..accepted(id, "t", sequence)
    };
    let batch = [accepted("k", "t", 10), large("l", 11), large("m", 12), large("n", 13), large("o", 14)];
    let expected = [Running, Waiting, merged_into("l"), Waiting, merged_into("n")];
    assert_eq!(admit(store, &batch).await, expected);
    assert_eq!(admit(store, &[asking(Merge, "late", "t", 9)]).await, [Waiting], "it came before the others");
}

/// The same message of another user.
fn of(who: &str, asked: Admission) -> Admission {
    let fingerprint = Fingerprint::of(&user(who), &asked.session_id, "a question", None);
    Admission { user_id: user(who), fingerprint, ..asked }
}

/// The same message, in a session that belongs to its first user.
fn owned(asked: Admission) -> Admission {
    let verdict = match asked.verdict {
        Verdict::Accepted { event, when_busy, .. } => {
            Verdict::Accepted { event, when_busy, owner: SessionOwner::FirstUser }
        }
        refused @ Verdict::Refused { .. } => refused,
    };
    Admission { verdict, ..asked }
}

/// Whatever a stranger asks for, the owner's turns stay what they are; the stranger hears so for ever, and the session does
/// not know the message.
pub async fn a_session_may_belong_to_its_first_user<S: UnderTest>(store: &S) {
    assert_eq!(admit(store, &[owned(accepted("a", "s", 1))]).await, [Running]);
    for (n, when_busy) in [Enqueue, Reject, Interrupt, Merge].into_iter().enumerate() {
        let (id, sequence) = (format!("b{n}"), n as u64 + 2);
        let asked = [owned(of("eve", asking(when_busy, &id, "s", sequence)))];
        for _ in 0..2 {
            assert_eq!(admit(store, &asked).await, [NotOwner], "{when_busy}");
        }
    }
    assert_eq!(
        admit(store, &[owned(accepted("c", "s", 6))]).await,
        [Waiting],
        "its owner's messages wait as ever"
    );
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(Some("c")));
    assert_eq!(save(store, interaction("c", "s", 6)).await, ended(None));
    // Also when nothing is open in it.
    assert_eq!(admit(store, &[owned(of("eve", accepted("d", "s", 7)))]).await, [NotOwner]);
    let told = store.end(&workflow("d")).await.expect("the store answers");
    assert!(
        matches!(&told, Some(KnownEnd::Failed(turn)) if turn.code == Some(FailureCode::NotSessionOwner)),
        "{told:?}"
    );
    let before = store.ended_before(&[(session("s"), 8)]).await.expect("the store answers");
    assert_eq!(before[0].as_ref().map(|turn| turn.workflow_id.clone()), Some(workflow("c")));
    // Where everybody may speak, everybody may.
    assert_eq!(admit(store, &[of("eve", accepted("e", "s", 8))]).await, [Running]);
}

/// The first in the order of the stream, wherever it stands in a batch; what is refused is nobody's first.
pub async fn the_owner_of_a_session_is_who_is_first_in_the_stream<S: UnderTest>(store: &S) {
    let batch = [
        owned(of("eve", accepted("b", "s", 2))),
        owned(accepted("a", "s", 1)),
        owned(accepted("c", "s", 3)),
        of("eve", refused("d", "t", 4)),
        owned(accepted("e", "t", 5)),
        owned(of("eve", accepted("f", "t", 6))),
        owned(of("eve", accepted("g", "u", 7))),
    ];
    let answers = [NotOwner, Running, Waiting, Refused, Running, NotOwner, Running];
    for _ in 0..2 {
        assert_eq!(admit(store, &batch).await, answers);
    }
    // A message whose workflow id is somebody else's is no first, either.
    let batch = [owned(of("eve", accepted("a", "v", 8))), owned(accepted("h", "v", 9))];
    assert_eq!(admit(store, &batch).await, [conflict("s"), Running]);
}
