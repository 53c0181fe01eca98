//! What a sweeper asks.

use super::{UnderTest, material::*};
use crate::ports::store::{RunningQuery, RunningTurn};

async fn running<S: UnderTest>(store: &S, query: RunningQuery) -> Vec<String> {
    let turns = store.running(query).await.expect("the store answers");
    turns.into_iter().map(|turn| turn.workflow_id.into()).collect()
}

/// Turns are listed from their start to their end, oldest first, page by page; those that wait are not.
pub async fn running_turns_are_listed_by_their_start<S: UnderTest>(store: &S) {
    for (id, of, sequence) in [("b", "t", 10), ("a", "u", 10), ("c", "s", 30), ("d", "s", 40)] {
        admit(store, &[accepted(id, of, sequence)]).await;
    }
    let all = RunningQuery { started_by: at(30), after: None, limit: 9 };
    let turns = store.running(all.clone()).await.expect("the store answers");
    let (workflow_id, session_id, user_id) = (workflow("a"), session("u"), user("ann"));
    let first = RunningTurn { workflow_id, session_id, user_id, input_sequence: 10, started_at: at(10) };
    assert_eq!(turns.first(), Some(&first));
    assert_eq!(running(store, all.clone()).await, ["a", "b", "c"]);
    assert_eq!(running(store, RunningQuery { started_by: at(29), ..all.clone() }).await, ["a", "b"]);
    assert_eq!(running(store, RunningQuery { limit: 2, ..all.clone() }).await, ["a", "b"]);
    let behind = |of: &str, ms| Some((at(ms), workflow(of)));
    assert_eq!(running(store, RunningQuery { after: behind("a", 10), ..all.clone() }).await, ["b", "c"]);
    assert_eq!(running(store, RunningQuery { after: behind("b", 10), ..all.clone() }).await, ["c"]);
    assert_eq!(save(store, interaction("c", "s", 30)).await, ended(Some("d")));
    assert_eq!(running(store, all.clone()).await, ["a", "b"], "d runs since c ended, at 530");
    assert_eq!(running(store, RunningQuery { started_by: at(530), ..all }).await, ["a", "b", "d"]);
}

/// A turn's beginning is kept while it runs, also of one that never waited; then it is forgotten.
pub async fn a_running_turn_can_be_begun_again<S: UnderTest>(store: &S) {
    admit(store, &[accepted("a", "s", 1), accepted("b", "s", 2)]).await;
    let ask = async |id| store.opening(&workflow(id)).await.expect("the store answers");
    assert_eq!(ask("a").await, Some(opening("a", &[])));
    assert_eq!(ask("b").await, None, "it waits");
    assert_eq!(ask("nobody").await, None);
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(Some("b")));
    assert_eq!(ask("a").await, None);
    assert_eq!(ask("b").await, Some(opening("b", &[])));
}
