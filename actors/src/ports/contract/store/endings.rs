//! How turns end, and what an ending releases.

use super::{UnderTest, material::*};
use crate::ports::store::{
    AdmissionResult::{Ended, Repeated, Running, Waiting},
    Closed, Ending,
};

/// Saved again, the answer is the same; failed afterwards, the answer is that it is too late.
pub async fn a_saved_turn_stays_saved<S: UnderTest>(store: &S) {
    admit(store, &[accepted("w", "s", 1)]).await;
    assert_eq!(save(store, interaction("w", "s", 1)).await, ended(None));
    assert_eq!(save(store, interaction("w", "s", 1)).await, ended(None));
    assert_eq!(fail(store, "w", "s", 1).await, ended_otherwise(None));
    assert_eq!(save(store, interaction("w", "s", 1)).await, ended(None));
    assert_eq!(recent(store, "ann", "s", 9).await, ["w"]);
}

/// Its answer, should one still come, is not kept.
pub async fn a_failed_turn_stays_failed_and_is_not_stored<S: UnderTest>(store: &S) {
    admit(store, &[accepted("w", "s", 1)]).await;
    assert_eq!(fail(store, "w", "s", 1).await, ended(None));
    assert_eq!(save(store, interaction("w", "s", 1)).await, ended_otherwise(None));
    assert_eq!(fail(store, "w", "s", 1).await, ended(None));
    assert!(recent(store, "ann", "s", 9).await.is_empty());
    admit(store, &[refused("bad", "s", 2)]).await;
    assert_eq!(fail(store, "bad", "s", 2).await, ended(None));
    assert_eq!(save(store, interaction("bad", "s", 2)).await, ended_otherwise(None));
}

/// A turn may be failed before it came to its turn.
pub async fn a_waiting_turn_that_ends_never_runs<S: UnderTest>(store: &S) {
    let batch = [accepted("a", "s", 1), accepted("b", "s", 2), accepted("c", "s", 3)];
    admit(store, &batch).await;
    assert_eq!(fail(store, "b", "s", 2).await, ended(Some("a")), "the running turn is named");
    assert_eq!(admit(store, &batch).await, [Running, Ended, Waiting]);
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(Some("c")));
}

/// A crash after the commit loses nothing: the redelivered message gets the same event to publish. Once that
/// turn has ended there is nothing left to publish.
pub async fn the_released_turn_is_named_again_when_asked_again<S: UnderTest>(store: &S) {
    admit(store, &[accepted("a", "s", 1), accepted("b", "s", 2), accepted("c", "s", 3)]).await;
    for _ in 0..2 {
        assert_eq!(save(store, interaction("a", "s", 1)).await, ended(Some("b")));
    }
    assert_eq!(fail(store, "a", "s", 1).await, ended_otherwise(Some("b")));
    assert_eq!(admit(store, &[accepted("b", "s", 2)]).await, [Running]);
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(Some("b")), "admission does not forget it");
    for _ in 0..2 {
        assert_eq!(fail(store, "b", "s", 2).await, ended(Some("c")));
    }
    assert_eq!(save(store, interaction("c", "s", 3)).await, ended(None));
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(None));
}

/// A database that lost its turns still keeps the answers that come.
pub async fn a_turn_nobody_admitted_can_be_saved<S: UnderTest>(store: &S) {
    assert_eq!(save(store, interaction("w", "s", 1)).await, ended(None));
    assert_eq!(recent(store, "ann", "s", 9).await, ["w"]);
    assert_eq!(admit(store, &[accepted("w", "s", 1), accepted("v", "s", 2)]).await, [Ended, Running]);
}

/// An input that no worker could handle is failed before it was admitted; from then on its id is taken.
pub async fn a_turn_nobody_admitted_can_be_failed_and_never_runs<S: UnderTest>(store: &S) {
    admit(store, &[accepted("a", "s", 1), accepted("b", "s", 2)]).await;
    for _ in 0..2 {
        assert_eq!(fail(store, "poison", "s", 3).await, ended(Some("a")));
    }
    assert_eq!(admit(store, &[accepted("poison", "s", 3)]).await, [Ended]);
    assert_eq!(admit(store, &[refused("poison", "s", 4)]).await, [Repeated { ended: true }]);
    assert_eq!(save(store, interaction("poison", "s", 3)).await, ended_otherwise(Some("a")));
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(Some("b")));
    assert_eq!(fail(store, "poison", "s", 3).await, ended(Some("b")), "any ending may finish a lost publish");
}

/// A second message with the id of a workflow, and one that no worker can handle: the first one's turn is not harmed.
pub async fn failing_one_message_leaves_the_workflow_of_another_alone<S: UnderTest>(store: &S) {
    let duplicate = Closed { ending: Ending::Duplicate, next: None };
    admit(store, &[accepted("w", "s", 1), accepted("v", "s", 2)]).await;
    assert_eq!(fail(store, "w", "s", 3).await, duplicate);
    assert_eq!(fail(store, "v", "elsewhere", 4).await, duplicate);
    assert_eq!(admit(store, &[accepted("w", "s", 1), accepted("v", "s", 2)]).await, [Running, Waiting]);
    assert_eq!(save(store, interaction("w", "s", 1)).await, ended(Some("v")));
    assert_eq!(fail(store, "w", "s", 3).await, duplicate, "not after its end, either");
    assert_eq!(fail(store, "early", "s", 5).await, ended(Some("v")));
    assert_eq!(fail(store, "early", "s", 6).await, duplicate);
}

/// A model that was asked twice answers twice; the user has read the first answer.
pub async fn a_second_answer_does_not_replace_the_first<S: UnderTest>(store: &S) {
    admit(store, &[accepted("w", "s", 1)]).await;
    let first = interaction("w", "s", 1);
    let mut second = interaction("another", "s", 1);
    second.workflow_id = first.workflow_id.clone();
    assert_eq!(save(store, first.clone()).await, ended(None));
    assert_eq!(save(store, second).await, ended(None));
    let context = store.context(&first.user_id, &first.session_id, 9).await.expect("the store answers");
    let texts: Vec<&str> = context.recent_turns.iter().map(|turn| turn.assistant.as_str()).collect();
    assert_eq!(texts, [first.response.text.as_str()]);
}
