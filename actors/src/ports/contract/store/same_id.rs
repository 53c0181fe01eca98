//! Messages that use the id of a workflow again, and namespaces that use the same ids.

use serde_json::{Map, json};
use throughline_schemas::event::input::WhenBusy::{Interrupt, Merge};

use super::{UnderTest, material::*};
use crate::ports::store::{
    Admission,
    AdmissionResult::{Ended, Refused, Repeated, Running, Waiting},
    RunningQuery, TurnsQuery,
};

/// Published again it is a repetition, whatever it asks for and however its turn stands; nothing is changed by it.
pub async fn a_message_that_is_published_again_is_a_repetition<S: UnderTest>(store: &S) {
    let batch = [accepted("a", "s", 1), accepted("b", "s", 2), asking(Merge, "c", "s", 3)];
    admit(store, &batch).await;
    let again = [
        accepted("a", "s", 11),
        accepted("b", "s", 12),
        asking(Interrupt, "b", "s", 13),
        asking(Merge, "c", "s", 14),
    ];
    let repeated = Repeated { ended: false };
    for _ in 0..2 {
        assert_eq!(admit(store, &again).await, [&repeated; 4].map(Clone::clone));
    }
    assert_eq!(admit(store, &batch).await, [Running, Waiting, Waiting]);
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(Some("b")));
    assert_eq!(fail(store, "b", "s", 2).await, ended(Some("c")));
    let expected = [true, true, true, false].map(|ended| Repeated { ended });
    assert_eq!(admit(store, &again).await, expected);
}

/// Another text, user or session under a known id is a conflict, and names the session of the message that has the id;
/// also in the same place of a stream that was recreated. Nothing is changed by it.
pub async fn another_message_with_a_known_id_is_a_conflict<S: UnderTest>(store: &S) {
    let first = accepted("w", "s", 1);
    admit(store, std::slice::from_ref(&first)).await;
    let of_ben =
        |admission: Admission| saying("question of w", Admission { user_id: user("ben"), ..admission });
    let others = [
        saying("another question", accepted("w", "s", 2)),
        of_ben(accepted("w", "s", 3)),
        accepted("w", "t", 4),
        saying("another question", asking(Interrupt, "w", "s", 5)),
        saying("another question", accepted("w", "s", 1)),
        of_ben(accepted("w", "s", 1)),
    ];
    for _ in 0..2 {
        assert_eq!(admit(store, &others).await, [(); 6].map(|()| conflict("s")));
    }
    assert_eq!(admit(store, std::slice::from_ref(&first)).await, [Running]);
    assert_eq!(save(store, interaction("w", "s", 1)).await, ended(None));
    assert_eq!(admit(store, &others).await, [(); 6].map(|()| conflict("s")));
    assert_eq!(admit(store, &[first, accepted("next", "t", 6)]).await, [Ended, Running]);
}

/// What is acceptable may change with the limits; the message is the same all the same.
pub async fn a_message_that_is_read_otherwise_later_is_the_same_message<S: UnderTest>(store: &S) {
    admit(store, &[accepted("w", "s", 1), refused("bad", "s", 2)]).await;
    assert_eq!(admit(store, &[saying("all of it", refused("w", "s", 1))]).await, [Running]);
    assert_eq!(admit(store, &[saying("all of it", refused("bad", "s", 2))]).await, [Refused]);
    assert_eq!(admit(store, &[saying("its text", accepted("bad", "s", 2))]).await, [Ended]);
    assert_eq!(admit(store, &[saying("its text", accepted("bad", "s", 3))]).await, [conflict("s")]);
}

/// Where nothing but the user and the session of a message is known, those are compared.
pub async fn a_turn_that_ended_before_it_was_admitted_is_known_by_user_and_session<S: UnderTest>(store: &S) {
    fail(store, "w", "s", 1).await;
    assert_eq!(admit(store, &[saying("anything", accepted("w", "s", 1))]).await, [Ended]);
    let again = saying("anything", accepted("w", "s", 2));
    assert_eq!(admit(store, std::slice::from_ref(&again)).await, [Repeated { ended: true }]);
    let of_ben = Admission { user_id: user("ben"), ..again };
    assert_eq!(admit(store, &[of_ben, accepted("w", "t", 3)]).await, [(); 2].map(|()| conflict("s")));
}

/// Two namespaces that use one database share nothing, though all their ids are the same.
pub async fn namespaces_share_nothing<S: UnderTest>(store: &S) {
    let beside = &*store.beside().await;
    let preferences = Map::from_iter([("tone".to_owned(), json!("formal"))]);
    store.set_preferences(&user("ann"), &preferences).await;
    let batch = [accepted("a", "s", 1), accepted("b", "s", 2)];
    assert_eq!(admit(store, &batch).await, [Running, Waiting]);
    assert_eq!(beside.oldest_open().await.expect("the store answers"), None);
    let other = [saying("something else", accepted("b", "s", 5)), asking(Interrupt, "a", "s", 6)];
    assert_eq!(admit(beside, &other).await, [Ended, Running], "it interrupts its own namespace's turn");
    assert_eq!(admit(store, &batch).await, [Running, Waiting]);

    let with_everything = RunningQuery { started_by: at(9_999), after: None, limit: 9 };
    let running = beside.running(with_everything).await.expect("the store answers");
    assert_eq!(running.into_iter().map(|turn| turn.input_sequence).collect::<Vec<_>>(), [6]);
    let opening = beside.opening(&workflow("b")).await.expect("the store answers");
    assert_eq!(opening, None, "it has been interrupted there");
    let before = beside.ended_before(&[(session("s"), 9)]).await.expect("the store answers");
    assert_eq!(before, [None]);

    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(Some("b")));
    assert_eq!(recent(beside, "ann", "s", 9).await, Vec::<String>::new());
    assert_eq!(save(beside, interaction("a", "s", 6)).await, ended(None));
    for store in [store as &dyn crate::ports::store::Store, beside] {
        assert_eq!(recent(store, "ann", "s", 9).await, ["a"]);
    }
    let context = beside.context(&user("ann"), &session("s"), 0).await.expect("the store answers");
    assert_eq!(context.preferences, Map::new());
    let listed = beside.latest_turns(TurnsQuery { limit: 9, ..TurnsQuery::default() }).await;
    let sequences = listed.expect("the store answers").into_iter().map(|turn| turn.input_sequence);
    assert_eq!(sequences.collect::<Vec<_>>(), [Some(6), Some(5)]);

    assert_eq!(beside.forget_ended(at(9_999), 9).await.expect("the store answers"), 2);
    assert_eq!(recent(store, "ann", "s", 9).await, ["a"]);
    assert_eq!(store.oldest_open().await.expect("the store answers"), Some(2));
    assert_eq!(fail(store, "b", "s", 2).await, ended(None));
}
