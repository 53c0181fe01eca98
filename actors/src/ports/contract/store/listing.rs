//! Turns in lists, and how many are open.

use throughline_schemas::{FailureCode, Usd, event::input::WhenBusy::Reject};

use super::{UnderTest, material::*};
use crate::ports::store::{
    Admission, Interaction, ListedTurn, OpenTurns, Tally,
    TurnState::{self, Failed, Running, Saved, Waiting},
    TurnsQuery,
};

async fn list<S: UnderTest>(store: &S, query: TurnsQuery) -> Vec<ListedTurn> {
    store.latest_turns(query).await.expect("the store answers")
}

async fn ids<S: UnderTest>(store: &S, query: TurnsQuery) -> Vec<String> {
    list(store, query).await.into_iter().map(|turn| turn.workflow_id.into()).collect()
}

async fn a_few_turns<S: UnderTest>(store: &S) {
    let of_ben = |admission: Admission| Admission { user_id: user("ben"), ..admission };
    let batch = [accepted("a", "s", 1), accepted("b", "s", 2), of_ben(accepted("c", "t", 3))];
    admit(store, &batch).await;
    // Two of one instant.
    let twin = Admission { at: at(3), ..of_ben(accepted("d", "u", 4)) };
    admit(store, &[twin, asking(Reject, "e", "s", 5), refused("f", "s", 6)]).await;
    let cost_usd = Some(Usd::new("0.25".parse().expect("a number")));
    save(store, Interaction { cost_usd, ..interaction("a", "s", 1) }).await;
    admit(store, &[accepted("g", "s", 7)]).await;
}

/// The newest first, each with what is known of it.
pub async fn turns_are_listed_newest_first<S: UnderTest>(store: &S) {
    a_few_turns(store).await;
    let all = TurnsQuery { limit: 9, ..TurnsQuery::default() };
    let turns = list(store, all.clone()).await;
    let expected = [
        ("g", Waiting, Some("b"), None),
        ("f", Failed, None, Some(FailureCode::InvalidInput)),
        ("e", Failed, None, Some(FailureCode::SessionBusy)),
        ("d", Running, None, None),
        ("c", Running, None, None),
        ("b", Running, None, None),
        ("a", Saved, None, None),
    ];
    let seen = |turn: &ListedTurn| (turn.workflow_id.clone(), turn.state, turn.waits_for.clone(), turn.code);
    let expected =
        expected.map(|(id, state, behind, code)| (workflow(id), state, behind.map(workflow), code));
    assert_eq!(turns.iter().map(seen).collect::<Vec<_>>(), expected);
    let first = ListedTurn {
        workflow_id: workflow("a"),
        session_id: session("s"),
        user_id: Some(user("ann")),
        input_sequence: Some(1),
        state: Saved,
        waits_for: None,
        code: None,
        superseded_by: None,
        created_at: at(1),
        updated_at: at(501),
        cost_usd: Some(Usd::new("0.25".parse().expect("a number"))),
    };
    assert_eq!(list(store, TurnsQuery::of(workflow("a"))).await, [first]);
    assert_eq!(list(store, TurnsQuery::of(workflow("nobody"))).await, []);
    // Page by page.
    let (mut after, mut paged) = (None, Vec::new());
    loop {
        let page = list(store, TurnsQuery { after, limit: 2, ..all.clone() }).await;
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.workflow_id.clone()));
        paged.extend(page);
    }
    assert_eq!(paged, turns);
}

/// By state, user and session, and by several of them at once.
pub async fn a_list_can_be_narrowed<S: UnderTest>(store: &S) {
    a_few_turns(store).await;
    let any = || TurnsQuery { limit: 9, ..TurnsQuery::default() };
    let by_state = |state: TurnState| TurnsQuery { states: vec![state], ..any() };
    assert_eq!(ids(store, by_state(Waiting)).await, ["g"]);
    assert_eq!(ids(store, by_state(Running)).await, ["d", "c", "b"]);
    assert_eq!(ids(store, by_state(Saved)).await, ["a"]);
    assert_eq!(ids(store, by_state(Failed)).await, ["f", "e"]);
    assert_eq!(ids(store, TurnsQuery { limit: 1, ..by_state(Failed) }).await, ["f"]);
    let open = || TurnsQuery { states: vec![Running, Waiting], ..any() };
    assert_eq!(ids(store, open()).await, ["g", "d", "c", "b"], "in one order, whatever the state");
    assert_eq!(ids(store, TurnsQuery { after: Some((at(3), workflow("d"))), ..open() }).await, ["c", "b"]);
    let of_ben = || TurnsQuery { user: Some(user("ben")), ..any() };
    assert_eq!(ids(store, of_ben()).await, ["d", "c"]);
    assert_eq!(ids(store, TurnsQuery { after: Some((at(3), workflow("d"))), ..of_ben() }).await, ["c"]);
    assert_eq!(ids(store, TurnsQuery { states: vec![Saved], ..of_ben() }).await, Vec::<String>::new());
    let in_s = || TurnsQuery { session: Some(session("s")), ..any() };
    assert_eq!(ids(store, in_s()).await, ["g", "f", "e", "b", "a"]);
    assert_eq!(ids(store, TurnsQuery { states: vec![Failed], ..in_s() }).await, ["f", "e"]);
    assert_eq!(ids(store, TurnsQuery { user: Some(user("ben")), ..in_s() }).await, Vec::<String>::new());
    let in_t = TurnsQuery { session: Some(session("t")), states: vec![Running], ..of_ben() };
    assert_eq!(ids(store, in_t).await, ["c"]);
}

/// What waits and what runs, and since when the oldest of each is there.
pub async fn open_turns_are_counted<S: UnderTest>(store: &S) {
    let open = async || store.open_turns().await.expect("the store answers");
    assert_eq!(open().await, OpenTurns::default());
    a_few_turns(store).await;
    let waiting = Tally { turns: 1, oldest: Some(at(7)) };
    let running = Tally { turns: 3, oldest: Some(at(2)) };
    assert_eq!(open().await, OpenTurns { waiting, running });
}
