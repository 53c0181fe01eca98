//! Users that have their share of running turns, and how many a user may have open.

use std::{collections::BTreeMap, num::NonZeroU32};

use throughline_schemas::{FailureCode, event::input::WhenBusy};

use super::{UnderTest, material::*};
use crate::ports::store::{
    Admission,
    AdmissionResult::{self, Ended, Held, Merged, Rejected, Running, TooManyOpen, Waiting},
    Fingerprint, HELD_USERS, HeldQuery, HeldStarted, Interaction, KnownEnd, Share, UserLimits,
};

/// So many for each user.
const fn fixed(each: u32) -> Share {
    Share { each, all: 0 }
}

/// The input of a user with a share.
fn of(who: &str, share: Share, asked: Admission) -> Admission {
    let limits = UserLimits { share: Some(share), open: None };
    let fingerprint = Fingerprint::of(&user(who), &asked.session_id, asked.workflow_id.as_str(), None);
    Admission { user_id: user(who), fingerprint, limits, ..asked }
}

/// The answer to an input of a user.
fn answer(who: &str, id: &str, session: &str, sequence: u64) -> Interaction {
    Interaction { user_id: user(who), ..interaction(id, session, sequence) }
}

async fn start<S: UnderTest>(store: &S, query: HeldQuery) -> HeldStarted {
    store.start_held(query).await.expect("the store answers")
}

fn asking_for(share: Share) -> HeldQuery {
    HeldQuery { share: Some(share), behind: None, most: 40, at: at(700) }
}

/// The workflows that were started, sorted, and whether some are left.
async fn started<S: UnderTest>(store: &S, share: Share) -> (Vec<String>, bool) {
    let HeldStarted { openings, left, .. } = start(store, asking_for(share)).await;
    let mut ids: Vec<String> = openings.iter().map(|opening| event_of(&opening.event).to_owned()).collect();
    ids.sort();
    (ids, left)
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

/// Within one batch and over several; others do not notice, and who is held is told so again.
pub async fn a_user_runs_no_more_turns_than_its_share<S: UnderTest>(store: &S) {
    let share = fixed(2);
    let ann = |id: &str, session: &str, sequence| of("ann", share, accepted(id, session, sequence));
    let batch = [ann("a", "s1", 1), ann("b", "s2", 2), ann("c", "s3", 3), ann("d", "s4", 4)];
    for _ in 0..2 {
        assert_eq!(admit(store, &batch).await, [Running, Running, Held, Held]);
    }
    let next = [ann("e", "s5", 5), of("ben", share, accepted("f", "s6", 6)), ann("g", "s1", 7)];
    assert_eq!(admit(store, &next).await, [Held, Running, Waiting]);
    assert_eq!(started(store, share).await, (ids(&[]), true), "there is no room");
    // What ends makes room, however it ended.
    assert_eq!(fail(store, "b", "s2", 2).await, ended(None));
    assert_eq!(started(store, share).await, (ids(&["c"]), true), "the first in the order of the stream");
    assert_eq!(started(store, share).await, (ids(&[]), true));
    assert_eq!(admit(store, &batch).await, [Running, Ended, Running, Held]);
    assert_eq!(store.opening(&workflow("c")).await.expect("the store answers"), Some(opening("c", &[])));
    // A larger share, and none.
    assert_eq!(started(store, fixed(3)).await, (ids(&["d"]), true));
    let all = start(store, HeldQuery { share: None, ..asking_for(share) }).await;
    assert_eq!((all.openings, all.left), (vec![opening("e", &[])], false));
}

/// Where nobody has a least, only so many of all users run; and none where that is nothing.
pub async fn users_without_a_least_are_held_together<S: UnderTest>(store: &S) {
    let (little, nothing) = (Share { each: 0, all: 2 }, fixed(0));
    let asked = |who: &str, share, n: u64| of(who, share, accepted(&format!("w{n}"), &format!("s{n}"), n));
    let batch = [asked("ann", little, 1), asked("ben", little, 2), asked("cem", little, 3)];
    assert_eq!(admit(store, &batch).await, [Running, Running, Held]);
    assert_eq!(started(store, little).await, (ids(&[]), true), "there is no room");
    assert_eq!(fail(store, "w1", "s1", 1).await, ended(None));
    assert_eq!(admit(store, &[asked("dan", little, 4)]).await, [Held], "behind those that are held");
    assert_eq!(started(store, nothing).await, (ids(&[]), true));
    assert_eq!(started(store, little).await, (ids(&["w3"]), true));
    assert_eq!(fail(store, "w2", "s2", 2).await, ended(None));
    assert_eq!(fail(store, "w3", "s3", 3).await, ended(None));
    assert_eq!(admit(store, &[asked("eve", nothing, 5)]).await, [Held], "although nobody runs");
    assert_eq!(started(store, little).await, (ids(&["w4", "w5"]), false));
}

/// Beyond the least that everybody has, turns start as long as there is room for all and nobody waits for it.
pub async fn users_share_what_there_is<S: UnderTest>(store: &S) {
    let share = Share { each: 1, all: 4 };
    let asked = |who: &str, n: u64| of(who, share, accepted(&format!("{who}{n}"), &format!("{who}{n}"), n));
    let batch: Vec<Admission> = (1..=6).map(|n| asked("ann", n)).collect();
    assert_eq!(admit(store, &batch).await, [Running, Running, Running, Running, Held, Held]);
    // Ben has his least, and no more while others wait.
    assert_eq!(admit(store, &[asked("ben", 7), asked("ben", 8)]).await, [Running, Held]);
    assert_eq!(started(store, share).await, (ids(&[]), true));
    save(store, answer("ann", "ann1", "ann1", 1)).await;
    assert_eq!(started(store, share).await, (ids(&[]), true), "four run");
    save(store, answer("ann", "ann2", "ann2", 2)).await;
    assert_eq!(started(store, share).await, (ids(&["ben8"]), true), "who has fewer is first");
    save(store, answer("ann", "ann3", "ann3", 3)).await;
    assert_eq!(started(store, share).await, (ids(&["ann5"]), true));
    save(store, answer("ben", "ben8", "ben8", 8)).await;
    assert_eq!(started(store, share).await, (ids(&["ann6"]), false));
    // As many users as there are get their least, however much runs.
    let many: Vec<Admission> =
        ["cid", "dan", "eve"].into_iter().zip(10..).map(|(who, n)| asked(who, n)).collect();
    assert_eq!(admit(store, &many).await, [Running, Running, Running]);
}

/// What is behind a held turn waits for it, whichever user's it is, and what comes late before it runs before it.
pub async fn a_held_turn_keeps_its_place_in_its_session<S: UnderTest>(store: &S) {
    let share = fixed(1);
    let ann = |id: &str, session: &str, sequence| of("ann", share, accepted(id, session, sequence));
    let ben = |id: &str, session: &str, sequence| of("ben", share, accepted(id, session, sequence));
    assert_eq!(admit(store, &[ann("a", "s", 1), ann("b", "t", 5)]).await, [Running, Held]);
    assert_eq!(admit(store, &[ben("c", "t", 6), ann("d", "t", 7)]).await, [Waiting, Waiting]);
    let listed = store.latest_turns(crate::ports::store::TurnsQuery::of(workflow("c"))).await;
    assert_eq!(listed.expect("the store answers")[0].waits_for, None, "nobody runs there");
    // It comes late, and its user has room.
    assert_eq!(admit(store, &[ben("e", "t", 4)]).await, [Running]);
    assert_eq!(started(store, fixed(9)).await, (ids(&[]), true), "another turn of its session runs");
    assert_eq!(save(store, answer("ben", "e", "t", 4)).await, ended(None));
    assert_eq!(started(store, share).await, (ids(&[]), true), "its user has its share");
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(None));
    assert_eq!(started(store, share).await, (ids(&["b"]), false));
    assert_eq!(save(store, interaction("b", "t", 5)).await, ended(Some("c")));
    assert_eq!(save(store, answer("ben", "c", "t", 6)).await, ended(Some("d")));
    assert_eq!(save(store, interaction("d", "t", 7)).await, ended(None));
}

/// While no turn is held, the end of a turn starts the next one of its session; else that one takes its place among the
/// held, unless its user has less than the least.
pub async fn the_next_turn_of_a_session_overtakes_nobody<S: UnderTest>(store: &S) {
    let share = Share { each: Share::LEAST, all: 3 };
    let asked = |who: &str, id: &str, session: &str, n| of(who, share, accepted(id, session, n));
    let batch = [
        asked("ann", "a1", "s1", 1),
        asked("ann", "a2", "s2", 2),
        asked("ann", "a3", "s3", 3),
        asked("ann", "b1", "s1", 4),
        asked("ann", "b2", "s2", 5),
    ];
    assert_eq!(admit(store, &batch).await, [Running, Running, Running, Waiting, Waiting]);
    assert_eq!(save(store, interaction("a1", "s1", 1)).await, ended(Some("b1")), "nobody is held");
    let ben: Vec<Admission> = (10..13).map(|n| asked("ben", &format!("c{n}"), &format!("t{n}"), n)).collect();
    assert_eq!(admit(store, &ben).await, [Running, Running, Held]);
    assert_eq!(save(store, interaction("a2", "s2", 2)).await, ended(None), "ben waits for that place");
    assert_eq!(admit(store, &batch[4..]).await, [Held]);
    assert_eq!(save(store, interaction("a3", "s3", 3)).await, ended(None));
    assert_eq!(started(store, share).await, (ids(&["b2"]), true), "ann has one running turn, ben two");
    assert_eq!(save(store, answer("ben", "c10", "t10", 10)).await, ended(None));
    assert_eq!(started(store, share).await, (ids(&["c12"]), false));
}

/// It is busy like any other: a message may be rejected, merged, or wait although it wants to interrupt; and a turn that
/// is held may end.
pub async fn a_session_whose_turn_is_held_is_busy<S: UnderTest>(store: &S) {
    let share = fixed(1);
    let ann = |when_busy, id: &str, session: &str, n| of("ann", share, asking(when_busy, id, session, n));
    let enqueued = |id: &str, session: &str, n| ann(WhenBusy::Enqueue, id, session, n);
    let batch = [enqueued("a", "s", 1), ann(WhenBusy::Merge, "b", "t", 2), enqueued("c", "u", 3)];
    assert_eq!(admit(store, &batch).await, [Running, Held, Held]);
    assert_eq!(admit(store, &[ann(WhenBusy::Reject, "d", "t", 4)]).await, [Rejected]);
    let merged = Merged { into: workflow("b") };
    assert_eq!(admit(store, &[ann(WhenBusy::Merge, "e", "t", 5)]).await, [merged]);
    let interrupting = [ann(WhenBusy::Interrupt, "f", "u", 6)];
    let answers = ask(store, &interrupting).await;
    assert_eq!((&answers[0].result, &answers[0].interrupted), (&Waiting, &None));
    // What is held may end like what waits; its user has less than the least, so the one behind it starts.
    assert_eq!(fail(store, "c", "u", 3).await, ended(Some("f")));
    assert_eq!(admit(store, &[enqueued("g", "v", 7)]).await, [Held]);
    assert_eq!(save(store, interaction("a", "s", 1)).await, ended(None));
    assert_eq!(started(store, share).await, (ids(&[]), true));
    assert_eq!(save(store, interaction("f", "u", 6)).await, ended(None));
    let begun = start(store, asking_for(share)).await;
    assert_eq!((begun.openings, begun.left), (vec![opening("b", &["e"])], true));
    assert_eq!(save(store, interaction("b", "t", 2)).await, ended(None));
    assert_eq!(started(store, share).await, (ids(&["g"]), false));
}

/// However many users wait, each call looks at some and says where it ended.
pub async fn held_turns_of_many_users_are_looked_at_by_and_by<S: UnderTest>(store: &S) {
    let share = fixed(1);
    let users = HELD_USERS + 2;
    for n in 0..users as u64 {
        let who = format!("user-{n:04}");
        let input = |id: String, sequence| of(&who, share, accepted(&id, &id, sequence));
        let batch = [input(format!("a{n}"), 2 * n + 1), input(format!("b{n}"), 2 * n + 2)];
        assert_eq!(admit(store, &batch).await, [Running, Held]);
    }
    let (last, at_first) = (format!("a{}", users - 1), start(store, asking_for(share)).await);
    assert_eq!((at_first.openings.len(), at_first.left), (0, true));
    let behind = at_first.behind.expect("there are more users");
    assert_eq!(behind.as_str(), format!("user-{:04}", HELD_USERS - 1));
    save(store, answer(&format!("user-{:04}", users - 1), &last, &last, 2 * users as u64 - 1)).await;
    let then = start(store, HeldQuery { behind: Some(behind), ..asking_for(share) }).await;
    assert_eq!(then.openings, [opening(&format!("b{}", users - 1), &[])]);
    assert_eq!((then.behind, then.left), (None, true));
}

/// A message that would be one too many fails, is told so for ever, and takes no place. What ends makes room; a message
/// that becomes part of a turn needs none.
pub async fn a_user_has_no_more_open_turns_than_it_may<S: UnderTest>(store: &S) {
    let limited = |who: &str, asked: Admission| Admission {
        limits: UserLimits { share: None, open: NonZeroU32::new(2) },
        ..of(who, fixed(1), asked)
    };
    let ann = |id: &str, session: &str, n| limited("ann", accepted(id, session, n));
    let batch = [ann("a", "s", 1), ann("b", "s", 2), ann("c", "s", 3), ann("d", "t", 4)];
    for _ in 0..2 {
        assert_eq!(admit(store, &batch).await, [Running, Waiting, TooManyOpen, TooManyOpen]);
    }
    assert_eq!(admit(store, &[limited("ben", accepted("e", "t", 5))]).await, [Running], "others may");
    let told = store.end(&workflow("c")).await.expect("the store answers");
    assert!(
        matches!(&told, Some(KnownEnd::Failed(turn)) if turn.code == Some(FailureCode::TooManyOpen)),
        "{told:?}"
    );
    // It ends a turn of its own user, and so takes that one's place; not so if the turn is of another.
    let interrupting =
        |id: &str, session: &str, n| limited("ann", asking(WhenBusy::Interrupt, id, session, n));
    assert_eq!(admit(store, &[interrupting("f", "t", 6)]).await, [TooManyOpen]);
    assert_eq!(store.opening(&workflow("e")).await.expect("the store answers"), Some(opening("e", &[])));
    assert_eq!(ask(store, &[interrupting("g", "s", 7)]).await[0].interrupted, Some(event("a")));
    assert_eq!(save(store, interaction("b", "s", 2)).await, ended(Some("g")));
    let merging = |id: &str, n| limited("ann", asking(WhenBusy::Merge, id, "s", n));
    assert_eq!(admit(store, &[merging("h", 8)]).await, [Waiting]);
    assert_eq!(admit(store, &[merging("i", 9)]).await, [Merged { into: workflow("h") }]);
    assert_eq!(admit(store, &[ann("j", "v", 10)]).await, [TooManyOpen]);
    assert_eq!(fail(store, "h", "s", 8).await, ended(Some("g")));
    // The same message twice in one batch is one.
    let twice = [ann("k", "v", 11), ann("k", "v", 11), ann("l", "v", 12)];
    assert_eq!(admit(store, &twice).await, [Running, Running, TooManyOpen]);
}

/// Nothing is held while nobody has a share, however many turns run.
pub async fn without_a_share_nothing_is_held<S: UnderTest>(store: &S) {
    let batch: Vec<Admission> = (1..=20).map(|n| accepted(&format!("w{n}"), &format!("s{n}"), n)).collect();
    let result: BTreeMap<String, usize> = BTreeMap::new();
    let result = admit(store, &batch).await.into_iter().fold(result, |mut sum, result: AdmissionResult| {
        *sum.entry(format!("{result:?}")).or_default() += 1;
        sum
    });
    assert_eq!(result, BTreeMap::from([("Running".to_owned(), 20)]));
    assert_eq!(start(store, asking_for(fixed(1))).await, HeldStarted::default());
}
