//! Admission, and who runs when.

use super::{UnderTest, material::*};
use crate::ports::store::AdmissionResult::{Ended, Refused, Repeated, Running, Waiting};

/// Asked again at any time, the same message gets the answer of that time; another message never runs.
pub async fn a_workflow_id_is_admitted_once<S: UnderTest>(store: &S) {
    let first = [accepted("w", "s", 7)];
    let other = [accepted("w", "elsewhere", 8)];
    for _ in 0..2 {
        assert_eq!(admit(store, &first).await, [Running]);
    }
    assert_eq!(admit(store, &other).await, [conflict("s")]);
    assert_eq!(save(store, interaction("w", "s", 7)).await, ended(None));
    assert_eq!(admit(store, &first).await, [Ended]);
    assert_eq!(admit(store, &other).await, [conflict("s")]);
    assert_eq!(admit(store, &[refused("w", "elsewhere", 8)]).await, [conflict("s")]);
}

/// A refused input fails at once and the next input of its session does not wait for it. A message that was
/// accepted and failed later has ended.
pub async fn a_refused_input_is_recorded_and_takes_no_place<S: UnderTest>(store: &S) {
    let batch = [refused("bad", "s", 1), accepted("good", "s", 2)];
    assert_eq!(admit(store, &batch).await, [Refused, Running]);
    assert_eq!(admit(store, &batch).await, [Refused, Running]);
    assert_eq!(admit(store, &[accepted("bad", "s", 3)]).await, [Repeated { ended: true }]);
    assert_eq!(fail(store, "good", "s", 2).await, ended(None));
    assert_eq!(admit(store, &batch).await, [Refused, Ended]);
    assert_eq!(admit(store, &[refused("worse", "s", 4)]).await, [Refused]);
    assert_eq!(admit(store, &[accepted("next", "s", 5)]).await, [Running]);
}

/// Also when both arrive together, and when one message arrives twice.
pub async fn the_first_of_two_messages_with_one_workflow_id_wins_within_a_batch<S: UnderTest>(store: &S) {
    let batch = [accepted("w", "s", 4), accepted("w", "s", 3), accepted("w", "s", 4), accepted("v", "s", 5)];
    assert_eq!(admit(store, &batch).await, [Running, Repeated { ended: false }, Running, Waiting]);
    assert_eq!(save(store, interaction("w", "s", 4)).await, ended(Some("v")));
    assert_eq!(admit(store, &batch).await, [Ended, Repeated { ended: true }, Ended, Running]);
}

/// Each turn starts when the one before it ends, however that ends.
pub async fn a_session_runs_one_turn_at_a_time_in_the_order_of_the_stream<S: UnderTest>(store: &S) {
    let first = [accepted("a", "s", 1), accepted("b", "s", 2)];
    assert_eq!(admit(store, &first).await, [Running, Waiting]);
    assert_eq!(admit(store, &[accepted("c", "s", 3), accepted("d", "s", 4)]).await, [Waiting, Waiting]);
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(Some("b")));
    assert_eq!(admit(store, &first).await, [Ended, Running]);
    assert_eq!(fail(store, "b", "s", 2).await, ended(Some("c")));
    assert_eq!(save(store, interaction("c", "s", 3)).await, ended(Some("d")));
    assert_eq!(save(store, interaction("d", "s", 4)).await, ended(None));
    assert_eq!(admit(store, &[accepted("e", "s", 5)]).await, [Running]);
    assert_eq!(recent(store, "ann", "s", 9).await, ["a", "c", "d"]);
}

/// Admission out of order cannot take back a turn that runs, but those that wait are sorted.
pub async fn a_turn_admitted_late_runs_before_those_that_wait_behind_it<S: UnderTest>(store: &S) {
    assert_eq!(admit(store, &[accepted("five", "s", 5)]).await, [Running]);
    let late = [accepted("eleven", "s", 11), accepted("seven", "s", 7)];
    assert_eq!(admit(store, &late).await, [Waiting, Waiting]);
    assert_eq!(admit(store, &[accepted("three", "s", 3)]).await, [Waiting]);
    assert_eq!(save(store, interaction("five", "s", 5)).await, ended(Some("three")));
    assert_eq!(save(store, interaction("three", "s", 3)).await, ended(Some("seven")));
    assert_eq!(save(store, interaction("seven", "s", 7)).await, ended(Some("eleven")));
    let shuffled = [accepted("y", "t", 21), accepted("x", "t", 20)];
    assert_eq!(
        admit(store, &shuffled).await,
        [Waiting, Running],
        "the order of the stream, not of the batch"
    );
}

/// A session that is stuck holds up nobody else.
pub async fn sessions_do_not_wait_for_each_other<S: UnderTest>(store: &S) {
    let batch = [accepted("a", "s", 1), accepted("b", "t", 2), accepted("c", "s", 3), accepted("d", "u", 4)];
    assert_eq!(admit(store, &batch).await, [Running, Running, Waiting, Running]);
    assert_eq!(save(store, interaction("b", "t", 2)).await, ended(None));
    assert_eq!(fail(store, "d", "u", 4).await, ended(None));
    assert_eq!(fail(store, "a", "s", 1).await, ended(Some("c")));
}

/// No questions, no answers.
pub async fn an_empty_batch_is_answered<S: UnderTest>(store: &S) {
    assert_eq!(admit(store, &[]).await, []);
    store.ping().await.expect("the store answers");
}
