//! What a sweeper asks.

use super::{UnderTest, material::*};
use throughline_schemas::event::input::WhenBusy;

use crate::ports::store::{EndedTurn, RunningQuery, RunningTurn};

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

/// What ended before a place in a session: the last one by the order of the stream, saved or failed, not one that waits,
/// runs or was turned away.
pub async fn the_turn_that_ended_before_another_is_known<S: UnderTest>(store: &S) {
    let before = async |places: &[(&str, u64)]| {
        let places: Vec<_> = places.iter().map(|(of, sequence)| (session(of), *sequence)).collect();
        store.ended_before(&places).await.expect("the store answers")
    };
    let a = Some(EndedTurn { workflow_id: workflow("a"), saved: true, ended_at: at(501) });
    let b = Some(EndedTurn { workflow_id: workflow("b"), saved: false, ended_at: at(900) });
    assert_eq!(before(&[]).await, []);
    admit(store, &[accepted("a", "s", 1), accepted("b", "s", 2), accepted("c", "s", 3)]).await;
    assert_eq!(before(&[("s", 3), ("t", 3)]).await, [None, None]);
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(Some("b")));
    assert_eq!(before(&[("s", 3), ("s", 1), ("t", 9), ("s", 2)]).await, [a.clone(), None, None, a.clone()]);
    assert_eq!(fail(store, "b", "s", 2).await, ended(Some("c")));
    assert_eq!(before(&[("s", 3), ("s", 2)]).await, [b.clone(), a]);
    admit(store, &[asking(WhenBusy::Reject, "no", "s", 4)]).await;
    assert_eq!(before(&[("s", 5)]).await, [b]);
}

/// How far the log is known to be on record: a mark that is not where it was expected stays where it is.
pub async fn the_mark_moves_only_from_where_it_is<S: UnderTest>(store: &S) {
    let mark = async || store.mark().await.expect("the store answers").sequence;
    let set = async |from, to| store.set_mark(from, to).await.expect("the store answers");
    assert_eq!(mark().await, 0);
    set(5, 9).await;
    assert_eq!(mark().await, 0, "it is not at 5");
    set(0, 7).await;
    assert_eq!(mark().await, 7);
    set(0, 20).await;
    assert_eq!(mark().await, 7, "somebody else was first");
    set(7, 3).await;
    assert_eq!(mark().await, 3, "a log that was recreated");
    let servers = (store.mark().await.expect("it answers"), store.mark().await.expect("it answers"));
    assert_eq!(servers.0, servers.1, "the same run of the same server");
}
