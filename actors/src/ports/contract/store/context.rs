//! What is known about users and their conversations.

use serde_json::{Map, Value, json};
use throughline_schemas::{
    Metadata, UserId,
    event::{
        context::{Context, Turn},
        input::WhenBusy,
    },
};

use super::{UnderTest, material::*};
use crate::ports::store::{
    Admission, AdmissionResult, Fingerprint, Interaction, KnownEnd, SessionOwner, TurnsQuery, UserLimits,
    Verdict,
};

/// As many as were asked for, by the order of their inputs, not of their endings.
pub async fn the_latest_turns_come_oldest_first<S: UnderTest>(store: &S) {
    for sequence in [3, 1, 4, 2, 5] {
        save(store, interaction(&format!("w{sequence}"), "s", sequence)).await;
    }
    assert_eq!(recent(store, "ann", "s", 3).await, ["w3", "w4", "w5"]);
    assert_eq!(recent(store, "ann", "s", 99).await, ["w1", "w2", "w3", "w4", "w5"]);
    assert!(recent(store, "ann", "s", 0).await.is_empty());
    assert!(recent(store, "ann", "nowhere", 9).await.is_empty());
    admit(store, &[accepted("open", "s", 6)]).await;
    assert_eq!(recent(store, "ann", "s", 1).await, ["w5"], "an open turn is not a turn that was saved");
}

/// A session id is no secret: it opens nobody else's conversation, not even when both ask at once.
pub async fn users_who_share_a_session_id_do_not_see_each_other<S: UnderTest>(store: &S) {
    let (ann, bob, here, elsewhere) = (user("ann"), user("bob"), session("s"), session("t"));
    save(store, interaction("of ann", "s", 1)).await;
    save(store, Interaction { user_id: bob.clone(), ..interaction("of bob", "s", 2) }).await;
    save(store, interaction("elsewhere", "t", 3)).await;
    let preferences = Map::from_iter([("tone".to_owned(), json!("formal"))]);
    store.set_preferences(&ann, &preferences).await;

    let stranger = user("ANN");
    let (one, two, three, none) = tokio::join!(
        store.context(&ann, &here, 1),
        store.context(&bob, &here, 9),
        store.context(&ann, &elsewhere, 9),
        store.context(&stranger, &here, 9),
    );
    let known = |context: Result<Context, _>| {
        let Context { preferences, recent_turns } = context.expect("the store answers");
        (preferences, recent_turns.into_iter().map(|turn| turn.user).collect::<Vec<_>>())
    };
    assert_eq!(known(one), (preferences.clone(), vec!["question of of ann".to_owned()]));
    assert_eq!(known(two), (Map::new(), vec!["question of of bob".to_owned()]));
    assert_eq!(known(three), (preferences, vec!["question of elsewhere".to_owned()]));
    assert_eq!(known(none), (Map::new(), vec![]));
}

/// Setting one leaves the others; any JSON is a value.
pub async fn preferences_are_set_one_by_one<S: UnderTest>(store: &S) {
    let ann = user("ann");
    let object = |value: Value| -> Map<String, Value> { serde_json::from_value(value).expect("an object") };
    let first = object(json!({"tone": "formal", "limit": 1.5, "nothing": null}));
    let second = object(json!({"tone": ["kind", {"a": "\"'\\"}], "": true}));
    store.set_preferences(&ann, &first).await;
    store.set_preferences(&ann, &second).await;
    let context = store.context(&ann, &session("s"), 9).await.expect("the store answers");
    let expected = json!({"tone": ["kind", {"a": "\"'\\"}], "limit": 1.5, "nothing": null, "": true});
    assert_eq!(context.preferences, object(expected));
}

/// Deleting touches nobody else's, and what is not there is no error.
pub async fn preferences_are_deleted_by_name_or_all<S: UnderTest>(store: &S) {
    let (ann, bob) = (user("ann"), user("bob"));
    let known = json!({"tone": "formal", "language": "nb", "nul \u{0}": 1});
    let known = known.as_object().expect("an object");
    for user in [&ann, &bob] {
        store.set_preferences(user, known).await;
    }
    let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
    assert_eq!(store.delete_preferences(&ann, Some(&names(&["tone", "nul \u{0}", "nothing"]))).await, 2);
    assert_eq!(store.delete_preferences(&ann, Some(&names(&["tone"]))).await, 0);
    let of = async |user: &UserId| {
        store.context(user, &session("s"), 0).await.expect("the store answers").preferences
    };
    assert_eq!(Value::Object(of(&ann).await), json!({"language": "nb"}));
    assert_eq!(store.delete_preferences(&ann, None).await, 1);
    assert_eq!(store.delete_preferences(&ann, None).await, 0);
    assert_eq!((of(&ann).await, &of(&bob).await), (Map::new(), known));
}

/// Ids and texts are data, whatever is in them and however long they are.
pub async fn hostile_ids_and_texts_come_back_as_they_were<S: UnderTest>(store: &S) {
    let hostile = [
        "'; DROP TABLE turns; --".to_owned(),
        "\"double\" 'single' `back` \\ $1 ?1 :a %s %00 {{x}}".to_owned(),
        "[\"json\", {\"a\": null}]".to_owned(),
        "{\"a\":1}".to_owned(),
        "null".to_owned(),
        "1e400".to_owned(),
        "007".to_owned(),
        " leading and trailing \t\r\n".to_owned(),
        "\u{feff}\u{202e}Ω≈ç√ 表ポ 👩‍👩‍👧‍👦 \u{1}\u{7f}\u{2028}\u{fffd}".to_owned(),
        "é".to_owned(),
        "e\u{301}".to_owned(),
        "%_".to_owned(),
        "x".repeat(256),
    ];
    let long: String = hostile.concat().chars().cycle().take(10_000).collect();
    for (sequence, id) in (1..).zip(&hostile) {
        let mut saved = interaction(id, id, sequence);
        saved.user_id = user(id);
        saved.request.user_input = format!("{id}{long}");
        saved.response.text = format!("{long}{id}");
        saved.response.model.clone_from(id);
        saved.request.metadata = Metadata::from_iter([(id.clone(), Value::from(long.as_str()))]);
        let preferences = Map::from_iter([(id.clone(), Value::from(id.as_str()))]);
        store.set_preferences(&saved.user_id, &preferences).await;
        let admission = Admission {
            workflow_id: saved.workflow_id.clone(),
            session_id: saved.session_id.clone(),
            user_id: saved.user_id.clone(),
            input_sequence: sequence,
            fingerprint: Fingerprint::of(&saved.user_id, &saved.session_id, id, Some(id)),
            at: saved.request.received_at,
            verdict: Verdict::Accepted {
                event: long.clone().into_bytes(),
                when_busy: WhenBusy::Enqueue,
                owner: SessionOwner::Any,
            },
            limits: UserLimits::default(),
        };
        assert_eq!(
            admit(store, std::slice::from_ref(&admission)).await,
            [AdmissionResult::Running],
            "{id:?}"
        );
        assert_eq!(save(store, saved.clone()).await, ended(None), "{id:?}");
        let context = store.context(&saved.user_id, &saved.session_id, 9).await.expect("the store answers");
        let end = store.end(&saved.workflow_id).await.expect("the store answers");
        assert_eq!(end, Some(KnownEnd::Saved(Box::new(saved.clone()))), "{id:?}");
        let user = Some(saved.user_id.clone());
        let listed = store.latest_turns(TurnsQuery { user, limit: 9, ..TurnsQuery::default() }).await;
        let listed = listed.expect("the store answers").into_iter().map(|turn| turn.workflow_id);
        assert_eq!(listed.collect::<Vec<_>>(), [saved.workflow_id.clone()], "{id:?}");
        let turn = Turn {
            workflow_id: saved.workflow_id,
            user: saved.request.user_input,
            assistant: saved.response.text,
            at: saved.saved_at,
        };
        assert_eq!(context, Context { preferences, recent_turns: vec![turn] }, "{id:?}");
    }
}
