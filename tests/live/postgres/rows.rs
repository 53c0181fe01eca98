//! What a stranger sees in the tables.

use std::num::NonZeroU32;

use serde_json::{Map, Value, json};
use sqlx::{Connection, Executor, PgConnection, Row, postgres::PgRow, raw_sql};
use throughline::storage::{Onlooker, OnlookerError, postgres::PostgresStore};
use throughline_actors::ports::store::{
    Admission, HeldQuery, RestoredTurn, RunningQuery, Share, Store, TurnState, TurnsQuery, UserLimits,
};
use throughline_schemas::event::{
    context::Turn,
    input::WhenBusy::{Interrupt, Merge, Reject},
};

use super::{NAMESPACE, Stores, material::*, open};
use crate::{harness::eventually, postgres_server::PostgresServer};

#[tokio::test]
async fn a_row_says_all_that_is_known_under_the_names_that_dashboards_use() {
    let Some(store) = Stores::new(1).await else { return };
    store.save(interaction("w", "s", 7)).await.unwrap();
    let row = "SELECT to_jsonb(i) - 'metadata' - 'more' AS row, metadata::text, cost_usd::text, metadata ->> 'channel' AS channel
        FROM interactions AS i";
    let row: PgRow = store.look().await.fetch_one(row).await.unwrap();
    let expected = json!({
        "namespace": "test",
        "workflow_id": "w",
        "interaction_id": "interaction-w",
        "user_id": "ann",
        "session_id": "s",
        "input": "Where is\u{1a}0my order?",
        "response": "On its \"way\".\u{1a}0\u{1a}\u{1a}0",
        "provider": "openai",
        "model": "gpt-4o\u{1a}0mini",
        "finish_reason": "length",
        "input_tokens": 40,
        "cached_input_tokens": 8,
        "output_tokens": 9,
        "reasoning_tokens": i64::MAX,
        "input_sequence": 7,
        "received_at": "2025-10-09T08:53:20+00:00",
        "generated_at": "2025-10-09T08:53:21.2+00:00",
        "created_at": "2025-10-09T08:53:21.25+00:00",
        "total_ms": 1_250,
    });
    let mut seen = row.get::<Value, _>("row");
    seen.as_object_mut().unwrap().remove("cost_usd");
    assert_eq!(seen, expected);
    assert_eq!(row.get::<&str, _>("cost_usd"), "0.0001950000000000000000000001", "to the last digit");
    assert_eq!(row.get::<&str, _>("channel"), "web\u{1a}0\u{1a}\u{1a}", "whatever is in it can be asked for");
    assert_eq!(row.get::<&str, _>("metadata"), r#"{"channel":"web\u001a0\u001a\u001a","\u001a0":1e400}"#);
}

#[tokio::test]
async fn texts_with_nul_characters_come_back() {
    let Some(store) = Stores::new(1).await else { return };
    let saved = interaction("w", "s", 7);
    store.save(saved.clone()).await.unwrap();
    let preferences = Map::from_iter([("a\0b".to_owned(), json!({"\0": ["\u{1a}0", "\0\u{1a}"]}))]);
    store.set_preferences(&saved.user_id, &preferences).await.unwrap();
    let context = store.context(&saved.user_id, &saved.session_id, 9).await.unwrap();
    let turn = Turn {
        workflow_id: saved.workflow_id,
        user: saved.request.user_input,
        assistant: saved.response.text,
        at: saved.saved_at,
    };
    assert_eq!(context.recent_turns, [turn]);
    assert_eq!(context.preferences, preferences);
}

#[tokio::test]
async fn an_event_is_kept_only_while_its_turn_is_open() {
    let Some(store) = Stores::new(1).await else { return };
    store.admit(vec![admission("a", "s", 1), admission("b", "s", 2)]).await.unwrap();
    let mut look = store.look().await;
    let mut kept = async || {
        let kept = "SELECT workflow_id FROM turns WHERE event IS NOT NULL ORDER BY workflow_id";
        let rows = look.fetch_all(kept).await.unwrap();
        rows.into_iter().map(|row| row.get(0)).collect::<Vec<String>>()
    };
    assert_eq!(kept().await, ["a", "b"]);
    store.save(interaction("a", "s", 1)).await.unwrap();
    assert_eq!(kept().await, ["b"]);
    store.save(interaction("b", "s", 2)).await.unwrap();
    assert!(kept().await.is_empty());
}

/// Every table is reached by an index: the store stays as fast as it is when it has grown.
#[tokio::test]
async fn no_statement_reads_a_whole_table() {
    let Some(stores) = Stores::new(1).await else { return };
    let mut look = stores.look().await;
    stores.close().await;
    // Making the indexes reads the tables.
    let before = scans(&mut look).await;
    let store = open(&stores.url).await;
    exercise(&store).await;
    store.close().await;
    assert_eq!(scans(&mut look).await, before);
    look.execute(raw_sql("SELECT count(*) FROM turns")).await.unwrap();
    assert_ne!(scans(&mut look).await, before, "the counts count");
}

/// How often each table was read as a whole, told once all other connections are closed: that is when they say it.
async fn scans(look: &mut PgConnection) -> Vec<(String, i64)> {
    let others = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
    eventually("the other connections end", async || {
        (look.fetch_one(others).await.unwrap().get::<i64, _>(0) == 0).then_some(())
    })
    .await;
    look.execute(raw_sql("SELECT pg_stat_force_next_flush(); SELECT pg_stat_clear_snapshot()"))
        .await
        .unwrap();
    let tables = "SELECT relname::text, seq_scan FROM pg_stat_user_tables
        WHERE relname IN ('turns', 'interactions', 'preferences') ORDER BY relname";
    let rows = look.fetch_all(tables).await.unwrap();
    assert_eq!(rows.len(), 3);
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Everything a store can be asked.
async fn exercise(store: &PostgresStore) {
    for n in 0..40_u64 {
        let (id, of) = (format!("w{n}"), format!("s{}", n % 8));
        let asks =
            [asking(Merge, &format!("m{n}"), &of, 100 + n), asking(Reject, &format!("r{n}"), &of, 200 + n)];
        store.admit(vec![admission(&id, &of, n), admission(&format!("x{n}"), &of, n)]).await.unwrap();
        store.admit(asks.to_vec()).await.unwrap();
        store.admit(vec![asking(Interrupt, &format!("i{n}"), &of, 300 + n)]).await.unwrap();
        store.save(interaction(&id, &of, n)).await.unwrap();
        store.fail(failing(&format!("x{n}"), &of, n)).await.unwrap();
        store.fail(failing(&format!("unknown{n}"), &of, n)).await.unwrap();
        store.save(interaction(&format!("new{n}"), &of, n)).await.unwrap();
        store
            .set_preferences(&user(&id), &Map::from_iter([("tone".to_owned(), json!("kind"))]))
            .await
            .unwrap();
        store.context(&user("ann"), &session(&of), 5).await.unwrap();
        store.running(RunningQuery { started_by: at(999_999), after: None, limit: 9 }).await.unwrap();
        store.opening(&workflow(&id)).await.unwrap();
        store.ended_before(&[(session(&of), n)]).await.unwrap();
        store.end(&workflow(&id)).await.unwrap();
        store.oldest_open().await.unwrap();
        store.open_turns().await.unwrap();
        let restored = RestoredTurn::Saved(Box::new(interaction(&format!("told{n}"), &of, n)));
        store.restore(restored).await.unwrap();
        store.restore(RestoredTurn::Failed(failing(&format!("told{n}"), &of, n))).await.unwrap();
        let any = || TurnsQuery { limit: 5, ..TurnsQuery::default() };
        let (in_session, of_user) = (Some(session(&of)), Some(user("ann")));
        store.latest_turns(any()).await.unwrap();
        store.latest_turns(TurnsQuery { session: in_session, ..any() }).await.unwrap();
        store
            .latest_turns(TurnsQuery { user: of_user, states: vec![TurnState::Failed], ..any() })
            .await
            .unwrap();
        store.latest_turns(TurnsQuery::of(workflow(&id))).await.unwrap();
        store.forget_ended(at(901), 3).await.unwrap();
        let share = Some(Share { each: 1, all: 1 });
        let limits = UserLimits { share, open: NonZeroU32::new(1_000) };
        let alone = format!("h{n}");
        store.admit(vec![Admission { limits, ..admission(&alone, &alone, 400 + n) }]).await.unwrap();
        store.start_held(HeldQuery { share, behind: None, most: 3, at: at(0) }).await.unwrap();
    }
}

/// Whoever only looks sees what the store sees, and makes no tables where there are none.
#[tokio::test]
async fn an_onlooker_lists_what_the_store_lists_and_makes_no_tables() {
    let Some(server) = PostgresServer::shared().await else { return };
    let url = server.database().await;
    let bare = Onlooker::open(&url, NAMESPACE).await.unwrap_err();
    assert!(matches!(bare, OnlookerError::NotPrepared), "{bare}");
    let mut look = PgConnection::connect(&url).await.unwrap();
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(look.fetch_one(tables).await.unwrap().get::<i64, _>(0), 0);

    let store = open(&url).await;
    store.admit(vec![admission("a", "s", 1), admission("b", "s", 2)]).await.unwrap();
    let onlooker = Onlooker::open(&url, NAMESPACE).await.unwrap();
    let any = TurnsQuery { limit: 5, ..TurnsQuery::default() };
    let seen = onlooker.latest_turns(&any).await.unwrap();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen, store.latest_turns(any).await.unwrap());
    assert_eq!(onlooker.open_turns().await.unwrap(), store.open_turns().await.unwrap());
    onlooker.close();
}
